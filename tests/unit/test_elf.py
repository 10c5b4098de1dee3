"""The ELF reader against pyelftools on this machine's libraries, and against mutated ones."""

from __future__ import annotations

import itertools
import struct
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection
from elftools.elf.segments import InterpSegment, NoteSegment
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc3build.evidence.elf import Elf, read_elf

FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
MAX_LIBRARY = 32 << 20


def _libraries() -> list[Path]:
    folder = next((Path(name) for name in FOLDERS if list(Path(name).glob("*.so*"))), None)
    found = {path.resolve() for path in folder.glob("*.so*")} if folder else set()
    real = sorted(path for path in found if path.is_file() and path.stat().st_size < MAX_LIBRARY)
    return [path for path in real if _is_elf(path)][:300]


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _programs() -> list[Path]:
    return [path for name in ("bash", "ls", "ldconfig") if (path := Path("/usr/bin") / name).is_file()]


def _oracle(path: Path) -> dict[str, Any]:
    """The same facts by pyelftools, by way of sections where we use segments."""
    told: dict[str, Any] = {"interpreter": None, "soname": None, "abi_tag": None}
    told.update(needed=[], rpath=[], runpath=[])
    needs: dict[str, tuple[str, ...]] = {}
    definitions: list[str] = []
    with path.open("rb") as file:
        elf = ELFFile(file)
        for segment in elf.iter_segments():
            if isinstance(segment, InterpSegment):
                told["interpreter"] = segment.get_interp_name()
            elif isinstance(segment, DynamicSegment):
                tag: Any  # whose attributes depend on what it is
                for tag in segment.iter_tags():
                    if tag.entry.d_tag == "DT_NEEDED":
                        told["needed"].append(tag.needed)
                    elif tag.entry.d_tag == "DT_SONAME":
                        told["soname"] = tag.soname
                    elif tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
                        name = tag.entry.d_tag[3:].lower()
                        told[name] += [part for part in getattr(tag, name).split(":") if part]
            elif isinstance(segment, NoteSegment):
                for note in segment.iter_notes():
                    if note["n_type"] == "NT_GNU_ABI_TAG" and note["n_desc"]["abi_os"] == "ELF_NOTE_OS_LINUX":
                        desc = note["n_desc"]
                        told["abi_tag"] = f"{desc['abi_major']}.{desc['abi_minor']}.{desc['abi_tiny']}"
        for section in elf.iter_sections():
            if isinstance(section, GNUVerNeedSection):
                needs = {str(need.name): tuple(aux.name for aux in auxes) for need, auxes in section.iter_versions()}
            elif isinstance(section, GNUVerDefSection):
                for version, auxes in section.iter_versions():
                    if not version["vd_flags"] & 1:
                        definitions.append(next(iter(auxes)).name)
    told = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
    return {**told, "version_needs": needs, "version_definitions": tuple(definitions)}


def _ours(elf: Elf) -> dict[str, Any]:
    names = ("interpreter", "soname", "needed", "rpath", "runpath", "abi_tag", "version_needs", "version_definitions")
    return {name: dict(value) if name == "version_needs" else value for name in names for value in [getattr(elf, name)]}


def test_agrees_with_pyelftools_on_real_files() -> None:
    paths = _libraries() + _programs()
    if len(paths) < 20:
        pytest.skip("this machine has hardly any shared libraries")
    for path in paths:
        elf = read_elf(path.read_bytes())
        assert elf is not None
        assert elf.complete, path
        assert _ours(elf) == _oracle(path), path


@cache
def _sample() -> bytes | None:
    """Of the small libraries the one that says most, so that mutations meet every table."""
    small = [path.read_bytes() for path in _libraries() + _programs() if path.stat().st_size < 200_000]
    return max(small, key=lambda data: len(str(read_elf(data))), default=None)


@pytest.fixture
def sample() -> bytes:
    data = _sample()
    if data is None:
        pytest.skip("no small shared library on this machine")
    return data


def test_not_elf() -> None:
    assert read_elf(b"") is None
    assert read_elf(b"#!/bin/sh\n") is None
    assert read_elf(b"\x7fEL") is None


