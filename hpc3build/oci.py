"""OCI and Docker image documents as values: raw bytes, and what can be read from them.

Nothing here re-serialises: every edit goes through jsonedit, so unknown fields, order and spacing survive. Sources:
OCI image-spec 1.1 (manifest, image-index, config, descriptor), Docker's image manifest v2 schema 2.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from hpc3build import jsonedit
from hpc3build.errors import ImageError
from hpc3build.jsonread import EMPTY, as_object, get_list, get_pairs, get_text
from hpc3build.reference import is_digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar"

#: Same bytes under both names (measured: oci.md §2), so digests stay.
DOCKER_TO_OCI: Mapping[str, str] = MappingProxyType(
    {
        DOCKER_LIST: OCI_INDEX,
        DOCKER_MANIFEST: OCI_MANIFEST,
        DOCKER_CONFIG: OCI_CONFIG,
        DOCKER_LAYER: OCI_LAYER,
        f"{DOCKER_LAYER}.gzip": f"{OCI_LAYER}+gzip",
        f"{DOCKER_LAYER}.zstd": f"{OCI_LAYER}+zstd",
        DOCKER_FOREIGN_LAYER: OCI_FOREIGN_LAYER,
        f"{DOCKER_FOREIGN_LAYER}.gzip": f"{OCI_FOREIGN_LAYER}+gzip",
    }
)
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
IMAGE_CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
#: BuildKit's, on the descriptor of an attestation (attestation-storage.md): what it is, and the image it is about.
REFERENCE_TYPE = "vnd.docker.reference.type"
REFERENCE_DIGEST = "vnd.docker.reference.digest"


def digest_of(content: bytes) -> str:
    """The sha256 digest of ``content``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def verify(content: bytes, digest: str, what: str) -> None:
    """Raise ImageError when ``content`` is not what ``digest`` says."""
    found = _digest_like(check_digest(digest, what), content)
    if found != digest:
        raise ImageError(
            f"{what}: the content has the digest {found}, not {digest}",
            hint="it was altered on the way or where it lies; fetch the image again",
        )


def _digest_like(digest: str, content: bytes) -> str:
    algorithm = digest.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def check_digest(digest: object, what: str) -> str:
    """``digest`` itself, when it is a sha256 or sha512 digest; only such a text becomes part of a path or URL."""
    if not isinstance(digest, str) or not is_digest(digest):
        raise ImageError(f"{what}: {str(digest)[:100]!r} is not a digest (sha256: and 64 hexadecimal digits)")
    return digest


@dataclass(frozen=True)
class Descriptor:
    """A pointer to content. ``platform`` holds the text members of the platform object (os.features is no text)."""

    media_type: str
    digest: str
    size: int
    platform: Mapping[str, str] | None = None
    annotations: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    artifact_type: str = ""

    @classmethod
    def read(cls, value: Any, what: str) -> Descriptor:
        """From parsed JSON; ``what`` says where it stands. Raises ImageError."""
        fields = as_object(value, what)
        size = fields.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ImageError(f"{what}: size {size!r} is not a number of bytes")
        platform = None
        if fields.get("platform") is not None:
            members = as_object(fields["platform"], f"{what}.platform")
            platform = MappingProxyType({key: text for key, text in members.items() if isinstance(text, str)})
        return cls(
            get_text(fields, "mediaType", what),
            check_digest(fields.get("digest"), what),
            size,
            platform,
            get_pairs(fields, "annotations", what),
            get_text(fields, "artifactType", what, default=""),
        )

    @property
    def is_attestation(self) -> bool:
        """Whether an index's entry is BuildKit's attestation, no image."""
        platform = self.platform or EMPTY
        unknown = platform.get("os") == "unknown" and platform.get("architecture") == "unknown"
        return unknown or REFERENCE_TYPE in self.annotations

    @property
    def is_foreign(self) -> bool:
        """Whether it is a layer that lies elsewhere and may not be handed on."""
        return self.media_type.startswith((OCI_FOREIGN_LAYER, DOCKER_FOREIGN_LAYER))


