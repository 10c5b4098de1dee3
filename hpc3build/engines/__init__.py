"""Engines: they build and run. Derived facts are never handed to them, so that they cannot differ."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hpc3build.errors import InputError
from hpc3build.imageconfig import ImageConfig
from hpc3build.run import Completed, Runner


@dataclass(frozen=True, kw_only=True)
class How:
    """How a command runs.

    As ``user`` (``UID:GID``) with supplementary ``groups``, on a read-only root, through the entry point, with
    ``stdin``, with ``env`` on top of the image's, with the host's folders of ``mounts`` at their paths, in ``folder``,
    for at most ``timeout`` seconds.
    """

    user: str | None = None
    groups: tuple[int, ...] = ()
    read_only: bool = False
    entrypoint: bool = True
    stdin: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[tuple[Path, str], ...] = ()
    folder: str | None = None
    timeout: float | None = None


DEFAULT = How()

#: What an engine may be unable to express.
ENTRY_POINT = "an entry point"
READ_ONLY = "a read-only root"
GROUPS = "supplementary groups"
MOUNTS = "mounts on folders that the image lacks"
PID_NAMESPACE = "a PID namespace"
FOLDER = "a working folder of the job's"


def own_name() -> str:
    """A name for a container: one that was given before it was made can be removed, however that ended."""
    return f"hpc3build-{uuid.uuid4().hex}"


class Launcher(Protocol):
    """What starts a command in an image."""

    name: str
    #: The transport of the store where it finds images.
    store: str
    #: What ``run`` cannot express, in words; such cells of a check are not applicable.
    lacks: frozenset[str]

    def prepared(self, image: str) -> AbstractContextManager[str]:
        """``image``, an ID or name of the engines' store, as ``run`` takes it; unpacked for the while where it must be.

        Raises ToolError.
        """
        ...

    def run(self, image: str, argv: Sequence[str], how: How = DEFAULT) -> Completed:
        """Run a command in a new container and return how it ended, whatever its status."""
        ...


class Engine(Launcher, Protocol):
    """An engine with a store of its own. ``image`` is always an image ID or name of that store."""

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


def engines(runner: Runner) -> Mapping[str, Engine]:
    """All engines by name."""
    from hpc3build.engines.buildah import Buildah
    from hpc3build.engines.docker import Docker
    from hpc3build.engines.podman import Podman

    return {"buildah": Buildah(runner), "podman": Podman(runner), "docker": Docker(runner)}


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


def launcher(name: str, runner: Runner, config: ImageConfig) -> Launcher:
    """What starts images of ``config`` under that name: an engine, charliecloud, or a run script re-enacted.

    Raises InputError, ToolMissing.
    """
    from hpc3build.engines.charliecloud import Charliecloud
    from hpc3build.engines.reenacted import NAMES, Reenacted

    if name in NAMES:
        return Reenacted(name, choose("podman", runner), config)
    others = {"charliecloud": Charliecloud}
    if name in others:
        return others[name](runner)
    if name not in ("auto", *engines(runner)):
        known = ", ".join([*engines(runner), *others, *NAMES])
        raise InputError(f"--run {name}: no such engine", hint=f"engines are auto, {known}")
    return choose(name, runner)
