"""Engines: they build and run. Derived facts are never handed to them, so that they cannot differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hpc3build.errors import InputError
from hpc3build.run import Completed, Runner


@dataclass(frozen=True, kw_only=True)
class How:
    """How a command runs: as ``user`` (``UID:GID``), on a read-only root, through the entry point, for how long (s)."""

    user: str | None = None
    read_only: bool = False
    entrypoint: bool = True
    timeout: float | None = None


DEFAULT = How()


class Engine(Protocol):
    """One engine. ``image`` is always an image ID or name of the engine's own store."""

    name: str
    #: What ``run`` cannot express, in words; such cells of a check are not applicable.
    lacks: frozenset[str]

    def version(self) -> str:
        """The engine's version. Raises ToolMissing."""
        ...

    def build(self, context: Path, *, secrets: Mapping[str, Path], no_cache: bool = False) -> str:
        """Build the context's Containerfile and return the image's ID. Raises ToolError; then there is no image."""
        ...

    def export(self, image: str, layout: Path, tag: str) -> None:
        """Write the image into an OCI layout, its layers compressed."""
        ...

    def digest(self, image: str) -> str | None:
        """The digest of the manifest of an image in the engine's store, None when it does not tell."""
        ...

    def run(self, image: str, argv: Sequence[str], how: How = DEFAULT) -> Completed:
        """Run a command in a new container and return how it ended, whatever its status."""
        ...


def engines(runner: Runner) -> Mapping[str, Engine]:
    """All engines by name."""
    from hpc3build.engines.buildah import Buildah
    from hpc3build.engines.podman import Podman

    return {"buildah": Buildah(runner), "podman": Podman(runner)}


def choose(name: str, runner: Runner) -> Engine:
    """The engine of that name; ``auto`` is the first that is installed. Raises InputError, ToolMissing."""
    import shutil

    from hpc3build.run import missing

    known = engines(runner)
    if name == "auto":
        for engine in known.values():
            if shutil.which(engine.name):
                return engine
        raise missing("buildah")
    if name not in known:
        raise InputError(f"--engine {name}: no such engine", hint=f"engines are auto, {', '.join(known)}")
    return known[name]
