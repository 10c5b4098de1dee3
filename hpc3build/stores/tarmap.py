"""Where the members of a plain tar file lie: header by header, with seeks over the contents, of a file nobody checked.

Only what an OCI archive needs: regular files with their offsets. Names follow Go's archive/tar, which reads archives in
skopeo and podman: pax and GNU long names count, two zero blocks end the archive.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from hpc3build.errors import ImageError, StoreError
from hpc3build.evidence.tarheader import BLOCK, as_text, checksum_holds, pax_records, plain_name

MAX_MEMBERS = 100_000
MAX_EXTENSION = 1 << 20  # Go's limit for pax records and long names
_ZERO = bytes(BLOCK)
_REGULAR = b"0\0007"
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


@dataclass(frozen=True)
class Member:
    """A file's place: where what belongs to it starts (``header``, or records before it), and its content."""

    start: int
    header: int
    offset: int
    size: int
    sized_by_record: bool = False

    @property
    def capacity(self) -> int:
        """Bytes up to the next header."""
        return -(-self.size // BLOCK) * BLOCK


@dataclass(frozen=True)
class TarMap:
    """Regular files by their clean names; ``end`` is where the next member's header would go."""

    files: Mapping[str, Member]
    twice: frozenset[str]
    others: frozenset[str]
    end: int


def read_map(file: BinaryIO, name: str) -> TarMap:
    """Walk the headers. Raises StoreError for a compressed file, ImageError for what is no sound tar."""
    return _Walk(file, name).walk()


def header_block(name: str, size: int) -> bytes:
    """A ustar header of a regular file: owner 0, time 0, so that the same input gives the same bytes.

    A name that is too long for it (a sha512 digest) comes before it as GNU's tar writes it: while an archive grows,
    that record may be empty for a moment, where a pax record would be a broken one.
    """
    told = name.encode()
    if len(told) <= 100:
        return _header(told, b"0", size)
    return _header(b"././@LongLink", b"L", len(told) + 1) + padded(told + b"\0") + _header(told[:100], b"0", size)


def _header(name: bytes, kind: bytes, size: int) -> bytes:
    block = bytearray(BLOCK)
    fields = ((0, name), (100, b"0000644\0"), (108, b"0000000\0"), (116, b"0000000\0"))
    for at, text in (*fields, (136, b"00000000000\0"), (156, kind), (257, b"ustar\x0000")):
        block[at : at + len(text)] = text
    return resized(bytes(block), size)


def resized(header: bytes, size: int) -> bytes:
    """A header block with another size and the checksum for it."""
    block = bytearray(header)
    # From 8 GiB on in base 256, as GNU tar writes it and Go reads it.
    block[124:136] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    """``content`` and zeros up to a whole block."""
    return content + bytes(-len(content) % BLOCK)


class _Walk:
    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._size = os.fstat(file.fileno()).st_size
        self._files: dict[str, Member] = {}
        self._twice: set[str] = set()
        self._others: set[str] = set()
        self._records: dict[str, str] = {}
        self._globals: dict[str, str] = {}

    def fail(self, what: str) -> NoReturn:
        raise ImageError(f"{self._name}: {what}", hint="the archive is damaged or was made to do harm")

    def walk(self) -> TarMap:
        at, start = 0, 0
        for _ in range(MAX_MEMBERS):
            header = self._at(at, BLOCK)
            if header == _ZERO or not header:
                if header and self._at(at + BLOCK, BLOCK) not in (_ZERO, b""):
                    self.fail("broken tar: a zero block in its middle")
                break
            if at == 0:
                self._check_start(header)
            size = self._checked_size(header)
            kind = header[156:157]
            if kind in b"xgLK":
                self._extension(kind, self._whole(at + BLOCK, size))
            else:
                size = self._member(header, kind, start, at, size)
                start = at + BLOCK + -(-size // BLOCK) * BLOCK
            at += BLOCK + -(-size // BLOCK) * BLOCK
            if at > self._size and at - (-size % BLOCK) > self._size:
                self.fail("truncated: the archive ends in the middle of a file")
        else:
            self.fail(f"more than {MAX_MEMBERS} members")
        return TarMap(self._files, frozenset(self._twice), frozenset(self._others), at)

    def _at(self, offset: int, count: int) -> bytes:
        data = os.pread(self._file.fileno(), count, offset)
        if data and len(data) < count:
            self.fail("truncated: the archive ends in the middle of a block")
        return data

    def _whole(self, offset: int, size: int) -> bytes:
        if size > MAX_EXTENSION:
            self.fail(f"broken tar: a name or record of {size:,} bytes")
        return self._at(offset, size) if size else b""

    def _check_start(self, header: bytes) -> None:
        for magic, kind in _COMPRESSED.items():
            if header.startswith(magic):
                raise StoreError(
                    f"{self._name} is compressed ({kind}): it cannot be rewritten in place",
                    hint="decompress it first (gunzip, zstd -d, bunzip2, unxz), then name the plain tar file",
                )
        if not checksum_holds(header):
            self.fail(f"this is no tar archive (it starts with {header[:8]!r})")

    def _checked_size(self, header: bytes) -> int:
        if len(header) < BLOCK or not checksum_holds(header):
            self.fail("broken tar: a header's checksum is wrong")
        field = header[124:136]
        if field[0] & 0x80:  # GNU: base 256
            if field[0] & 0x40:
                self.fail("broken tar: a negative size")
            return int.from_bytes(field, "big") - (0x80 << 88)
        digits = field.strip(b" \0").partition(b"\0")[0]
        if digits.strip(b"01234567"):
            self.fail(f"broken tar: the size {field!r}")
        return int(digits or b"0", 8)

    def _member(self, header: bytes, kind: bytes, start: int, at: int, size: int) -> int:
        """Note a member; returns the bytes that follow its header."""
        records = {**self._globals, **self._records}
        self._records = {}
        name = _clean(records.get("path") or plain_name(header))
        if kind not in _REGULAR:
            self._others.add(name)
            return 0 if kind in b"123456" else size
        if "size" in records:
            if not records["size"].isdigit() or len(records["size"]) > 19:
                self.fail(f"broken tar: the size {records['size'][:40]!r}")
            size = int(records["size"])
        if any(key.startswith("GNU.sparse.") for key in records):
            self._others.add(name)
            return size
        if name in self._files:
            self._twice.add(name)
        self._files[name] = Member(start, at, at + BLOCK, size, "size" in records)
        return size

    def _extension(self, kind: bytes, data: bytes) -> None:
        if kind == b"L":
            self._records["path"] = as_text(data.partition(b"\0")[0])
        elif kind != b"K":
            (self._globals if kind == b"g" else self._records).update(self._pax(data))

    def _pax(self, data: bytes) -> dict[str, str]:
        records: dict[str, str] = {}
        try:
            for key, value in pax_records(data):
                if key in (b"path", b"size") or key.startswith(b"GNU.sparse."):
                    records[as_text(key)] = as_text(value)
        except ValueError as error:
            self.fail(f"broken tar: {error}")
        return records


def _clean(name: str) -> str:
    """The path below the archive's root, ``./`` and doubled slashes aside; what climbs keeps its dots."""
    return "/".join(part for part in name.split("/") if part and part != ".")
