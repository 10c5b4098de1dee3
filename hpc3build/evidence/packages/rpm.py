"""RPM's databases in their three forms, as they stream by: only the packages that matter are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from hpc3build.evidence.layers import SCAN, ImageFiles
from hpc3build.evidence.packages import rpm_berkeley, rpm_ndb, rpm_sqlite
from hpc3build.evidence.packages.record import Installed
from hpc3build.evidence.packages.rpm_header import UnreadableError

_FOLDERS = ("/var/lib/rpm", "/usr/lib/sysimage/rpm", "/usr/share/rpm")
_SQLITE = frozenset(f"{folder}/rpmdb.sqlite" for folder in _FOLDERS)
_NDB = frozenset(f"{folder}/Packages.db" for folder in _FOLDERS)
_BERKELEY = frozenset(f"{folder}/Packages" for folder in _FOLDERS)
#: Packages kept of one database: it may be made to fill memory.
MAX_KEPT = 5_000
DATABASES = _SQLITE | _NDB | _BERKELEY


@dataclass(frozen=True)
class Database:
    """What one database says; ``unread`` is why it says nothing, empty where it was read."""

    packages: tuple[Installed, ...] = ()
    unread: str = ""


def wanted(path: str) -> int | None:
    """SCAN for ``path`` where it is a database."""
    return SCAN if path in DATABASES else None


def scan(path: str, size: int, pieces: Iterator[bytes]) -> Database:
    """The database of ``size`` bytes at ``path``, read in ``pieces``."""
    try:
        if path in _SQLITE:
            found = rpm_sqlite.packages(pieces, path, size)
        else:
            found = (rpm_ndb if path in _NDB else rpm_berkeley).packages(pieces, path)
        return Database(tuple(islice(found, MAX_KEPT)))
    except UnreadableError as error:
        return Database(unread=str(error))


def databases(files: ImageFiles) -> Iterator[tuple[str, Database]]:
    """The databases that are there, by their paths."""
    for path in sorted(DATABASES):
        file = files.get(path)
        if file is not None and isinstance(file.extract, Database):
            yield path, file.extract


def read(files: ImageFiles) -> Iterator[Installed]:
    """What is installed, as far as it matters."""
    for _, database in databases(files):
        yield from database.packages
