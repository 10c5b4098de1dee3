"""EasyBuild: easyconfigs and their closure, resolved by the real EasyBuild in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hpc3build.errors import InputError
from hpc3build.facts import cpu
from hpc3build.frontends import (
    Context,
    easybuild_context,
    easybuild_flags,
    easybuild_os,
    easybuild_records,
    easybuild_sourcepath,
    easybuild_told,
)
from hpc3build.frontends.easybuild_resolve import resolve
from hpc3build.frontends.easybuild_sourcepath import Given
from hpc3build.frontends.easybuild_sources import EASYSTACK, Sources, is_easystack, is_name, sources_of
from hpc3build.frontends.easybuild_stack import stack_of_closure
from hpc3build.frontends.easybuild_told import CAPABILITIES, Told
from hpc3build.frontends.settings import known_target, read_settings
from hpc3build.recipe import OF_SPACK, Recipe, Settings
from hpc3build.run import Runner
from hpc3build.stack import Stack

if TYPE_CHECKING:
    from hpc3build.evidence.layers import ImageFiles

FOREIGN = OF_SPACK


@dataclass(frozen=True, kw_only=True)
class EasyBuildRecipe(Recipe):
    """Easyconfigs with what they need beside them, and their resolved closure (the resolver's document).

    ``told`` is what eb is told for single modules, ``given`` the files of --sourcepath that travel.
    """

    sources: Sources
    closure: Mapping[str, Any]
    told: Mapping[str, Told] = field(default_factory=lambda: MappingProxyType({}))
    given: tuple[Given, ...] = ()

    @property
    def title(self) -> str:
        """By R7 the root's name when there is one, else the folder's."""
        names = [module["name"] for module in self.closure["modules"] if module["module"] in self.closure["roots"]]
        return self.settings.title or (names[0] if len(names) == 1 else self.folder.name)


def recognises(source: str) -> bool:
    """An .eb file, the name of one, an easystack, or a folder that holds easyconfigs and no Spack manifest."""
    path = Path(source)
    if path.is_dir():
        ours = (path / EASYSTACK).is_file() or any(path.glob("*.eb"))
        return ours and not any((path / name).exists() for name in ("spack.yaml", "spack.lock"))
    return path.suffix == ".eb" or is_easystack(source) or (is_name(source) and not path.exists())


def load(sources: tuple[str, ...], settings: Settings, runner: Runner) -> EasyBuildRecipe:
    """Read and resolve the closure. ``settings`` are the command line's and win. Raises InputError, ToolMissing."""
    first = Path(sources[0])
    folder = first.resolve() if first.is_dir() else first.resolve().parent if first.is_file() else None
    merged = settings.over(read_settings(folder, FOREIGN)) if folder else settings
    if merged.target is not None and merged.target != easybuild_flags.NATIVE:
        known_target(merged)
    if merged.mpi_provider is not None:
        raise InputError(
            f"--mpi {merged.mpi_provider}: an easyconfig's MPI is its toolchain's", hint="name an easyconfig for it"
        )
    capabilities = merged.cuda_compute_capabilities
    if capabilities and not CAPABILITIES.fullmatch(capabilities):
        raise InputError(f"{merged.stated('cuda_compute_capabilities', capabilities)}: expected a list like 8.0,9.0a")
    asked = sources_of(sources, merged)
    closure = resolve(asked, runner, merged.cache / "easybuild" if merged.cache else None)
    for module in closure["modules"]:
        tuple(easybuild_os.wished(module))  # refused here, also where nothing is rendered
    closure, told = easybuild_told.tell(closure, asked.easyconfigs, asked.options)
    found = easybuild_sourcepath.find(closure["modules"], asked.robot_paths, asked.sourcepath)
    return EasyBuildRecipe(
        origin=Path(asked.easyconfigs[0]),
        folder=folder or Path.cwd(),
        settings=merged,
        notes=(found.note(asked.sourcepath),) if asked.sourcepath else (),
        sources=asked,
        closure=closure,
        told=told,
        given=found.given,
    )


def stack(recipe: EasyBuildRecipe) -> Stack | None:
    """The closure as a Stack; targets only where the build is given one.

    Raises InputError where an easyconfig's own flags ask for more than the target that was named.
    """
    target = recipe.settings.target
    for module in recipe.closure["modules"] if target and target != easybuild_flags.NATIVE else ():
        own, _ = easybuild_flags.own_target(module)
        _, whose = easybuild_flags.own_flags(module)
        if own and target and cpu.satisfies(target, own) is False:
            raise InputError(
                f"{module['easyconfig']} is built for {own} by {whose}, and the target is {target}",
                hint="these flags win over --target; drop one of the two",
            )
    return stack_of_closure(
        recipe.closure, target=recipe.settings.target, capabilities=recipe.settings.cuda_compute_capabilities
    )


def context(recipe: EasyBuildRecipe, stack: Stack | None) -> Context:
    """Variables and files of the EasyBuild block. Raises InputError for what cannot be built as asked."""
    roots = tuple(
        module["module"] for module in recipe.closure["modules"] if module["module"] in recipe.closure["roots"]
    )
    return easybuild_context.context(
        easybuild_context.Plan(
            recipe.closure["modules"], roots, recipe.sources, recipe.settings, recipe.told, recipe.given
        )
    )


def form(recipe: EasyBuildRecipe) -> str:
    """A Containerfile, unless ``--format`` says otherwise."""
    return recipe.settings.format or "containerfile"


wanted = easybuild_records.wanted


def read_stack(files: ImageFiles) -> Stack | None:
    """The stack that an image's EasyBuild records tell of."""
    return easybuild_records.read_stack(files)
