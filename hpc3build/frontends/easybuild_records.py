"""What an EasyBuild installation leaves behind (docs: reprod/*.eb, reprod/*.env, module files), read as a Stack."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hpc3build.facts import cpu_flags
from hpc3build.frontends import easybuild_flags
from hpc3build.jsonread import parsed
from hpc3build.mpinames import PROVIDERS
from hpc3build.stack import Dependency, Package, Stack, Toolchain, Variant

if TYPE_CHECKING:
    from hpc3build.evidence.layers import ImageFiles

PREFIX = "/opt/easybuild"
#: Where our build writes which modules were asked for.
ROOTS = "/opt/hpc3build/easybuild.json"
_MAX_BYTES = 1 << 20
_RECORD = re.compile(
    r"^(?P<prefix>.*)/software/(?P<name>[^/]+)/(?P<version>[^/]+)/easybuild/reprod/[^/]+\.(?P<kind>eb|env)$"
)
_MODULE = re.compile(r"^.*/modules/all/(?P<name>[^/]+)/(?P<version>[^/]+?)(?:\.lua)?$")
_REAL_VERSION = re.compile(r"""setenv\s*\(?\s*"?EBVERSION(\w+)"?\s*,?\s*["{]([^"}\n]*)["}]""")
_CFLAGS = re.compile(r"""^export (?:CFLAGS|OPTFLAGS)=(['"]?)(.*)\1\s*$""", re.MULTILINE)
# The compiler behind an MPI wrapper first.
_CC = re.compile(r"""^export (CC|CC_SEQ)=(['"]?)(.*)\2\s*$""", re.MULTILINE)


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``, for readers of layers."""
    return _MAX_BYTES if path == ROOTS or _RECORD.match(path) or _MODULE.match(path) else None


def read_stack(files: ImageFiles) -> Stack | None:
    """One package for every module with a reprod easyconfig; None for an image without any."""
    easyconfigs = {}
    flags: dict[str, tuple[str, str, str]] = {}
    for path in sorted(files):
        if not (match := _RECORD.match(path)):
            continue
        module = f"{match['name']}/{match['version']}"
        text = files[path].data.decode("utf-8", "replace")
        if match["kind"] == "eb":
            easyconfigs[module] = (path, _assignments(text))
        elif found := _CFLAGS.search(text):
            flags[module] = (path, found.group(2), _compiler(text))
    if not easyconfigs:
        return None
    real = _real_versions(files)
    packages = {
        module: _package(module, path, values, flags.get(module), real.get(module), set(easyconfigs))
        for module, (path, values) in easyconfigs.items()
    }
    record = _record(files)
    told = record.get("told_capabilities")
    for module, its in told.items() if isinstance(told, dict) else ():
        if module in packages:
            packages[module] = replace(packages[module], capabilities=_texts(its))
    roots = _roots(record, packages)
    finished = tuple(
        replace(package, root=module in roots, toolchain=_toolchain(package, packages))
        for module, package in packages.items()
    )
    capabilities = record.get("cuda_compute_capabilities")
    return Stack(
        manager="easybuild",
        manager_version=None,
        packages=finished,
        origin="EasyBuild records of the image",
        options=MappingProxyType({"cuda_compute_capabilities": capabilities} if isinstance(capabilities, str) else {}),
    )


def _compiler(text: str) -> str:
    """Archspec's name of the compiler that a record's commands are of."""
    commands = {name: command for name, _, command in _CC.findall(text)}
    return easybuild_flags.of_command(commands.get("CC_SEQ") or commands.get("CC") or "gcc")


def _assignments(text: str) -> dict[str, Any]:
    """Top-level assignments of an easyconfig, without running it; what is no literal is left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    values: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                values[node.targets[0].id] = ast.literal_eval(_Constants().visit(node.value))
            except (ValueError, TypeError, RecursionError):
                continue
    return values


