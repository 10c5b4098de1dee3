"""The headers that rpm keeps of installed packages, by their beginning: name and version stand there.

Source: rpm's lib/header.c. A header is two counts, an index of 16 bytes an entry (tag, type, offset, count) and the
data that the offsets point into, all big-endian. Entries are sorted by tag and so are their data: the names of a
thousand files come long after the package's own.
"""

from __future__ import annotations

import struct

from hpc3build.evidence.packages.record import MATTER, Installed

#: Bytes of a header that are looked at: an index of 120 entries takes 2 KiB, and the name's data come first.
HEAD = 16 << 10
MAX_PACKAGES = 50_000  # far above what anyone installs
_NAME, _VERSION, _RELEASE = 1000, 1001, 1002
_STRING = 6
_MAX_TEXT = 256


class UnreadableError(Exception):
    """A database that cannot be read; the text says why, for a note."""


def package(head: bytes, path: str) -> Installed | None:
    """The package whose header begins with ``head``, if it matters. ``path`` is the database's."""
    found = _strings(head[:HEAD])
    if not MATTER.fullmatch(found.get(_NAME, "").lower()) or _VERSION not in found:
        return None
    version, release = found[_VERSION], found.get(_RELEASE, "")
    return Installed("rpm", found[_NAME], f"{version}-{release}" if release else version, version, path)


def _strings(head: bytes) -> dict[int, str]:
    if len(head) < 8:
        return {}
    count, size = struct.unpack_from(">II", head, 0)
    base = 8 + 16 * count
    found: dict[int, str] = {}
    for at in range(8, min(base, len(head) - 15), 16):
        tag, kind, offset, _ = struct.unpack_from(">IIiI", head, at)
        if tag in (_NAME, _VERSION, _RELEASE) and kind == _STRING and 0 <= offset < size:
            start = base + offset
            end = head.find(b"\0", start, min(base + size, start + _MAX_TEXT))
            if end > start:
                found[tag] = head[start:end].decode("utf-8", "replace")
    return found
