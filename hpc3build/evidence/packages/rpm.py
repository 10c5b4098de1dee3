"""RPM's databases: sqlite by the standard library, ndb by its slots; the old Berkeley DB is only recognised.

Sources: rpm's lib/rpmdb.cc and header.cc (an image of a header is two counts, an index and its data), lib/backend/ndb.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from typing import Any

from hpc3build.evidence.layers import ImageFile, ImageFiles
from hpc3build.evidence.packages.record import Installed

_FOLDERS = ("/var/lib/rpm", "/usr/lib/sysimage/rpm", "/usr/share/rpm")
SQLITE = tuple(f"{folder}/rpmdb.sqlite" for folder in _FOLDERS)
NDB = tuple(f"{folder}/Packages.db" for folder in _FOLDERS)
BERKELEY = tuple(f"{folder}/Packages" for folder in _FOLDERS)
MAX_DATABASE = 96 << 20
MAX_PACKAGES = 100_000
_NAME, _VERSION, _RELEASE = 1000, 1001, 1002
_STRING = 6
_NDB_MAGIC, _NDB_SLOT, _NDB_BLOB = b"RpmP", b"Slot", b"BlbS"
_PAGE, _SLOT, _BLOCK = 4096, 16, 16


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``."""
    if path in SQLITE or path in NDB:
        return MAX_DATABASE
    return 4096 if path in BERKELEY else None


def unread(files: ImageFiles) -> str | None:
    """The path of a database that is there and that nothing here reads."""
    return next((path for path in BERKELEY if path in files and files[path].size), None)


def read(files: ImageFiles) -> Iterator[Installed]:
    """What is installed."""
    for path in SQLITE:
        if (file := files.get(path)) is not None and file.data:
            yield from _packages(_of_sqlite(file), path)
    for path in NDB:
        if (file := files.get(path)) is not None and file.data:
            yield from _packages(_of_ndb(file.data), path)


def _packages(headers: Iterator[bytes], path: str) -> Iterator[Installed]:
    for header in headers:
        found = _strings(header)
        if _NAME in found and _VERSION in found:
            version = found[_VERSION]
            release = found.get(_RELEASE, "")
            yield Installed("rpm", found[_NAME], f"{version}-{release}" if release else version, version, path)


def _of_sqlite(file: ImageFile) -> Iterator[bytes]:
    """The headers; nothing of a database that is damaged. It is read in memory, so no file is made."""
    deserialize: Any = getattr(sqlite3.Connection, "deserialize", None)  # Python 3.11 on
    if deserialize is None or not file.whole or not file.data.startswith(b"SQLite format 3\0"):
        return
    # In write-ahead mode SQLite would look for a second file beside the first: this copy has none.
    data = bytearray(file.data)
    data[18:20] = b"\1\1"
    connection = sqlite3.connect(":memory:")
    try:
        deserialize(connection, bytes(data))
        connection.execute("PRAGMA trusted_schema = OFF")
        left = 50_000_000  # steps of its virtual machine: the database may be made to do harm
        connection.set_progress_handler(lambda: 1, left)
        for (blob,) in connection.execute("SELECT blob FROM Packages LIMIT ?", (MAX_PACKAGES,)):
            if isinstance(blob, bytes):
                yield blob
    except (sqlite3.Error, OverflowError):
        return
    finally:
        connection.close()


def _of_ndb(data: bytes) -> Iterator[bytes]:
    if len(data) < 32 or data[:4] != _NDB_MAGIC:
        return
    (pages,) = struct.unpack_from("<I", data, 12)
    for at in range(32, min(len(data), pages * _PAGE) - _SLOT + 1, _SLOT):
        magic, index, offset, blocks = struct.unpack_from("<4sIII", data, at)
        start = offset * _BLOCK
        if magic != _NDB_SLOT or not index or start + 16 > len(data):
            continue
        blob, its, _, length = struct.unpack_from("<4sIII", data, start)
        if blob == _NDB_BLOB and its == index and length <= blocks * _BLOCK:
            yield data[start + 16 : start + 16 + length]


def _strings(header: bytes) -> dict[int, str]:
    """Name, version and release of a header."""
    if len(header) < 8:
        return {}
    count, size = struct.unpack_from(">II", header, 0)
    base = 8 + 16 * count
    found: dict[int, str] = {}
    if base + size > len(header):
        return {}
    for at in range(8, base, 16):
        tag, kind, offset, _ = struct.unpack_from(">IIiI", header, at)
        if tag in (_NAME, _VERSION, _RELEASE) and kind == _STRING and 0 <= offset < size:
            end = header.find(b"\0", base + offset, base + size)
            if end >= 0:
                found[tag] = header[base + offset : end].decode("utf-8", "replace")
    return found
