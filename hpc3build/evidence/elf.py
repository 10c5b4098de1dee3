"""What the head of an ELF file says: dynamic section, version needs, ABI tag. Forward only, for files in streams.

It reads what the loader reads (program headers), never the section table, which lies at a file's end and may be
stripped. Nothing that a file says is believed: every offset is checked and every loop has an end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

MAGIC = b"\x7fELF"
MAX_TEXT = 64 << 10  # of one string: the RPATH of a large Spack stack is 10 KiB
MAX_TEXTS = 4 << 20  # of all strings together
MAX_ENTRIES = 1 << 14  # of any table

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_TABLES = frozenset({_PT_DYNAMIC, _PT_INTERP, _PT_NOTE})
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 10, 14, 15, 29
_DT_VERDEF, _DT_VERDEFNUM, _DT_VERNEED, _DT_VERNEEDNUM = 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
_VER_FLG_BASE = 1  # the library's own name, not a version

#: archspec's family names by e_machine, bits and byte order (little: True); None where either will do.
_MACHINES: tuple[tuple[int, int | None, bool | None, str], ...] = (
    (3, None, True, "x86"),
    (62, None, True, "x86_64"),
    (183, 64, True, "aarch64"),
    (40, 32, True, "arm"),
    (21, 64, True, "ppc64le"),
    (21, 64, False, "ppc64"),
    (20, 32, True, "ppcle"),
    (20, 32, False, "ppc"),
    (22, 64, False, "s390x"),
    (243, 64, True, "riscv64"),
    (258, 64, True, "loongarch64"),
    (43, 64, False, "sparc64"),
    (2, 32, False, "sparc"),
)

Type = Literal["rel", "exec", "dyn", "core", "other"]
_TYPES: Mapping[int, Type] = {1: "rel", 2: "exec", 3: "dyn", 4: "core"}
_NO_NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Elf:
    """One ELF file. ``machine`` is archspec's family name, None for GPUs and what else it has no name for.

    ``version_needs`` are the symbol versions by the library they are needed from; ``abi_tag`` the oldest Linux kernel
    that the file says it runs on. ``complete`` is False when the head does not hold all that was to be read, or when
    it contradicts itself: what is given holds, what is missing may still be there.
    """

    machine: str | None
    bits: int
    little: bool
    type: Type
    interpreter: str | None = None
    soname: str | None = None
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    version_needs: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NO_NEEDS)
    version_definitions: tuple[str, ...] = ()
    abi_tag: str | None = None
    complete: bool = True


@dataclass(frozen=True, slots=True)
class _Segment:
    type: int
    offset: int
    address: int
    size: int


class _Missing(Exception):
    """Beyond the head, or a lie."""


class _Reader:
    """Checked access to what is there of the file; remembers whether something was missing."""

    def __init__(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        self._pieces = pieces
        head = pieces[0][1]
        self.bits = 64 if head[4] == 2 else 32
        self.little = head[5] != 2
        self.order = "<" if self.little else ">"
        self.complete = head[4] in (1, 2) and head[5] in (1, 2)
        self.segments: tuple[_Segment, ...] = ()
        self._texts = MAX_TEXTS

    def _piece(self, offset: int) -> tuple[bytes, int]:
        """The piece that holds ``offset``, and where in it."""
        for start, data in self._pieces:
            if start <= offset < start + len(data):
                return data, offset - start
        raise _Missing

    def unpack(self, layout: str, offset: int) -> tuple[Any, ...]:
        """Like struct.unpack_from; ``A`` in ``layout`` is an address or offset of the file's width."""
        layout = self.order + layout.replace("A", "Q" if self.bits == 64 else "I")
        data, at = self._piece(offset)
        if at + struct.calcsize(layout) > len(data):
            raise _Missing
        return struct.unpack_from(layout, data, at)

    def text(self, offset: int, end: int) -> str:
        """The string that starts at ``offset`` in a table that ends at ``end``."""
        data, at = self._piece(offset)
        stop = data.find(b"\0", at, min(at + end - offset, at + MAX_TEXT))
        self._texts -= stop - at
        if stop < 0 or self._texts < 0:
            raise _Missing
        return data[at:stop].decode("utf-8", "backslashreplace")

    def offset(self, address: int) -> int:
        """Where in the file lies what is loaded at ``address``."""
        for segment in self.segments:
            if segment.type == _PT_LOAD and 0 <= address - segment.address < segment.size:
                return segment.offset + address - segment.address
        raise _Missing

    def of_type(self, wanted: int) -> Iterator[_Segment]:
        return (segment for segment in self.segments if segment.type == wanted)