@dataclass(frozen=True)
class Manifest:
    """An image manifest or an index: media type and the bytes that were read. Made by ``parse``.

    ``name`` is the digest that it was asked for, empty for none.
    """

    media_type: str
    raw: bytes
    name: str = field(default="", compare=False)

    @classmethod
    def parse(
        cls, raw: bytes, media_type: str | None = None, expect_digest: str | None = None, what: str = "manifest"
    ) -> Manifest:
        """Read and check a manifest.

        ``media_type`` is what the store said of it (Content-Type, descriptor), ``expect_digest`` what was asked for:
        it stays its digest, whatever the algorithm. ``what`` stands in the message where that differs.
        Raises ImageError for anything malformed, for a digest that differs, and for types this program does not know.
        """
        if expect_digest is not None:
            verify(raw, expect_digest, what)
        manifest = cls(_media_type(raw, media_type), raw, expect_digest or "")
        _ = manifest.annotations, manifest.descriptors, manifest.subject
        return manifest

    @cached_property
    def digest(self) -> str:
        """The one that it was asked for, by which what refers to it goes on finding it; else sha256 of the bytes."""
        return self.name or digest_of(self.raw)

    def is_named(self, digest: str | None) -> bool:
        """Whether this is a digest of the bytes, by any algorithm: registries name what is put by their own."""
        return digest is not None and (
            digest == self.digest or (is_digest(digest) and digest == _digest_like(digest, self.raw))
        )

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.raw)

    @cached_property
    def json(self) -> Mapping[str, Any]:
        """The parsed document, to be read only."""
        return MappingProxyType(as_object(jsonedit.load(self.raw, "manifest"), "manifest"))

    @cached_property
    def annotations(self) -> Mapping[str, str]:
        """The manifest's (or index's) own annotations."""
        return get_pairs(self.json, "annotations", "manifest")

    @cached_property
    def subject(self) -> Descriptor | None:
        """The manifest that this one is about, None for most images."""
        value = self.json.get("subject")
        return None if value is None else Descriptor.read(value, "subject")

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests."""
        return self.media_type in INDEXES

    @property
    def is_docker(self) -> bool:
        """Whether it has one of Docker's own types, which have no place for annotations."""
        return self.media_type in (DOCKER_LIST, DOCKER_MANIFEST)

    @property
    def config(self) -> Descriptor:
        """The configuration's descriptor. Raises ImageError on an index."""
        return self._image_descriptors[0]

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layers' descriptors, lowest first. Raises ImageError on an index."""
        return self._image_descriptors[1:]

    @property
    def layers_size(self) -> int:
        """Bytes of all layers as stored: what a pull moves. Raises ImageError on an index."""
        return sum(layer.size for layer in self.layers)

    @cached_property
    def descriptors(self) -> tuple[Descriptor, ...]:
        """What it points to: an index's manifests; an image's config and layers."""
        if not self.is_index:
            return self._image_descriptors
        return tuple(
            Descriptor.read(value, f"manifests[{position}]")
            for position, value in enumerate(get_list(self.json, "manifests", "index"))
        )

    @cached_property
    def _image_descriptors(self) -> tuple[Descriptor, ...]:
        if self.is_index:
            raise ImageError(f"{self.digest} is an index of several images, not an image")
        layers = get_list(self.json, "layers", "manifest")
        return (
            Descriptor.read(self.json.get("config"), "config"),
            *(Descriptor.read(value, f"layers[{position}]") for position, value in enumerate(layers)),
        )

    def with_annotations(self, set: Mapping[str, str], remove: Iterable[str] = ()) -> Manifest:
        """The manifest with these annotations; equal ones give ``self``.

        Raises ImageError for Docker types (annotations stand outside their format: use to_oci) and for pairs that are
        no texts.
        """
        check_pairs(set)
        raw = jsonedit.set_pairs(self.raw, ("annotations",), set, remove)
        if raw == self.raw:
            return self
        if self.is_docker:
            raise ImageError(
                f"{self.digest} is of Docker's type, which has no annotations", hint="convert it to OCI first"
            )
        return Manifest.parse(raw, self.media_type)

    def with_config(self, digest: str, size: int) -> Manifest:
        """The manifest with another configuration of the same media type. Raises ImageError."""
        check_digest(digest, "config")
        if digest == self.config.digest and size == self.config.size:
            return self
        return Manifest.parse(repointed(self.raw, ("config",), {"digest": digest, "size": size}), self.media_type)

    def with_layers(self, layers: Iterable[Descriptor]) -> Manifest:
        """The manifest over the same layers in another compression. Raises ImageError for another number of them."""
        layers = tuple(layers)
        if len(layers) != len(self.layers):
            raise ImageError(f"{self.digest} has {len(self.layers)} layers, not {len(layers)}")
        values: list[tuple[jsonedit.Path, Any]] = []
        for place, layer in enumerate(layers):
            members = {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}
            values += [(("layers", place, name), value) for name, value in members.items()]
        return Manifest.parse(jsonedit.edit(self.raw, values, []), self.media_type)

    def to_oci(self) -> Manifest:
        """The same manifest under OCI media types; config and layers keep their bytes and digests.

        Of a manifest list only its own type changes, since an OCI index may list Docker manifests. Raises ImageError
        where a type has no OCI counterpart.
        """
        if not self.is_docker:
            return self
        raw = jsonedit.set_member(self.raw, ("mediaType",), DOCKER_TO_OCI[self.media_type])
        if not self.is_index:
            paths: list[jsonedit.Path] = [("config",), *(("layers", position) for position in range(len(self.layers)))]
            for path, descriptor in zip(paths, self.descriptors, strict=True):
                raw = jsonedit.set_member(raw, (*path, "mediaType"), _oci_type(descriptor, path))
        return Manifest.parse(raw, DOCKER_TO_OCI[self.media_type])


