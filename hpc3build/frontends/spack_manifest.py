"""The spack.yaml that Spack itself gets in the builder, and the files of this machine that it names."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hpc3build.errors import InputError
from hpc3build.frontends.spack_local import Copied, copy_develop, copy_named
from hpc3build.recipe import Settings
from hpc3build.yamlread import Section, kind, line_of

#: Where the image keeps the environment, as ``spack containerize`` does; evidence is looked for there.
ENVIRONMENT = "/opt/spack-environment"
VIEW = "/opt/views/view"
STORE = "/opt/software"
#: How an MPI of the host takes the place of the image's: ``mpi:mode`` of hpc3build.yaml.
SWAPPED = "mpi_replace"
# Keys of a requirement that hold lists of specs.
_GROUPS = ("one_of", "any_of")
# What Spack's own containerize leaves out of the image as well.
_DROPPED = ("cdash", "gitlab_ci", "modules")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``document`` is the spack.yaml for Spack, ``files`` those of this machine by their path in the environment.

    ``develop`` are sources by their path below :data:`spack_local.DEVELOP`, ``executable`` names files of both with
    execute permission. ``template_dirs`` are folders here, ``notes`` what was left out or replaced.
    """

    document: Any
    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    develop: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    executable: frozenset[str] = frozenset()
    template_dirs: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def manifest(spack: Section, settings: Settings, folder: str = ENVIRONMENT) -> Manifest:
    """The spack.yaml as Spack gets it, for an environment in ``folder``.

    It has no container section, its install tree and view are where the image has them, and what ``repos:``,
    ``include:`` and ``develop:`` name here is copied and named by its new path. Raises InputError with file:line.
    """
    specs = spack.data.get("specs", [])
    if not isinstance(specs, list):
        raise InputError(f"{spack.where('specs')}: expected a list of specs, found {kind(specs)}")
    for position, spec in enumerate(specs):
        if not spec or not isinstance(spec, str | Mapping):
            what = "an empty text" if spec == "" else kind(spec)
            raise InputError(
                f"{spack.path}:{line_of(specs, position)}: {spack.name}:specs: expected a spec, found {what}"
            )
    found: Any = copy.deepcopy(spack.data)
    found.pop("container", None)
    config = found.setdefault("config", {})
    if not isinstance(config, dict):
        raise InputError(f"{spack.where('config')}: expected a mapping")
    notes = [*_replaced(spack, found)]
    template_dirs = _template_dirs(spack.section("config"))
    config.pop("template_dirs", None)
    config["install_tree"] = {"root": STORE}
    found["view"] = VIEW
    if swaps_mpi(settings):
        _runpath(spack.section("config"), config)
    packages = found.setdefault("packages", {})
    if not isinstance(packages, dict) or not all(isinstance(value, dict) for value in packages.values()):
        raise InputError(f"{spack.where('packages')}: expected a mapping of mappings")
    if settings.mpi_provider is not None:
        _require_mpi(packages, settings.mpi_provider)
    target = settings.target or (None if _names_a_target(found) else "x86_64")
    if target is not None:
        _require(spack.section("packages"), packages, target)
    files, develop = Copied(), Copied()
    for key in ("repos", "repos:", "include", "include:"):
        if key in found:
            copy_named(spack, key, found, files, folder)
    if found.get("develop"):
        copy_develop(spack.section("develop"), found["develop"], develop)
    return Manifest(
        document=found,
        files=MappingProxyType(files.files),
        develop=MappingProxyType(develop.files),
        executable=frozenset(files.executable | develop.executable),
        template_dirs=template_dirs,
        notes=tuple(notes),
    )


def swaps_mpi(settings: Settings) -> bool:
    """Whether the recipe asks for an MPI that the host's can take the place of."""
    return SWAPPED in (settings.mpi_mode or "").replace(",", " ").split()