def read_elf(data: bytes | Sequence[tuple[int, bytes]]) -> Elf | None:
    """What an ELF file says; None when it is none. Never raises.

    ``data`` is its head, or pieces of it with their offsets, the head first.
    """
    pieces = ((0, data),) if isinstance(data, bytes) else data
    head = pieces[0][1] if pieces else b""
    if not head.startswith(MAGIC):
        return None
    if len(head) < 20:
        return Elf(machine=None, bits=0, little=True, type="other", complete=False)
    reader = _Reader(pieces)
    kind, machine = reader.unpack("HH", 16)
    try:
        reader.segments = tuple(_segments(reader))
    except _Missing:
        reader.complete = False
    interpreter = _interpreter(reader)
    abi_tag = _abi_tag(reader)
    dynamic = _Dynamic(reader)
    return Elf(
        machine=_machine(machine, reader.bits, reader.little),
        bits=reader.bits,
        little=reader.little,
        type=_TYPES.get(kind, "other"),
        interpreter=interpreter,
        soname=dynamic.first(_DT_SONAME),
        needed=tuple(dynamic.texts(_DT_NEEDED)),
        rpath=dynamic.paths(_DT_RPATH),
        runpath=dynamic.paths(_DT_RUNPATH),
        version_needs=dynamic.needs(),
        version_definitions=dynamic.definitions(),
        abi_tag=abi_tag,
        complete=reader.complete,
    )


def _machine(number: int, bits: int, little: bool) -> str | None:
    for machine, its_bits, its_order, name in _MACHINES:
        if machine == number and its_bits in (None, bits) and its_order in (None, little):
            return name
    return None


def regions(head: bytes, size: int, limit: int) -> tuple[tuple[int, int], ...]:
    """Where in the file, sorted, lies what ``read_elf`` looks at: (start, end) pairs of at most ``limit`` bytes in all.

    Linkers put the dynamic linker's tables into the first loaded segment, and tools that edit them (patchelf) into a
    new one, which comes last in the file; the dynamic section itself lies near the end.
    """
    reader = _Reader(((0, head),))
    try:
        segments = tuple(_segments(reader))
    except _Missing:
        return ((0, min(size, limit)),)
    loaded = sorted((segment for segment in segments if segment.type == _PT_LOAD), key=lambda segment: segment.offset)
    first = max(len(head), loaded[0].offset + loaded[0].size if loaded else 0)
    found = [(0, first)]
    found += [
        (segment.offset, segment.offset + segment.size)
        for segment in (*(segment for segment in segments if segment.type in _TABLES), *loaded[-1:])
    ]
    kept: list[tuple[int, int]] = []
    for start, end in found:  # the most important first
        end = min(end, size, start + limit)
        if start < end:
            limit -= end - start
            kept.append((start, end))
    return tuple(sorted(kept))


def _segments(reader: _Reader) -> Iterator[_Segment]:
    wide = reader.bits == 64
    (start,) = reader.unpack("A", 32 if wide else 28)
    size, count = reader.unpack("HH", 54 if wide else 42)
    if count == 0:
        return
    # 0xffff says that the count stands in the section table: no file with so many is a program that someone runs.
    if count == 0xFFFF or size < (56 if wide else 32):
        raise _Missing
    for number in range(count):
        at = start + number * size
        if wide:
            kind, _, offset, address, _, length = reader.unpack("IIQQQQ", at)
        else:
            kind, offset, address, _, length = reader.unpack("IIIII", at)
        yield _Segment(kind, offset, address, length)


def _interpreter(reader: _Reader) -> str | None:
    for segment in reader.of_type(_PT_INTERP):
        try:
            return reader.text(segment.offset, segment.offset + segment.size)
        except _Missing:
            reader.complete = False
    return None


