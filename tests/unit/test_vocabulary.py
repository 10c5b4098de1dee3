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
    (25, T + "conformance", "O", "L", (), False),  # mandatory after a build: tests/unit/test_prove.py
    (26, T + "lock", "O", "LR", (), False),
    (27, T + "rank", "O", "D", (), False),
    # What the specification does not have: an index's word of its own about an image.
    (28, T + "size", "O", "D", (), False),
    (29, T + "seal", "O", "D", (), False),
]
# Values that the row's grammar takes, and such that it does not, "" among all.
VALUES: dict[str, tuple[list[str], list[str]]] = {
    P + "hardware.cpu.optimized.mode": (["generic", "microarch"], ["native", "Generic", "generic,microarch"]),
    P + "hardware.cpu.optimized.version": (["x86_64_v3", "zen3", "neoverse_v1", "armv8.4a"], ["Zen3", "a b", "a,b"]),
    P + "gpu": (
        ["none", "cuda", "cuda,rocm", "opencl", "sycl"],
        ["nvidia", "none,cuda", "cuda, rocm", "CUDA", "cuda,"],
    ),
    P + "hardware.gpu.architecture": (
        ["sm_80", "compute_90,sm_80,sm_90a", "sm_120f", "gfx90a", "gfx90a:sramecc+:xnack-", "gfx9-4-generic"],
        ["80", "sm80", "sm_80b", "compute_", "ampere", "none", "sm_80;sm_90", "gfx90a:xnack"],
    ),
    P + "hardware.gpu.cuda.version": (["12.4", "11.8.0", "13"], ["v12", ">=12", "latest", "system"]),
    P + "hardware.gpu.rocm.version": (["6.3", "7.2.3"], ["rocm6", ".6", "6..3", "6.3,6.4"]),
    P + "hardware.gpu.driver.version": (["525.60.13", "580"], [">=525", "R525", "525 or newer"]),
    P + "mpi": (
        ["none", "mpich", "openmpi", "mpich,openmpi", "mpi-abi"],
        ["mvapich2", "MPICH", "none,mpich", "mpich "],
    ),
    P + "mpi.implementation": (
        ["none", "threadmpi", "intel-mpi", "cray-mpich,openmpi", "mpitrampoline"],
        ["mpi", "intel", "none,openmpi", "OpenMPI", "openmpi@4"],
    ),
    P + "mpi.version": (["4.1.5", "2.3.7-1", "2021.18.0", "5.0.0rc1"], ["main", "system", "4,5", ">4"]),
    P + "mpi.abi.version": (["12.5.0", "40.40.7", "1.0.0"], ["libmpi.so.12", "12.5.", "12.5.0rc1", "so.12"]),
    P + "mpi.portability.mode": (
        ["mpi_replace", "ucx_inject,mpi_replace", "mpi_system", "libfabric_inject", "mpi_translate"],
        ["nonsense", "replace", "mpi_replace mpi_system", "none"],
    ),
    P + "mpi.portability.optimization": (["stock", "cray_xc-CNL10"], ["a b", "-x", "a,b"]),
    P + "communication.framework": (
        ["libfabric", "libfabric,ucx", "nccl,rccl", "psm2,shm,tcp,verbs"],
        ["ofi", "none", "ucx;tcp", "UCX"],
    ),
    P + "libfabric.abi.version": (["1.6", "1.8"], ["libfabric.so.1", "FABRIC_1.6", ".1"]),
    P + "pmi.version": (["1", "2", "pmix", "pmix-5.0.1", "1,2,pmix"], ["3", "pmi2", "pmix5", "none"]),
    P + "libc.provider": (["glibc", "musl", "none"], ["libc", "glibc,musl", "uclibc"]),
    P + "glibc": (["2.34", "2.36.1"], ["2", "2.36-9", "glibc-2.36", "2.3.4.5"]),
    P + "os.vendor": (["debian", "rocky", "opensuse-leap"], ["Debian", "a b"]),
    P + "os.version": (["12", "22.04", "15.6"], ["12 (bookworm)", "A"]),
    P + "kernel.version": (["3.2.0", "5.4"], [">=3.2", "v5", "linux"]),
    P + "kernel.modules": (["nvidia_uvm,xpmem?", "xpmem"], ["nvidia-uvm", "xpmem??", "?xpmem", "a b"]),
    P + "tools": (["jq,wget", "g++", "x86_64-linux-gnu-gcc"], ["/usr/bin/jq", "jq wget", "-x"]),
    P + "documentation": (["IyBUaXRsZQo=", "YWJj"], ["# Title", "a b", "=", "a-_b", "hello", "YQ", "YWJj====", "Yf8="]),
    T + "vocabulary": (["0", "12"], ["v0", "0.1", "-1"]),
    T + "conformance": (
        ["login", "any-uid,env-baked,exec-args,exit-code,login,nobody"],
        ["none", "root", "login nobody"],
    ),
    T + "lock": (
        ["sha256:" + "0a" * 32],
        ["0a" * 32, "sha256:" + "0a" * 31, "sha256:" + "0A" * 32, "sha512:" + "0a" * 64],
    ),
    T + "rank": (["0", "-3", "10"], ["first", "1.5", "+1", "--1"]),
    T + "size": (["0", "123456789012345678"], ["-1", "1 MB", "1" * 19]),
    T + "seal": (["sha256:" + "0f" * 32], ["0f" * 32, "sha256:x", "sha256:" + "0F" * 32]),
    OCI + "title": (['GROMACS 2024 ("CUDA")', "Größe"], ["a\nb", "a\x1bb"]),
    OCI + "version": (["2021.5", "main"], ["a\nb", "a\tb"]),
    OCI + "created": (
        ["2024-02-29T12:00:00Z", "2024-02-29T12:00:00.123+01:00"],
        ["2024-02-29", "yesterday", "2024-02-29 12:00:00", "2024-02-29T12:00:00"],
    ),
    OCI + "licenses": (
        ["Apache-2.0", "LGPL-2.1-or-later AND MIT", "(MIT OR BSD-3-Clause)"],
        ["MIT, BSD", " MIT", "a;b"],
    ),
    OCI + "revision": (["0123abc"], ["a\nb"]),
    OCI + "source": (["https://example.org/x.git", "ssh://git@host/x"], ["example.org/x", "https://", "git@host:x y"]),
    OCI + "base.name": (["docker.io/library/debian:12"], ["debian 12", "a\nb"]),
    OCI + "base.digest": (["sha256:" + "9" * 64], ["9" * 64, "sha256:9"]),
}
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


@pytest.mark.parametrize("name", VALUES)
def test_a_rows_grammar(name: str) -> None:
    good, bad = VALUES[name]
    key = voc.BY_NAME[name]
    assert [value for value in good if not key.holds(value)] == []
    assert bad and [value for value in ("", *bad, f"{good[0]}\n") if key.holds(value)] == []
    assert [value for value in good if key.normal(value) != value] == [], "as it is written: LISTs sorted"


def test_every_row_has_values() -> None:
    assert list(VALUES) == [key.name for key in voc.KEYS]


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
