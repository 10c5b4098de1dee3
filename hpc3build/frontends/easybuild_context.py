"""The EasyBuild block of a build context: what is installed in which order, with which options, from which files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hpc3build import bases
from hpc3build.errors import InputError
from hpc3build.frontends import (
    Context,
    easybuild_flags,
    easybuild_licences,
    easybuild_os,
    easybuild_sourcepath,
    easybuild_told,
)
from hpc3build.frontends.easybuild_graph import Module, parts_of, steps_of
from hpc3build.frontends.easybuild_records import PREFIX
from hpc3build.frontends.easybuild_resolve import PINNED
from hpc3build.frontends.easybuild_sourcepath import Given
from hpc3build.frontends.easybuild_sources import Sources
from hpc3build.frontends.easybuild_stack import told_capabilities
from hpc3build.frontends.easybuild_told import Told
from hpc3build.recipe import MODULES, Settings

PINNED_ARCHSPEC = "0.2.7"
DEFAULT_BASE = "debian:12"


@dataclass(frozen=True)
class Plan:
    """What a context is made from: the closure's modules, the roots' names, what was asked, and the settings.

    ``told`` is what eb is told for single modules, ``given`` the files of --sourcepath that travel.
    """

    modules: Sequence[Module]
    roots: tuple[str, ...]
    sources: Sources
    settings: Settings
    told: Mapping[str, Told] = field(default_factory=lambda: MappingProxyType({}))
    given: tuple[Given, ...] = ()


def context(plan: Plan) -> Context:
    """Variables and files of the EasyBuild block. Raises InputError for what cannot be built as asked."""
    settings = plan.settings
    accepted = {name: told.accepted for name, told in plan.told.items() if told.accepted is not None}
    easybuild_licences.check(plan.modules, settings.accept_eula_for, accepted)
    image = settings.base or DEFAULT_BASE
    base = bases.find(image, settings.where("base"), otherwise="")
    lmod = easybuild_os.lmod_packages(base)
    commit = easybuild_os.lmod_commit(base)
    os_packages, known = easybuild_os.packages(plan.modules, base)
    with_modules = (settings.modules or MODULES[0]) == "lmod"
    parts = parts_of(plan.modules, plan.roots)
    steps = steps_of(plan.modules, parts)
    given = {part: _given(plan, modules) for part, modules in steps.items()}
    bins = [f"{PREFIX}/software/{name}/bin" for name in plan.roots]
    return Context(
        template="easybuild.Containerfile.j2",
        variables={
            "builder_image": image,
            "final_image": image,
            "manager": base.manager,
            "builder_packages": sorted({*easybuild_os.builder_packages(base), *os_packages, *settings.build_packages}),
            "final_packages": sorted(
                {*settings.final_packages, *easybuild_os.run_packages(plan.modules, base)}
                | {*(lmod if with_modules else ())}
            ),
            "lmod_source": easybuild_os.LMOD_SOURCE,
            "lmod_commit": commit,
            "update": False,
            "strip": [f"{PREFIX}/software"],
            "labels": dict(settings.labels),
            "prefix": PREFIX,
            "copied": [f"{PREFIX}/software", f"{PREFIX}/modules", *(["/opt/lmod"] if commit and with_modules else ())],
            "chown": True,
            "parts": list(parts),
            "given": [part for part, files in given.items() if files],
            "own": bool(plan.sources.easyblocks or plan.sources.hooks),
            "native": settings.target == easybuild_flags.NATIVE,
            "easybuild": settings.pins.get("easybuild", PINNED),
            "archspec": settings.pins.get("archspec", PINNED_ARCHSPEC),
            "extra_build": "",
            "extra_final": "",
            "static_env": {"PATH": ":".join([*bins, bases.PATH])},
        },
        files=MappingProxyType(
            dict(_files(plan, parts, steps, base, os_names_known=known, with_modules=with_modules))
            | {f"easybuild/{part}/sources.txt": _sums(files) for part, files in given.items() if files}
        ),
        large=MappingProxyType(
            {f"{part}/{place}": path for part, files in given.items() for place, (path, _) in files.items()}
        ),
    )


def _given(plan: Plan, modules: Iterable[Module]) -> dict[str, tuple[Path, str]]:
    """What travels for one step: by their place below its folder of sources, the files here and their SHA256."""
    names = {module["module"] for module in modules}
    given = [file for file in plan.given if file.module in names]
    origin = {file.place: file.path for file in reversed(given)}
    return {place: (origin[place], digest) for place, digest in easybuild_sourcepath.listed(given).items()}


def _sums(files: Mapping[str, tuple[Path, str]]) -> bytes:
    """As sha256sum writes it. A step mounts the files, and engines repeat it when this list has changed."""
    return _lines(f"{digest}  {place}" for place, (_, digest) in files.items())


def _files(
    plan: Plan,
    parts: Mapping[str, list[Module]],
    steps: Mapping[str, list[Module]],
    base: bases.Base,
    *,
    os_names_known: bool,
    with_modules: bool,
) -> Iterator[tuple[str, bytes]]:
    """Files by their path in the context's folder of scripts."""
    gcc = base.compilers.get("gcc", "")
    options = list(_options(plan, gcc, os_names_known=os_names_known))
    yield "easybuild/options.txt", _lines(options)
    yield "easybuild/keep.json", _json(_record(plan, parts, options, with_modules=with_modules))
    yield "easybuild/modules.txt", _lines(plan.roots)
    if plan.settings.target == easybuild_flags.NATIVE:
        yield "easybuild/native/compilers.json", _json(easybuild_flags.compilers(plan.modules, gcc))
    for file in plan.sources.easyblocks:
        # EasyBuild takes those in a folder of this name for generic ones.
        generic = "generic/" if file.parent.name == "generic" else ""
        yield f"easybuild/own/easyblocks/{generic}{file.name}", file.read_bytes()
    if plan.sources.hooks:
        yield "easybuild/own/hooks.py", plan.sources.hooks.read_bytes()
    for part, modules in steps.items():
        runs = [_lines((*names, *arguments)) for arguments, names in easybuild_told.runs(modules, plan.told)]
        yield f"easybuild/{part}/easyconfigs.txt", b"\n".join(runs)
        for name, data in own_files(modules, plan.sources.robot_paths).items():
            yield f"easybuild/{part}/easyconfigs/{name}", data


