"""What of an index is meant.

Without options an index gets the pairs as its own annotations, and the discriminating ones (vocabulary rule N4) on the
descriptors of its images. That changes no image's digest, so signatures and attestations of the images stay valid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hpc3build.errors import InputError
from hpc3build.facts import Place
from hpc3build.facts import vocabulary as voc

_PART = r"[A-Za-z0-9._-]+"
_PLATFORM = re.compile(rf"({_PART})(?:/({_PART}))?(?:/({_PART}))?(?::({_PART}))?")
_MEMBERS = ("os", "architecture", "variant", "os.version")


@dataclass(frozen=True)
class Platform:
    """A wished platform; empty members are not compared (go-containerregistry's Platform.Satisfies)."""

    os: str
    architecture: str = ""
    variant: str = ""
    os_version: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """``OS[/ARCHITECTURE[/VARIANT]][:OSVERSION]``. Raises InputError."""
        found = _PLATFORM.fullmatch(text)
        if not found:
            raise InputError(f"--platform {text}: expected OS/ARCHITECTURE[/VARIANT]", hint="as in linux/amd64/v3")
        return cls(*(part or "" for part in found.groups()))

    def fits(self, platform: Mapping[str, str]) -> bool:
        """Whether a platform object of an index satisfies the wish: ``linux/amd64`` is met by every variant."""
        wished = (self.os, self.architecture, self.variant, self.os_version)
        return all(not want or platform.get(name) == want for name, want in zip(_MEMBERS, wished, strict=True))

    def __str__(self) -> str:
        text = "/".join(part for part in (self.os, self.architecture, self.variant) if part)
        return f"{text}:{self.os_version}" if self.os_version else text


@dataclass(frozen=True, kw_only=True)
class Target:
    """Which parts of an index get the pairs. Raises InputError for options that exclude each other.

    ==================  ==================  ===========================  =====================
    option              index's own         descriptors                  images' own
    ==================  ==================  ===========================  =====================
    none                all pairs           discriminating, direct ones  -
    index_only          all pairs           -                            -
    descriptors         -                   of all images, or platforms  -
    platforms           -                   discriminating, of these     all pairs, of these
    all_children        all pairs, nested   discriminating, of all       all pairs, of all
    ==================  ==================  ===========================  =====================
    """

    platforms: tuple[Platform, ...] = ()
    all_children: bool = False
    index_only: bool = False
    descriptors: bool = False

    def __post_init__(self) -> None:
        chosen = [
            option
            for option, given in (
                ("--all-children", self.all_children),
                ("--index-only", self.index_only),
                ("--descriptors", self.descriptors),
            )
            if given
        ]
        if len(chosen) > 1:
            raise InputError(f"{' and '.join(chosen)} exclude each other")
        if self.platforms and chosen and not self.descriptors:
            raise InputError(f"--platform and {chosen[0]} exclude each other")

    @property
    def on_index(self) -> bool:
        """Whether the index itself gets the pairs."""
        return not (self.platforms or self.descriptors)

    @property
    def on_images(self) -> bool:
        """Whether images get the pairs: their digests change."""
        return self.all_children or (bool(self.platforms) and not self.descriptors)

    @property
    def on_descriptors(self) -> bool:
        """Whether descriptors get pairs."""
        return not self.index_only

    @property
    def is_deep(self) -> bool:
        """Whether indexes inside the index are looked into."""
        return self.all_children or self.descriptors or bool(self.platforms)

    def chooses(self, platform: Mapping[str, str]) -> bool:
        """Whether an image of this platform is meant."""
        return not self.platforms or any(wish.fits(platform) for wish in self.platforms)


DEFAULT = Target()


def for_descriptors(pairs: Mapping[str, str], target: Target) -> Mapping[str, str]:
    """The pairs that belong on descriptors: discriminators; with ``descriptors`` also keys that are not ours.

    The vocabulary's version alone says nothing there.
    """
    kept = {
        key: value for key, value in pairs.items() if _discriminates(key) or (target.descriptors and not _known(key))
    }
    return MappingProxyType({} if set(kept) == {voc.VOCABULARY.name} else kept)


def _known(key: str) -> bool:
    return key in voc.BY_NAME


def _discriminates(key: str) -> bool:
    return _known(key) and bool(voc.BY_NAME[key].place & Place.DESCRIPTOR)
