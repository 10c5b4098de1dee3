"""One layer as a forward-only stream: decompression and tar headers, of content that nobody has checked.

tarfile is not used: it keeps every member in memory, needs about ten times as long for each, and believes sizes.
Where unpackers differ this follows Go's archive/tar, because that is what container runtimes unpack with.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, BinaryIO, Literal, NoReturn, cast

from hpc3build.errors import ImageError
from hpc3build.evidence.tarheader import BLOCK, as_text, checksum_holds, pax_records, plain_name

READ = 64 << 10
PIECE = 1 << 20  # of decompressed bytes held at a time
MAX_PATH = 4096  # PATH_MAX: no runtime could unpack more
MAX_EXTENSION = 1 << 20  # pax records and GNU long names: Go's limit
MAX_SIZE = 1 << 42
#: What no honest layer reaches: deflate ends at 1032:1, real layers lie between 2:1 and 20:1.
BOMB_FROM, BOMB_RATIO = 256 << 20, 250

Kind = Literal["file", "symlink", "hardlink", "directory", "other"]
_KINDS: Mapping[bytes, Kind] = {
    **dict.fromkeys((b"0", b"\0", b"7", b"S"), "file"),
    b"1": "hardlink",
    b"2": "symlink",
    b"5": "directory",
}
_NO_CONTENT = frozenset(b"123456")  # whatever their size field says
_NO_RECORDS: Mapping[str, str] = MappingProxyType({})


@dataclass(slots=True)
class Member:
    """One entry; ``size`` is what it says of itself, ``stored`` the bytes that follow in the stream."""

    path: str
    kind: Kind
    size: int
    stored: int
    link: str
    header: bytes
    records: Mapping[str, str]
    sparse: bool


class TarStream:
    """The members of one compressed or plain tar; ``name`` says whose in errors, ImageError each."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        self._raw = raw
        self._name = name
        self._read_bytes = 0
        self._made_bytes = 0
        self._end_proven = False
        self._buffer = b""
        self._at = 0
        self._left = 0  # of the current member's content
        self._globals: Mapping[str, str] = _NO_RECORDS
        self._pieces = self._decompressed()

    def fail(self, what: str) -> NoReturn:
        raise ImageError(f"layer {self._name}: {what}", hint="the image is damaged or was made to do harm")

    # Bytes

    def _compressed(self) -> bytes:
        data = self._raw.read(READ)
        self._read_bytes += len(data)
        return data

    def _decompressed(self) -> Iterator[bytes]:
        head = self._compressed()
        while len(head) < BLOCK and (more := self._compressed()):
            head += more
        if head.startswith(b"\x1f\x8b\x08"):
            return self._gunzip(head)
        if head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
            return self._unzstd(head)
        if not checksum_holds(head[:BLOCK]) and (len(head) < BLOCK or any(head[:BLOCK])):
            self.fail(f"neither gzip, zstd nor tar (it starts with {head[:8]!r})")
        return self._plain(head)

    def _plain(self, head: bytes) -> Iterator[bytes]:
        while head:
            yield head
            head = self._compressed()

    def _gunzip(self, pending: bytes) -> Iterator[bytes]:
        library = _zlib()
        inflater = library.decompressobj(wbits=31)
        while True:
            pending = pending or self._compressed()
            try:
                data = inflater.decompress(pending, PIECE)
            except library.error as error:
                self.fail(f"broken gzip: {error}")
            if data:
                yield data
            elif not pending and not inflater.eof:
                self.fail("truncated: the gzip stream ends in its middle")
            pending = inflater.unconsumed_tail
            if inflater.eof:
                # Seekable layers (eStargz) are many gzip members; zeros behind the last are padding.
                pending = inflater.unused_data.lstrip(b"\0") or self._compressed().lstrip(b"\0")
                if not pending:
                    self._end_proven = True
                    return
                inflater = library.decompressobj(wbits=31)

    def _unzstd(self, head: bytes) -> Iterator[bytes]:
        import zstandard

        # Its own limit on the window, 128 MiB, is what the zstd command allows too.
        source = cast(BinaryIO, _Joined(head, self))
        reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
        while True:
            try:
                data = reader.read(PIECE)
            except zstandard.ZstdError as error:
                self.fail(f"broken zstd: {error}")
            if not data:
                return
            yield data

    def _next_piece(self) -> bool:
        piece = next(self._pieces, b"")
        self._made_bytes += len(piece)
        if self._made_bytes > BOMB_FROM and self._made_bytes > BOMB_RATIO * self._read_bytes:
            self.fail(f"a decompression bomb: {self._read_bytes:,} bytes became more than {self._made_bytes:,}")
        self._buffer, self._at = piece, 0
        return bool(piece)

    def _take(self, count: int) -> bytes:
        """``count`` bytes, fewer at the end of the stream."""
        end = self._at + count
        if end <= len(self._buffer):
            taken = self._buffer[self._at : end]
            self._at = end
            return taken
        parts = [self._buffer[self._at :]]
        count -= len(parts[0])
        while count and self._next_piece():
            parts.append(self._buffer[:count])
            self._at = len(parts[-1])
            count -= self._at
        if count:
            self._buffer, self._at = b"", 0
        return b"".join(parts)

    def _skip(self, count: int) -> None:
        self._at += count
        while self._at > len(self._buffer):
            beyond = self._at - len(self._buffer)
            if not self._next_piece():
                self.fail("truncated: it ends inside a file")
            self._at = beyond

    def _exactly(self, count: int) -> bytes:
        data = self._take(count)
        if len(data) < count:
            self.fail("truncated: it ends inside a file")
        return data

    # Members

    def content(self, limit: int) -> bytes:
        """Up to ``limit`` bytes of the current member's content."""
        count = min(limit, self._left)
        data = self._exactly(count)
        self._left -= count
        return data

    def pieces(self) -> Iterator[bytes]:
        """The current member's content, as far as somebody asks for it."""
        while self._left:
            yield self.content(PIECE)

    def members(self) -> Iterator[Member]:
        """The entries in order; what ``content`` leaves of one is skipped."""
        records: dict[str, str] = {}
        while header := self._header():
            kind = header[156:157]
            stored = 0 if header[156] in _NO_CONTENT else self._number(header[124:136], "size")
            if kind in b"xgLKX":
                self._extension(kind, stored, records)
                continue
            member = self._member(header, stored, {**self._globals, **records} if records else self._globals)
            records = {}
            padding = -member.stored % BLOCK
            self._left = member.stored
            yield member
            self._skip(self._left + padding)
            self._left = 0
        while self._next_piece():  # so that the checksum behind the last file is looked at, too
            pass

    def _header(self) -> bytes:
        """The next header, nothing at the end."""
        header = self._take(BLOCK)
        if len(header) < BLOCK:
            if header or not self._end_proven:
                self.fail("truncated: the tar has no end")
            return b""
        if header[0] == 0 and not any(header):
            return b""
        if not checksum_holds(header):
            self.fail("broken tar: a header's checksum is wrong")
        return header

    def _extension(self, kind: bytes, size: int, records: dict[str, str]) -> None:
        """Longer names and pax records, for the next member or, with ``g``, for all that follow."""
        if size > MAX_EXTENSION:
            self.fail(f"broken tar: a name or record of {size:,} bytes")
        data = self._exactly(size)
        self._skip(-size % BLOCK)
        if kind in b"LK":
            records["path" if kind == b"L" else "linkpath"] = as_text(data.partition(b"\0")[0])
        elif kind == b"g":
            self._globals = MappingProxyType({**self._globals, **self._pax(data)})
        else:
            records.update(self._pax(data))

    def _pax(self, data: bytes) -> dict[str, str]:
        """Of the records what is used here."""
        records: dict[str, str] = {}
        try:
            for key, value in pax_records(data):
                if key in (b"path", b"linkpath", b"size", b"uid", b"gid") or key.startswith(b"GNU.sparse."):
                    records[as_text(key)] = as_text(value)
        except ValueError as error:
            self.fail(f"broken tar: {error}")
        return records

    def _member(self, header: bytes, stored: int, records: Mapping[str, str]) -> Member:
        kind = _KINDS.get(header[156:157], "other")
        name = records.get("GNU.sparse.name") or records.get("path") or plain_name(header)
        if kind == "file" and name.endswith("/"):  # how tar said it before it had types
            kind, stored = "directory", 0
        elif "size" in records and header[156] not in _NO_CONTENT:
            stored = self._decimal(records["size"])
        size, sparse = stored, header[156:157] == b"S" or any(key.startswith("GNU.sparse.") for key in records)
        if header[156:157] == b"S":
            size = self._number(header[483:495], "size")
            if header[482]:
                while self._exactly(BLOCK)[504]:
                    pass
        elif sparse:
            size = self._decimal(records.get("GNU.sparse.realsize") or records.get("GNU.sparse.size") or str(stored))
        if max(size, stored) > MAX_SIZE:
            self.fail(f"{name[:200]!r} says it holds {max(size, stored):,} bytes")
        link = ""
        if kind in ("symlink", "hardlink"):
            link = records.get("linkpath") or as_text(header[157:257].partition(b"\0")[0])
            link = self.clean(link) if kind == "hardlink" else self._short(link)
        return Member(self.clean(name), kind, size, stored, link, header, records, sparse)

    def owner(self, member: Member) -> tuple[int, int, int]:
        """Mode, uid and gid; read only of the members that somebody wants."""
        header, records = member.header, member.records
        uid = self._decimal(records["uid"]) if "uid" in records else self._number(header[108:116], "uid")
        gid = self._decimal(records["gid"]) if "gid" in records else self._number(header[116:124], "gid")
        return self._number(header[100:108], "mode") & 0o7777, uid, gid

    def clean(self, name: str) -> str:
        """The path below the image's root. An absolute name means the same; one that climbs is refused."""
        parts = [part for part in self._short(name).split("/") if part and part != "."]
        if ".." in parts:
            self.fail(f"unsafe path {name[:200]!r}")
        return "/" + "/".join(parts)

    def _short(self, name: str) -> str:
        if len(name) > MAX_PATH or "\0" in name:
            self.fail(f"broken tar: a name that no file can have, {name[:80]!r}…")
        return name

    def _number(self, field: bytes, what: str) -> int:
        if field[0] & 0x80:  # GNU: base 256, two's complement
            number = int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
            if field[0] & 0x40:
                self.fail(f"broken tar: a negative {what}")
            return number
        digits = field.strip(b" \0").partition(b"\0")[0]
        if digits.strip(b"01234567"):
            self.fail(f"broken tar: {what} {field!r}")
        return int(digits or b"0", 8)

    def _decimal(self, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            self.fail(f"broken tar: {text[:40]!r} is no number")
        return int(text)


class _Joined:
    """The bytes already read, then the rest: what zstandard reads from."""

    def __init__(self, head: bytes, stream: TarStream) -> None:
        self._head = head
        self._stream = stream

    def read(self, _size: int = -1) -> bytes:
        head, self._head = self._head, b""
        return head or self._stream._compressed()


@cache
def _zlib() -> Any:
    """isal where it is installed: the same interface, two to three times faster."""
    try:
        return importlib.import_module("isal.isal_zlib")
    except ImportError:
        return zlib
