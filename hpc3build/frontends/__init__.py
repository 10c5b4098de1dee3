"""Frontends: each reads one package manager's recipes, plans and records, and ends in a Stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from hpc3build.errors import InputError
from hpc3build.recipe import Recipe, Settings
from hpc3build.run import Runner
from hpc3build.stack import Stack

if TYPE_CHECKING:  # a recipe is read without it
    from hpc3build.evidence.layers import ImageFiles


@dataclass(frozen=True, kw_only=True)
class OwnTemplate:
    """A recipe's own Jinja template: its ``name`` in the first of ``folders`` that has it.

    ``where`` is the file, line and key that names it, ``variables`` are what such templates read beside ours.
    """

    name: str
    where: str
    folders: tuple[Path, ...]
    variables: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a frontend adds to a build context: its template's name and variables, and files by their path there.

    ``sources`` are large files that steps mount (at /run/sources) and that never become part of a layer; ``large`` are
    such that lie on this machine.
    ``executable`` names the files with execute permission, ``secrets`` are files of this machine by the id of the build
    secret that they are.
    """

    template: str
    variables: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    sources: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    large: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    executable: frozenset[str] = frozenset()
    secrets: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    own: OwnTemplate | None = None


R = TypeVar("R", bound=Recipe)


class Frontend(Protocol[R]):
    """One package manager. Implementations are modules; FRONTENDS lists them.

    ``FOREIGN`` are settings that it has no meaning for.
    """

    FOREIGN: frozenset[str]

    def recognises(self, source: str) -> bool: ...

    def load(self, sources: tuple[str, ...], settings: Settings, runner: Runner) -> R: ...

    def stack(self, recipe: R) -> Stack | None:
        """The concretized stack, None where only the builder will know it."""
        ...

    def context(self, recipe: R, stack: Stack | None) -> Context: ...

    def form(self, recipe: R) -> str:
        """What is rendered where nobody says otherwise: a key of ``containerfile.FORMATS``."""
        ...

    def wanted(self, path: str) -> int | None:
        """Bytes to read of a file in an image, for readers of layers."""
        ...

    def read_stack(self, files: ImageFiles) -> Stack | None:
        """The stack that an image's own records tell of."""
        ...


#: All frontends by name, each a module that is loaded where it is asked.
_NAMES = ("spack", "easybuild")


def frontends() -> Mapping[str, Frontend[Any]]:
    """All frontends by name."""
    return dict(_loaded())


def _loaded() -> Iterator[tuple[str, Frontend[Any]]]:
    for name in _NAMES:
        frontend: Any = import_module(f"hpc3build.frontends.{name}")
        yield name, frontend


def for_sources(sources: Sequence[str]) -> Frontend[Any]:
    """The frontend for recipes of one image. Raises InputError, also where they are of several package managers."""
    found = for_source(sources[0])
    for source in sources[1:]:
        if not found.recognises(source) and any(other.recognises(source) for _, other in _loaded()):
            raise InputError(
                f"{sources[0]} and {source} are recipes of two package managers, and cannot be mixed in one image",
                hint="render or build each by itself",
            )
    return found


def for_source(source: str) -> Frontend[Any]:
    """The frontend for a recipe that a person named. Raises InputError when none knows it."""
    for _, frontend in _loaded():
        if frontend.recognises(source):
            return frontend
    what = "no such file or folder" if not Path(source).exists() else "not a recipe"
    raise InputError(
        f"{source}: {what}",
        hint="a recipe is a spack.yaml, a folder with one, easyconfigs (.eb files, or names like "
        "GROMACS-2024.4-foss-2023b), or an easystack",
    )
