"""Section names, compared with what a real compiler writes, and on files that lie."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc3build.evidence.sections import TAIL, read_section_names
from hpc3build.evidence.sections import section_names as names_of
from tests.variants import elf_with_sections


def section_names(data: bytes) -> frozenset[str] | None:
    return names_of(data[:64], data, len(data))


SMALL = elf_with_sections(".text", ".debug_info")


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
@pytest.mark.parametrize("debugging", [True, False])
def test_of_a_real_program(debugging: bool, tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-g3" if debugging else "-s", "-o", "a", "a.c"], cwd=tmp_path, check=True)
    names = section_names((tmp_path / "a").read_bytes())
    assert names is not None and ".text" in names and (".debug_info" in names) == debugging


def test_of_a_made_one() -> None:
    assert section_names(SMALL) == {"", ".text", ".debug_info", ".shstrtab"}


def test_no_table_is_no_names() -> None:
    assert section_names(SMALL[:40] + bytes(8) + SMALL[48:]) == frozenset()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"#!/bin/sh\n",
        SMALL[:60],
        SMALL[:-1],
        SMALL[:40] + struct.pack("<Q", 1 << 63) + SMALL[48:],
        SMALL[:60] + struct.pack("<H", 0xFFFF) + SMALL[62:],
        SMALL[:62] + struct.pack("<H", 99) + SMALL[64:],
    ],
    ids=["empty", "a script", "a head", "cut", "a table beyond all", "too many", "names beyond the table"],
)
def test_what_cannot_be_told_is_none(data: bytes) -> None:
    assert section_names(data) is None


@pytest.mark.parametrize("step", [1, 7, 64, 1 << 20])
def test_a_stream_tells_the_same(step: int) -> None:
    """Also of a library whose table lies far behind what is kept of it."""
    large = SMALL[:40] + struct.pack("<Q", struct.unpack_from("<Q", SMALL, 40)[0] + 3 * TAIL) + SMALL[48:64]
    for data in (SMALL, b"#!/bin/sh\n", b"\x7fELF", b""):
        told = read_section_names("/x", len(data), iter([data[at : at + step] for at in range(0, len(data), step)]))
        assert told == (section_names(data) or (False if data.startswith(b"\x7fELF") else frozenset()))
    assert read_section_names("/x", len(large), iter([large])) is False


@given(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=8))
def test_nothing_that_a_file_says_is_believed(at: int, noise: bytes) -> None:
    section_names(SMALL[:at] + noise + SMALL[at + len(noise) :])
