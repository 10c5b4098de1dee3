"""The rpm database of old releases (RHEL, Rocky and CentOS up to 8, Amazon Linux 2): a Berkeley DB hash file.

Source: Berkeley DB's dbinc/db_page.h. A file is pages of one size, in the byte order of the machine that made it. Each
has 26 bytes before its content: 8 of a log, its number, the previous and the next one's, a count of entries, an
offset (of an overflow page: how much it holds), a level and its type. Hash pages hold pairs of key and value; a value
longer than a quarter of a page lies in a chain of overflow pages, and the pair names its first.

Read from a stream: rpm's headers are such chains, whose pages may come in any order. Of every stretch of a chain the
first bytes are kept until what precedes it has come, so a chain that lies backwards takes no more than any other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hpc3build.evidence.packages.record import Installed
from hpc3build.evidence.packages.rpm_header import HEAD, MAX_PACKAGES, UnreadableError, package

#: Bytes of stretches that wait for what precedes them: a real file has a few at a time.
MAX_HELD = 32 << 20
_STRETCH = 400  # of a stretch itself and its places in the tables
_META, _PAGE_HEADER = 72, 26
_MAGIC = 0x061561
_HASH_META, _HASH_PAGES, _OVERFLOW = 8, (2, 13), 7
_INLINE, _OFF_PAGE = 1, 3  # kinds of values
_SIZES = tuple(1 << power for power in range(9, 17))


@dataclass(slots=True)
class _Stretch:
    """Pages of one chain that follow each other: ``data`` is how they begin, ``following`` the page behind them."""

    first: int
    data: bytes
    following: int
    begins: bool  # nothing precedes it

    def extend(self, other: _Stretch) -> None:
        self.data = (self.data + other.data)[:HEAD]
        self.following = other.following


def packages(pieces: Iterator[bytes], path: str) -> Iterator[Installed]:
    """The packages that matter; ``path`` is the database's. Raises UnreadableError."""
    order, last, pages = _pages(pieces)
    chains = _Chains(path)
    count = 0
    for number, page in enumerate(pages):
        count += 1
        its, previous, following, entries, offset, _, kind = struct.unpack_from(order + "IIIHHBB", page, 8)
        if its != number:
            continue
        if kind == _OVERFLOW:
            chains.add(number, previous, following, page[_PAGE_HEADER : _PAGE_HEADER + offset])
        elif kind in _HASH_PAGES:
            yield from filter(None, (package(head, path) for head in _values(page, entries, order, chains.named)))
        if len(chains.named) > MAX_PACKAGES:
            raise UnreadableError(f"more than {MAX_PACKAGES:,} packages")
    if count <= last:
        raise UnreadableError(f"a damaged Berkeley DB file: {count:,} of its {last + 1:,} pages are there")
    yield from chains.packages()


def _pages(pieces: Iterator[bytes]) -> tuple[str, int, Iterator[bytes]]:
    """Byte order and greatest number of the pages, and the pages. Raises UnreadableError."""
    data = b""
    while len(data) < _META and (piece := next(pieces, b"")):
        data += piece
    if len(data) < _META:
        raise UnreadableError("a damaged Berkeley DB file (it ends in its first page)")
    order = next((order for order in "<>" if struct.unpack_from(order + "I", data, 12) == (_MAGIC,)), None)
    if order is None or data[25] != _HASH_META:
        raise UnreadableError("not a hash file of Berkeley DB")
    (size,), (last,) = struct.unpack_from(order + "I", data, 20), struct.unpack_from(order + "I", data, 32)
    if size not in _SIZES:
        raise UnreadableError(f"a damaged Berkeley DB file (it says that its pages have {size:,} bytes)")
    if data[24] or data[26]:  # what rpm never uses, and what changes the pages
        raise UnreadableError("a Berkeley DB file that is encrypted, has checksums or is a part of another")
    return order, last, _cut(data, pieces, size)


def _cut(data: bytes, pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    while True:
        whole = len(data) - len(data) % size
        yield from (data[at : at + size] for at in range(0, whole, size))
        piece = next(pieces, b"")
        if not piece:
            return
        data = data[whole:] + piece


def _values(page: bytes, entries: int, order: str, named: set[int]) -> Iterator[bytes]:
    """The values that lie in a hash page; the first pages of the others are added to ``named``."""
    room = min(entries, (len(page) - _PAGE_HEADER) // 2)
    offsets = struct.unpack_from(f"{order}{room}H", page, _PAGE_HEADER)
    for at in range(1, room, 2):  # keys and values in turn, from the page's end downwards
        start, end = offsets[at], offsets[at - 1]
        if not _PAGE_HEADER <= start < end <= len(page):
            continue
        if page[start] == _INLINE:
            yield page[start + 1 : end][:HEAD]
        elif page[start] == _OFF_PAGE and end - start >= 8:
            named.update(struct.unpack_from(order + "I", page, start + 4))


class _Chains:
    """Overflow pages, put together as they come; of each chain the package that its beginning tells is kept."""

    def __init__(self, path: str) -> None:
        self.named: set[int] = set()  # first pages of values
        self._path = path
        self._by_first: dict[int, _Stretch] = {}
        self._by_following: dict[int, _Stretch] = {}
        self._found: dict[int, Installed] = {}
        self._held = 0

    def add(self, number: int, previous: int, following: int, data: bytes) -> None:
        """One page. Raises UnreadableError where too much waits for other pages."""
        stretch = _Stretch(number, data[:HEAD], following, begins=not previous)
        if following and (after := self._by_first.get(following)) is not None:
            self._forget(after)
            stretch.extend(after)
        if previous and (before := self._by_following.get(number)) is not None:
            self._forget(before)
            before.extend(stretch)
            stretch = before
        if not stretch.begins or stretch.following:
            self._keep(stretch)
        elif (found := package(stretch.data, self._path)) is not None:
            self._found[stretch.first] = found

    def packages(self) -> Iterator[Installed]:
        """Those of the chains that are values: others are left over from a write that was broken off."""
        return (found for first, found in self._found.items() if first in self.named)

    def _keep(self, stretch: _Stretch) -> None:
        if not stretch.begins:
            self._by_first[stretch.first] = stretch
        if stretch.following:
            self._by_following[stretch.following] = stretch
        self._held += _STRETCH + len(stretch.data)
        if self._held > MAX_HELD or len(self._found) > MAX_PACKAGES:
            raise UnreadableError("a Berkeley DB file whose pages are too scattered")

    def _forget(self, stretch: _Stretch) -> None:
        self._by_first.pop(stretch.first, None)
        if self._by_following.get(stretch.following) is stretch:
            del self._by_following[stretch.following]
        self._held -= _STRETCH + len(stretch.data)
