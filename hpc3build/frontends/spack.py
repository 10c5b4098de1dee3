"""Spack: a spack.yaml with its ``container:`` section, and the spack.lock beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hpc3build import bases
from hpc3build.errors import InputError
from hpc3build.facts import cpu
from hpc3build.frontends import Context
from hpc3build.frontends.easybuild_sources import is_easystack
from hpc3build.frontends.spack_concretize import concretize
from hpc3build.frontends.spack_container import SPACK_URL, Container, read_container
from hpc3build.frontends.spack_fit import fit, off_target
from hpc3build.frontends.spack_json import MAX_BYTES
from hpc3build.frontends.spack_lock import read_lock
from hpc3build.frontends.spack_manifest import ENVIRONMENT, manifest
from hpc3build.frontends.spack_records import INDEX, read_file
from hpc3build.frontends.spack_sources import PACKAGES_URL, Source, pack, source
from hpc3build.recipe import Recipe, Section, Settings, dump_yaml, read_settings, read_text, read_yaml
from hpc3build.run import Runner
from hpc3build.stack import Stack

if TYPE_CHECKING:
    from hpc3build.evidence.layers import ImageFiles

YAML, LOCK = "spack.yaml", "spack.lock"
#: The Spack of recipes without lock that name none, and the release of clingo, which all of its releases work with.
DEFAULT_REF = "v0.23.1"
CLINGO = "5.7.1"
_PREFIX = "spack"
_CONFIG = f"{_PREFIX}/config"
# What `python3 -m venv` takes in the builder.
_VENV = {"apt": "python3-venv"}


@dataclass(frozen=True, kw_only=True)
class SpackRecipe(Recipe):
    """A spack.yaml; ``manifest`` is it as Spack gets it, ``local`` the files of this machine that it names.

    ``lock_origin`` says where the lock is from; ``runner`` asks git about clones on this machine.
    """

    manifest: Any
    local: Mapping[str, bytes]
    container: Container
    runner: Runner
    lock_origin: str = ""


def recognises(source: str) -> bool:
    """A spack.yaml or spack.lock, or a folder that holds one."""
    path = Path(source)
    return (
        path.name in (YAML, LOCK)
        or (path.suffix in (".yaml", ".yml") and not is_easystack(source))
        or (path / YAML).is_file()
        or ((path / LOCK).is_file())
    )


def load(sources: tuple[str, ...], settings: Settings, runner: Runner) -> SpackRecipe:
    """Read the recipe. ``settings`` are the command line's and win over hpc3build.yaml. Raises InputError."""
    if len(sources) > 1:
        raise InputError(f"{sources[1]}: one spack.yaml at a time", hint="several specs go into one spack.yaml")
    path = Path(sources[0])
    path = path / YAML if path.is_dir() else path
    if path.name == LOCK:
        path = path.with_name(YAML)
    settings = settings.over(read_settings(path.parent))
    data = read_yaml(path)
    document = Section(path, data)
    top = "spack" if "spack" in data else "env"
    if top not in data:
        raise InputError(f"{path}:1: expected the key spack:", hint="an environment's manifest starts with spack:")
    document.only((top,))
    spack = document.section(top)
    container = read_container(spack, settings)
    settings = replace(settings, labels=container.labels)
    document_for_spack, local = manifest(spack, settings)
    recipe = SpackRecipe(
        origin=path,
        folder=path.resolve().parent,
        settings=settings,
        container=container,
        manifest=document_for_spack,
        local=local,
        runner=runner,
    )
    if settings.target is not None:
        cpu.known(settings.target)
    return _locked(recipe, spack)


def _locked(recipe: SpackRecipe, spack: Section) -> SpackRecipe:
    """The recipe with the lock that counts: the one beside it, or one that Spack on this machine makes now."""
    beside = recipe.origin.with_name(LOCK)
    how = recipe.settings.concretize
    if how == "host":
        lock = concretize(spack, recipe.settings, recipe.folder, recipe.runner)
        return replace(recipe, lock=lock, lock_origin=f"{recipe.origin} as Spack concretized it here")
    if how == "lock" and not beside.is_file():
        raise InputError(f"{beside}: no such file", hint="--concretize host makes one with the Spack of this machine")
    if how == "builder" or not beside.is_file():
        return recipe
    return replace(recipe, lock=read_text(beside, MAX_BYTES, "a spack.lock"), lock_origin=str(beside))


def stack(recipe: SpackRecipe) -> Stack | None:
    """The lock's stack; None when the builder will concretize."""
    if recipe.lock is None:
        return None
    found = read_lock(recipe.lock, recipe.lock_origin)
    target = recipe.settings.target
    if target is not None and (others := off_target(found, target)):
        raise InputError(
            f"{found.origin}: --target says {target}, and there are packages {others}",
            hint="--concretize builder, or host, asks Spack again, with the target required of every package",
        )
    return found


