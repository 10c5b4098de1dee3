"""An index with what it lists, read as far as needed, and the folding of changes from images up to the index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpc3build import jsonedit
from hpc3build.errors import ImageError, StoreError
from hpc3build.imageconfig import ImageConfig
from hpc3build.jsonread import EMPTY
from hpc3build.oci import IMAGE_CONFIGS, INDEXES, MANIFESTS, REFERENCE_DIGEST, Descriptor, Manifest, repointing
from hpc3build.rewrite.target import Target
from hpc3build.stores import Store, is_absence, read_blob

MAX_DEPTH = 8
MAX_NODES = 4096

Path = tuple[int, ...]
PairsEdit = tuple[Mapping[str, str], tuple[str, ...]]


@dataclass(frozen=True)
class Node:
    """A manifest in its place.

    ``path`` are the positions on the way from the index that was named. ``manifest`` is None where it needn't be, or
    could not be, read; ``chosen`` tells whether the target means this image.
    """

    path: Path
    manifest: Manifest | None
    descriptor: Descriptor | None = None
    children: tuple[Node, ...] = ()
    platform: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    chosen: bool = False

    @property
    def is_index(self) -> bool:
        """Whether it lists others."""
        return (
            self.descriptor.media_type in INDEXES if self.descriptor else bool(self.manifest and self.manifest.is_index)
        )

    def walk(self) -> Iterator[Node]:
        """This node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


class Reader:
    """Reads trees out of a store, each manifest and configuration once."""

    def __init__(self, store: Store, target: Target) -> None:
        self._store = store
        self._target = target
        self._manifests: dict[str, Manifest] = {}
        self._configs: dict[str, ImageConfig] = {}
        self._count = 0

    def tree(self, manifest: Manifest, *, compare: Callable[[Descriptor], bool] = lambda _: False) -> Node:
        """An index and the images below it that are meant, and those whose descriptors ``compare`` chooses.

        Raises ImageError where a descriptor lies about what it names, or the nesting is that of no honest image.
        """
        return Node((), manifest, None, self._children(manifest, (), compare))

    def config(self, manifest: Manifest) -> ImageConfig | None:
        """The configuration; None for an index and an artifact."""
        if manifest.is_index or manifest.config.media_type not in IMAGE_CONFIGS:
            return None
        digest = manifest.config.digest
        if digest not in self._configs:
            self._configs[digest] = ImageConfig.parse(read_blob(self._store, digest), digest)
        return self._configs[digest]

    def platform(self, manifest: Manifest) -> Mapping[str, str]:
        """What an image's configuration says it runs on."""
        config = self.config(manifest)
        return EMPTY if config is None else config.platform

    def _children(self, manifest: Manifest, path: Path, compare: Callable[[Descriptor], bool]) -> tuple[Node, ...]:
        self._count += len(manifest.descriptors)
        if len(path) > MAX_DEPTH or self._count > MAX_NODES:
            raise ImageError(f"{manifest.digest}: more than {MAX_DEPTH} indexes deep, or {MAX_NODES} manifests")
        children = []
        for position, entry in enumerate(manifest.descriptors):
            if entry.media_type in INDEXES | MANIFESTS and not entry.is_attestation:
                children.append(self._node(entry, (*path, position), compare))
        return tuple(children)

    def _node(self, entry: Descriptor, path: Path, compare: Callable[[Descriptor], bool]) -> Node:
        if entry.media_type in INDEXES:
            if not self._target.is_deep:
                return Node(path, None, entry, chosen=True)
            manifest = self._child(entry)
            return Node(path, manifest, entry, self._children(manifest, path, compare))
        platform = entry.platform
        if platform is None:
            platform = self.platform(self._child(entry)) if self._target.platforms else EMPTY
        if not self._target.chooses(platform):
            return Node(path, None, entry, platform=platform)
        found = None
        if self._target.on_images:
            found = self._child(entry)
        elif compare(entry):
            try:
                found = self._child(entry)
            except StoreError as error:  # an index copied without all of its images: its own text can be edited still
                if not is_absence(error):
                    raise
        return Node(path, found, entry, platform=platform, chosen=True)

    def _child(self, entry: Descriptor) -> Manifest:
        if entry.digest not in self._manifests:
            self._manifests[entry.digest] = self._store.manifest(entry.digest)
        manifest = self._manifests[entry.digest]
        if (manifest.size, manifest.media_type) != (entry.size, entry.media_type):
            raise ImageError(
                f"{entry.digest} is {manifest.media_type} of {manifest.size} bytes, "
                f"its index says {entry.media_type} of {entry.size}"
            )
        return manifest


