"""Records of package managers in an image: which of the packages that matter to HPC are installed, and their versions.

One module a manager, each with ``wanted`` (what it reads) and ``read``; ``installed`` asks them all. Packages outside
``MATTER`` are passed over: a list of everything is what an SBOM is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from types import ModuleType

from hpc3build.evidence.layers import ImageFiles
from hpc3build.evidence.packages.record import MATTER, MAX_BYTES, Installed

#: Python packages whose libraries are an application's own code, by the folder that they are imported from.
_FRAMEWORKS = {"torch": "torch", "pytorch": "torch", "tensorflow": "tensorflow", "jaxlib": "jaxlib", "mpi4py": "mpi4py"}


def frameworks(found: Iterable[Installed]) -> tuple[str, ...]:
    """The folders, below ``site-packages``, of those that pip or conda installed."""
    return tuple(
        dict.fromkeys(
            folder
            for package in found
            if package.manager in ("pip", "conda")
            for name, folder in _FRAMEWORKS.items()
            if package.name.partition("-")[0] == name
        )
    )


@cache
def managers() -> tuple[ModuleType, ...]:
    """All readers."""
    from hpc3build.evidence.packages import apk, conda, dpkg, pip, rpm

    return dpkg, rpm, apk, conda, pip


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``, for readers of layers."""
    asked = (manager.wanted(path) for manager in managers())
    return max((count for count in asked if count is not None), default=None)


def scan(path: str, size: int, pieces: Iterator[bytes]) -> object:
    """Of the records for which ``wanted`` says SCAN what is kept; None for all other files."""
    from hpc3build.evidence.packages import rpm

    return rpm.scan(path, size, pieces) if path in rpm.DATABASES else None


def unread(files: ImageFiles) -> Iterator[tuple[str, str]]:
    """Paths of records that are there and could not be read, and why."""
    from hpc3build.evidence.packages import rpm

    return ((path, database.unread) for path, database in rpm.databases(files) if database.unread)


def installed(files: ImageFiles) -> Iterator[Installed]:
    """The packages that matter, in the order of the managers."""
    for manager in managers():
        yield from (package for package in manager.read(files) if MATTER.fullmatch(package.name.lower()))


__all__ = ["MATTER", "MAX_BYTES", "Installed", "installed", "managers", "scan", "unread", "wanted"]
