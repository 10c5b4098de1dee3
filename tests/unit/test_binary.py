"""Programs and libraries as streams: the same facts however the content is cut, and no harm from what lies."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc3build.evidence.binary import MAX_HELD, Binary, read_binary
from hpc3build.evidence.elf import read_elf
from hpc3build.evidence.fatbinary import FatBinaries
from hpc3build.evidence.offload import Bundles, code_object
from tests.evidence_images import blobs

SMALL = [data for data in blobs().values() if data.startswith(b"\x7fELF") and len(data) < 128 << 10]
FATBIN = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 0)


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(data: bytes, size: int = 1 << 20, path: str = "/opt/app/bin/x") -> Binary | None:
    return read_binary(path, len(data), cut(data, size))


def entry(kind: int, architecture: int, body: bytes = b"x" * 8, flags: int = 0x11) -> bytes:
    head = struct.pack("<HHIQIIHHIIIQ", kind, 0x101, 64, len(body), 0, 0, 0, 0, architecture, 0, 0, flags)
    return head.ljust(64, b"\0") + body


def container(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def architectures(data: bytes, size: int = 1 << 20) -> set[str]:
    found = FatBinaries()
    for piece in cut(data, size):
        found.feed(piece)
    return found.architectures


@pytest.mark.parametrize("size", [97, 4096, 1 << 20])
def test_however_the_content_is_cut(size: int) -> None:
    head = max(size, 4096)  # the first piece holds the program headers, as it does in layers
    for data in SMALL:
        pieces = [data[:head], *cut(data[head:], size)]
        assert read_binary("/x", len(data), iter(pieces)) == read(data)


def test_entries_of_containers() -> None:
    data = container(entry(2, 80), entry(1, 90), entry(2, 90, flags=0x100011), entry(2, 100, flags=0x1200011))
    assert architectures(b"\0" * 5 + data) == {"sm_80", "compute_90", "sm_90a", "sm_100f"}
    assert all(architectures(data, size) == architectures(data) for size in (1, 7, 64, 100))


@pytest.mark.parametrize(
    "data",
    [
        b"code" + FATBIN[:4] + b"code that handles fat binaries",
        FATBIN,
        container(b"\0" * 100),
        container(entry(7, 80)),
        container(entry(2, 5)),
        struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 1 << 60) + b"\xff" * 100,
    ],
)
def test_the_magic_number_alone_proves_nothing(data: bytes) -> None:
    assert architectures(data) == set()
    assert architectures(data + bytes(100) + container(entry(2, 75))) == {"sm_75"}


def bundle(*targets: str) -> bytes:
    data = b"__CLANG_OFFLOAD_BUNDLE__" + struct.pack("<Q", len(targets))
    for target in targets:
        data += struct.pack("<QQQ", 4096, 0 if target.startswith("host") else 8, len(target)) + target.encode()
    return data


HIP = "hipv4-amdgcn-amd-amdhsa--gfx942:sramecc+:xnack-"
PLAIN = bundle("host-x86_64-unknown-linux--", HIP, "hip-amdgcn-amd-amdhsa--gfx1100", "cuda-nvptx64-nvidia-cuda--sm_80")


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        b"CCOB" + struct.pack("<HHII", 1, 0, len(PLAIN), 0) + bytes(4) + zlib.compress(PLAIN),
        b"CCOB" + struct.pack("<HHIIQ", 2, 1, 99, len(PLAIN), 0) + zstandard.compress(PLAIN),
        b"CCOB" + struct.pack("<HHQQQ", 3, 1, 99, len(PLAIN), 0) + zstandard.compress(PLAIN),
        b"CCOB is no bundle, nor is " + b"CCOB" + struct.pack("<HH", 2, 1) + bytes(30) + PLAIN,
    ],
)
@pytest.mark.parametrize("size", [1, 50, 1 << 20])
def test_offload_bundles(data: bytes, size: int) -> None:
    found = Bundles()
    for piece in cut(b"\0" * 7 + data + bytes(200), size):
        found.feed(piece)
    found.feed(b"", last=True)
    assert found.targets == {"gfx942:sramecc+:xnack-", "gfx1100"}


def amdgpu(flags: int, version: int = 2) -> bytes:
    return (b"\x7fELF\x02\x01\x01\x40" + bytes([version])).ljust(18, b"\0") + struct.pack("<H28xI12x", 224, flags)


@pytest.mark.parametrize(
    ("head", "target"),
    [
        (amdgpu(0x3F), "gfx90a"),
        (amdgpu(0x3F | 0x500), "gfx90a"),
        (amdgpu(0x4C | 0xC00 | 0x200), "gfx942:sramecc+:xnack-"),
        (amdgpu(0x36, 1), "gfx1030"),
        (amdgpu(0xFE), None),
        (amdgpu(0x3F)[:40], None),
        (b"\x7fELF" + bytes(60), None),
    ],
)
def test_code_objects(head: bytes, target: str | None) -> None:
    assert code_object(head) == target


def test_of_a_large_file_the_tables_are_enough() -> None:
    data = next(data for data in SMALL if b"libmpi.so.40" in data)
    found = read(data + bytes(MAX_HELD + (8 << 20)))
    assert found is not None and found.elf == read_elf(data) and "libmpi.so.40" in found.elf.needed


@given(st.binary(max_size=200), st.integers(1, 64))
@settings(max_examples=200, deadline=None)
def test_any_bytes(data: bytes, size: int) -> None:
    read(b"\x7fELF" + data, max(size, 4))
    architectures(FATBIN + data, size)
    found = Bundles()
    found.feed(b"CCOB" + data)
    found.feed(b"__CLANG_OFFLOAD_BUNDLE__" + data, last=True)


def fuzz(count: int, seed: int) -> None:
    """Real programs with bytes changed, cut off, doubled: no exception, whatever is found."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(SMALL))
        where = chance.choice((64, 1024, len(data)))  # mostly the headers
        for _ in range(chance.choice((1, 4, 32))):
            data[chance.randrange(min(where, len(data)))] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        read(bytes(data), chance.choice((4096, 1 << 20)))


def test_fuzzed_programs() -> None:
    fuzz(2000, 1)


@pytest.mark.long
def test_more_fuzzed_programs() -> None:
    fuzz(18_000, 2)