def _replaced(spack: Section, found: Any) -> list[str]:
    """Take out what has no place in an image, and say so, as Spack's containerize does."""
    notes = []
    for key in _DROPPED:
        if key in found:
            notes.append(f"{spack.where(key)}: not used in images, left out")
            found.pop(key)
    if "install_tree" in (found.get("config") or {}):
        notes.append(f"{spack.section('config').where('install_tree')}: replaced, software is in {STORE}")
    if found.get("view", True) is not True:
        notes.append(f"{spack.where('view')}: replaced, the view is {VIEW}")
    concretizer = found.get("concretizer")
    if isinstance(concretizer, Mapping) and concretizer.get("unify", True) is not True:
        where = spack.section("concretizer").where("unify")
        notes.append(f"{where}: not true, so the image may hold several variants of one package")
    return notes


def _template_dirs(config: Section) -> tuple[Path, ...]:
    """``config:template_dirs`` that lie on this machine; relative ones are beside the recipe, as Spack has them."""
    here = config.path.resolve().parent
    given = config.texts("template_dirs")
    local = [re.sub(r"^\$(?:env\b|\{env\})/*", "", folder) for folder in given]
    return tuple(here / os.path.expanduser(folder) for folder in local if "$" not in folder)  # noqa: PTH111


def _runpath(section: Section, config: Any) -> None:
    """An RPATH would win over whatever the host brings; a RUNPATH gives way (R8)."""
    asked = config.get("shared_linking", "runpath")
    kind_asked = asked.get("type", "runpath") if isinstance(asked, Mapping) else asked
    if kind_asked != "runpath":
        raise InputError(
            f"{section.where('shared_linking')}: {kind_asked} defeats mpi:mode {SWAPPED}",
            hint="take out shared_linking, or mpi:mode of hpc3build.yaml",
        )
    config["shared_linking"] = {**(asked if isinstance(asked, Mapping) else {}), "type": "runpath"}


def _names_a_target(found: Mapping[str, Any]) -> bool:
    everything = found.get("packages", {}).get("all", {})
    # Specs may take their targets from definitions, as $targets of a matrix.
    said = (everything.get("target", ""), everything.get("require", ""), found.get("specs", ""))
    text = " ".join(map(str, (*said, found.get("definitions", ""))))
    return bool(everything.get("target")) or "target=" in text or "arch=" in text


def _require(section: Section, packages: Any, target: str) -> None:
    """Require the target of all packages: also of those whose own requirements would put that of ``all`` aside."""
    packages.setdefault("all", {})
    for name, settings in packages.items():
        require = settings.get("require") or []
        require = [require] if isinstance(require, str) else require
        if not isinstance(require, list):
            raise InputError(f"{section.where(name)}: require: expected text or a list, found {kind(require)}")
        lists = [item[key] for item in require if isinstance(item, Mapping) for key in _GROUPS if key in item]
        for specs in lists:
            if not isinstance(specs, list):
                raise InputError(f"{section.where(name)}: require: expected a list of specs, found {kind(specs)}")
        if name == "all" or (require and all(_is_about(name, item) for item in require)):
            settings["require"] = [*require, f"target={target}"]


def _require_mpi(packages: Any, provider: str) -> None:
    """Whatever the manifest says of MPI's provider gives way. Raises InputError for what is no package's name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*(@[A-Za-z0-9_.:=,-]+)?", provider):
        raise InputError(f"--mpi {provider}: no package of Spack", hint="--mpi mpich, --mpi openmpi@5")
    packages["mpi"] = {**packages.get("mpi", {}), "require": [provider]}


def _is_about(name: str, item: Any) -> bool:
    """Whether a requirement is of the package itself; one of a virtual package names its provider."""
    if isinstance(item, Mapping):
        specs = [spec for key in _GROUPS for spec in item.get(key, ())]
        return all(_is_about(name, spec) for spec in (item.get("spec", ""), *specs))
    found = re.match(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?![A-Za-z0-9_.-]*=)", str(item))
    return found is None or found.group() == name