@dataclass
class Fold:
    """What changes, by path: new images, pairs of descriptors, pairs of indexes.

    ``changed`` are the old and the new manifests in writing order, by the old digest: several may become one;
    ``relinked`` counts attestations that follow their image.
    """

    images: Mapping[Path, Manifest]
    descriptors: Mapping[Path, PairsEdit]
    indexes: Mapping[Path, PairsEdit]
    changed: dict[str, tuple[Manifest, Manifest]] = field(default_factory=dict)
    relinked: int = 0
    _renamed: dict[str, str] = field(default_factory=dict)

    def apply(self, root: Node) -> None:
        """Fill ``changed``: every digest and size above a change follows it."""
        for node in root.walk():
            if node.path in self.images and node.manifest is not None:
                self._note(node.manifest, self.images[node.path])
        self._new(root)

    def _note(self, old: Manifest, new: Manifest) -> None:
        if new != old:
            self._renamed[old.digest] = new.digest
            self.changed[old.digest] = (old, new)

    def _new(self, node: Node) -> Manifest | None:
        """What ``node`` becomes, None when it stays."""
        old = node.manifest
        if old is None or not node.is_index:
            new = self.images.get(node.path)
            return None if new == old else new
        news = ((child.path[-1], self._new(child)) for child in node.children)
        below = [(at, new) for at, new in news if new is not None]
        edits = _Edits()
        for position, new in below:
            edits.add(*repointing(("manifests", position), new))
        self._relink(edits, old, dict(below))
        asked = False
        for position, entry in enumerate(old.descriptors):
            if edit := self.descriptors.get((*node.path, position)):
                edits.add_pairs(("manifests", position, "annotations"), edit)
                asked = asked or touches(edit, entry.annotations)
        if edit := self.indexes.get(node.path):
            edits.add_pairs(("annotations",), edit)
            asked = asked or touches(edit, old.annotations)
        raw = jsonedit.edit(old.raw, edits.values, edits.removed)
        manifest = old if raw == old.raw else Manifest.parse(raw, old.media_type)
        # Docker's list has no annotations, and lists nothing but Docker's own types.
        if old.is_docker and (asked or any(not new.is_docker for _, new in below)):
            manifest = manifest.to_oci()
        self._note(old, manifest)
        return None if manifest == old else manifest

    def _relink(self, edits: _Edits, old: Manifest, below: Mapping[int, Manifest]) -> None:
        # Of an image that is listed twice one may stay as it is, and with it what is said of it.
        kept = {entry.digest for position, entry in enumerate(old.descriptors) if position not in below}
        for position, entry in enumerate(old.descriptors):
            about = entry.annotations.get(REFERENCE_DIGEST, "")
            new = self._renamed.get(about)
            if new is not None and about not in kept:
                edits.values.append((("manifests", position, "annotations", REFERENCE_DIGEST), new))
                self.relinked += 1


@dataclass
class _Edits:
    """Of one document, made at once: large indexes have hundreds."""

    values: list[tuple[jsonedit.Path, Any]] = field(default_factory=list)
    removed: list[jsonedit.Path] = field(default_factory=list)

    def add(self, values: list[tuple[jsonedit.Path, Any]], removed: list[jsonedit.Path]) -> None:
        self.values += values
        self.removed += removed

    def add_pairs(self, path: jsonedit.Path, edit: PairsEdit) -> None:
        pairs, removed = edit
        self.values += [((*path, key), pairs[key]) for key in sorted(pairs)]
        self.removed += [(*path, key) for key in removed if key not in pairs]


def touches(edit: PairsEdit, annotations: Mapping[str, str]) -> bool:
    """Whether an edit leaves, or takes away, annotations where Docker's types have no place for them."""
    pairs, removed = edit
    return bool(pairs or set(removed) & set(annotations))
