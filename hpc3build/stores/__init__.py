"""Where images lie: one Protocol, and the implementation for each transport of a reference."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol

from hpc3build.errors import StoreError
from hpc3build.oci import Descriptor, Manifest
from hpc3build.reference import ARCHIVE, DOCKER, OCI, STORAGE, Reference
from hpc3build.run import Runner
from hpc3build.stores.access import Access

if TYPE_CHECKING:
    from hpc3build.stores.transport import Client

_SHOWN = 8


class Store(Protocol):
    """One repository, layout or local image. A context manager: leaving it removes what it put aside."""

    def manifest(self, reference: str | None = None) -> Manifest:
        """By tag or by digest, verified; None where the store holds one image, or was opened for one.

        Raises StoreError where there is none, BadReference where None is ambiguous, ImageError where it is malformed.
        """

    def blob(self, digest: str) -> AbstractContextManager[BinaryIO]:
        """A stream, read forward only; one that is read to its end is verified then (ImageError)."""

    def put_blob(self, content: bytes, digest: str | None = None) -> str:
        """Store a small blob (a configuration) under ``digest``, which it has already, or its sha256; returns that."""

    def copy_blob(self, blob: Descriptor, source: Store) -> None:
        """Bring a blob of any size here from another store, verified; one that is there stays."""

    def put_manifest(self, manifest: Manifest, tag: str | None, *, expect: str | None = None) -> None:
        """Store a manifest and move ``tag`` to it; what it points to is there already.

        ``expect`` is the digest that the tag must still have, else TagMoved. Without a tag: an index's child when
        ``expect`` is None, else the successor of the untagged image ``expect``.
        """

    def tags(self) -> tuple[str, ...]:
        """Sorted."""

    def close(self) -> None:
        """Remove what was put aside; closing twice is no error."""

    def __enter__(self) -> Store: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_store(
    reference: Reference,
    runner: Runner,
    access: Access | None = None,
    client: Client | None = None,
    *,
    read_back: bool = False,
) -> Store:
    """The store that ``reference`` names.

    ``access`` is for registries; a ``client`` of this thread, made with it, shares connections and tokens between them.
    With ``read_back`` a registry is asked again for what was put.

    Raises StoreError for a place that is not there or cannot be reached.
    """
    if reference.transport == DOCKER:
        from hpc3build.stores.registry import Registry

        return Registry(reference, access, runner=runner, client=client, read_back=read_back)
    if reference.transport == OCI:
        from hpc3build.stores.layout import Layout

        return Layout(reference.name)
    if reference.transport == ARCHIVE:
        from hpc3build.stores.archive import Archive

        return Archive(reference.name)
    if reference.transport == STORAGE:
        from hpc3build.stores.local import LocalStore

        return LocalStore(reference, runner)
    from hpc3build.stores.daemon import DaemonStore

    return DaemonStore(reference)


def open_target(
    reference: Reference,
    runner: Runner,
    access: Access | None = None,
    client: Client | None = None,
    *,
    read_back: bool = False,
) -> Store:
    """As ``open_store``, to write an image there: a layout or an archive that is not there yet is made."""
    if reference.transport == OCI:
        from hpc3build.stores.layout import Layout

        return Layout.create(reference.name)
    if reference.transport == ARCHIVE and not Path(reference.name).exists():
        from hpc3build.stores.new_archive import NewArchive

        return NewArchive(reference.name)
    return open_store(reference, runner, access, client, read_back=read_back)


def named(store: Store, reference: Reference) -> Manifest:
    """The manifest that a person's reference names; where a registry lacks its tag, the hint lists those that it has.

    Raises what ``Store.manifest`` raises.
    """
    try:
        return store.manifest(reference.digest or reference.tag)
    except StoreError as error:
        if error.status != 404 or reference.digest is not None or reference.tag is None:
            raise
        with contextlib.suppress(StoreError):  # no such repository, or one that may not be listed
            error.hint = f"tags there: {_listed(store.tags(), reference.tag)}"
        raise


def tag_to_write(reference: Reference, there: Store | None = None) -> str | None:
    """The tag that is written under a reference; None where a digest or an image ID names the image.

    ``there`` is the store in which the new image takes the place of what the reference names: of a path without a tag
    that is its only image, which may have no tag. Elsewhere such a path gets the tag ``latest``, as a repository does.
    """
    if reference.tag or reference.digest or reference.image_id:
        return reference.tag
    if there is None:
        return "latest"
    from hpc3build.stores.referrers import names_no_image

    return next((tag for tag in there.tags() if not names_no_image(tag)), None)


def _listed(tags: Sequence[str], wanted: str) -> str:
    """The nearest first, some of many; what names no image of its own is left out."""
    import difflib

    from hpc3build.stores.referrers import names_no_image

    there = [tag for tag in tags if not names_no_image(tag)]
    near = difflib.get_close_matches(wanted, there, n=_SHOWN)
    shown = list(dict.fromkeys((*near, *there)))[:_SHOWN]
    more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
    return ", ".join(shown) + more if there else "none"


def is_absence(error: StoreError) -> bool:
    """Whether something is not in a store, other than a registry that does not answer as it should."""
    return error.status in (None, 404)


def read_blob(store: Store, digest: str) -> bytes:
    """A whole small blob (a configuration), verified. Raises StoreError, ImageError."""
    with store.blob(digest) as stream:
        return stream.read()
