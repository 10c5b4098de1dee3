"""Rewriting an image's annotations: first a plan that can be shown, then its writing, the tag last.

Rules of oci.md §8: byte-true edits, the same pairs twice give no write, Docker types are converted to OCI before they
get annotations, and nothing but configuration and manifests is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hpc3build.errors import Contradiction, StoreError, TagMoved
from hpc3build.oci import IMAGE_CONFIGS, ImageConfig, Manifest, digest_of
from hpc3build.reference import Reference
from hpc3build.stores import Store, read_blob

_EMPTY: Mapping[str, str] = {}


@dataclass(frozen=True)
class Rewrite:
    """A plan. ``manifests`` are pairs of an old digest and its new manifest, children first; the last one is tagged.

    ``tag`` is None where an untagged image is rewritten: its successor is untagged too.
    """

    reference: Reference
    tag: str | None
    old_digest: str
    manifests: tuple[tuple[str, Manifest], ...] = ()
    blobs: tuple[bytes, ...] = ()
    converted: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.manifests

    @property
    def new_digest(self) -> str:
        """What the tag names afterwards."""
        return self.manifests[-1][1].digest if self.manifests else self.old_digest


@dataclass(frozen=True)
class Result:
    """What ``apply`` did; ``written`` are digests in the order of writing."""

    reference: Reference
    old_digest: str
    new_digest: str
    changed: bool
    written: tuple[str, ...]
    converted: bool
    warnings: tuple[str, ...]


def plan(
    store: Store,
    reference: Reference,
    *,
    annotations: Mapping[str, str],
    remove: Iterable[str] = (),
    labels: Mapping[str, str] | None = None,
    remove_labels: Iterable[str] = (),
    env: Mapping[str, str] | None = None,
    expect_digest: str | None = None,
) -> Rewrite:
    """Work out what must be written so that the image has these annotations, and labels and variables where given.

    Raises TagMoved when the image is not ``expect_digest``, Contradiction when a label of the image says otherwise
    than an annotation (rule R10), StoreError for an index, and what reading the store raises.
    """
    old = store.manifest(reference.digest or reference.tag)
    if expect_digest is not None and old.digest != expect_digest:
        raise TagMoved(f"{reference} is {old.digest}, not {expect_digest}", hint="look at it, then name its new digest")
    if old.is_index:
        images = ", ".join(str(reference.at(entry.digest)) for entry in old.descriptors[:8])
        raise StoreError(
            f"{reference} is an index of {len(old.descriptors)} images, which cannot be rewritten as a whole yet",
            hint=f"name one image by its digest: {images}",
        )
    config = _configured(store, reference, old, labels or _EMPTY, remove_labels, env or _EMPTY)
    _check_labels(reference, annotations, config.labels if config else _EMPTY)
    changed = config is not None and config.digest != old.config.digest
    new = old.with_config(config.digest, len(config.raw)) if config and changed else old
    removed = tuple(remove)
    # Without annotations to touch, a Docker image stays one.
    converted = old.is_docker and bool(annotations or set(removed) & set(old.annotations))
    if converted:
        new = new.to_oci()
    new = new.with_annotations(annotations, removed)
    tag = reference.tag if reference.tag or reference.digest or reference.image_id else _only_tag(store)
    if new.raw == old.raw:
        return Rewrite(reference, tag, old.digest)
    blobs = (config.raw,) if config and changed else ()
    warnings = _conversion(reference) if converted else ()
    return Rewrite(reference, tag, old.digest, ((old.digest, new),), blobs, converted, warnings)


def apply(store: Store, rewrite: Rewrite) -> Result:
    """Write a plan: blobs, then manifests, the tag last and only if it still names what was read (TagMoved)."""
    written = [store.put_blob(blob) for blob in rewrite.blobs]
    for _, child in rewrite.manifests[:-1]:
        store.put_manifest(child, None)
    for _, manifest in rewrite.manifests[-1:]:
        store.put_manifest(manifest, rewrite.tag, expect=rewrite.old_digest)
    written += [digest_of(manifest.raw) for _, manifest in rewrite.manifests]
    return Result(
        rewrite.reference,
        rewrite.old_digest,
        rewrite.new_digest,
        not rewrite.is_empty,
        tuple(written),
        rewrite.converted,
        rewrite.warnings,
    )


def _configured(
    store: Store,
    reference: Reference,
    manifest: Manifest,
    labels: Mapping[str, str],
    remove_labels: Iterable[str],
    env: Mapping[str, str],
) -> ImageConfig | None:
    """The image's configuration as it is to be; None for an artifact, which has none."""
    if manifest.config.media_type in IMAGE_CONFIGS:
        config = ImageConfig.parse(read_blob(store, manifest.config.digest), manifest.config.digest)
        return config.with_labels(labels, remove_labels).with_env(env)
    if labels or env:
        raise StoreError(f"{reference} is no container image ({manifest.config.media_type}): it has no labels")
    return None


def _check_labels(reference: Reference, annotations: Mapping[str, str], labels: Mapping[str, str]) -> None:
    """Rule R10: runtimes see the label, so an annotation that says otherwise would mislead."""
    wrong = [key for key in sorted(annotations) if labels.get(key, annotations[key]) != annotations[key]]
    if wrong:
        told = "; ".join(f"{key}: the label says {labels[key]!r}, not {annotations[key]!r}" for key in wrong)
        raise Contradiction(
            f"{reference}: labels of the image contradict the annotations: {told}",
            hint="write both with --labels (the image ID changes), or leave the key out",
        )


def _only_tag(store: Store) -> str | None:
    tags = store.tags()
    return tags[0] if tags else None


def _conversion(reference: Reference) -> tuple[str, ...]:
    return (
        f"{reference}: Docker's manifest has no place for annotations, so its media types become OCI's; "
        "configuration and layers keep their digests",
    )
