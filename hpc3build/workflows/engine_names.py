"""What an engine is told, so that it starts the image that was chosen and no other.

Engines take an image of a registry by its digest. Of a layout or an archive they take a tag, and of an index behind it
their own choice (podman: the first entry of the architecture); so does podman's own store for names of indexes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hpc3build.engines.launch import check_transport
from hpc3build.errors import InputError, StoreError
from hpc3build.oci import Manifest
from hpc3build.reference import ARCHIVE, DAEMON, DOCKER, OCI, STORAGE, Reference, parse
from hpc3build.run import Runner
from hpc3build.stores import Store, open_store
from hpc3build.stores.layout import Layout
from hpc3build.workflows.candidates import Candidate


@dataclass(frozen=True)
class Place:
    """``runner`` reaches podman's own store; layouts of one image are put into the first of ``sides`` that will do."""

    runner: Runner
    sides: tuple[Path, ...] = ()


#: podman 4 makes a name of a layout's path, so each part must be one (distribution/reference, path-component).
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_NAMEABLE = re.compile(rf"/?{_PART}(?:/{_PART})*")


def name_for(engine: str, candidate: Candidate, place: Place) -> str:
    """What ``engine`` takes. Raises InputError where it can take that image by no name, and what stores raise."""
    reference = parse(candidate.reference)
    check_transport(engine, reference)
    if reference.transport == DOCKER:
        return _in_registry(reference, candidate)
    if reference.transport == DAEMON:  # holds no index
        text = str(reference)
        return text.removeprefix(f"{DAEMON}:") if engine == "docker" else text
    with open_store(reference, place.runner) as store:
        if reference.transport == STORAGE:
            return _in_podman(reference, candidate, store)
        if _is_tagged(reference, candidate, store) and (engine != "podman" or _can_be_named(reference)):
            return str(_by_tag(reference))
        if reference.transport == OCI and place.sides:
            return _alone(reference, store.manifest(candidate.digest), _side(place.sides))
    raise _by_no_name(reference, candidate)


def name_picked(candidate: Candidate, runner: Runner) -> tuple[str, str]:
    """What podman takes, and a note where there is no such name: then it is the full reference, for our own commands.

    Nothing is written. Raises InputError for a record whose reference is none, and ToolError.
    """
    reference = parse(candidate.reference)
    try:
        return name_for("podman", candidate, Place(runner)), ""
    except (InputError, StoreError) as error:  # a record may be of another machine's layout
        started = "hpc3build run starts it, or: " if reference.transport == OCI and error.exit_code == 2 else ""
        return str(reference.at(candidate.digest)), f"{error.message}; {started}{error.hint}"


def _in_registry(reference: Reference, candidate: Candidate) -> str:
    return f"{reference.repository}@{reference.at(candidate.digest).digest}"


def _is_tagged(reference: Reference, candidate: Candidate, store: Store) -> bool:
    """Whether the tag alone leads to the image."""
    return reference.tag is not None and store.manifest(reference.tag).digest == candidate.digest


def _can_be_named(reference: Reference) -> bool:
    return reference.transport != OCI or bool(_NAMEABLE.fullmatch(reference.name))


def _side(sides: tuple[Path, ...]) -> Path:
    """The first folder that podman can name, and that is ours alone to write. Raises InputError where none is."""
    problems = []
    for side in sides:
        if not _NAMEABLE.fullmatch(str(side)):
            problems.append(f"{side}: podman takes no layout in a path with capitals, or parts that begin with a dot")
            continue
        try:
            side.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = side.lstat()
        except OSError as error:
            problems.append(f"{side}: {error.strerror}")
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022:
            return side
        problems.append(f"{side}: another user's, or others may write there")
    raise InputError("; ".join(problems), hint="XDG_CACHE_HOME names another folder for it")


def _by_tag(reference: Reference) -> Reference:
    return reference.with_tag(reference.tag) if reference.tag else reference


def _in_podman(reference: Reference, candidate: Candidate, store: Store) -> str:
    if reference.storage:
        raise InputError(
            f"{reference}: podman looks into its own store, not into [{reference.storage}]",
            hint=f"hpc3build annotate {reference} --to containers-storage:NAME",
        )
    if reference.image_id:
        return reference.image_id
    if _is_tagged(reference, candidate, store):
        return f"{reference.repository}:{reference.tag}"
    image: Manifest = store.manifest(candidate.digest)
    return image.config.digest.partition(":")[2]  # the image ID, which no other image has


def _alone(reference: Reference, image: Manifest, side: Path) -> str:
    """A layout that lists this image alone; its blobs are the other layout's, so nothing is copied.

    The tag holds the digest, because podman names what it takes from a layout by the tag alone.
    """
    blobs = (Path(reference.name) / "blobs").resolve()
    folder = side / hashlib.sha256(f"{blobs}\0{image.digest}".encode()).hexdigest()[:32]
    tag = f"image-{image.digest.partition(':')[2]}"
    if not folder.exists():
        try:
            _make_whole(folder, blobs, image, tag)
        except OSError as error:
            raise InputError(f"{side}: {error.strerror}", hint="XDG_CACHE_HOME names another folder for it") from error
    return f"{OCI}:{folder}:{tag}"


def _make_whole(folder: Path, blobs: Path, image: Manifest, tag: str) -> None:
    """Renamed into place when it is complete: the tasks of a job all start at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as made:
        new = Path(made) / "layout"
        new.mkdir()
        (new / "blobs").symlink_to(blobs)
        Layout.create(new).put_manifest(image, tag)
        with contextlib.suppress(OSError):
            new.rename(folder)
        if not folder.exists():
            raise InputError(f"{folder}: cannot be made", hint="set XDG_CACHE_HOME")


def _by_no_name(reference: Reference, candidate: Candidate) -> InputError:
    there = reference.at(candidate.digest)
    what = "an archive" if reference.transport == ARCHIVE else "a layout"
    return InputError(
        f"{there}: engines take an image of {what} by its tag, and would take another one of that index",
        hint=f"hpc3build annotate {there} --to containers-storage:NAME:TAG brings it out for podman, "
        "--to oci:DIR:TAG for others",
    )
