"""Spack: a spack.yaml with its ``container:`` section, and the spack.lock beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpc3build.errors import InputError
from hpc3build.frontends import Context
from hpc3build.frontends import spack_context as contexts
from hpc3build.frontends.easybuild_sources import is_easystack
from hpc3build.frontends.settings import known_target, read_settings
from hpc3build.frontends.spack_concretize import concretize
from hpc3build.frontends.spack_container import SPACK_URL, read_container
from hpc3build.frontends.spack_context import LOCK, YAML, SpackRecipe
from hpc3build.frontends.spack_fit import off_target
from hpc3build.frontends.spack_json import MAX_BYTES
from hpc3build.frontends.spack_lock import read_lock
from hpc3build.frontends.spack_manifest import ENVIRONMENT, manifest
from hpc3build.frontends.spack_records import INDEX, read_file
from hpc3build.recipe import OF_EASYBUILD, Settings
from hpc3build.run import Runner
from hpc3build.stack import Stack
from hpc3build.yamlread import Section, read_text, read_yaml

if TYPE_CHECKING:
    from hpc3build.evidence.layers import ImageFiles


FOREIGN = OF_EASYBUILD


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
    if not path.exists():
        hint = "a recipe is a spack.yaml, or a folder that holds one"
        if path.with_name(LOCK).is_file():
            hint = "a spack.lock alone tells facts: hpc3build facts, or annotate --from; put the spack.yaml beside it"
        raise InputError(f"{path}: no such file", hint=hint)
    settings = settings.over(read_settings(path.parent, FOREIGN))
    data = read_yaml(path)
    document = Section(path, data)
    top = "spack" if "spack" in data else "env"
    if top not in data:
        raise InputError(f"{path}:1: expected the key spack:", hint="an environment's manifest starts with spack:")
    document.only((top,))
    spack = document.section(top)
    container = read_container(spack, settings)
    settings = replace(settings, labels=container.labels)
    made = manifest(spack, settings)
    recipe = SpackRecipe(
        origin=path,
        folder=path.resolve().parent,
        settings=settings,
        container=container,
        manifest=made,
        notes=made.notes,
        where_template=spack.section("container").where("template"),
        runner=runner,
    )
    if settings.target is not None:
        known_target(settings)
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
    if how == "builder" or not beside.exists():
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
            f"{found.origin}: {recipe.settings.where('target')} says {target}, and there are packages {others}",
            hint="--concretize builder, or host, asks Spack again, with the target required of every package",
        )
    provider = (recipe.settings.mpi_provider or "").partition("@")[0]
    if provider and provider not in {package.name for package in found.packages}:
        raise InputError(
            f"{found.origin}: --mpi says {provider}, which is not in it",
            hint="--concretize builder, or host, asks Spack again",
        )
    return found


def context(recipe: SpackRecipe, stack: Stack | None) -> Context:
    """Variables and files of the Spack block. Raises InputError where the lock does not fit the builder."""
    return contexts.context(recipe, stack)


def form(recipe: SpackRecipe) -> str:
    """What ``container:format`` says, unless ``--format`` does."""
    return recipe.container.form


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


__all__ = ["SPACK_URL", "context", "form", "load", "read_stack", "recognises", "stack", "wanted"]
