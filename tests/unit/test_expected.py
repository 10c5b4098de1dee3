"""Real locks and closures: the planned facts equal what was worked out by hand from the rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc3build.facts import Facts, Source
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.subjects import of_stack
from hpc3build.frontends.easybuild import stack_of_closure
from hpc3build.frontends.spack_lock import VERSIONS, read_lock
from hpc3build.stack import Stack
from tests import closures

DATA = Path(__file__).resolve().parents[1] / "data"
LOCKS = sorted(path.stem for path in (DATA / "spack" / "expected").glob("*.json"))
CLOSURES = sorted(path.stem for path in (DATA / "easybuild" / "expected").glob("*.json"))


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def lock(name: str) -> Stack:
    path = DATA / "spack" / "envs" / name / "spack.lock"
    return read_lock(path.read_text(encoding="utf-8"), str(path))


def closure(name: str, target: str | None = None) -> Stack:
    return stack_of_closure(closures.read(name), target=target)


def check(found: Facts, expected: Any) -> None:
    assert found.annotations() == expected["annotations"]
    assert sorted(conflict.key.name for conflict in found.conflicts) == sorted(expected["conflicts"])
    assert not set(expected.get("undecided", ())) & set(found.annotations())
    evidence = {key.name: fact.evidence for key, fact in found.items()}
    assert expected.get("evidence", evidence) == evidence
    for key, fact in found.items():
        assert fact.key is key
        assert fact.source is Source.STACK
        assert fact.evidence.strip()
        assert "\n" not in fact.evidence
    for conflict in found.conflicts:
        assert len({fact.value for fact in conflict.values}) > 1
        assert all(fact.evidence for fact in conflict.values)
        assert all(fact.value in conflict.message for fact in conflict.values) or conflict.key.name.endswith("mode")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock(name: str) -> None:
    check(of_stack(lock(name), folder=name), load(DATA / "spack" / "expected" / f"{name}.json"))


def packages_in(node: Any) -> Iterator[str]:
    """Every package of a parsed lock as evidence names it: NAME@VERSION/HASH, by its own hash and that of its place."""
    for key, value in node.items() if isinstance(node, dict) else ():
        specs = value.get("concrete_specs") if isinstance(value, dict) else None
        for place, spec in (value if key == "concrete_specs" else specs or {}).items():
            # Up to version 3 the name is the key of what a node says.
            own = {"name": next(iter(spec)), **next(iter(spec.values()))} if "name" not in spec else spec
            for known in {place, own.get("hash", place)}:
                yield f"{own['name']}@{own['version']}/{known[:7]}"
        yield from packages_in(value)


@pytest.mark.parametrize("name", LOCKS)
def test_the_evidence_of_a_lock_names_packages_that_are_in_it(name: str) -> None:
    found = of_stack(lock(name), folder=name)
    texts = [fact.evidence for _, fact in found.items()]
    texts += [fact.evidence for conflict in found.conflicts for fact in conflict.values]
    named = {word for text in texts for word in re.findall(r"[^ ]+@[^ ]+/[a-z0-9-]{7}", text)}
    assert named and named <= set(packages_in(load(DATA / "spack" / "envs" / name / "spack.lock")))
    for key in (voc.CUDA_VERSION, voc.ROCM_VERSION, voc.MPI_VERSION, voc.IMAGE_VERSION):
        if (fact := found.get(key)) is not None:
            assert f"@{fact.value}/" in fact.evidence, "a version is that of the package that it is read from"


@pytest.mark.parametrize("name", CLOSURES)
def test_a_closure(name: str) -> None:
    check(of_stack(closure(name), folder=name), load(DATA / "easybuild" / "expected" / f"{name}.json"))


@pytest.mark.parametrize("name", CLOSURES)
def test_a_closure_for_a_target(name: str) -> None:
    expected = load(DATA / "easybuild" / "expected" / f"{name}.json")
    named = expected.get("with_target_x86_64_v3")
    if named is None:
        pytest.skip("no expectation for a target")
    found = of_stack(closure(name, "x86_64_v3"), folder=name).annotations()
    assert found == {**expected["annotations"], **named["annotations"]}


def test_every_lock_and_closure_has_its_expectation() -> None:
    assert sorted(path.parent.name for path in (DATA / "spack" / "envs").glob("*/spack.lock")) == LOCKS
    assert closures.NAMES == CLOSURES
    assert len(LOCKS) >= 19
    assert len(CLOSURES) >= 13 + 30


def test_every_toolchain_with_easyconfigs_is_among_the_closures() -> None:
    found = {closures.read(name)["modules"][-1]["toolchain"]["name"] for name in CLOSURES}
    assert found >= {"foss", "gompi", "intel", "iimpi", "gmpich", "gmpflf", "nvompi", "NVHPC", "nvidia-compilers"}
    assert found >= {"rompi", "rocm-compilers", "lfoss", "lompi", "lmpich", "lmpflf", "llvm-compilers", "iomkl"}
    assert found >= {"iompi", "gomkl", "gfbf", "GCC", "GCCcore", "system"}


def test_every_closure_has_its_reasoning() -> None:
    """In the file itself, key by key, or in a line of the README beside it."""
    readme = (DATA / "easybuild" / "expected" / "README.md").read_text(encoding="utf-8")
    told = re.findall(r"^\* `(\S+)`: .{20,}", readme, re.MULTILINE)
    with_why = [name for name in CLOSURES if load(DATA / "easybuild" / "expected" / f"{name}.json").get("why")]
    assert sorted([*told, *with_why]) == CLOSURES


@pytest.mark.parametrize("name", LOCKS)
def test_every_lock_has_its_reasoning(name: str) -> None:
    """Key by key: of what is said, of what is in conflict and of what is left to evidence, by a rule or a row."""
    expected = load(DATA / "spack" / "expected" / f"{name}.json")
    keys = {*expected["annotations"], *expected["conflicts"], *expected["undecided"]}
    why = expected["why"]
    assert keys - set(why) == set()
    rule = r"(?:R[1-8]|[Rr]ow \d+)"
    assert [key for key, text in why.items() if not re.match(rf"{rule}(?:(?:/|, ){rule})*: .{{15,}}", text)] == []
    assert set(why) <= set(voc.BY_NAME)


def test_the_locks_are_of_all_versions_that_can_be_read() -> None:
    paths = (DATA / "spack" / "envs").glob("*/spack.lock")
    assert {load(path)["_meta"]["lockfile-version"] for path in paths} == set(VERSIONS) == set(range(1, 9))
