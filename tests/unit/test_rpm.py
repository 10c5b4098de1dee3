"""rpm's three databases: what real tools wrote (tests/data/rpm/make.sh), and what broken ones say."""

from __future__ import annotations

import lzma
import random
import sqlite3
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc3build.evidence.packages import rpm, rpm_berkeley, rpm_sqlite
from hpc3build.evidence.packages.rpm_header import HEAD, MAX_PACKAGES
from hpc3build.facts import Facts
from hpc3build.facts import vocabulary as voc
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.stores import open_store
from hpc3build.workflows.describe import describe
from tests.evidence_images import make

DATA = Path(__file__).parents[1] / "data" / "rpm"
SQLITE = "/var/lib/rpm/rpmdb.sqlite"
NDB = "/usr/lib/sysimage/rpm/Packages.db"
BERKELEY = "/var/lib/rpm/Packages"
OF_SQLITE = lzma.decompress((DATA / "rpmdb.sqlite.xz").read_bytes())
OF_BERKELEY = lzma.decompress((DATA / "Packages.xz").read_bytes())
needs_deserialize = pytest.mark.skipif(not hasattr(sqlite3.Connection, "deserialize"), reason="Python 3.11 on")


def pieces(data: bytes, size: int = 1 << 20) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(path: str, data: bytes, size: int = 1 << 20) -> rpm.Database:
    return rpm.scan(path, len(data), pieces(data, size))


def found(path: str, data: bytes, size: int = 1 << 20) -> set[str]:
    database = read(path, data, size)
    assert not database.unread
    return {f"{each.name} {each.version} {each.upstream}" for each in database.packages}


def header(name: str, version: str = "1", release: str = "1", more: int = 0) -> bytes:
    """An rpm header with three strings and bytes behind them, as the databases hold it."""
    entries, data = b"", b""
    for tag, text in ((1000, name), (1001, version), (1002, release)):
        entries += struct.pack(">IIiI", tag, 6, len(data), 1)
        data += text.encode() + b"\0"
    data += bytes(more)
    return struct.pack(">II", 3, len(data)) + entries + data


