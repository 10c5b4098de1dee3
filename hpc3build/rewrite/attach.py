"""Annotations beside an image instead of in it: a referrer (OCI 1.1), which leaves the image's digest as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from hpc3build.errors import InputError, StoreError
from hpc3build.jsonread import EMPTY
from hpc3build.oci import OCI_MANIFEST, Manifest, digest_of
from hpc3build.reference import Reference
from hpc3build.rewrite.plan import check_labels, platform_name, read
from hpc3build.rewrite.target import DEFAULT, Target
from hpc3build.rewrite.tree import Reader
from hpc3build.rewrite.write import Result, notes_of
from hpc3build.stores import Store
from hpc3build.stores.referrers import ANNOTATIONS, Referrers

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY_BLOB = b"{}"


@dataclass(frozen=True)
class Attachment:
    """A plan: the referrers to write, each about one manifest; none where they are listed already."""

    reference: Reference
    digest: str
    manifests: tuple[Manifest, ...]
    warnings: tuple[str, ...] = ()


def plan_attachment(
    store: Store,
    reference: Reference,
    *,
    annotations: Mapping[str, str],
    of_images: Mapping[str, Mapping[str, str]] | None = None,
    expect_digest: str | None = None,
    target: Target = DEFAULT,
) -> Attachment:
    """Referrers that say ``annotations``: of what the reference names, or of the images that ``target`` chooses.

    ``of_images`` has, by their digests, what is said of single images instead.

    Raises what ``plan`` raises, and StoreError where the store has no referrers.
    """
    if target.index_only or target.descriptors:
        raise InputError(
            "a referrer is about a whole manifest: --index-only and --descriptors mean nothing with --attach"
        )
    if not isinstance(store, Referrers):
        raise StoreError(
            f"{reference}: nothing can be attached to an image in {reference.transport}",
            hint="annotate it there without --attach, or push it and attach in the registry",
        )
    named = read(store, reference, expect_digest)
    reader = Reader(store, target)
    subjects = _subjects(reader, reference, named, target)
    manifests, warnings = [], []
    for subject in subjects:
        config = reader.config(subject)
        said = (of_images or {}).get(subject.digest, annotations)
        if not said:  # nothing was found in it
            continue
        check_labels(str(reference.at(subject.digest)), said, config.labels if config else EMPTY)
        new = referrer(subject, said)
        others = [found for found in store.referrers(subject.digest) if found.artifact_type == ANNOTATIONS]
        if new.digest not in {found.digest for found in others}:
            manifests.append(new)
        others = [found for found in others if found.digest != new.digest]
        if others:
            told = ", ".join(found.digest for found in others)
            warnings.append(f"{subject.digest} has other referrers with annotations, which stay: {told}")
    return Attachment(reference, named.digest, tuple(manifests), tuple(warnings))


def attach(store: Store, attachment: Attachment) -> Result:
    """Write them: the empty configuration, each referrer, its place in the list of referrers. The image stays."""
    written: list[str] = []
    if attachment.manifests:
        written.append(store.put_blob(EMPTY_BLOB))
    for manifest in attachment.manifests:
        store.put_manifest(manifest, None)
        written.append(manifest.digest)
        if isinstance(store, Referrers) and (listed := store.list_referrer(manifest)):
            written.append(listed)
    digest, changed = attachment.digest, bool(attachment.manifests)
    warnings = (*attachment.warnings, *notes_of(store))
    attached = tuple(manifest.digest for manifest in attachment.manifests)
    return Result(attachment.reference, digest, digest, changed, tuple(written), False, warnings, attached=attached)


def referrer(subject: Manifest, annotations: Mapping[str, str]) -> Manifest:
    """The same subject and pairs give the same bytes."""
    return annotations_alone(ANNOTATIONS, dict(sorted(annotations.items())), subject)


def annotations_alone(artifact_type: str, annotations: Mapping[str, str], subject: Manifest | None = None) -> Manifest:
    """An artifact that is nothing but its annotations (image-spec 1.1, "Guidelines for Artifact Usage")."""
    empty = {"mediaType": EMPTY_TYPE, "digest": digest_of(EMPTY_BLOB), "size": len(EMPTY_BLOB), "data": "e30="}
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": empty,
        "layers": [empty],
    }
    if subject is not None:
        document["subject"] = {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size}
    document["annotations"] = annotations
    return Manifest.parse(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def _subjects(reader: Reader, reference: Reference, named: Manifest, target: Target) -> list[Manifest]:
    if not target.on_images:
        return [named]
    if not named.is_index:
        if not target.chooses(platform := reader.platform(named)):
            raise InputError(f"{reference} is one image, for {platform_name(platform)}: not the platform wished")
        return [named]
    nodes = list(reader.tree(named).walk())
    chosen = {node.manifest.digest: node.manifest for node in nodes if node.chosen and node.manifest is not None}
    if not chosen:
        raise InputError(f"{reference} has no image for {', '.join(map(str, target.platforms)) or 'any platform'}")
    return list(chosen.values())
