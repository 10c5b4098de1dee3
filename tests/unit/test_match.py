"""Hosts × images with answers worked out by hand: every file of tests/data/match begins with its answer."""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from hpc3build.facts import vocabulary as voc
from hpc3build.host.fingerprint import Fingerprint
from hpc3build.match import Match, Matcher, tables
from hpc3build.workflows.fingerprint import recorded

DATA = Path(__file__).resolve().parents[1] / "data"
CASES = sorted((DATA / "match").glob("*.json"))


@lru_cache
def host(name: str) -> Fingerprint:
    return recorded(str(DATA / "hosts" / f"{name}.probe"))


def matched(case: dict[str, Any]) -> Match:
    return Matcher(host(case["host"])).match(case["annotations"], case["platform"])


def test_the_table_is_large_and_has_every_answer() -> None:
    answers = Counter(path.name.partition(".")[0] for path in CASES)
    assert set(answers) == {"RUN", "DEGRADED", "UNKNOWN", "NO"}
    assert sum(answers.values()) >= 60 and min(answers.values()) >= 10, answers


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    found = matched(case)
    assert found.verdict.value == path.name.partition(".")[0], (case["why"], found.findings)
    worst = [finding for finding in found.findings if finding.rule == case["rule"]]
    assert any(case["says"] in f"{finding.message} {finding.hint}" for finding in worst), found.findings
    if path.name.partition(".")[0] != "RUN":
        assert found.deciding in worst


def test_every_unconfirmed_number_only_warns() -> None:
    """Cases that rest on an unconfirmed row say so and are no NO."""
    rows = [row for row in tables.TOOLKIT_DRIVER.values() if not row.confirmed]
    assert rows and all(row.source for row in (*rows, *tables.GENERIC_GFX.values(), *tables.FAMILY.values()))
    for path in CASES:
        found = matched(json.loads(path.read_text()))
        if any("unconfirmed" in finding.hint for finding in found.findings):
            assert path.name.startswith(("DEGRADED", "RUN")), path.name


HOSTILE = ["", " ", "none,", "\x1b[31m", "x" * 5000, "sm_80;sm_90", "../../etc", "12.4" * 2000, "9" * 400, "-1", "é"]


@pytest.mark.parametrize("key", [key.name for key in voc.KEYS], ids=lambda name: name.rpartition(".")[2])
@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_values_are_never_a_failure_of_ours(key: str, value: str) -> None:
    pairs = {
        voc.CPU_VERSION.name: "x86_64",
        voc.GPU.name: "cuda",
        voc.CUDA_VERSION.name: "12.2",
        voc.GPU_ARCHITECTURE.name: "sm_80",
        voc.MPI.name: "mpich",
        voc.MPI_MODE.name: "mpi_replace",
    }
    found = Matcher(host("a100")).match({**pairs, key: value}, {"os": "linux", "architecture": "amd64"})
    assert found.score >= 0 and len(str(found.findings)) < 20_000