def ndb(*headers: bytes) -> bytes:
    slots, blobs = b"", b""
    for index, each in enumerate(headers, 1):
        padded = struct.pack("<4sIII", b"BlbS", index, 0, len(each)) + each
        padded += bytes(-len(padded) % 16)
        slots += struct.pack("<4sIII", b"Slot", index, (4096 + len(blobs)) // 16, len(padded) // 16)
        blobs += padded
    return (struct.pack("<4sIIII", b"RpmP", 0, 1, 1, len(headers) + 1) + bytes(12) + slots).ljust(4096, b"\0") + blobs


def berkeley(values: list[bytes], *, size: int = 512, order: str = "<", seed: int | None = None) -> bytes:
    """A hash file of these values, long ones in overflow pages; with ``seed`` those lie in any order."""

    def page(number: int, previous: int, following: int, entries: int, offset: int, kind: int, content: bytes) -> bytes:
        head = struct.pack(order + "8xIIIHHBB", number, previous, following, entries, offset, 0, kind)
        return (head + content).ljust(size, b"\0")

    room = size - 26
    long = [value if len(value) > size // 4 else b"" for value in values]
    parts = [[value[at : at + room] for at in range(0, len(value), room)] for value in long]
    places = list(range(1 + len(values), 1 + len(values) + sum(map(len, parts))))
    if seed is not None:
        random.Random(seed).shuffle(places)
    pages: dict[int, bytes] = {}
    for number, chain in enumerate(parts, 1):
        own, places = places[: len(chain)], places[len(chain) :]
        value = struct.pack(order + "B3xII", 3, own[0], 0) if chain else b"\1" + values[number - 1]
        index = struct.pack(order + "HH", size, size - len(value))  # an empty key, then the value
        pages[number] = page(number, 0, 0, 2, 0, 13, index + value.rjust(size - 26 - 4, b"\0"))
        for at, content in enumerate(chain):
            previous = own[at - 1] if at else 0
            following = own[at + 1] if at + 1 < len(own) else 0
            pages[own[at]] = page(own[at], previous, following, 1, len(content), 7, content)
    meta = struct.pack(order + "8xIIIIBBBBII", 0, 0x061561, 9, size, 0, 8, 0, 0, 0, len(pages))
    return meta.ljust(size, b"\0") + b"".join(pages[number] for number in sorted(pages))


@needs_deserialize
def test_sqlite_as_rpm_writes_it() -> None:
    mpich = "mpich 4.0.2-1.el8 4.0.2"
    assert found(SQLITE, OF_SQLITE) == {mpich, "openmpi 4.1.1-7.el8 4.1.1", "ucx 1.13.1-2.el8 1.13.1"}


@pytest.mark.parametrize("size", [100, 4096, 10_000, 1 << 20])
def test_berkeley_db_as_its_library_writes_it(size: int) -> None:
    """mpich was removed from it, and bash does not matter."""
    assert found(BERKELEY, OF_BERKELEY, size) == {"openmpi 4.1.1-7.el8 4.1.1", "ucx 1.13.1-2.el8 1.13.1"}
    kinds = [OF_BERKELEY[at + 25] for at in range(0, len(OF_BERKELEY), 4096)]
    chains = [struct.unpack_from("<I", OF_BERKELEY, at * 4096 + 16)[0] for at, kind in enumerate(kinds) if kind == 7]
    assert any(following and following < at for at, following in enumerate(chains, kinds.index(7))), (
        "none goes backwards"
    )


def test_ndb() -> None:
    database = ndb(header("mpich", "4.1.2", "1", more=100_000), header("zlib"), header("openmpi", "5.0"))
    for size in (10, 4096, 1 << 20):
        assert found(NDB, database, size) == {"mpich 4.1.2-1 4.1.2", "openmpi 5.0-1 5.0"}


@pytest.mark.parametrize(
    ("slot", "left"),
    [
        ((b"Slot", 3, 256, 9), {"mpich"}),  # another's number
        ((b"Slot", 2, 256, 2), {"mpich"}),  # longer than its place
        ((b"Slot", 0, 256, 9), {"mpich"}),  # free
        ((b"slot", 2, 256, 9), {"mpich"}),
        ((b"Slot", 2, 1 << 31, 9), {"mpich"}),
        ((b"Slot", 2, 0, 9), {"mpich"}),  # among the slots
        ((b"Slot", 2, 256, 9), {"mpich", "openmpi"}),
    ],
)
def test_slots_of_ndb(slot: tuple[bytes, int, int, int], left: set[str]) -> None:
    whole = bytearray(ndb(header("bash"), header("openmpi"), header("mpich")))
    blobs = [whole[at : at + 16] for at in (32, 48, 64)]
    size = 16 * struct.unpack("<4sIII", blobs[0])[3]
    # openmpi's header is put first, where the slot under test says that it lies
    place = struct.unpack("<4sIII", blobs[1])[2] * 16
    whole[4096 : 4096 + size] = whole[place : place + size]
    whole[32:48], whole[48:64] = bytes(16), struct.pack("<4sIII", *slot)
    assert {each.name for each in read(NDB, bytes(whole)).packages} == left


@given(
    st.lists(st.sampled_from([0, 400, 2000, HEAD + 9000]), min_size=1, max_size=12),
    st.integers(0, 1 << 30),
    st.sampled_from(["<", ">"]),
    st.sampled_from([512, 4096]),
)
@settings(max_examples=60, deadline=None)
def test_pages_may_lie_in_any_order(lengths: list[int], seed: int, order: str, size: int) -> None:
    values = [header(f"openmpi-{at}", more=more) for at, more in enumerate(lengths)]
    expected = {f"openmpi-{at} 1-1 1" for at in range(len(lengths))}
    assert found(BERKELEY, berkeley(values, size=size, order=order, seed=seed), 3000) == expected


def test_a_name_that_comes_in_a_later_page() -> None:
    name = "openmpi-" + "x" * 240
    value = struct.pack(">II", 60, 600) + struct.pack(">IIiI", 9, 7, 0, 1) * 57 + header(name)[8:]
    assert {each.name for each in read(BERKELEY, berkeley([value])).packages} == {name}
    assert read(BERKELEY, berkeley([header("openmpi" + "x" * 300)])) == rpm.Database(), "no package has such a name"


def test_chains_that_no_pair_names_are_left_over() -> None:
    whole = berkeley([header("openmpi", more=200), header("mpich", more=200)])
    freed = whole[: 512 + 26] + bytes(512 - 26) + whole[1024:]
    assert found(BERKELEY, freed) == {"mpich 1-1 1"}


def test_hash_pages_of_old_releases_and_pages_that_are_not_their_own() -> None:
    whole = bytearray(berkeley([header("openmpi"), header("mpich")]))
    whole[512 + 25] = 2
    assert found(BERKELEY, bytes(whole)) == {"openmpi 1-1 1", "mpich 1-1 1"}
    whole[512 + 8] = 2
    assert found(BERKELEY, bytes(whole)) == {"mpich 1-1 1"}


def test_a_page_holds_no_more_than_it_says() -> None:
    whole = bytearray(berkeley([header("openmpi", more=200)]))
    whole[1024 + 22 : 1024 + 24] = struct.pack("<H", 40)
    assert read(BERKELEY, bytes(whole)) == rpm.Database()


def test_a_pair_at_the_end_of_its_page() -> None:
    index = struct.pack("<HHHHHHHH", 512, 505, 500, 300, 0, 600, 700, 600)
    page = struct.pack("<8xIIIHHBB", 1, 0, 0, 0xFFFF, 0, 0, 13) + index.ljust(512 - 26 - 7, b"\0") + b"\3" + bytes(6)
    meta = berkeley([])
    assert read(BERKELEY, meta + page) == rpm.Database()


@pytest.mark.parametrize(
    ("path", "data", "why"),
    [
        (BERKELEY, b"", "ends in its first page"),
        (BERKELEY, bytes(4096), "not a hash file"),
        (BERKELEY, OF_BERKELEY[:-1], "10 of its 11 pages"),
        (BERKELEY, OF_BERKELEY[:20] + struct.pack("<I", 1000) + OF_BERKELEY[24:], "1,000 bytes"),
        (BERKELEY, OF_BERKELEY[:24] + b"\1" + OF_BERKELEY[25:], "encrypted"),
        (BERKELEY, OF_BERKELEY[:26] + b"\1" + OF_BERKELEY[27:], "checksums"),
        (NDB, b"", "not a database of rpm's ndb"),
        (NDB, b"RpmP" + bytes(40), "0 pages"),
        (NDB, b"RpmP" + b"\xff" * 40, "4,294,967,295 pages"),
        (NDB, ndb(header("mpich"))[:2000], "among its slots"),
    ],
)
def test_why_a_database_is_unread(path: str, data: bytes, why: str) -> None:
    database = read(path, data)
    assert why in database.unread and database.packages == ()


@needs_deserialize
def test_why_sqlite_is_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = OF_SQLITE.replace(b"CREATE TABLE", b"CREATE \xffABLE")
    for broken in (b"", bytes(10), OF_SQLITE[:4096], OF_SQLITE[:4096] + bytes(len(OF_SQLITE) - 4096), schema):
        assert "damaged SQLite" in read(SQLITE, broken).unread
    monkeypatch.setattr(rpm_sqlite, "MAX_BYTES", 1 << 17)
    assert "are read up to 0 MiB" in read(SQLITE, OF_SQLITE).unread


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpm_berkeley, "MAX_PACKAGES", 2)
    assert "more than 2 packages" in read(BERKELEY, berkeley([header("a", more=200)] * 3)).unread
    monkeypatch.undo()
    monkeypatch.setattr(rpm_berkeley, "MAX_HELD", 5000)
    assert "too scattered" in read(BERKELEY, berkeley([header("a", more=2000)] * 9, seed=1)).unread
    assert not read(BERKELEY, berkeley([header("a", more=2000)] * 9)).unread, "in order it needs no room"


def test_a_file_made_to_fill_memory_is_refused() -> None:
    """Pages that all wait for one that never comes."""

    def hostile() -> Iterator[bytes]:
        yield berkeley([], size=4096)
        for number in range(1, 40_000):
            head = struct.pack("<8xIIIHHBB", number, 1 << 31, 0, 1, 4070, 0, 7)
            yield head.ljust(4096, b"x")

    tracemalloc.start()
    try:
        assert "too scattered" in rpm.scan(BERKELEY, 0, hostile()).unread
        assert tracemalloc.get_traced_memory()[1] < 2 * rpm_berkeley.MAX_HELD
    finally:
        tracemalloc.stop()


def test_a_chain_takes_no_more_memory_than_its_beginning() -> None:
    """50 MB in one header, from its end to its beginning."""
    count = 12_000

    def backwards() -> Iterator[bytes]:
        yield berkeley([], size=4096)
        for number in range(1, count + 1):
            previous, following = (number + 1) * (number < count), number - 1
            content = header("openmpi") if number == count else b""
            yield (struct.pack("<8xIIIHHBB", number, previous, following, 1, 4070, 0, 7) + content).ljust(4096, b"x")
        pair = struct.pack("<HH", 4096, 4084).ljust(4058, b"\0") + struct.pack("<B3xII", 3, count, 1)
        yield struct.pack("<8xIIIHHBB", count + 1, 0, 0, 2, 4084, 0, 13) + pair

    tracemalloc.start()
    try:
        assert [each.name for each in rpm.scan(BERKELEY, 0, backwards()).packages] == ["openmpi"]
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_no_more_packages_are_kept_than_anyone_needs() -> None:
    assert rpm.MAX_KEPT < MAX_PACKAGES
    database = read(BERKELEY, berkeley([header(f"mpich{at}") for at in range(rpm.MAX_KEPT + 10)]))
    assert len(database.packages) == rpm.MAX_KEPT


WHOLE = {BERKELEY: OF_BERKELEY, SQLITE: OF_SQLITE, NDB: ndb(header("mpich"), header("openmpi", more=5000))}


@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=8)), max_size=8),
    st.integers(0, 1 << 20),
)
@settings(max_examples=400, deadline=None)
def test_mutated_databases_end_quietly(path: str, changes: list[tuple[int, bytes]], cut: int) -> None:
    data = bytearray(WHOLE[path])
    for at, new in changes:
        start = at % len(data)
        data[start : start + len(new)] = new
    database = read(path, bytes(data[: len(data) - cut % 5000 if cut % 3 == 0 else None]))
    assert not (database.packages and database.unread)


@given(st.sampled_from(sorted(WHOLE)), st.binary(max_size=600))
@settings(max_examples=200, deadline=None)
def test_any_bytes_end_quietly(path: str, data: bytes) -> None:
    for start in (b"", WHOLE[path][:64], WHOLE[path][:4096]):
        read(path, start + data)


def facts(folder: Path, database: bytes) -> Facts:
    """Of Debian's Open MPI program, with another package manager's record."""
    make("debian-openmpi", folder, instead={"/var/lib/dpkg/status": {BERKELEY: database}})
    reference = parse(f"oci:{folder}:latest")
    with open_store(reference, run) as store:
        return describe(store, reference).facts


def test_the_version_of_mpi_is_read_from_an_image(tmp_path: Path) -> None:
    fact = facts(tmp_path, OF_BERKELEY)[voc.MPI_VERSION]
    assert (fact.value, fact.evidence) == ("4.1.1", f"{BERKELEY}: openmpi 4.1.1-7.el8")


def test_a_database_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    found = facts(tmp_path, OF_BERKELEY[:-1])
    assert voc.MPI_VERSION not in found
    (note,) = [note for note in found.notes if note.key is voc.MPI_VERSION]
    assert "10 of its 11 pages" in note.message and note.evidence == BERKELEY
