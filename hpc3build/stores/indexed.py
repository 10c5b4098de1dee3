"""What a layout directory and an archive of one have in common: images are found through index.json."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TypeVar

from hpc3build.errors import ImageError, StoreError
from hpc3build.oci import INDEXES, MANIFESTS, Descriptor, Manifest
from hpc3build.reference import is_digest
from hpc3build.stores.referrers import SIGNATURES, About, artifact_type, fallback_tag, with_referrer
from hpc3build.stores.tagged_index import TaggedIndex, check_tag

#: How many untagged or tagged entries are looked into for a subject of their own.
_MAX_ENTRIES = 512

_Own = TypeVar("_Own", bound="IndexedStore")
IndexEdit = Callable[[TaggedIndex], tuple[bytes, tuple[bytes, ...]]]


class IndexedStore(ABC):
    """A Store, and Referrers by the tag schema, over three ways to reach the bytes."""

    @abstractmethod
    def _index(self) -> TaggedIndex:
        """index.json as it is now."""

    @abstractmethod
    def _content(self, digest: str) -> bytes:
        """A manifest's bytes, cut off above the limit of manifests."""

    @abstractmethod
    def _publish(self, edit: IndexEdit) -> None:
        """Alone among writers: store the blobs that ``edit`` returns, then what it makes of index.json."""

    @abstractmethod
    def put_blob(self, content: bytes, digest: str | None = None) -> str:
        """See Store."""

    def manifest(self, reference: str | None = None) -> Manifest:
        """See Store; None is the only image."""
        index = self._index()
        if reference is None:
            return self._read(index, index.only())
        if is_digest(reference):
            listed = index.listed(reference)
            return self._read(index, listed) if listed else Manifest.parse(self._content(reference), None, reference)
        return self._read(index, index.named(reference))

    def tags(self) -> tuple[str, ...]:
        """See Store."""
        return self._index().tags

    def put_manifest(self, manifest: Manifest, tag: str | None, *, expect: str | None = None) -> None:
        """See Store. The other entries of index.json keep their bytes."""
        check_tag(tag)
        self.put_blob(manifest.raw, manifest.digest)
        if tag is not None or expect is not None:
            self._publish(lambda index: (index.with_manifest(manifest, tag, expect), ()))

    def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """See Referrers: by the tag schema, and of what index.json lists itself (as oras writes it)."""
        index = self._index()
        found: dict[str, Descriptor] = {}
        if (listed := self._list_of(index, digest)) is not None and listed.is_index:
            found = {descriptor.digest: descriptor for descriptor in listed.descriptors}
        for entry in index.entries[:_MAX_ENTRIES]:
            if entry.digest in found or entry.media_type not in INDEXES | MANIFESTS:
                continue
            with contextlib.suppress(ImageError, StoreError):  # an index copied without all of its images
                manifest = self._read(index, entry)
                if manifest.subject and manifest.subject.digest == digest:
                    kind = artifact_type(manifest)
                    found[entry.digest] = Descriptor(
                        entry.media_type, entry.digest, entry.size, None, manifest.annotations, kind
                    )
        return tuple(found.values())

    def signature_tags(self, digest: str) -> tuple[str, ...]:
        """See Referrers."""
        tags = self.tags()
        return tuple(tag for ending in SIGNATURES if (tag := fallback_tag(digest) + ending) in tags)

    def survey(self, digests: Iterable[str]) -> tuple[About, ...]:
        """See Referrers."""
        found = (About(digest, self.referrers(digest), self.signature_tags(digest)) for digest in digests)
        return tuple(about for about in found if about.referrers or about.tags)

    def list_referrer(self, manifest: Manifest, *, replaces: str | None = None) -> str | None:
        """See Referrers."""
        subject = manifest.subject
        if subject is None:
            raise ValueError(f"{manifest.digest} has no subject")
        written: list[str] = []

        def edit(index: TaggedIndex) -> tuple[bytes, tuple[bytes, ...]]:
            old = self._list_of(index, subject.digest)
            new = with_referrer(old, manifest, replaces)
            written[:] = [] if new is old else [new.digest]
            if new is old:
                return index.raw, ()
            return index.with_manifest(new, fallback_tag(subject.digest), None), (new.raw,)

        self._publish(edit)
        return written[0] if written else None

    def close(self) -> None:  # noqa: B027
        """Nothing is put aside."""

    def __enter__(self: _Own) -> _Own:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _list_of(self, index: TaggedIndex, digest: str) -> Manifest | None:
        tag = fallback_tag(digest)
        return self._read(index, index.named(tag)) if tag in index.tags else None

    def _read(self, index: TaggedIndex, entry: Descriptor) -> Manifest:
        content = self._content(entry.digest)
        if len(content) != entry.size:
            raise ImageError(f"{index.place}: {entry.digest} has {len(content)} bytes, index.json says {entry.size}")
        return Manifest.parse(content, entry.media_type, entry.digest)
