"""Recipe to Containerfile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hpc3build.containerfile import BuildContext, base_image, build_context
from hpc3build.errors import InputError
from hpc3build.facts import cpu
from hpc3build.facts.given import unknown_keys
from hpc3build.frontends import Context, Frontend, for_sources
from hpc3build.recipe import Recipe, Settings, refuse_options
from hpc3build.reference import parse
from hpc3build.run import Runner
from hpc3build.stack import Stack
from hpc3build.stores.access import Access
from hpc3build.workflows.outputs import write_atomically


@dataclass(frozen=True)
class Planned:
    """A recipe, what it will install where that is known before the build, and the context that installs it."""

    recipe: Recipe
    stack: Stack | None
    context: BuildContext


def render(
    sources: tuple[str, ...],
    settings: Settings,
    runner: Runner,
    access: Access | None = None,
    *,
    building: bool = False,
) -> Planned:
    """Load, plan and render. ``building`` refuses what engines do not build; ``access`` is for ``--pin``.

    Raises InputError for what cannot be built as asked, ToolMissing without EasyBuild, StoreError for registries.
    """
    frontend, recipe, stack = load(sources, settings, runner)
    form = frontend.form(recipe)
    if building and form != "containerfile":
        raise InputError(
            f"{recipe.origin}: its format is an Apptainer definition, and engines build Containerfiles",
            hint="--format containerfile builds an image, which Apptainer runs as it is; "
            "or hpc3build render --context DIR, and apptainer build there",
        )
    context = frontend.context(recipe, stack)
    pinned = pinned_images(context, runner, access) if recipe.settings.pin else {}
    return Planned(recipe, stack, build_context(recipe, context, form, pinned))


def foreign_target(planned: Planned, machine: str) -> str | None:
    """Where the target is not one of ``machine`` (as uname -m calls it), which would build it: both, in words."""
    target = planned.recipe.settings.target
    known = None if target is None else cpu.microarchitecture(target)
    here = cpu.MACHINES.get(machine, machine)
    if known is None or str(known.family) == here:
        return None
    return f"the target {target} is one of {known.family}, and this machine, which would build it, is {here}"


def pinned_images(context: Context, runner: Runner, access: Access | None) -> Mapping[str, str]:
    """The base images by tag and digest, as their registries have them now. Raises StoreError."""
    from hpc3build.stores import open_store

    found = {}
    for image in (context.variables["builder_image"], context.variables["final_image"]):
        name = base_image(image)
        if "@" in name or name in found:
            continue
        reference = parse(f"docker://{name}")
        with open_store(reference, runner, access) as store:
            found[name] = f"{name}@{store.manifest(reference.tag or 'latest').digest}"
    return found


def load(sources: tuple[str, ...], settings: Settings, runner: Runner) -> tuple[Frontend[Any], Recipe, Stack | None]:
    """The recipe and its stack, where that is known; the lock is kept where ``--save-lock`` says.

    Raises InputError, ToolMissing, ToolError.
    """
    frontend = for_sources(sources)
    refuse_options(
        sorted(frontend.FOREIGN & set(settings.given)), f"the package manager of {sources[0]} has no use for it"
    )
    recipe: Recipe = frontend.load(sources, settings, runner)
    recipe = replace(recipe, notes=(*recipe.notes, *unknown_keys(recipe.settings.labels)))
    stack = frontend.stack(recipe)
    if settings.save_lock is not None:
        if recipe.lock is None:
            raise InputError("--save-lock: there is no lock before the build", hint="--concretize host makes one")
        write_atomically(settings.save_lock, recipe.lock)
    return frontend, recipe, stack
