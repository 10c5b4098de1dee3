"""CUDA fat binaries in a stream: which architectures their machine code (SASS) and their PTX are for.

The format has no public specification. What is used of it was checked against cuobjdump 13.4 on files of nvcc 13.5,
compressed and not. A container starts with a magic number, and entries with headers of their own follow it; sections
are not looked for, because the section table lies at a file's end and may be stripped.
"""

from __future__ import annotations

import struct

MAGIC = struct.pack("<I", 0xBA55ED50)
_HEADER = struct.Struct("<IHHQ")  # magic, version, size of this header, size of what follows
_ENTRY = struct.Struct("<HHIQIIHHIIIQ")  # kind, version, header, size, …, architecture at 28, flags at 40
_PTX, _ELF = 1, 2
_SPECIFIC, _FAMILY = 0x100000, 0x200000  # sm_90a, sm_100f
_ARCHITECTURES = range(10, 1000)  # 5.0 is 50; cuobjdump writes three digits from Blackwell on


class FatBinaries:
    """Takes a file's bytes in order; ``architectures`` are those met so far."""

    def __init__(self) -> None:
        self.architectures: set[str] = set()
        self._held = b""
        self._offset = 0  # of the first byte held
        self._entry = 0  # where the next header of a container is, beyond its end when there is none
        self._end = 0

    def feed(self, piece: bytes) -> None:
        """The next bytes of the file."""
        held = self._held + piece if self._held else piece
        at = 0
        while True:
            if self._entry < self._end:
                at = self._entry - self._offset
                if at + _ENTRY.size > len(held):
                    break
                self._read_entry(held, at)
                continue
            at = held.find(MAGIC, max(self._entry - self._offset, at))
            if at < 0:
                at = len(held) - len(MAGIC) + 1
                break
            if at + _HEADER.size + _ENTRY.size > len(held):
                break
            self._read_header(held, at)
            at += len(MAGIC)
        at = min(max(at, 0), len(held))
        self._held = held[at:]
        self._offset += at

    def _read_header(self, held: bytes, at: int) -> None:
        _, version, header, size = _HEADER.unpack_from(held, at)
        # The magic number also stands in code that handles fat binaries: an entry must follow.
        if version == 1 and header == _HEADER.size and size > _ENTRY.size and self._architecture(held, at + header):
            self._entry = self._offset + at + header
            self._end = self._entry + size

    def _read_entry(self, held: bytes, at: int) -> None:
        found = self._architecture(held, at)
        if found is None:
            self._end = 0  # and whatever follows is searched as before
            return
        self.architectures.add(found)
        _, _, header, size, *_ = _ENTRY.unpack_from(held, at)
        self._entry += header + size

    @staticmethod
    def _architecture(held: bytes, at: int) -> str | None:
        """``sm_80``, ``compute_90a``; None where no entry starts."""
        kind, version, header, size, *_, architecture, _, _, flags = _ENTRY.unpack_from(held, at)
        if kind not in (_PTX, _ELF) or version >> 8 != 1 or not _ENTRY.size <= header < 4096:
            return None
        if architecture not in _ARCHITECTURES or size >= 1 << 40:
            return None
        suffix = "a" if flags & _SPECIFIC else "f" if flags & _FAMILY else ""
        return f"{'sm' if kind == _ELF else 'compute'}_{architecture}{suffix}"