def context(recipe: SpackRecipe, stack: Stack | None) -> Context:
    """Variables and files of the Spack block. Raises InputError where the lock does not fit the builder."""
    container, settings = recipe.container, recipe.settings
    base = None if container.manager else bases.find(container.build_image)
    manager = bases.MANAGERS[container.manager] if container.manager else bases.find(container.build_image).manager
    ref = container.spack_ref
    extra: list[str] = []
    if stack is not None and recipe.lock is not None:
        ref, extra = fit(stack, recipe.lock, ref, container.build_image, base, settings)
    elif recipe.manifest.get("specs") or recipe.manifest.get("include_concrete"):
        extra = [_VENV.get(manager.name, "python3-pip")]
    else:
        raise InputError(f"{recipe.origin}:1: spack:specs: nothing to install", hint="spack add SPEC")
    sources = _sources(recipe, ref)
    builder = (
        *(base.spack_packages if base else bases.find(manager_example(manager.name)).spack_packages),
        *extra,
        *container.build_packages,
    )
    environment = {YAML: dump_yaml({"spack": recipe.manifest}), **recipe.local}
    if recipe.lock is not None:
        environment[LOCK] = recipe.lock.encode()
    config = _configuration(sources)
    files = {f"{_PREFIX}/{name}": data for name, data in environment.items()} | config
    return Context(
        template="spack.Containerfile.j2",
        variables={
            "builder_image": container.build_image,
            "final_image": container.final_image,
            "manager": manager,
            "builder_packages": sorted(set(builder)),
            "final_packages": list(container.final_packages),
            "update": container.update,
            "strip": ["/opt/software"] if container.strip else [],
            "labels": dict(container.labels),
            "sources": sources,
            "clingo": None if recipe.lock is not None else settings.pins.get("clingo", CLINGO),
            "environment": sorted({name.split("/")[0] for name in environment}),
            "config": bool(config),
            "locked": recipe.lock is not None,
            "extra_build": container.extra_build,
            "extra_final": container.extra_final,
            "static_env": {"PATH": f"/opt/views/view/bin:{bases.PATH}"},
        },
        files=MappingProxyType(files),
        sources=MappingProxyType({f"{each.name}.pack": pack(each, recipe.runner) for each in sources if each.folder}),
    )


def _sources(recipe: SpackRecipe, ref: str | None) -> list[Source]:
    """Spack, and its package recipes where a pin or an option names them; else Spack fetches those itself."""
    settings, container = recipe.settings, recipe.container
    found = [source("spack", container.spack_url, ref, DEFAULT_REF, recipe.folder, recipe.runner)]
    pinned = settings.pins.get("spack-packages")
    if pinned or settings.packages_source:
        where = settings.packages_source or PACKAGES_URL
        found.append(source("spack-packages", where, pinned, "develop", recipe.folder, recipe.runner))
    return found


def _configuration(sources: list[Source]) -> dict[str, bytes]:
    """The builder's own configuration of Spack, in its system scope."""
    found: dict[str, bytes] = {}
    for each in sources:
        if each.name == "spack-packages":
            recipes = {"builtin": f"/opt/{each.name}/repos/spack_repo/builtin"}
            found[f"{_CONFIG}/repos.yaml"] = dump_yaml({"repos": recipes})
        elif each.folder is not None:
            # A site that gives Spack itself has no internet: nothing is looked for there.
            found[f"{_CONFIG}/bootstrap.yaml"] = dump_yaml({"bootstrap": {"enable": False}})
    return found


def manager_example(name: str) -> str:
    """A base image of this package manager, for the packages that a builder needs of it."""
    return next(base.image for base in bases.BASES if base.manager.name == name)


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``: the environment's lock, and databases of install trees."""
    return MAX_BYTES if path == f"{ENVIRONMENT}/{LOCK}" or path.endswith(f"/{INDEX}") else None


def read_stack(files: ImageFiles) -> Stack | None:
    """The stack of the lock that the image keeps, else of the one database of installed packages in it."""
    found = files.resolve(f"{ENVIRONMENT}/{LOCK}")
    if found and found.data:
        return read_lock(found.data.decode("utf-8", "replace"), f"{ENVIRONMENT}/{LOCK}")
    databases = [path for path in files if path.endswith(f"/{INDEX}") and files[path].data]
    if len(databases) != 1:
        return None
    return read_file(files[databases[0]].data.decode("utf-8", "replace"), databases[0])


__all__ = ["SPACK_URL", "context", "load", "read_stack", "recognises", "stack", "wanted"]
