"""``index create`` and ``index annotate``: images that are there become one index that every runtime can use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from hpc3build import index as rules
from hpc3build.errors import InputError
from hpc3build.facts.labels import declared
from hpc3build.imageconfig import ImageConfig
from hpc3build.index import Flavour
from hpc3build.jsonread import EMPTY
from hpc3build.oci import IMAGE_CONFIGS, INDEXES, Manifest
from hpc3build.reference import Reference
from hpc3build.rewrite.survey import follow, start
from hpc3build.run import Runner
from hpc3build.stores import Store, named, open_store, open_target, read_blob, tag_to_write
from hpc3build.stores.access import Access


@dataclass(frozen=True)
class Indexed:
    """What was (or would be) written."""

    reference: Reference
    old_digest: str | None
    manifest: Manifest
    warnings: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether the tag names another index afterwards."""
        return self.manifest.digest != self.old_digest


def create(
    reference: Reference,
    images: Sequence[Reference],
    runner: Runner,
    access: Access | None = None,
    *,
    first_as_default: bool = False,
    dry_run: bool = False,
) -> Indexed:
    """Make an index of images, or of the images of indexes, and tag it ``reference``.

    An image that is named twice is listed once, and that is told. What lies elsewhere is copied, or mounted where it
    lies in the same registry. Raises InputError, and what the stores raise.
    """
    if reference.digest is not None:
        raise InputError(f"{reference}: an index gets a tag, not a digest")
    with ExitStack() as stack:
        # A dry run makes no layout; where nothing comes from there, it need not even be.
        here = not dry_run or any(_same_place(image, reference) for image in images)
        opened = open_store if dry_run else open_target
        store = stack.enter_context(opened(reference, runner, access)) if here else None
        flavours: list[Flavour] = []
        sources: list[tuple[Store, Manifest]] = []
        for image in images:
            near = _same_place(image, reference)
            source = store if near and store else stack.enter_context(open_store(image, runner, access))
            manifest = named(source, image)
            found = (
                list(_children(source, manifest)) if manifest.is_index else [(manifest, _of_image(source, manifest))]
            )
            flavours += [flavour for _, flavour in found]
            if not near:
                sources += [(source, child) for child, _ in found]
        once = list({flavour.descriptor["digest"]: flavour for flavour in reversed(flavours)}.values())[::-1]
        entries = rules.arrange(once, first_as_default=first_as_default)
        manifest = rules.compose(entries)
        if not dry_run and store is not None:
            for source, child in sources:
                _copy(store, source, child)
            store.put_manifest(manifest, tag_to_write(reference))
        return Indexed(reference, None, manifest, (*_repeated(flavours), *_warnings(entries)))


def annotate(
    reference: Reference,
    runner: Runner,
    access: Access | None = None,
    *,
    first_as_default: bool = False,
    dry_run: bool = False,
) -> Indexed:
    """Reorder an index and annotate its descriptors with what its images say; no image changes.

    Raises InputError for what is no index, and what the store raises.
    """
    with open_store(reference, runner, access) as store:
        old = named(store, reference)
        if not old.is_index:
            raise InputError(f"{reference} is one image, no index", hint="hpc3build annotate is for images")
        flavours = [flavour for _, flavour in _children(store, old)]
        entries = rules.arrange(flavours, first_as_default=first_as_default)
        new = rules.compose(entries, old)
        warnings = _warnings(entries)
        if new.digest != old.digest:
            warnings += follow(store, start(store, [old.digest])(), {}, move=False).told
            if not dry_run:
                store.put_manifest(new, tag_to_write(reference, store), expect=old.digest)
        return Indexed(reference, old.digest, new, warnings)


def _children(store: Store, index: Manifest) -> Iterator[tuple[Manifest, Flavour]]:
    """The images of an index with what they say, its attestations as they are."""
    for child, members in zip(index.descriptors, index.json["manifests"], strict=True):
        platform = members.get("platform") or {}
        if child.is_attestation:
            yield store.manifest(child.digest), Flavour(members, platform, attestation=True)
        elif child.media_type in INDEXES:
            raise InputError(f"{child.digest} in the index is an index itself", hint="name its images one by one")
        else:
            manifest = store.manifest(child.digest)
            found = _of_image(store, manifest, child.annotations)
            yield manifest, replace(found, descriptor=members, platform={**found.platform, **platform})


def _of_image(store: Store, manifest: Manifest, told: Mapping[str, str] = EMPTY) -> Flavour:
    """Labels over annotations over what its descriptor told, as rule R10 has it."""
    if manifest.config.media_type not in IMAGE_CONFIGS:
        raise InputError(f"{manifest.digest} is no container image ({manifest.config.media_type})")
    config = ImageConfig.parse(read_blob(store, manifest.config.digest), manifest.config.digest)
    pairs = declared(manifest.annotations, config.labels, told)
    descriptor = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size}
    return Flavour(descriptor, config.platform, pairs, manifest.layers_size)


def _same_place(image: Reference, index: Reference) -> bool:
    return (image.transport, image.registry, image.name) == (index.transport, index.registry, index.name)


def _copy(store: Store, source: Store, manifest: Manifest) -> None:
    for blob in manifest.descriptors:
        if not blob.is_foreign:
            store.copy_blob(blob, source)
    store.put_manifest(manifest, None)


def _repeated(flavours: Sequence[Flavour]) -> tuple[str, ...]:
    counts = Counter(flavour.descriptor["digest"] for flavour in flavours)
    return tuple(f"{digest}: named {count} times, listed once" for digest, count in counts.items() if count > 1)


def _warnings(entries: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(
        f"{digest}: its descriptor says the same as an earlier one's, so nothing picks it"
        for digest in rules.twins(entries)
    )
