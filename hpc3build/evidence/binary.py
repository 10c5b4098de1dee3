"""One program or library out of a stream: its ELF facts, code for GPUs, and the marks of an MPI linked into it.

Of a large file only what the dynamic linker looks at is held; everything else passes by in pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from hpc3build.evidence.elf import MAGIC, Elf, read_elf, regions
from hpc3build.evidence.fatbinary import FatBinaries
from hpc3build.evidence.layers import ImageFile
from hpc3build.evidence.offload import Bundles, code_object
from hpc3build.mpinames import SELVES

#: Held of one file: all of nearly every file, the linker's tables of the largest.
MAX_HELD = 16 << 20
#: Texts in a program that has an MPI inside; names of symbols go with ``strip``, names of MPICH's settings stay.
STATIC_MPI = (b"\0MPID_Init\0", b"\0ompi_mpi_init\0", b"MPIR_CVAR_ABORT_ON_LEAKED_HANDLES")
#: What MPI libraries call themselves.
MPI_NAMES = tuple(text.encode() for text, _ in SELVES)
#: How the C library begins to say its version, and all that it says.
GLIBC = (b"GNU C Library ",)
GLIBC_BANNER = re.compile(rb"GNU C Library [^\n\0]{0,200}?release version (\d{1,6}\.\d{1,6}(?:\.\d{1,6})?)(?!\d)")
_OVERLAP = 512
_LIBRARY = re.compile(r"\.so(?:\.[0-9.]+)?$")
_LIBC = re.compile(r"/libc(?:\.so\.6|-\d[.\d]*\.so)$")
_LIBMPI = re.compile(r"/libmpi(?:ch|_abi|_cray)?\.so[.0-9]*$")


@dataclass(frozen=True, slots=True)
class Binary:
    """``architectures`` are those of its code for NVIDIA's GPUs (``sm_80``, ``compute_90``), ``targets`` for AMD's.

    ``marks`` are those of the texts above that it holds, of the C library the version that it says.
    """

    elf: Elf
    architectures: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()
    marks: frozenset[str] = frozenset()


def is_library(path: str) -> bool:
    """Whether the name is that of a shared library."""
    return _LIBRARY.search(path) is not None


def read_binary(path: str, size: int, pieces: Iterator[bytes]) -> Binary | None:
    """What the file of ``size`` bytes is; None for everything that is no ELF file, of which one piece is read."""
    head = next(pieces, b"")
    if not head.startswith(MAGIC) or len(head) < 64:
        return None
    if target := code_object(head):
        return Binary(Elf(machine=None, bits=64, little=True, type="dyn"), targets=frozenset({target}))
    held = _Held(head, size)
    marks = _marks(path)
    fat, bundles = FatBinaries(), Bundles()
    for piece in chain((head,), pieces):
        held.feed(piece)
        fat.feed(piece)
        bundles.feed(piece)
        if marks:
            marks.feed(piece)
    bundles.feed(b"", last=True)
    elf = read_elf(held.pieces())
    if elf is None:
        return None
    found = frozenset(marks.found) if marks else frozenset()
    return Binary(elf, frozenset(fat.architectures), frozenset(bundles.targets), found)


class _Held:
    """The pieces of a file that read_elf looks at."""

    def __init__(self, head: bytes, size: int) -> None:
        self._regions = ((0, size),) if size <= MAX_HELD else regions(head, size, MAX_HELD)
        self._parts: list[list[bytes]] = [[] for _ in self._regions]
        self._at = 0

    def feed(self, piece: bytes) -> None:
        end = self._at + len(piece)
        for (start, stop), parts in zip(self._regions, self._parts, strict=True):
            if start < end and self._at < stop:
                parts.append(piece[max(0, start - self._at) : stop - self._at])
        self._at = end

    def pieces(self) -> tuple[tuple[int, bytes], ...]:
        return tuple((start, b"".join(parts)) for (start, _), parts in zip(self._regions, self._parts, strict=True))


class _Marks:
    """The ``texts`` that a file holds; with ``banner`` what that finds where one of them begins."""

    def __init__(self, texts: tuple[bytes, ...], banner: re.Pattern[bytes] | None = None) -> None:
        self.found: set[str] = set()
        self._texts = texts
        self._banner = banner
        self._tail = b""

    def feed(self, piece: bytes) -> None:
        data = self._tail + piece if self._tail else piece
        for text in self._texts:  # one by one: an expression of all takes ten times as long
            at = data.find(text)
            if at >= 0 and self._banner is None:
                self.found.add(text.strip(b"\0").decode())
            while at >= 0 and self._banner is not None:
                if match := self._banner.match(data, at):
                    self.found.add(match[1].decode())
                at = data.find(text, at + 1)
        self._tail = data[-_OVERLAP:]


def _marks(path: str) -> _Marks | None:
    if _LIBC.search(path):
        return _Marks(GLIBC, GLIBC_BANNER)
    if is_libmpi(path):
        return _Marks(MPI_NAMES)
    return None if is_library(path) else _Marks(STATIC_MPI)


def is_libmpi(path: str) -> bool:
    """Whether ``path`` has the name of an MPI library."""
    return _LIBMPI.search(path) is not None


def elf_of(file: ImageFile | None) -> Elf | None:
    """The ELF facts of a file whose content was read by ``read_binary``."""
    return file.extract.elf if file is not None and isinstance(file.extract, Binary) else None


def binaries(files: Iterable[ImageFile]) -> Iterator[tuple[ImageFile, Binary]]:
    """Of ``files`` those that are ELF files."""
    return ((file, file.extract) for file in files if isinstance(file.extract, Binary))
