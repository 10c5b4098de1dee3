"""``annotate --detect``: what the evidence inside an image, or inside each image of an index, has it say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from hpc3build import rewrite
from hpc3build.errors import InputError
from hpc3build.facts import Conflict, Fact, Source, gather
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.carried import stale
from hpc3build.jsonread import EMPTY
from hpc3build.oci import Manifest
from hpc3build.reference import Reference
from hpc3build.stores import Store, named

if TYPE_CHECKING:  # it reads layers, which most commands do not
    from hpc3build.workflows.describe import Depth


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How deep to look, and into which images of an index. ``given`` are the user's pairs, ``removed`` the keys that
    the user takes away; ``labels`` tells whether labels are written, too."""

    depth: Depth | None = None
    target: rewrite.Target = rewrite.DEFAULT
    given: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    removed: frozenset[str] = frozenset()
    labels: bool = False

    @property
    def decided(self) -> frozenset[str]:
        """The keys of which the user has the last word."""
        return self.removed | set(self.given)


@dataclass(frozen=True)
class Detected:
    """What the evidence inside an image says: the pairs to write, and where it does not agree.

    ``stale`` are pairs that it proves untrue, each with why, and ``dropped`` those of them that nothing replaces.
    Of an index ``images`` has all that, by the digests of its images. ``digest`` is what was looked at.
    """

    digest: str | None = None
    pairs: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    conflicts: tuple[Conflict, ...] = ()
    stale: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    dropped: tuple[str, ...] = ()
    images: Mapping[str, Detected] = field(default_factory=lambda: MappingProxyType({}))

    def told(self, result: rewrite.Result) -> rewrite.Result:
        """``result`` with the conflicts and what was stale as warnings."""
        warnings = [*self._warnings()]
        conflicts = [*self.conflicts]
        for digest, image in self.images.items():
            warnings += [f"{digest}: {warning}" for warning in image._warnings()]
            conflicts += image.conflicts
        undecided = tuple(dict.fromkeys(conflict.key.name for conflict in conflicts))
        return replace(result, warnings=(*result.warnings, *warnings), undecided=undecided)

    def _warnings(self) -> Iterator[str]:
        for name, why in self.stale.items():
            yield f"{name} is no longer true: it said {why}"
        for conflict in self.conflicts:
            name = conflict.key.name
            yield f"{name} is left as it is: {conflict.message} (-a {name}=VALUE decides)"


def detect(store: Store, reference: Reference, asked: Asked) -> Detected:
    """Look into what the reference names. Raises InputError for an index of which no image is meant."""
    manifest = named(store, reference)
    if not manifest.is_index:
        return _of_image(store, reference, asked)
    target = asked.target
    if not (target.on_images or target.descriptors):
        count = len(manifest.descriptors)
        raise InputError(
            f"{reference} is an index of {count} manifest{'s'[: count != 1]}, and evidence is inside images",
            hint="say which: --all-children, or --platform OS/ARCH; --descriptors leaves the images as they are, and "
            "annotates their descriptors alone",
        )
    found = {digest: _of_image(store, reference.at(digest), asked) for digest in _images(store, manifest, target)}
    return Detected(manifest.digest, images=MappingProxyType(found))


def _images(store: Store, index: Manifest, target: rewrite.Target) -> Iterator[str]:
    """The digests of the container images that are meant, each once; artifacts hold no evidence."""
    reader = rewrite.Reader(store, target)
    chosen = (node.manifest for node in reader.tree(index, compare=lambda _: True).walk() if node.chosen)
    there = {one.digest: one for one in chosen if one is not None}
    return (digest for digest, one in there.items() if reader.config(one) is not None)


def _of_image(store: Store, reference: Reference, asked: Asked) -> Detected:
    """What only a label says stays a label; a key that the user decides is no conflict."""
    from hpc3build.workflows.describe import DEFAULT, describe

    described = describe(store, reference, depth=asked.depth or DEFAULT)
    facts = described.facts
    pairs = {
        key.name: fact.value
        for key, fact in facts.items()
        if fact.source is not Source.LABEL or not fact.evidence.startswith("label ")
    }
    conflicts = tuple(conflict for conflict in facts.conflicts if conflict.key.name not in asked.decided)
    labels = {key: value for key, value in described.config.labels.items() if asked.labels}
    # What the user says makes other pairs untrue, as what was found does.
    word = [Fact(key, asked.given[key.name], Source.USER, "-a") for key in voc.KEYS if key.name in asked.given]
    untrue = stale({**described.manifest.annotations, **labels}, gather([*word, *facts.values()]))
    untrue = {key: why for key, why in untrue.items() if key not in asked.decided}
    dropped = tuple(key for key in untrue if pairs.get(key) is None)
    return Detected(described.manifest.digest, pairs, conflicts, untrue, dropped)
