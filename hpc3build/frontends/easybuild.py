"""EasyBuild: easyconfigs and their closure, resolved by the real EasyBuild in a process of its own."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hpc3build import bases
from hpc3build.errors import InputError, ToolError, ToolMissing
from hpc3build.facts import cpu, cpu_flags
from hpc3build.frontends import Context, easybuild_records
from hpc3build.recipe import Recipe, Settings, read_settings
from hpc3build.run import Runner
from hpc3build.stack import Dependency, Package, Stack, Toolchain, Variant

if TYPE_CHECKING:
    from hpc3build.evidence.layers import ImageFiles

#: Rules and record formats are those of this release; extras [easybuild] of pyproject.toml pins the same.
PINNED = "5.4.1"
PINNED_ARCHSPEC = "0.2.7"
PREFIX = easybuild_records.PREFIX
RESOLVE_SECONDS = 300
_RESOLVER = Path(__file__).with_name("easybuild_closure.py")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*\.eb")
_CAPABILITIES = re.compile(r"\d+\.\d+[af]?(?:,\d+\.\d+[af]?)*")


@dataclass(frozen=True, kw_only=True)
class EasyBuildRecipe(Recipe):
    """Easyconfigs by path or name, with their resolved closure (the resolver's document)."""

    sources: tuple[str, ...]
    closure: Mapping[str, Any]


def recognises(source: str) -> bool:
    """An .eb file, the name of one, or a folder that holds some."""
    path = Path(source)
    return path.suffix == ".eb" or (path.is_dir() and any(path.glob("*.eb")))


def load(sources: tuple[str, ...], settings: Settings, runner: Runner) -> EasyBuildRecipe:
    """Read and resolve the closure. ``settings`` are the command line's and win. Raises InputError, ToolMissing."""
    expanded = tuple(name for source in sources for name in _expand(source))
    first = Path(expanded[0])
    folder = first.resolve().parent if first.is_file() else Path.cwd()
    beside = read_settings(folder) if first.is_file() else Settings()
    merged = settings.over(beside)
    if merged.target is not None:
        cpu.known(merged.target)
    capabilities = merged.cuda_compute_capabilities
    if capabilities and not _CAPABILITIES.fullmatch(capabilities):
        raise InputError(f"--cuda-compute-capabilities {capabilities}: expected a list like 8.0,9.0a")
    closure = resolve(expanded, folder if first.is_file() else None, runner)
    return EasyBuildRecipe(origin=first, folder=folder, settings=merged, sources=expanded, closure=closure)


def _expand(source: str) -> tuple[str, ...]:
    """A folder means its easyconfigs that no other of them depends on: those named after the folder's own software."""
    path = Path(source)
    if not path.is_dir():
        if not path.is_file() and ("/" in source or not _NAME.fullmatch(source)):
            raise InputError(f"{source}: no such easyconfig")
        return (source,)
    found = sorted(path.glob("*.eb"))
    if len(found) > 1:
        found = [name for name in found if name.name.lower().startswith(path.resolve().name.lower())]
    if not found:
        raise InputError(f"{source}: several easyconfigs, and none is named like the folder", hint="name the file")
    return tuple(str(name) for name in found)


def resolve(sources: tuple[str, ...], folder: Path | None, runner: Runner) -> Mapping[str, Any]:
    """The closure of easyconfigs, from the pinned EasyBuild run under a clean environment.

    Raises InputError for easyconfigs it refuses, ToolMissing without EasyBuild, ToolError when it breaks otherwise.
    """
    argv = [easybuild_python(runner), str(_RESOLVER)]
    for source in sources:
        argv += ["--easyconfig", str(Path(source).resolve()) if Path(source).is_file() else source]
    if folder is not None:
        argv += ["--robot-paths", f"{folder}:"]
    clean = {"HOME": "/nonexistent", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PYTHONOPTIMIZE": "1"}
    done = runner(argv, env=clean, timeout=RESOLVE_SECONDS, check=False)
    try:
        answer = json.loads(done.stdout)
    except (json.JSONDecodeError, RecursionError):
        answer = None
    whole = isinstance(answer, dict) and done.returncode == 0 and {"modules", "roots"} <= set(answer)
    if not isinstance(answer, dict) or not (whole or "error" in answer):
        tail = "\n".join(f"  {line}" for line in done.stderr.strip().splitlines()[-15:])
        raise ToolError(f"EasyBuild could not resolve {', '.join(sources)} (exit status {done.returncode}):\n{tail}")
    if "error" in answer:
        where = f"{answer['file']}: " if answer.get("file") else ""
        raise InputError(where + str(answer["error"]), hint=str(answer.get("hint") or ""))
    return MappingProxyType(answer)


def easybuild_python(runner: Runner) -> str:
    """The Python that has the pinned EasyBuild: $HPC3BUILD_EASYBUILD_PYTHON, or our own environment's.

    Raises ToolMissing when there is none. EasyBuild is never imported here: finding its folder is enough.
    """
    if chosen := os.environ.get("HPC3BUILD_EASYBUILD_PYTHON"):
        return chosen
    for place in sys.path:
        if (Path(place) / "easybuild" / "framework").is_dir() or (Path(place) / "easybuild" / "tools").is_dir():
            return sys.executable
    raise ToolMissing(
        "EasyBuild is not installed",
        hint=f"pip install 'hpc3build[easybuild]' (EasyBuild {PINNED}), or name "
        "a Python that has it in HPC3BUILD_EASYBUILD_PYTHON",
    )


def stack(recipe: EasyBuildRecipe) -> Stack | None:
    """The closure as a Stack; targets only where the build is given one.

    Raises InputError where an easyconfig's own flags ask for more than the target that was named.
    """
    target = recipe.settings.target
    for module in recipe.closure["modules"] if target else ():
        own, _ = _own_target(module)
        if own and target and cpu.satisfies(target, own) is False:
            raise InputError(
                f"{module['easyconfig']} is built for {own} by its own optarch, and the target is {target}",
                hint="an easyconfig's own flags win over any option; drop one of the two",
            )
    return stack_of_closure(
        recipe.closure, target=recipe.settings.target, capabilities=recipe.settings.cuda_compute_capabilities
    )


def stack_of_closure(
    closure: Mapping[str, Any], *, target: str | None = None, capabilities: str | None = None
) -> Stack:
    """The resolver's document as a Stack. Modules of the SYSTEM toolchain take no target."""
    modules = closure["modules"]
    ids = {_identity(module): module["module"] for module in modules}
    by_version = {(module["name"], _full(module)): module["module"] for module in modules}
    roots = set(closure["roots"])
    externals: dict[str, Package] = {}
    packages = [_package(module, ids, by_version, externals, module["module"] in roots, target) for module in modules]
    options = {"target": target, "cuda_compute_capabilities": capabilities}
    return Stack(
        manager="easybuild",
        manager_version=closure.get("easybuild_version") or PINNED,
        packages=(*packages, *externals.values()),
        origin=", ".join(sorted(roots)),
        options=MappingProxyType({name: value for name, value in options.items() if value}),
    )


def _full(module: Mapping[str, Any]) -> str:
    return f"{module['version']}{module.get('versionsuffix') or ''}"


def _identity(module: Mapping[str, Any]) -> tuple[str, str, str, str]:
    toolchain = module.get("toolchain") or {}
    name = str(toolchain.get("name", "system")).lower()
    version = "" if name == "system" else str(toolchain.get("version", ""))
    return module["name"], _full(module), name, version


def _package(
    module: Mapping[str, Any],
    ids: Mapping[tuple[str, str, str, str], str],
    by_version: Mapping[tuple[str, str], str],
    externals: dict[str, Package],
    root: bool,
    target: str | None,
) -> Package:
    edges = []
    for kind, listed in (("run", module["deps"]), ("build", module["builddeps"])):
        for dependency in listed:
            leads_to = ids.get(_identity(dependency)) or by_version.get((dependency["name"], _full(dependency)))
            if leads_to is None:
                leads_to = f"{dependency['name']}/{_full(dependency)}"
                externals[leads_to] = Package(
                    id=leads_to,
                    name=dependency["name"],
                    version=dependency["version"],
                    origin=f"external module {leads_to}",
                    external=True,
                )
            edges.append(Dependency(package=leads_to, kinds=frozenset({kind})))
    toolchain = module.get("toolchain") or {}
    name, version = str(toolchain.get("name", "system")), str(toolchain.get("version", ""))
    with_code = name.lower() != "system" and module.get("moduleclass") != "toolchain"
    if name.lower() != "system" and (leads_to := by_version.get((name, version))):
        edges.append(Dependency(package=leads_to, kinds=frozenset({"toolchain"})))
    own, unmapped = _own_target(module) if with_code else (None, "")
    return Package(
        id=module["module"],
        name=module["name"],
        version=None if module["version"] == "system" else module["version"],
        origin=module["easyconfig"],
        target=(own or target) if with_code and not unmapped else None,
        target_origin="the easyconfig's own optarch" if own else f"--target {target}" if target else "",
        unmapped_flags=unmapped,
        variants=_variants(module),
        dependencies=tuple(edges),
        toolchain=Toolchain(
            name=name,
            version=version,
            mpi_family=module.get("mpi_family"),
            mpi_modules=tuple(module.get("mpi_module") or ()),
        ),
        capabilities=tuple(module.get("cuda_compute_capabilities") or ()) if root else (),
        is_toolchain=module.get("moduleclass") == "toolchain",
        root=root,
    )


def _own_target(module: Mapping[str, Any]) -> tuple[str | None, str]:
    """A string ``optarch`` of the easyconfig wins over any option (measured with 5.4.1)."""
    own = module.get("optarch") or (module.get("toolchainopts") or {}).get("optarch")
    if not isinstance(own, str) or not own:
        return None, ""
    target, flag = cpu_flags.target_of(own if own.startswith("-") else f"-{own}")
    return target, "" if target else (flag or own)


def _variants(module: Mapping[str, Any]) -> Mapping[str, Variant]:
    options = module.get("toolchainopts") or {}
    return MappingProxyType({name: value for name, value in options.items() if isinstance(value, bool | str)})


def optarch(recipe: EasyBuildRecipe) -> str:
    """The value of ``--optarch`` for the recipe's target (rule R2: generic when none is named). Raises InputError."""
    target = recipe.settings.target
    if target is None or target in ("x86_64", "aarch64"):
        return "GENERIC"
    built = [module for module in recipe.closure["modules"] if not module.get("builddep")]
    families = {module.get("compiler_family") for module in built} - {None, "SYSTEM"}
    if not families <= {"GCC"}:
        raise InputError(
            f"--target {target}: flags for the compiler family {', '.join(sorted(families - {'GCC'}))} are "
            "not known yet",
            hint="GCC-based toolchains, or the generic target of the family",
        )
    return "GCC:" + cpu_flags.flags(target, "gcc", _gcc_version(recipe)).lstrip("-")


def _gcc_version(recipe: EasyBuildRecipe) -> str:
    versions = [module["version"] for module in recipe.closure["modules"] if module["name"] in ("GCCcore", "GCC")]
    real = [str(version) for version in versions if version[:1].isdigit()]
    if real:
        return max(real, key=lambda text: [int(part) for part in re.findall(r"\d+", text)])
    base = bases.find(recipe.settings.base or DEFAULT_BASE)
    return base.compilers.get("gcc", "12.2.0")


DEFAULT_BASE = "debian:12"


def context(recipe: EasyBuildRecipe, stack: Stack | None) -> Context:
    """Variables and files of the EasyBuild block."""
    settings = recipe.settings
    image = settings.base or DEFAULT_BASE
    base = bases.find(image)
    modules = recipe.closure["modules"]
    roots = [module for module in modules if module["module"] in recipe.closure["roots"]]
    options = [f"--optarch={optarch(recipe)}"]
    if settings.cuda_compute_capabilities:
        options.append(f"--cuda-compute-capabilities={settings.cuda_compute_capabilities}")
    files = dict(_easyconfig_files(modules, recipe.folder))
    keep = {
        "modules": [
            {"module": module["module"], "name": module["name"], "class": module["moduleclass"]}
            for module in modules
            if not module.get("builddep")
        ],
        "roots": [module["module"] for module in roots],
    }
    files["easybuild/easyconfigs.txt"] = "".join(f"{module['easyconfig']}\n" for module in roots).encode()
    files["easybuild/modules.txt"] = "".join(f"{module['module']}\n" for module in roots).encode()
    files["easybuild/options.txt"] = "".join(f"{option}\n" for option in options).encode()
    files["easybuild/keep.json"] = (json.dumps(keep, indent=1, sort_keys=True) + "\n").encode()
    bins = [f"{PREFIX}/software/{module['module']}/bin" for module in roots]
    return Context(
        template="easybuild.Containerfile.j2",
        variables={
            "builder_image": image,
            "final_image": image,
            "manager": base.manager,
            "builder_packages": sorted(
                {*base.easybuild_packages, *_os_dependencies(modules, base.manager.dev), *settings.build_packages}
            ),
            "final_packages": list(settings.final_packages),
            "update": False,
            "strip": [f"{PREFIX}/software"],
            "labels": dict(settings.labels),
            "prefix": PREFIX,
            "copied": [f"{PREFIX}/software", f"{PREFIX}/modules"],
            "chown": True,
            "easybuild": settings.pins.get("easybuild", PINNED),
            "archspec": settings.pins.get("archspec", PINNED_ARCHSPEC),
            "extra_build": "",
            "extra_final": "",
            "static_env": {"PATH": ":".join([*bins, bases.PATH])},
        },
        files=MappingProxyType(files),
    )


def _easyconfig_files(modules: list[Mapping[str, Any]], folder: Path) -> list[tuple[str, bytes]]:
    """Own easyconfigs, with the sources and patches that lie beside them; what EasyBuild ships stays there."""
    found = []
    for module in modules:
        path = Path(module.get("path") or "")
        if not path.is_file() or not path.resolve().is_relative_to(folder):
            continue
        for name in (path.name, *(module.get("sources") or ()), *(module.get("patches") or ())):
            file = path.parent / name
            if file.is_file() and file.resolve().is_relative_to(path.resolve().parent):
                found.append((f"easybuild/easyconfigs/{name}", file.read_bytes()))
    return found


def _os_dependencies(modules: list[Mapping[str, Any]], dev: str) -> list[str]:
    """OS packages of the whole closure; of alternatives, the one that is named as the base's manager does."""
    found = []
    for module in modules:
        for names in module.get("osdependencies") or ():
            alternatives = [names] if isinstance(names, str) else list(names)
            named = [name for name in alternatives if name.endswith(dev)]
            found.append((named or alternatives)[0])
    return [name for name in found if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9@+._:-]*", name)]


def form(recipe: EasyBuildRecipe) -> str:
    """A Containerfile, unless ``--format`` says otherwise."""
    return recipe.settings.format or "containerfile"


wanted = easybuild_records.wanted


def read_stack(files: ImageFiles) -> Stack | None:
    """The stack that an image's EasyBuild records tell of."""
    return easybuild_records.read_stack(files)
