"""A layout's index.json as a value: which images it lists, by which tags, and what it becomes when one is put.

Shared by layout directories and archives of them (image-spec, image-layout.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hpc3build import jsonedit
from hpc3build.errors import BadReference, ImageError, StoreError, TagMoved
from hpc3build.oci import OCI_INDEX, Descriptor, Manifest, repointed
from hpc3build.reference import is_digest
from hpc3build.stores.referrers import names_no_image

REF_NAME = "org.opencontainers.image.ref.name"


def check_tag(tag: str | None) -> None:
    """Raise BadReference for a text that cannot be a tag in a layout."""
    if tag is not None and (not tag or is_digest(tag) or any(not character.isprintable() for character in tag)):
        raise BadReference(f"{tag!r} is not a tag", hint="letters, digits and . _ - : / between them")


@dataclass(frozen=True)
class TaggedIndex:
    """The bytes of index.json; ``place`` is the reference without its tag (``oci:DIR``), for messages."""

    place: str
    raw: bytes

    @cached_property
    def entries(self) -> tuple[Descriptor, ...]:
        """What is listed. Raises ImageError where index.json is malformed."""
        try:
            index = Manifest.parse(self.raw, OCI_INDEX)
        except ImageError as error:
            raise ImageError(f"{self.place}: index.json: {error.message}", hint=error.hint) from error
        return index.descriptors

    @property
    def tags(self) -> tuple[str, ...]:
        """Sorted."""
        names = {entry.annotations.get(REF_NAME) for entry in self.entries}
        return tuple(sorted(name for name in names if name))

    def listed(self, digest: str) -> Descriptor | None:
        """The first entry with this digest."""
        return next((entry for entry in self.entries if entry.digest == digest), None)

    def only(self) -> Descriptor:
        """The single image's entry. Raises StoreError where there is none, BadReference where there are several.

        Lists of referrers and cosign's signatures (the tags sha256-…) count as no images of their own.
        """
        entries = [entry for entry in self.entries if not names_no_image(entry.annotations.get(REF_NAME))]
        if len(entries) == 1:
            return entries[0]
        if not entries:
            raise StoreError(f"{self.place} holds no image")
        forms = [
            f"{self.place}:{entry.annotations[REF_NAME]}"
            if entry.annotations.get(REF_NAME)
            else f"{self.place}@{entry.digest}"
            for entry in entries
        ]
        raise BadReference(
            f"{self.place} holds {len(entries)} images, and none was named", hint=f"name one of {', '.join(forms)}"
        )

    def named(self, tag: str) -> Descriptor:
        """The entry with this tag. Raises StoreError, ImageError where several have it."""
        return self.entries[self._position(tag)]

    def with_manifest(self, manifest: Manifest, tag: str | None, expect: str | None) -> bytes:
        """index.json with ``tag`` (or the untagged entry of ``expect``) at ``manifest``.

        The other entries keep their bytes. Raises TagMoved when ``tag`` is not at ``expect`` any more.
        """
        if tag is None:
            places = (p for p, e in enumerate(self.entries) if REF_NAME not in e.annotations and e.digest == expect)
            position = next(places, None)
        else:
            position = self._position(tag) if tag in self.tags else None
            current = self.entries[position].digest if position is not None else None
            if expect is not None and current != expect:
                raise TagMoved(f"{self.place}:{tag} is {current or 'gone'} now, it was {expect}")
        if position is not None:
            return repointed(self.raw, ("manifests", position), manifest)
        entry: dict[str, Any] = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size}
        if tag is not None:
            entry["annotations"] = {REF_NAME: tag}
        elif self.listed(manifest.digest):
            return self.raw
        return jsonedit.set_member(self.raw, ("manifests", len(self.entries)), entry)

    def _position(self, tag: str) -> int:
        found = [place for place, entry in enumerate(self.entries) if entry.annotations.get(REF_NAME) == tag]
        if not found:
            raise StoreError(f"{self.place}:{tag}: no such tag", hint=f"tags there: {', '.join(self.tags) or 'none'}")
        if len(found) > 1:
            digests = ", ".join(self.entries[position].digest for position in found)
            raise ImageError(f"{self.place}:{tag}: {len(found)} images have this tag", hint=f"name one: {digests}")
        return found[0]