class _Constants(ast.NodeTransformer):
    """EasyBuild's constants in easyconfigs: SYSTEM is the only one that dumps of EasyBuild 5 use here."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant("system") if node.id == "SYSTEM" else node


def _package(
    module: str,
    path: str,
    values: Mapping[str, Any],
    flags: tuple[str, str, str] | None,
    real: str | None,
    modules: set[str],
) -> Package:
    toolchain = values.get("toolchain")
    name, version = "system", ""
    if isinstance(toolchain, dict):
        name, version = str(toolchain.get("name", "system")), str(toolchain.get("version", ""))
    target, flag, unmapped = None, "", ""
    if flags and name.lower() != "system":
        target, flag = cpu_flags.target_of(flags[1], flags[2])
        unmapped = "" if target else flag
    given = values.get("version")
    edges = [
        Dependency(package=found, kinds=frozenset({"run"})) for found in _dependencies(values, modules, name, version)
    ]
    if (own := _module_of(name, version, modules)) is not None:
        edges.append(Dependency(package=own, kinds=frozenset({"toolchain"})))
    options = values.get("toolchainopts")
    variants: dict[str, Variant] = {
        key: value
        for key, value in (options.items() if isinstance(options, dict) else ())
        if isinstance(value, bool | str)
    }
    known = real or (given if isinstance(given, str) and given != "system" else None)
    return Package(
        id=module,
        name=module.split("/")[0],
        version=known,
        origin=f"image: {path.rsplit('/', 1)[-1]}",
        prefix=path.split("/easybuild/reprod/")[0],
        target=target,
        target_origin=f"{flags[0].rsplit('/', 1)[-1]}: {flag}" if flags and target else "",
        unmapped_flags=unmapped,
        compilers=(flags[2],) if flags else (),
        variants=MappingProxyType(variants),
        dependencies=tuple(edges),
        toolchain=Toolchain(name=name, version=version),
        capabilities=_texts(values.get("cuda_compute_capabilities")),
        is_toolchain=values.get("moduleclass") == "toolchain",
    )


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else ()


def _dependencies(values: Mapping[str, Any], modules: set[str], name: str, version: str) -> list[str]:
    listed = values.get("dependencies")
    found = []
    for entry in listed if isinstance(listed, list) else ():
        if not isinstance(entry, tuple) or len(entry) < 2:
            continue
        suffix = str(entry[2]) if len(entry) > 2 and isinstance(entry[2], str) else ""
        own = entry[3] if len(entry) > 3 else (name, version)
        toolchain = (
            ""
            if own == "system" or not isinstance(own, tuple) or len(own) < 2 or own[0] == "system"
            else f"-{own[0]}-{own[1]}"
        )
        candidates = [f"{entry[0]}/{entry[1]}{toolchain}{suffix}", f"{entry[0]}/{entry[1]}{suffix}"]
        within = [module for module in sorted(modules) if module.startswith(f"{entry[0]}/{entry[1]}-")]
        found.extend(next(([module] for module in (*candidates, *within) if module in modules), []))
    return found


def _module_of(name: str, version: str, modules: set[str]) -> str | None:
    return f"{name}/{version}" if f"{name}/{version}" in modules else None


def _toolchain(package: Package, packages: Mapping[str, Package]) -> Toolchain | None:
    """The toolchain with its MPI modules: the providers among its own dependencies."""
    own = package.toolchain
    found = packages.get(f"{own.name}/{own.version}") if own else None
    if own is None or found is None:
        return own
    names = [packages[edge.package].name for edge in found.dependencies if edge.package in packages]
    return replace(own, mpi_modules=tuple(name for name in names if name in PROVIDERS))


def _real_versions(files: ImageFiles) -> dict[str, str]:
    """``EBVERSION…`` of the module files: the version behind ``system``."""
    found = {}
    for path in files:
        match = _MODULE.match(path)
        if not match:
            continue
        wanted_name = re.sub(r"[^A-Za-z0-9]", "", match["name"]).upper()
        for name, version in _REAL_VERSION.findall(files[path].data.decode("utf-8", "replace")):
            if name == wanted_name and version[:1].isdigit():
                found[f"{match['name']}/{match['version']}"] = version
    return found


def _record(files: ImageFiles) -> Mapping[str, Any]:
    """What our build wrote of itself; empty where another has built the image."""
    found = files.get(ROOTS)
    try:
        record = parsed(found.data) if found is not None else {}
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _roots(record: Mapping[str, Any], packages: Mapping[str, Package]) -> set[str]:
    named = record.get("roots")
    if isinstance(named, list):
        return {name for name in named if isinstance(name, str)} & set(packages)
    reached = {edge.package for package in packages.values() for edge in package.dependencies}
    return {module for module, package in packages.items() if module not in reached and not package.is_toolchain}
