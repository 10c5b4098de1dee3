"""Frontends: each reads one package manager's recipes, plans and records, and ends in a Stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from hpc3build.errors import InputError
from hpc3build.evidence.layers import ImageFiles
from hpc3build.recipe import Recipe, Settings
from hpc3build.run import Runner
from hpc3build.stack import Stack


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a frontend adds to a build context: its template's name and variables, and files by their path there.

    ``sources`` are large files that steps mount (at /run/sources) and that never become part of a layer.
    """

    template: str
    variables: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    sources: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))


R = TypeVar("R", bound=Recipe)


class Frontend(Protocol[R]):
    """One package manager. Implementations are modules; FRONTENDS lists them."""

    def recognises(self, source: str) -> bool: ...

    def load(self, sources: tuple[str, ...], settings: Settings, runner: Runner) -> R: ...

    def stack(self, recipe: R) -> Stack | None:
        """The concretized stack, None where only the builder will know it."""
        ...

    def context(self, recipe: R, stack: Stack | None) -> Context: ...

    def wanted(self, path: str) -> int | None:
        """Bytes to read of a file in an image, for readers of layers."""
        ...

    def read_stack(self, files: ImageFiles) -> Stack | None:
        """The stack that an image's own records tell of."""
        ...


def frontends() -> Mapping[str, Frontend[Any]]:
    """All frontends by name."""
    from hpc3build.frontends import easybuild, spack

    return {"spack": spack, "easybuild": easybuild}


def for_source(source: str) -> Frontend[Any]:
    """The frontend for a recipe that a person named. Raises InputError when none knows it."""
    for frontend in frontends().values():
        if frontend.recognises(source):
            return frontend
    what = "no such file or folder" if not Path(source).exists() else "not a recipe"
    raise InputError(
        f"{source}: {what}", hint="a recipe is a spack.yaml, a folder with one, .eb files, or the name of an easyconfig"
    )
