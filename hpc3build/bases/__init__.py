"""Base images: which operating system an image is, by its name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType

from hpc3build.bases.managers import MANAGERS, Manager
from hpc3build.bases.table import BASES, Base
from hpc3build.errors import InputError

__all__ = [
    "BASES",
    "COMPILER_PACKAGES",
    "MANAGERS",
    "PATH",
    "Base",
    "Manager",
    "find",
    "images",
    "known",
    "provided",
    "with_own",
]

#: Where every base has its own programs, for images that say nothing.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: The base's own place in a PATH that a recipe states.
PLACES = ("$PATH", "${PATH}")


def with_own(path: str) -> str:
    """A recipe's own PATH with the base's entries: where it names their place or some of them, else behind."""
    entries = list(dict.fromkeys(PLACES[0] if entry in PLACES else entry for entry in path.split(":")))
    system = PATH.split(":")
    if PLACES[0] in entries:
        at = entries.index(PLACES[0])
        del entries[at]
    else:
        at = max((number for number, entry in enumerate(entries, 1) if entry in system), default=len(entries))
    return ":".join([*entries[:at], *(entry for entry in system if entry not in entries), *entries[at:]])


#: Debian's package of each compiler that is not among the builder's own.
COMPILER_PACKAGES: Mapping[str, str] = MappingProxyType({"clang": "clang", "llvm": "clang"})
# Packages that images of these names bring; Spack's names.
_BRINGS = (
    (re.compile(r"(?:^|/)nvidia/(?:cuda|nvhpc)(?:[:/]|$)"), frozenset({"cuda"})),
    (
        re.compile(r"(?:^|/)rocm/"),
        frozenset({"hip", "hsa-rocr-dev", "llvm-amdgpu", "rocm-core", "comgr", "hsakmt-roct", "rocminfo"}),
    ),
)


#: What Spack's users do about an image that is in no row.
ANY_OTHER = "; any other image: container:images:build and final, with os_packages:command"


def find(image: str, where: str = "", otherwise: str = ANY_OTHER) -> Base:
    """The row for an image by its name and tag, wherever it comes from.

    Raises InputError for an image of which the package manager is not known: ``where`` says who named it,
    ``otherwise`` ends the hint.
    """
    if (base := known(image)) is not None:
        return base
    name = image.split("@")[0]
    rows = [base.image for base in BASES]
    near = difflib.get_close_matches(name, rows, n=1)
    raise InputError(
        f"{where + ': ' if where else ''}the base image {image} is not in the table of operating systems",
        hint=(f"did you mean {near[0]}? " if near else "")
        + f"known are {', '.join(rows)}; another registry's copy (host/path/debian:12) is known by its name and tag"
        + otherwise,
    )


def known(image: str) -> Base | None:
    """The row for an image by its name and tag, wherever it comes from; None for any other."""
    name = image.split("@")[0]
    named = (base for base in BASES if base.names(name))
    return next(named, None) or next((base for base in BASES if base.carries(name)), None)


def images(name: str) -> tuple[str, str]:
    """The images of the build and of the final stage for a name of the table; another image is both."""
    for base in BASES:
        if name == base.image:
            return base.builder or base.pull or name, base.pull or name
    return name, name


def provided(image: str) -> frozenset[str]:
    """Packages, by Spack's names, that an image of this name brings along."""
    name = image.split("@")[0]
    return frozenset().union(*(packages for pattern, packages in _BRINGS if pattern.search(name)))
