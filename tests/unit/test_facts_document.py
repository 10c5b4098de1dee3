"""Facts out of documents of ours: what was written is read, and nothing else is believed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc3build.errors import InputError
from hpc3build.facts import document
from hpc3build.facts.subjects import of_stack
from hpc3build.frontends.easybuild_checked import is_closure
from hpc3build.frontends.easybuild_stack import stack_of_closure
from hpc3build.recipe import Settings
from hpc3build.report import facts_json
from hpc3build.run import run
from hpc3build.workflows.describe import facts_of
from tests.unit.test_easybuild import CUDA, closure, module, recorded


def test_what_was_written_is_read() -> None:
    facts = of_stack(stack_of_closure(recorded(CUDA), target="zen3"), folder="x")
    written = json.loads(json.dumps(facts_json("x", facts)))
    assert document.is_document(written)
    read = document.read(written, "x.json")
    assert read.annotations() == facts.annotations() and dict(read.facts) == dict(facts.facts)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"key": "org.supercontainers.nonsense"}, "no key of the vocabulary"),
        ({"key": "org.supercontainers.mpi"}, "there twice"),
        ({"value": "Zen 3"}, "not a value of this key"),
        ({"source": "rumour"}, "unknown source"),
        ({"evidence": 5}, "expected key, value"),
    ],
)
def test_anything_else_is_refused(change: dict[str, Any], says: str) -> None:
    entry = {"key": "org.supercontainers.gpu", "value": "none", "source": "stack", "evidence": "e"}
    mpi = {"key": "org.supercontainers.mpi", "value": "none", "source": "stack", "evidence": "e"}
    data = {"subject": "x", "annotations": {}, "facts": [mpi, {**entry, **change}]}
    with pytest.raises(InputError) as caught:
        document.read(data, "x.json")
    assert "x.json: facts[1]" in caught.value.message and says in caught.value.message


def test_what_was_in_conflict_has_no_value() -> None:
    conflict = {"key": "org.supercontainers.mpi", "message": "two", "values": []}
    read = document.read({"subject": "x", "annotations": {}, "facts": [], "conflicts": [conflict, 5, {}]}, "x.json")
    assert not read.facts and [note.message for note in read.notes] == ["in conflict: two"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, json_values)
def test_any_json_is_read_or_refused(facts: Any, conflicts: Any) -> None:
    try:
        document.read({"subject": "", "annotations": {}, "facts": facts, "conflicts": conflicts}, "x.json")
    except InputError as error:
        assert "x.json" in error.message


def test_files_of_either_kind_are_sources(tmp_path: Path) -> None:
    made = closure(module("A", built={"CC": "icx", "CFLAGS": "-O2 -march=x86-64-v3 -mtune=generic"}))
    assert is_closure(made) and not is_closure({"modules": [{}], "roots": []}) and not is_closure([])
    one, two = tmp_path / "x.json.closure", tmp_path / "x.json"
    one.write_text(json.dumps(made))
    _, facts = facts_of(str(one), Settings(), run)
    assert facts.annotations()["org.supercontainers.hardware.cpu.optimized.version"] == "x86_64_v3"
    two.write_text(json.dumps(facts_json("x", facts)))
    assert facts_of(str(two), Settings(), run)[1].annotations() == facts.annotations()


def test_what_was_built_wins_over_what_was_asked() -> None:
    made = closure(module("A", built={"CC": "gcc", "CFLAGS": "-O2 -march=native"}), module("B", built={}))
    packages = {package.name: package for package in stack_of_closure(made, target="zen3").packages}
    assert (packages["A"].target, packages["A"].unmapped_flags) == (None, "-march=native")
    assert packages["B"].target == "zen3", "nothing is known of how it was built"


def facts_of_closure(path: Path, document: Any) -> dict[str, str]:
    path.write_text(json.dumps(document))
    return facts_of(str(path), Settings(), run)[1].annotations()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"deps": [1]}, "modules[0].deps[0]: expected a mapping, found a number"),
        ({"builddeps": {}}, "modules[0].builddeps: expected a list, found a mapping"),
        ({"deps": [{"name": "B"}]}, "modules[0].deps[0].version: expected text, found nothing"),
        ({"deps": [{"name": ["B"], "version": "1"}]}, "modules[0].deps[0].name: expected text, found a list"),
        ({"name": 1}, "modules[0].name: expected text"),
        ({"easyconfig": None}, "modules[0].easyconfig: expected text"),
        ({"toolchain": "GCC"}, "modules[0].toolchain: expected a mapping"),
        ({"toolchainopts": ["usempi"]}, "modules[0].toolchainopts: expected a mapping"),
        ({"mpi_module": [["a"]]}, "modules[0].mpi_module[0]: expected text"),
        ({"cuda_compute_capabilities": [8.0]}, "modules[0].cuda_compute_capabilities[0]: expected text"),
        ({"built": "gcc"}, "modules[0].built: expected a mapping"),
        ({"told": {"optarch": "GCC:a;GCC:b"}}, "modules[0].told.optarch: 'GCC:a;GCC:b' names a compiler twice"),
    ],
)
def test_a_closure_that_is_none_is_refused_with_the_place(change: dict[str, Any], place: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        facts_of_closure(tmp_path / "x.json", closure({**module("A"), **change}))
    assert f"{tmp_path}/x.json: {place}" in caught.value.message


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("roots", [["a"]], "x.json: roots[0]: expected text, found a list"),
        ("easybuild_version", 5, "x.json: easybuild_version: expected text"),
        ("easybuild_options", ["a"], "x.json: easybuild_options: expected a mapping"),
    ],
)
def test_so_are_wrong_roots_and_options(key: str, value: Any, place: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        facts_of_closure(tmp_path / "x.json", {**closure(module("A")), key: value})
    assert place in caught.value.message


def spoilt(value: Any, chance: random.Random) -> Any:
    """``value`` with something in it replaced, sometimes."""
    if chance.random() < 0.04:
        return chance.choice([None, True, 0, 8.5, "", "x", ";:", "\x1b\n\ud800", [], [1], ["a"], [[]], {}, {"a": []}])
    if isinstance(value, dict):
        return {key: spoilt(inner, chance) for key, inner in value.items()}
    return [spoilt(inner, chance) for inner in value] if isinstance(value, list) else value


def test_any_spoilt_closure_is_read_or_refused(tmp_path: Path) -> None:
    whole = recorded(CUDA)
    whole = {**whole, "modules": whole["modules"][-8:]}
    extra = {
        "built": {"CC": "icx", "CFLAGS": "-O2"},
        "told": {"optarch": "GCC:-O2", "cuda_compute_capabilities": "8.0"},
    }
    whole["modules"][-1] |= extra
    whole["easybuild_options"] = {"cuda_compute_capabilities": ["8.0"]}
    refused = 0
    for seed in range(600):
        try:
            facts_of_closure(tmp_path / "x.json", spoilt(whole, random.Random(seed)))
        except InputError as error:
            assert error.message.startswith(str(tmp_path)) and "\n" not in error.message, error.message
            refused += 1
    assert 60 < refused < 600