def repointed(raw: bytes, path: jsonedit.Path, target: Manifest | Mapping[str, Any]) -> bytes:
    """A document whose descriptor at ``path`` has another target; the descriptor's other members stay."""
    return jsonedit.edit(raw, *repointing(path, target))


def repointing(
    path: jsonedit.Path, target: Manifest | Mapping[str, Any]
) -> tuple[list[tuple[jsonedit.Path, Any]], list[jsonedit.Path]]:
    """The edits that ``repointed`` makes."""
    if isinstance(target, Manifest):
        target = {"mediaType": target.media_type, "digest": target.digest, "size": target.size}
    # What goes is the old content, embedded, and where else it lies.
    return [((*path, member), value) for member, value in target.items()], [(*path, "data"), (*path, "urls")]


def _media_type(raw: bytes, told: str | None) -> str:
    document = as_object(jsonedit.load(raw, "manifest"), "manifest")
    version = document.get("schemaVersion")
    if version == 1 and not isinstance(version, bool):
        raise ImageError("manifest: Docker's schema 1, which no current tool writes", hint="pull and push it again")
    if version != 2 or isinstance(version, bool):
        raise ImageError(f"manifest: schemaVersion is {version!r}, not 2")
    said = get_text(document, "mediaType", "manifest", default="") or None
    if said and told and said != told:
        raise ImageError(f"manifest: it says it is {said}, but the store says {told}")
    if "manifests" in document and ("layers" in document or "config" in document):
        raise ImageError("manifest: it can be read as an image and as an index (CVE-2021-41190)")
    kind = said or told or (OCI_INDEX if "manifests" in document else OCI_MANIFEST)
    if kind not in INDEXES | MANIFESTS:
        raise ImageError(f"manifest: the media type {kind} is not known")
    return kind


def _oci_type(descriptor: Descriptor, path: jsonedit.Path) -> str:
    kind = descriptor.media_type
    if kind.startswith("application/vnd.oci."):
        return kind
    if kind not in DOCKER_TO_OCI:
        raise ImageError(f"{jsonedit.where(path)}: the media type {kind} has no OCI counterpart")
    return DOCKER_TO_OCI[kind]


def check_pairs(pairs: Mapping[str, str]) -> None:
    for key, value in pairs.items():
        if not isinstance(key, str) or not key or not isinstance(value, str):
            raise ImageError(f"{key!r}: {value!r} is no pair of texts")
        if re.search("[\ud800-\udfff]", key + value):
            raise ImageError(f"{key!r}: the value is not UTF-8")
