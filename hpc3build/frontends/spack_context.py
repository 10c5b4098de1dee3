"""What a spack.yaml adds to a build context: variables of the template, files, sources, configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any

from hpc3build import bases
from hpc3build.errors import InputError
from hpc3build.frontends import Context, OwnTemplate
from hpc3build.frontends.spack_container import Container
from hpc3build.frontends.spack_fit import fit
from hpc3build.frontends.spack_manifest import ENVIRONMENT, STORE, VIEW, Manifest, swaps_mpi
from hpc3build.frontends.spack_secrets import MOUNTS, secret_files
from hpc3build.frontends.spack_sources import Source, pack, sources
from hpc3build.recipe import Recipe
from hpc3build.run import Runner
from hpc3build.stack import Stack
from hpc3build.yamlread import dump_yaml

YAML, LOCK = "spack.yaml", "spack.lock"
#: The release of clingo, which all releases of Spack work with.
CLINGO = "5.7.1"
#: Where engines keep sources, stages and finished packages between builds.
CACHE = "/var/cache/hpc3build/spack"
_PREFIX = "spack"
_CONFIG = f"{_PREFIX}/config"


@dataclass(frozen=True, kw_only=True)
class SpackRecipe(Recipe):
    """A spack.yaml; ``manifest`` is it as Spack gets it, with the files of this machine that it names.

    ``lock_origin`` says where the lock is from; ``runner`` asks git about repositories.
    """

    manifest: Manifest
    container: Container
    where_template: str
    runner: Runner
    lock_origin: str = ""


def context(recipe: SpackRecipe, stack: Stack | None) -> Context:
    """Variables and files of the Spack block. Raises InputError where the lock does not fit the builder."""
    container, settings = recipe.container, recipe.settings
    if container.manager:
        base, manager = bases.known(container.build_image), bases.MANAGERS[container.manager]
    else:
        base = bases.find(container.build_image, container.where_image)
        manager = base.manager
    ref = container.spack_ref
    extra: list[str] = []
    if stack is not None and recipe.lock is not None:
        ref, extra = fit(stack, recipe.lock, container, base, settings)
    elif recipe.manifest.document.get("specs") or recipe.manifest.document.get("include_concrete"):
        extra = [manager.venv]
    else:
        raise InputError(f"{recipe.origin}:1: spack:specs: nothing to install", hint="spack add SPEC")
    _check_glibc(recipe)
    found = sources(container, settings, ref, recipe.folder, recipe.runner)
    builder = {*(base.spack_packages if base else manager.spack_packages), *extra}
    own = _own_template(recipe, manager)
    environment = {YAML: dump_yaml({"spack": recipe.manifest.document}), **recipe.manifest.files}
    if recipe.lock is not None:
        environment[LOCK] = recipe.lock.encode()
    config = _configuration(found, settings.binary_cache)
    develop = {f"develop/{name}": data for name, data in recipe.manifest.develop.items()}
    files = {**{f"{_PREFIX}/{name}": data for name, data in {**environment, **develop}.items()}, **config}
    executable = {name if name in environment else f"develop/{name}" for name in recipe.manifest.executable}
    return Context(
        template="spack.Containerfile.j2",
        variables={
            "builder_image": container.build_image,
            "final_image": container.final_image,
            "manager": manager,
            "builder_packages": sorted(builder if own else builder | set(container.build_packages)),
            "own_build_packages": sorted(set(container.build_packages) - builder) if own else [],
            "final_packages": [*manager.final, *container.final_packages],
            "update": container.update,
            "strip": [STORE] if container.strip else [],
            "labels": dict(container.labels),
            "sources": found,
            "clingo": None if recipe.lock is not None else settings.pins.get("clingo", CLINGO),
            "environment": sorted({name.split("/")[0] for name in environment}),
            "config": bool(config),
            "locked": recipe.lock is not None,
            "install": _install(recipe),
            "spack_secrets": MOUNTS,
            "spack_cache": f" --mount=type=cache,id=hpc3build-spack,target={CACHE},mode=0755",
            "copied": [ENVIRONMENT, STORE, VIEW.rsplit("/", 1)[0]],
            "extra_build": container.extra_build,
            "extra_final": container.extra_final,
            "runscript": container.scripts.get("runscript", ""),
            "sections": {name: text for name, text in container.scripts.items() if name != "runscript"},
            "static_env": {"PATH": f"{VIEW}/bin:{bases.PATH}"},
        },
        files=MappingProxyType(files),
        sources=MappingProxyType({f"{each.name}.pack": pack(each, recipe.runner) for each in found if each.folder}),
        executable=frozenset(f"{_PREFIX}/{name}" for name in executable),
        secrets=secret_files(settings, recipe.folder),
        own=own,
    )


def _check_glibc(recipe: SpackRecipe) -> None:
    """What is linked against a newer glibc does not start on an older one."""
    build, final = (bases.known(image) for image in (recipe.container.build_image, recipe.container.final_image))
    if build is None or final is None or not build.glibc or not final.glibc:
        return
    newer, older = ([int(part) for part in base.glibc.split(".")] for base in (build, final))
    if newer > older:
        raise InputError(
            f"{recipe.origin}: container:images: {build.image} has glibc {build.glibc}, and {final.image} has "
            f"{final.glibc}: what is built there would not start here",
            hint="a final image of the same release, or of a newer one",
        )


def _install(recipe: SpackRecipe) -> list[str]:
    """The words of containerfiles/spack/install.sh."""
    words = ["lock" if recipe.lock is not None else "concretize"]
    if recipe.container.depfile:
        words.append("depfile")
    if swaps_mpi(recipe.settings):
        words.append("runpath")
    return words


def _own_template(recipe: SpackRecipe, manager: bases.Manager) -> OwnTemplate | None:
    """``container:template``, with what Spack's own templates read. Spack looks in ``config:template_dirs``."""
    container = recipe.container
    if container.template is None or container.template in ("container/Dockerfile", "container/singularity.def"):
        return None
    packages = {
        stage: SimpleNamespace(update=manager.upgrade, install=_command(manager), list=list(names), clean=manager.clean)
        if names
        else None
        for stage, names in (("build", container.build_packages), ("final", container.final_packages))
    }
    return OwnTemplate(
        name=container.template,
        where=recipe.where_template,
        folders=(*recipe.manifest.template_dirs, recipe.folder, recipe.folder / "templates"),
        variables=MappingProxyType(
            {
                "paths": SimpleNamespace(
                    environment=ENVIRONMENT, store=STORE, view=VIEW, view_parent="/opt/views", former_view="/opt/view"
                ),
                "build": SimpleNamespace(image=container.build_image),
                "run": SimpleNamespace(image=container.final_image),
                "bootstrap": SimpleNamespace(image=None, recipe=None),
                "render_phase": SimpleNamespace(bootstrap=False, build=True, final=True),
                "os_package_update": container.update,
                "os_packages_build": packages["build"],
                "os_packages_final": packages["final"],
                "depfile": container.depfile,
            }
        ),
    )


def _command(manager: bases.Manager) -> str:
    return manager.install.replace("{packages}", "").rstrip()


def _configuration(found: list[Source], binary_cache: bool) -> Mapping[str, bytes]:
    """The builder's own configuration of Spack, in its system scope."""
    made: dict[str, Any] = {
        "config": {"config": {"source_cache": f"{CACHE}/sources", "build_stage": [f"{CACHE}/stage"]}},
    }
    if binary_cache:
        made["mirrors"] = {"mirrors": {"hpc3build-cache": f"file://{CACHE}/binaries"}}
    for each in found:
        if each.name == "spack-packages":
            made["repos"] = {"repos": {"builtin": f"/opt/{each.name}/repos/spack_repo/builtin"}}
        elif each.folder is not None:
            # A site that gives Spack itself has no internet: nothing is looked for there. Disabled altogether, Spack
            # would not even use the gpg and patchelf that the builder has.
            made["bootstrap"] = {"bootstrap": {"enable": True, "sources:": [], "trusted:": {}}}
    return {f"{_CONFIG}/{name}.yaml": dump_yaml(document) for name, document in made.items()}


__all__ = ["CACHE", "CLINGO", "LOCK", "YAML", "SpackRecipe", "context"]
