"""Several images as one index, so that every runtime picks something that runs, and ``pick`` the best.

Rules (docs/match.md; how runtimes choose: image-spec image-index.md, containerd/platforms, containers/image, crane,
enroot): entry 0 is the most generic and has no variant; then the plain levels v2, v3, v4 by ``platform.variant``; then
what only descriptor annotations tell apart. Such a flavour has the variant of its level where the plain image of that
level stands before it, else none: a runtime that goes by variants must never meet it first.
``features`` and ``os.features`` are not used: containerd takes them for requirements.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hpc3build.errors import InputError
from hpc3build.facts import Place, cpu
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.labels import over
from hpc3build.jsonread import EMPTY
from hpc3build.match.seal import DECIDING, seal
from hpc3build.oci import OCI_INDEX, Manifest

#: What amd64's generic targets are as variants; the lowest needs none.
LEVELS = MappingProxyType({target: "" if variant == "v1" else variant for variant, target in cpu.VARIANTS.items()})
#: What tells images apart (rule N4), and what else decides whether they run; the rest of D is about one image.
_DISCRIMINATORS = tuple(
    key for key in voc.KEYS if (Place.DESCRIPTOR in key.place and key not in (voc.SIZE, voc.SEAL)) or key in DECIDING
)


@dataclass(frozen=True)
class Flavour:
    """An image for an index. ``descriptor`` are the members that it has or had there, ``pairs`` what the image says,
    ``size`` the bytes of its layers.

    Attestations keep their descriptor as it is.
    """

    descriptor: Mapping[str, Any]
    platform: Mapping[str, Any]
    pairs: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    size: int | None = None
    attestation: bool = False

    @property
    def kind(self) -> tuple[str, str]:
        """System and architecture: one runs nothing of another."""
        return str(self.platform.get("os")), str(self.platform.get("architecture"))

    @property
    def target(self) -> str | None:
        """The CPU target, None when unknown."""
        found = voc.CPU_VERSION.value_in(self.pairs)
        return cpu.MACHINES.get(found or "", found)

    @property
    def level(self) -> str | None:
        """The generic target below the image's own: x86_64_v3 of zen3."""
        known = cpu.microarchitecture(self.target) if self.target else None
        return None if known is None else str(known.generic.name)

    @property
    def is_plain(self) -> bool:
        """Whether every host of its level runs it: a generic target, and no GPU."""
        return self.target is not None and self.target == self.level and self.pairs.get(voc.GPU.name) == "none"

    @property
    def is_baseline(self) -> bool:
        """Whether every host of its architecture runs it."""
        known = cpu.microarchitecture(self.target) if self.target else None
        return self.is_plain and known is not None and not known.ancestors

    def discriminators(self) -> dict[str, str]:
        """What belongs on its descriptor, by the newest spelling: the pairs that tell images apart, or decide."""
        found: dict[str, str] = {}
        for key in _DISCRIMINATORS:
            value = key.value_in(self.pairs)
            if value is not None and key.holds(value):
                found[key.name] = cpu.MACHINES.get(value, value) if key is voc.CPU_VERSION else value
        if set(found) - {voc.VOCABULARY.name}:
            found.setdefault(voc.VOCABULARY.name, voc.VERSION)
        return dict(sorted(found.items()))


def arrange(flavours: Sequence[Flavour], *, first_as_default: bool = False) -> list[dict[str, Any]]:
    """The descriptors in their order, with platform and annotations.

    Raises InputError where an architecture of a system has no baseline flavour, unless its first one is declared to be
    that. Linux comes first: entry 0 is what runtimes take that know of no platforms.
    """
    images = [flavour for flavour in flavours if not flavour.attestation]
    entries: list[dict[str, Any]] = []
    late: list[dict[str, Any]] = []
    for kind in sorted(dict.fromkeys(image.kind for image in images), key=lambda kind: kind[0] != "linux"):
        group = [image for image in images if image.kind == kind]
        first = _first(group, kind, first_as_default)
        rest = [image for image in group if image is not first]
        levels = [level for level in LEVELS if LEVELS[level]]
        plain = {level: _plain(rest, level, first) for level in levels}
        entries.append(_entry(first, ""))
        for level, image in plain.items():
            if image is not None:
                entries.append(_entry(image, LEVELS[level]))
        chosen = [id(image) for image in plain.values() if image is not None]
        others = sorted((image for image in rest if id(image) not in chosen), key=_specificity)
        late += [
            _entry(image, LEVELS.get(image.level or "", "") if plain.get(image.level or "") else "") for image in others
        ]
    return [*entries, *late, *(dict(flavour.descriptor) for flavour in flavours if flavour.attestation)]


