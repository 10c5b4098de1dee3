"""From the engine's store to where the image was asked for: everything under its digest first, the tag last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from hpc3build import rewrite
from hpc3build.engines import Engine
from hpc3build.errors import InputError, StoreError, TagMoved
from hpc3build.reference import ARCHIVE, DOCKER, OCI, STORAGE, Reference, parse
from hpc3build.run import Runner
from hpc3build.stores import Store, open_store, open_target, tag_to_write
from hpc3build.stores.access import Access
from hpc3build.stores.archive import Archive
from hpc3build.stores.layout import Layout
from hpc3build.stores.local import LocalStore

PLACES = (DOCKER, OCI, ARCHIVE, STORAGE)
_TRIES = 3


def check_place(
    target: Reference, runner: Runner, access: Access | None = None, *, by_digest: bool = False
) -> Reference:
    """Look at the place before hours of building; it with its tag. Raises InputError for one of another kind,
    StoreError.
    """
    if (tag := tag_to_write(target)) is None or target.digest is not None:
        raise InputError(f"-t {target}: a digest cannot be chosen", hint="name a tag")
    target = target.with_tag(tag)
    if by_digest and target.transport != DOCKER:
        raise InputError(f"-t {target}: --push-by-digest is for registries", hint="-t docker://HOST/NAME")
    if target.transport not in PLACES:
        raise InputError(
            f"-t {target}: hpc3build builds into registries, oci:, oci-archive: and containers-storage:",
            hint="build into one of them, then: hpc3build annotate REF --to docker-daemon:NAME",
        )
    if target.transport == DOCKER:
        _check_registry(target, runner, access)
    if target.transport == OCI:
        _check_layout(target)
    if target.transport == ARCHIVE:
        _check_archive(target)
    return target


def _check_registry(target: Reference, runner: Runner, access: Access | None) -> None:
    """A registry that answers, and knows us; the image itself need not be there."""
    from hpc3build.stores.refusals import Refusal

    with open_store(target, runner, access) as place:
        try:
            place.manifest(target.tag)
        except Refusal as refusal:
            if refusal.status != 404:
                raise


def _check_layout(target: Reference) -> None:
    path = Path(target.name).absolute()
    if path.exists() and not path.is_dir():
        raise StoreError(f"{target}: {path} is a file, expected an OCI layout or a new name")
    if path.is_dir() and any(path.iterdir()) and not (path / "oci-layout").is_file():
        raise StoreError(f"{target}: {path} is a folder that is no OCI layout", hint="name a new folder in it")
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise StoreError(f"{target}: {there} cannot be written")


def _check_archive(target: Reference) -> None:
    path = Path(target.name).absolute()
    if path.exists():
        Archive(path).close()
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise StoreError(f"{target}: {path} cannot be written")


@contextmanager
def readable(engine: Engine, image: str, target: Reference, runner: Runner) -> Iterator[tuple[Store, Reference]]:
    """The built image where its layers can be read: exported, for a layout beside it, so that blobs need only move."""
    if target.transport == STORAGE == engine.store:
        reference = parse(f"containers-storage:@{image}")
        with open_store(reference, runner) as store:
            yield store, reference
        return
    parent = Path(target.name).absolute().parent if target.transport == OCI else Path(gettempdir())
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".hpc3build-", dir=parent) as folder:
            engine.export(image, Path(folder), "built")
            yield Layout(folder), parse(f"oci:{folder}:built")
    except OSError as error:
        raise StoreError(f"{target}: {error.strerror}: {error.filename}") from error


def publish(
    store: Store, done: rewrite.Rewrite, target: Reference, runner: Runner, access: Access | None = None
) -> str:
    """Write the rewritten image under ``target`` and return its digest. ``store`` is what ``readable`` gave.

    A target with a digest instead of a tag gets the image under its digest alone. Raises what stores raise.
    """
    manifest = done.new
    if target.transport == OCI and isinstance(store, Layout):
        layout = Layout.create(target.name)
        old = store.manifest("built")
        # An engine may give an image of ours out of its cache, of which nothing is replaced.
        for replaced in {old.config.digest, old.digest} - {manifest.config.digest, manifest.digest}:
            store.blob_path(replaced).unlink(missing_ok=True)
        layout.absorb(store)
        _put(layout, done, target)
        return manifest.digest
    here = isinstance(store, LocalStore)  # the layers are there already
    for left in reversed(range(_TRIES)):
        try:
            with open_target(target, runner, access) as place:
                rewrite.transfer(store, place, done, target, here=here)
        except TagMoved:  # what was there before does not matter
            if not left:
                raise
        else:
            break
    return manifest.digest


def _put(place: Store, done: rewrite.Rewrite, target: Reference) -> None:
    for blob in done.blobs:
        place.put_blob(blob)
    place.put_manifest(done.new, target.tag)