def _options(plan: Plan, gcc: str, *, os_names_known: bool) -> Iterator[str]:
    """The options of every run of eb in the builder."""
    settings = plan.settings
    if settings.target != easybuild_flags.NATIVE:
        yield f"--optarch={easybuild_flags.optarch(plan.modules, settings.target, gcc)}"
    if settings.cuda_compute_capabilities:
        yield f"--cuda-compute-capabilities={settings.cuda_compute_capabilities}"
    if settings.accept_eula_for:
        yield f"--accept-eula-for={','.join(settings.accept_eula_for)}"
    if not os_names_known:
        yield "--ignore-osdeps"  # they are there, by names that the easyconfigs do not give


def _record(
    plan: Plan, parts: Mapping[str, list[Module]], options: Sequence[str], *, with_modules: bool
) -> dict[str, Any]:
    """What keep.py and parts.py go by, and what stays in the image for evidence."""
    part_of = {module["module"]: part for part, modules in parts.items() for module in modules}
    capabilities = plan.settings.cuda_compute_capabilities
    told = {name: list(its) for name, its in told_capabilities(plan.modules, plan.roots, capabilities).items()}
    arguments = {name: list(its.arguments) for name, its in plan.told.items()}
    return {
        **({"told": arguments} if arguments else {}),
        **({"told_capabilities": told} if told else {}),
        "modules": [
            {
                "module": module["module"],
                "name": module["name"],
                "class": module["moduleclass"],
                "part": part_of[module["module"]],
            }
            for module in plan.modules
            if not module.get("builddep")
        ],
        "roots": list(plan.roots),
        "parts": list(parts),
        "options": list(options),
        "cuda_compute_capabilities": None if told else capabilities,
        "keep_compilers": bool(plan.settings.keep_compilers),
        "load_modules": with_modules,
    }


def own_files(modules: Iterable[Module], folders: Iterable[Path]) -> dict[str, bytes]:
    """Own easyconfigs, with the sources and patches that lie beside them; what EasyBuild ships stays there.

    Raises InputError for two files of one name.
    """
    folders = tuple(folders)
    found: dict[str, bytes] = {}
    origin: dict[str, Path] = {}
    for module in modules:
        path = Path(module.get("path") or "")
        if not path.is_file() or not any(path.resolve().is_relative_to(folder) for folder in folders):
            continue
        for name in (path.name, *(module.get("sources") or ()), *(module.get("patches") or ())):
            file = path.parent / name
            if not file.is_file() or not file.resolve().is_relative_to(path.resolve().parent):
                continue
            data = file.read_bytes()
            if found.setdefault(name, data) != data:
                raise InputError(
                    f"{file} and {origin[name]}: two files of one name, and the builder has one folder for both",
                    hint="rename one of them",
                )
            origin.setdefault(name, file)
    return dict(sorted(found.items()))


def _lines(texts: Iterable[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