def test_a_short_head_gives_what_is_known(sample: bytes) -> None:
    whole = read_elf(sample)
    head = read_elf(sample[:4096])
    assert whole and head
    assert whole.complete
    assert not head.complete
    assert (head.machine, head.bits, head.type) == (whole.machine, whole.bits, whole.type)
    for length in (4, 5, 16, 19, 20, 51, 63, 64, 100):
        cut = read_elf(sample[:length])
        assert cut is not None
        assert not cut.complete


def _made(*, bits: int, order: str, machine: int, runpath: bytes = b"$ORIGIN/../lib:/opt/x") -> bytes:
    """A shared library of one load segment at address 0x1000, of a dynamic section and strings."""
    wide = bits == 64
    header, segment = (64, 56) if wide else (52, 32)
    names = b"\0libm.so.6\0libmade.so.2\0" + runpath + b"\0"
    dynamic_at = header + 2 * segment
    strings_at = dynamic_at + 6 * bits // 4
    tags = [(1, 1), (14, 11), (29, 24), (5, 0x1000 + strings_at), (10, len(names)), (0, 0)]
    dynamic = struct.pack(order + ("Q" if wide else "I") * 12, *itertools.chain(*tags))
    size = strings_at + len(names)
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    layout = "HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"
    head = ident + struct.pack(order + layout, 3, machine, 1, 0, header, 0, 0, header, segment, 2, 0, 0, 0)

    def program(kind: int, at: int, length: int) -> bytes:
        if wide:
            return struct.pack(order + "IIQQQQQQ", kind, 4, at, 0x1000 + at, 0, length, length, 8)
        return struct.pack(order + "IIIIIIII", kind, at, 0x1000 + at, 0, length, length, 4, 4)

    return head + program(1, 0, size) + program(2, dynamic_at, len(dynamic)) + dynamic + names


@pytest.mark.parametrize(
    ("bits", "order", "machine", "name"),
    [
        (64, "<", 62, "x86_64"),
        (32, "<", 3, "x86"),
        (64, "<", 183, "aarch64"),
        (64, "<", 21, "ppc64le"),
        (64, ">", 21, "ppc64"),
        (64, ">", 22, "s390x"),
        (32, ">", 20, "ppc"),
        (64, "<", 243, "riscv64"),
        (64, "<", 190, None),
    ],
)
def test_widths_and_byte_orders(bits: int, order: str, machine: int, name: str | None) -> None:
    elf = read_elf(_made(bits=bits, order=order, machine=machine))
    assert elf is not None
    assert elf.complete
    assert (elf.machine, elf.bits, elf.type) == (name, bits, "dyn")
    assert (elf.needed, elf.soname) == (("libm.so.6",), "libmade.so.2")
    assert (elf.rpath, elf.runpath) == ((), ("$ORIGIN/../lib", "/opt/x"))


def test_absurd_strings_are_left_out() -> None:
    elf = read_elf(_made(bits=64, order="<", machine=62, runpath=b"a" * 200_000))
    assert elf is not None
    assert elf.needed == ("libm.so.6",)
    assert elf.runpath == ()
    assert not elf.complete


def test_names_that_are_not_utf8_can_be_printed() -> None:
    elf = read_elf(_made(bits=64, order="<", machine=62, runpath=b"/opt/\xff"))
    assert elf is not None
    assert elf.runpath == ("/opt/\\xff",)
    print(elf.runpath, file=sys.stderr)


@settings(max_examples=400, deadline=20_000)
@given(st.data())
def test_mutations_never_raise(data: st.DataObject) -> None:
    original = _sample() or _made(bits=64, order="<", machine=62)
    changed = bytearray(original[: data.draw(st.integers(0, len(original)))] if data.draw(st.booleans()) else original)
    dense = min(len(changed), 2048)  # headers, where it hurts most
    for _ in range(data.draw(st.integers(1, 12))):
        if not changed:
            break
        at = data.draw(st.integers(0, (dense if data.draw(st.booleans()) else len(changed)) - 1))
        new = data.draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8), b"\xff\x7f"]))
        changed[at : at + len(new)] = new
    elf = read_elf(bytes(changed))
    assert elf is None or isinstance(elf.complete, bool)