def _abi_tag(reader: _Reader) -> str | None:
    for segment in reader.of_type(_PT_NOTE):
        at, end = segment.offset, segment.offset + segment.size
        try:
            while at + 12 <= end:
                name_size, size, kind = reader.unpack("III", at)
                if name_size == 4 and kind == 1 and size >= 16 and reader.unpack("4s", at + 12) == (b"GNU\0",):
                    system, *version = reader.unpack("IIII", at + 16)
                    if system == 0:  # Linux
                        return ".".join(str(part) for part in version)
                at += 12 + (name_size + 3 & ~3) + (size + 3 & ~3)
        except _Missing:
            reader.complete = False
    return None


class _Dynamic:
    """The dynamic section and the tables that it leads to."""

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader
        self._values: dict[int, list[int]] = {}
        self._strings = self._strings_end = 0
        try:
            for segment in reader.of_type(_PT_DYNAMIC):
                self._read(segment)
                self._strings = reader.offset(self._value(_DT_STRTAB))
                self._strings_end = self._strings + self._value(_DT_STRSZ)
                break
        except _Missing:
            reader.complete = False

    def _read(self, segment: _Segment) -> None:
        width = self._reader.bits // 4
        for number in range(min(segment.size // width, MAX_ENTRIES)):
            tag, value = self._reader.unpack("AA", segment.offset + number * width)
            if tag == 0:
                return
            self._values.setdefault(tag, []).append(value)
        raise _Missing  # the end is not marked

    def _value(self, tag: int) -> int:
        if tag not in self._values:
            raise _Missing
        return self._values[tag][0]

    def _text(self, index: int) -> str:
        if not 0 <= index < self._strings_end - self._strings:
            raise _Missing
        return self._reader.text(self._strings + index, self._strings_end)

    def texts(self, tag: int) -> Iterator[str]:
        for index in self._values.get(tag, ()):
            try:
                yield self._text(index)
            except _Missing:
                self._reader.complete = False

    def first(self, tag: int) -> str | None:
        return next(self.texts(tag), None)

    def paths(self, tag: int) -> tuple[str, ...]:
        """Its directories; the loader takes an empty one for the current directory, which tells nothing here."""
        return tuple(path for text in self.texts(tag) for path in text.split(":") if path)

    def _chain(self, tag: int, count_tag: int, layout: str, next_at: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """The records of a version table with where each lies; ``next_at`` tells which field leads to the next."""
        if tag not in self._values:
            return
        at = self._reader.offset(self._value(tag))
        count = self._value(count_tag)
        for _ in range(min(count, MAX_ENTRIES)):
            record = self._reader.unpack(layout, at)
            yield at, record
            if record[next_at] == 0:
                return
            at += record[next_at]
        if count > MAX_ENTRIES:
            raise _Missing

    def needs(self) -> Mapping[str, tuple[str, ...]]:
        """DT_VERNEED: by library, the versions in the file's order."""
        found: dict[str, dict[str, None]] = {}
        left = MAX_ENTRIES
        try:
            for start, (_, count, library, first, _) in self._chain(_DT_VERNEED, _DT_VERNEEDNUM, "HHIII", 4):
                versions = found.setdefault(self._text(library), {})
                at = start + first
                for _ in range(count):
                    left -= 1
                    _, _, _, name, following = self._reader.unpack("IHHII", at)
                    if left < 0:
                        raise _Missing
                    versions[self._text(name)] = None
                    if following == 0:
                        break
                    at += following
        except _Missing:
            self._reader.complete = False
        return (
            MappingProxyType({library: tuple(versions) for library, versions in found.items()}) if found else _NO_NEEDS
        )

    def definitions(self) -> tuple[str, ...]:
        """DT_VERDEF: the versions that this library provides, without its own name."""
        found: dict[str, None] = {}
        try:
            for at, record in self._chain(_DT_VERDEF, _DT_VERDEFNUM, "HHHHIII", 6):
                _, flags, _, count, _, first, _ = record
                if count and not flags & _VER_FLG_BASE:
                    name, _ = self._reader.unpack("II", at + first)
                    found[self._text(name)] = None
        except _Missing:
            self._reader.complete = False
        return tuple(found)
