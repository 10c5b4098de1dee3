"""The vocabulary's table against the rows of the project's specification, version 0."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpc3build.facts import Place
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.markdown import vocabulary_markdown

ROOT = Path(__file__).resolve().parents[2]
P, T, OCI = "org.supercontainers.", "io.github.hpc3build.", "org.opencontainers.image."
LETTERS = {Place.LABEL: "L", Place.DESCRIPTOR: "D", Place.REFERRER: "R"}

# Row, key, need with its condition, place, read aliases, whether no public text carries the key.
ROWS: list[tuple[int, str, str, str, tuple[str, ...], bool]] = [
    (1, P + "hardware.cpu.optimized.mode", "M", "L", (), True),
    (2, P + "hardware.cpu.optimized.version", "M", "LD", ("io.archspec.cpu.target",), False),
    (3, P + "gpu", "M", "LD", (), False),
    (4, P + "hardware.gpu.architecture", "C(gpu)", "LD", (), False),
    (5, P + "hardware.gpu.cuda.version", "C(cuda)", "LD", (), False),
    (6, P + "hardware.gpu.rocm.version", "C(rocm)", "LD", (), True),
    (7, P + "hardware.gpu.driver.version", "C(gpu)", "LD", (), False),
    (8, P + "mpi", "M", "LD", (), False),
    (9, P + "mpi.implementation", "M", "L", (P + "mpi.provider",), False),
    (10, P + "mpi.version", "C(MPI)", "L", (P + "openmpi.version", P + "mpich.version"), False),
    (11, P + "mpi.abi.version", "C(MPI)", "LD", (), True),
    (12, P + "mpi.portability.mode", "C(MPI)", "L", (), False),
    (13, P + "mpi.portability.optimization", "O", "L", (P + "mpi.portability.optimized",), False),
    (14, P + "communication.framework", "C(MPI)", "L", (P + "network.communication.framework",), False),
    (15, P + "libfabric.abi.version", "C(libfabric)", "L", (P + "libfabric.abi",), False),
    (16, P + "pmi.version", "C(MPI)", "L", (), True),
    (17, P + "libc.provider", "M", "L", (), False),
    (18, P + "glibc", "C(glibc)", "LD", (P + "glibc.version",), False),
    (19, P + "os.vendor", "M", "L", (), False),
    (19, P + "os.version", "M", "L", (), False),
    (20, P + "kernel.version", "O", "L", (), True),
    (21, P + "kernel.modules", "O", "L", (), True),
    (22, P + "tools", "O", "L", (), True),
    (23, P + "documentation", "O", "LR", (), True),
    (24, T + "vocabulary", "M", "LD", (), False),
    (25, T + "conformance", "O", "L", (), False),
    (26, T + "lock", "O", "LR", (), False),
    (27, T + "rank", "O", "D", (), False),
    # What the specification does not have: an index's word of its own about an image.
    (28, T + "size", "O", "D", (), False),
    (29, T + "seal", "O", "D", (), False),
]
OPEN_CONTAINERS = ("title", "version", "created", "licenses", "revision", "source", "base.name", "base.digest")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_row_is_as_specified(row: tuple[int, str, str, str, tuple[str, ...], bool]) -> None:
    _, name, need, place, aliases, ours = row
    key = voc.BY_NAME[name]
    assert key.name == name
    assert (key.need.value + (f"({key.condition})" if key.condition else "")) == need
    assert "".join(letter for flag, letter in LETTERS.items() if flag in key.place) == place
    assert set(key.aliases) >= set(aliases)
    assert key.confirmed is not ours


def test_the_table_is_the_29_rows_then_the_keys_of_oci() -> None:
    assert [row[0] for row in ROWS] == sorted(row[0] for row in ROWS)
    assert {row[0] for row in ROWS} == set(range(1, 30))
    expected = [row[1] for row in ROWS] + [OCI + name for name in OPEN_CONTAINERS]
    assert [key.name for key in voc.KEYS] == expected


def test_the_mandatory_set() -> None:
    mandatory = {key.name for key in voc.KEYS if key.need.value == "M"}
    assert mandatory == {row[1] for row in ROWS if row[2] == "M"} | {OCI + "title"}


def test_every_alias_and_name_leads_to_one_key() -> None:
    names = [name for key in voc.KEYS for name in (key.name, *key.aliases)]
    assert len(names) == len(set(names))
    assert set(voc.BY_NAME) == set(names)
    for key in voc.KEYS:
        for name in (key.name, *key.aliases):
            assert voc.BY_NAME[name] is key


def test_names_are_of_our_prefixes_and_never_of_those_that_runtimes_own() -> None:
    for key in voc.KEYS:
        assert key.name.startswith((P, T, OCI))
        assert not key.name.startswith(voc.FORBIDDEN_PREFIXES)
        assert key.name == key.name.lower()
    for name in ("com.hooks.cxi.enabled", "run.oci.keep_original_groups", "org.systemd.property.X", "cdi.k8s.io/gpu"):
        assert name.startswith(voc.FORBIDDEN_PREFIXES)


def test_conditions_stand_only_at_conditional_keys_and_all_texts_are_told() -> None:
    for key in voc.KEYS:
        assert bool(key.condition) is (key.need.value == "C")
        assert key.grammar
        assert key.derived
        assert key.consumers
        assert key.subject in {"cpu", "gpu", "mpi", "fabric", "libc", "system", "provenance"}


def test_version_is_a_value_of_the_vocabulary_key() -> None:
    voc.VOCABULARY.check(voc.VERSION)
    assert voc.VERSION == "0"


def test_the_documentation_is_the_generated_one() -> None:
    text = (ROOT / "docs" / "vocabulary.md").read_text(encoding="utf-8")
    assert text == vocabulary_markdown(), "python -m hpc3build.facts.markdown > docs/vocabulary.md"


def test_the_module_prints_the_documentation() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hpc3build.facts.markdown"], capture_output=True, cwd=ROOT, timeout=60, check=True
    )
    assert done.stdout.decode("utf-8") == vocabulary_markdown()


def test_the_documentation_has_a_row_for_every_key_and_every_rule() -> None:
    text = vocabulary_markdown()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [key.name for key in voc.KEYS]
    widths = {row.replace("\\|", "").count("|") for row in rows}
    assert widths == {9}, "a | within a cell must be escaped"
    for rule in [*(f"N{number}" for number in range(1, 7)), *(f"R{number}" for number in range(1, 11))]:
        assert f"* **{rule}** " in text
    for key in voc.KEYS:
        for alias in key.aliases:
            assert f"`{alias}`" in text
