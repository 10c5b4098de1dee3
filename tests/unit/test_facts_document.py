"""Facts out of documents of ours: what was written is read, and nothing else is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc3build.errors import InputError
from hpc3build.facts import document
from hpc3build.facts.subjects import of_stack
from hpc3build.frontends.easybuild_stack import is_closure, stack_of_closure
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
