"""Images of real programs (tests/data/evidence/make.py) against what was worked out by hand for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc3build.facts import Facts, Source
from hpc3build.workflows.describe import DEFAULT, Depth
from tests.evidence_images import EXPECTED, IMAGES, make
from tests.files_alone import contradictions, described, files_alone


def facts(name: str, folder: Path, *, depth: Depth = DEFAULT) -> Facts:
    make(name, folder)
    return described(f"oci:{folder}:latest", depth=depth).facts


def test_every_image_has_its_expectation() -> None:
    assert set(IMAGES) == set(EXPECTED) and len(IMAGES) >= 20


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_none_is_wrong_and_nothing_more_is_unknown(name: str, tmp_path: Path) -> None:
    found = facts(name, tmp_path)
    assert found.annotations() == EXPECTED[name]["facts"]
    assert sorted(conflict.key.name for conflict in found.conflicts) == EXPECTED[name]["conflicts"]
    assert all(fact.evidence for fact in found.values())


@pytest.mark.parametrize("name", ["debian-openmpi", "cuda-library", "musl", "static"])
def test_looking_into_every_file_finds_no_less(name: str, tmp_path: Path) -> None:
    found = facts(name, tmp_path, depth=Depth(thorough=True))
    assert found.annotations() == EXPECTED[name]["facts"]


@pytest.mark.parametrize("name", ["easybuild", "spack", "spack-prefix"])
def test_files_alone_never_contradict_the_stack(name: str, tmp_path: Path) -> None:
    known = facts(name, tmp_path).annotations()
    alone = files_alone(f"oci:{tmp_path}:latest", depth=Depth(roots=("/opt",)))
    assert contradictions(alone, known) == [] and len(alone) > 5


def test_the_user_decides_which_program_counts(tmp_path: Path) -> None:
    found = facts("two-mpis", tmp_path, depth=Depth(roots=("/usr/local/bin/two",)))
    assert found.annotations()["org.supercontainers.mpi"] == "mpich"
    assert "named by the user" in next(fact.evidence for key, fact in found.items() if key.name.endswith(".mpi"))


def test_a_label_that_agrees_is_said_with_the_files(tmp_path: Path) -> None:
    glibc = next(fact for key, fact in facts("wrong-label", tmp_path).items() if key.name.endswith(".glibc"))
    assert glibc.source is Source.FILES
    assert "label" in glibc.evidence and "libc.so.6" in glibc.evidence