def _plain(group: Sequence[Flavour], level: str, first: Flavour) -> Flavour | None:
    """The image that stands for a level: of several, one with the MPI of entry 0."""
    found = [image for image in group if image.is_plain and image.level == level]
    return min(found, key=lambda image: image.pairs.get(voc.MPI.name) != first.pairs.get(voc.MPI.name), default=None)


def _first(group: Sequence[Flavour], kind: tuple[str, str], first_as_default: bool) -> Flavour:
    baselines = [image for image in group if image.is_baseline]
    if baselines:
        return min(baselines, key=lambda image: image.pairs.get(voc.MPI.name, "") != "none")
    if first_as_default:
        return group[0]
    there = ", ".join(sorted({image.target or "unknown" for image in group}))
    architecture = kind[1] if kind[0] == "linux" else "/".join(kind)
    raise InputError(
        f"no image of {architecture} runs on all hosts of that architecture (CPU targets: {there})",
        hint="runtimes take the first entry: add an image of a generic target without GPU, or --first-as-default",
    )


def _specificity(image: Flavour) -> tuple[int, int]:
    """Generic before microarchitecture, without GPU before with one; images that say nothing come last."""
    known = cpu.microarchitecture(image.target) if image.target else None
    return (len(known.ancestors) if known is not None else 1000, int(image.pairs.get(voc.GPU.name) != "none"))


def _entry(image: Flavour, variant: str) -> dict[str, Any]:
    members = {**image.descriptor}
    platform = {name: value for name, value in image.platform.items() if name not in ("features", "os.features")}
    if image.target is not None or variant:
        platform.pop("variant", None)
    if variant:
        platform["variant"] = variant
    there = members.pop("annotations", None) or {}
    # What labels leave in doubt is no longer among the pairs.
    told = over({name: value for name, value in there.items() if name in image.pairs}, image.discriminators())
    told.pop(voc.SEAL.name, None)
    if image.size is not None:
        told[voc.SIZE.name] = str(image.size)
        if _says_all(image, platform, told):
            told[voc.SEAL.name] = seal(members["digest"], platform, told, image.size)
    return {**members, "platform": platform, **({"annotations": told} if told else {})}


def _says_all(image: Flavour, platform: Mapping[str, Any], told: Mapping[str, str]) -> bool:
    """Whether a reader of the image learns no more of what decides than its descriptor says.

    Values that are none of their key's are not on descriptors. Of an image that says nothing of its CPU, what is
    attached to it may count, and nobody knows what will be.
    """
    if image.target is None or not (platform.get("os") and platform.get("architecture")):
        return False
    known = {**told, **image.pairs}
    return all(key.value_in(known) == key.value_in(told) for key in DECIDING)


def twins(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Digests of entries that nothing tells apart from one before them: no runtime ever picks those."""
    seen: dict[str, str] = {}
    found = []
    for entry in entries:
        pairs = entry.get("annotations") or {}
        told = {key.name: key.value_in(pairs) for key in _DISCRIMINATORS}
        sign = json.dumps([entry.get("platform"), told], sort_keys=True)
        if seen.setdefault(sign, str(entry.get("digest"))) != entry.get("digest"):
            found.append(str(entry.get("digest")))
    return found


def compose(entries: Sequence[Mapping[str, Any]], old: Manifest | None = None) -> Manifest:
    """The index of these entries; of an old index every other member stays, and equal entries give ``old`` itself."""
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX}
    if old is not None:
        if list(old.json.get("manifests", ())) == [dict(entry) for entry in entries]:
            return old
        document = dict(old.to_oci().json)
    document["manifests"] = [dict(entry) for entry in entries]
    raw = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return Manifest.parse(raw, OCI_INDEX)
