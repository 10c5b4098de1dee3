"""Hosts × images with answers worked out by hand: every file of tests/data/match begins with its answer."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from hpc3build.facts import Fact, Source, cuda_drivers, gpu_found
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
    rows = [row for row in cuda_drivers.TOOLKITS.values() if not row.confirmed]
    assert rows and all(row.source for row in (*rows, *tables.GENERIC_GFX.values(), *tables.FAMILY.values()))
    for path in CASES:
        found = matched(json.loads(path.read_text()))
        if any("unconfirmed" in finding.hint for finding in found.findings):
            assert path.name.startswith(("DEGRADED", "RUN")), path.name


def h100(driver: str) -> Fingerprint:
    return replace(host("h100"), driver=replace(host("h100").driver, nvidia=driver, cuda=None))


def test_a_number_of_a_branch_only_warns() -> None:
    pairs = {
        voc.CPU_VERSION.name: "x86_64",
        voc.MPI.name: "none",
        voc.GPU.name: "cuda",
        voc.CUDA_VERSION.name: "13.3",
        voc.GPU_ARCHITECTURE.name: "compute_90",
    }
    found = Matcher(h100("595.45.04")).match(pairs, {"os": "linux", "architecture": "amd64"})
    assert found.verdict.value == "DEGRADED" and found.deciding is not None
    assert "needs driver 610" in found.deciding.message and "unconfirmed" in found.deciding.hint


@pytest.mark.parametrize("driver", ["440.33", "450.80.02", "525.60.13", "570.26", "580", "580.20", "595.45.04", "650"])
@pytest.mark.parametrize("cuda", [f"{major}.{minor}" for major, minor in cuda_drivers.TOOLKITS])
@pytest.mark.parametrize("code", ["sm_90", "compute_90", "compute_90,sm_90"])
def test_the_least_driver_that_images_are_given_changes_no_verdict(cuda: str, code: str, driver: str) -> None:
    """The key is for those who have no table; whoever has it comes to the same without."""
    pairs = {
        voc.CPU_VERSION.name: "x86_64",
        voc.MPI.name: "none",
        voc.GPU.name: "cuda",
        voc.CUDA_VERSION.name: cuda,
        voc.GPU_ARCHITECTURE.name: code,
    }
    known = gpu_found.driver(Fact(voc.CUDA_VERSION, cuda, Source.FILES, "x"), code)
    told = {fact.key.name: fact.value for fact in known}
    platform = {"os": "linux", "architecture": "amd64"}
    with_key, without = (Matcher(h100(driver)).match(said, platform) for said in ({**pairs, **told}, pairs))
    assert with_key.verdict is without.verdict


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
