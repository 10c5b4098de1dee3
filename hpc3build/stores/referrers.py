"""What names an image as its subject, and the tags by which it is found where a registry cannot list it.

Source: distribution-spec 1.1, "Referrers tag schema": the tag sha256-<hex> names an index of the manifests whose
subject is sha256:<hex>. cosign's older tags add .sig, .att or .sbom to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from hpc3build import jsonedit
from hpc3build.errors import ImageError
from hpc3build.oci import OCI_INDEX, Descriptor, Manifest

SIGNATURES = (".sig", ".att", ".sbom")
#: The type of what annotate --attach writes.
ANNOTATIONS = "application/vnd.hpc3build.annotations.v0+json"
#: What the tags of coordinated writers begin with (rewrite.intent).
INTENT = "hpc3build-intent."
_ABOUT = re.compile(r"sha(?:256|512)-[0-9a-f]{64}(?:\.(?:sig|att|sbom))?")


@dataclass(frozen=True)
class About:
    """What refers to one manifest: by its subject, and by cosign's tags."""

    digest: str
    referrers: tuple[Descriptor, ...] = ()
    tags: tuple[str, ...] = ()


@runtime_checkable
class Referrers(Protocol):
    """A store that can tell what refers to a manifest; not every one can (containers-storage)."""

    def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """The manifests whose subject is ``digest``, with their artifact types where known."""

    def signature_tags(self, digest: str) -> tuple[str, ...]:
        """Which of cosign's tags sha256-….sig, .att and .sbom there are for ``digest``."""

    def survey(self, digests: Iterable[str]) -> tuple[About, ...]:
        """Both of several manifests at once; those that nothing refers to are left out."""

    def list_referrer(self, manifest: Manifest, *, replaces: str | None = None) -> str | None:
        """Make a manifest, which has a subject and was put already, findable from it, in the place of ``replaces``.

        Returns the digest of the list that was written, None where the store lists by itself or had it listed.
        """


def fallback_tag(digest: str) -> str:
    """The tag of the list of referrers of ``digest``; longer digests are cut to 64 digits."""
    algorithm, _, name = digest.partition(":")
    return f"{algorithm}-{name[:64]}"


def names_no_image(tag: str | None) -> bool:
    """Whether a tag is that of a list of referrers, one of cosign's, or a writer's intent."""
    return tag is not None and (tag.startswith(INTENT) or _ABOUT.fullmatch(tag) is not None)


def artifact_type(manifest: Manifest) -> str:
    """What a referrer is: its artifactType, else the media type of its configuration."""
    said = manifest.json.get("artifactType")
    if isinstance(said, str) and said:
        return said
    return "" if manifest.is_index else manifest.config.media_type


def with_referrer(listed: Manifest | None, manifest: Manifest, replaces: str | None) -> Manifest:
    """The list of referrers with ``manifest`` in it: where ``replaces`` stood, else at the end.

    Returns ``listed`` itself when nothing changes. Raises ImageError when ``listed`` is no index.
    """
    entry: dict[str, Any] = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size}
    if kind := artifact_type(manifest):
        entry["artifactType"] = kind
    if manifest.annotations:
        entry["annotations"] = dict(manifest.annotations)
    if listed is None:
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
        return Manifest.parse(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())
    if not listed.is_index:
        raise ImageError(f"{listed.digest} has the tag of a list of referrers, but is no index")
    digests = [descriptor.digest for descriptor in listed.descriptors]
    if manifest.digest in digests:
        if replaces is None or replaces not in digests or replaces == manifest.digest:
            return listed
        raw = jsonedit.remove_member(listed.raw, ("manifests", digests.index(replaces)))
        return Manifest.parse(raw, listed.media_type)
    position = digests.index(replaces) if replaces in digests else len(digests)
    return Manifest.parse(jsonedit.set_member(listed.raw, ("manifests", position), entry), listed.media_type)
