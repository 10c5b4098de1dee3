"""SUSE's rpm database, ndb: a table of slots, then the headers in blocks of 16 bytes. Source: rpm's lib/backend/ndb.

Read from a stream: the slots say where headers lie, and are taken in the order of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hpc3build.evidence.packages.record import Installed
from hpc3build.evidence.packages.rpm_header import HEAD, MAX_PACKAGES, UnreadableError, package

_MAGIC, _SLOT_MAGIC, _BLOB_MAGIC = b"RpmP", b"Slot", b"BlbS"
_PAGE, _BLOCK, _FIRST_SLOT, _SLOT, _BLOB = 4096, 16, 32, 16, 16
_MAX_PAGES = MAX_PACKAGES * _SLOT // _PAGE


def packages(pieces: Iterator[bytes], path: str) -> Iterator[Installed]:
    """The packages that matter; ``path`` is the database's. Raises UnreadableError."""
    stream = _Stream(pieces)
    first = stream.take(_FIRST_SLOT)
    if len(first) < _FIRST_SLOT or first[:4] != _MAGIC:
        raise UnreadableError("not a database of rpm's ndb")
    (pages,) = struct.unpack_from("<I", first, 12)
    if not 0 < pages <= _MAX_PAGES:
        raise UnreadableError(f"a damaged ndb database (it says that it has {pages:,} pages of slots)")
    slots = stream.take(pages * _PAGE - _FIRST_SLOT)
    if len(slots) < pages * _PAGE - _FIRST_SLOT:
        raise UnreadableError("a damaged ndb database (it ends among its slots)")
    slots_used = sorted(
        (offset * _BLOCK, index, blocks * _BLOCK)
        for magic, index, offset, blocks in struct.iter_unpack("<4sIII", slots)
        if magic == _SLOT_MAGIC and index
    )
    for start, index, room in slots_used:
        if start < stream.at or not stream.skip(start - stream.at):
            continue
        head = stream.take(_BLOB)
        if len(head) < _BLOB:
            return
        magic, its, _, length = struct.unpack("<4sIII", head)
        if magic == _BLOB_MAGIC and its == index and length + _BLOB <= room:
            found = package(stream.take(min(length, HEAD)), path)
            if found is not None:
                yield found


class _Stream:
    """Bytes in pieces as a stream; ``at`` is how many were taken."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece, self._used = b"", 0
        self.at = 0

    def take(self, count: int) -> bytes:
        """``count`` bytes, fewer at the end."""
        parts = []
        while count and (part := self._piece[self._used : self._used + count] or self._next(count)):
            parts.append(part)
            self._used += len(part)
            self.at += len(part)
            count -= len(part)
        return b"".join(parts)

    def skip(self, count: int) -> bool:
        """Pass over ``count`` bytes; False where the stream ends before."""
        while count:
            passed = min(count, len(self._piece) - self._used) or len(self._next(count))
            if not passed:
                return False
            self._used += passed
            self.at += passed
            count -= passed
        return True

    def _next(self, count: int) -> bytes:
        """The beginning of the next piece, which becomes the current one."""
        self._piece, self._used = next(self._pieces, b""), 0
        return self._piece[:count]
