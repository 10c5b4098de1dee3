"""Tables and documents for people and scripts."""

from __future__ import annotations

import json

import pytest

from hpc3build import report
from hpc3build.facts import Conflict, Fact, Facts, Note, Source, gather
from hpc3build.facts import vocabulary as voc
from hpc3build.reference import parse
from hpc3build.rewrite import Result

ESCAPE = "\x1b]0;x\x07\x9b31m\u202e"
GPU = voc.BY_NAME["org.supercontainers.gpu"]
MPI = voc.BY_NAME["org.supercontainers.mpi"]


def fact(value: str = "cuda", evidence: str = "spack.lock: cuda@11.8.0/abc") -> Fact:
    return Fact(GPU, value, Source.STACK, evidence)


def test_table() -> None:
    shown = report.table(("a", "name"), [("1", "x"), ("long", "y z")])
    assert shown == "a     name\n-     ----\n1     x\nlong  y z\n"


def test_table_wraps_its_last_column_alone() -> None:
    words = " ".join(f"word{number}" for number in range(20))
    lines = report.table(("key", "text"), [("k", words)], width=40).splitlines()
    assert len(lines) > 4 and all(len(line) <= 40 for line in lines)
    assert all(line.startswith("     ") for line in lines[3:])
    assert " ".join(line[5:] for line in lines[2:]) == words


def test_rows_are_one_line_where_there_is_no_terminal() -> None:
    assert len(report.table(("a", "b"), [("x", "y " * 500)]).splitlines()) == 3
    assert report.table(("a", "b"), [("x", "")]).splitlines()[2] == "x"


@pytest.mark.parametrize("place", ["cell", "conflict", "note"])
def test_no_control_character_reaches_the_terminal(place: str) -> None:
    if place == "cell":
        shown = report.facts_text(gather([fact(evidence=f"e{ESCAPE}\nforged")]))
    elif place == "conflict":
        values = (fact(evidence=ESCAPE), fact("rocm", f"x\n{ESCAPE}"))
        shown = report.facts_text(gather([Conflict(GPU, values, f"both\n{ESCAPE}")]))
    else:
        shown = report.facts_text(gather([Note(GPU, f"seen\n{ESCAPE}", ESCAPE)]))
    assert not set(ESCAPE) & {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)
    assert not any(line.startswith("forged") for line in shown.splitlines())


def test_facts() -> None:
    facts = gather(
        [
            fact(),
            Conflict(MPI, (Fact(MPI, "mpich", Source.STACK, "a"), Fact(MPI, "openmpi", Source.FILES, "b")), "two"),
            Note(GPU, "seen", "there"),
        ]
    )
    assert report.facts_json("it", facts) == {
        "subject": "it",
        "annotations": {GPU.name: "cuda"},
        "facts": [{"key": GPU.name, "value": "cuda", "source": "stack", "evidence": "spack.lock: cuda@11.8.0/abc"}],
        "conflicts": [
            {
                "key": MPI.name,
                "message": "two",
                "values": [
                    {"value": "mpich", "source": "stack", "evidence": "a"},
                    {"value": "openmpi", "source": "files", "evidence": "b"},
                ],
            }
        ],
        "notes": [{"key": GPU.name, "message": "seen", "evidence": "there"}],
    }
    shown = report.facts_text(facts)
    assert shown.splitlines()[2].split() == [GPU.name, "cuda", "stack", "spack.lock:", "cuda@11.8.0/abc"]
    assert f"conflict: {MPI.name}: two: mpich (a); openmpi (b)\n" in shown and f"note: {GPU.name}: seen" in shown
    assert report.facts_text(Facts()) == "nothing is known\n"


def test_a_conflict_is_told_once() -> None:
    facts = gather([fact(evidence="a"), fact("rocm", "b")])
    assert report.facts_text(facts).splitlines()[-1] == (
        f"conflict: {GPU.name}: these do not agree: cuda (a); rocm (b)"
    )


@pytest.mark.parametrize(("length", "shown"), [(43, 43), (44, 44), (45, 44), (5000, 44)])
def test_long_values_are_cut_in_tables_only(length: int, shown: int) -> None:
    assert len(report.shorten("x" * length)) == shown
    assert report.shorten("x" * length).endswith("…") == (length > 44)


RESULT = Result(parse("oci:x:1"), "sha256:a", "sha256:b", True, ("sha256:b",), True, ("careful",))


def test_annotate() -> None:
    document = report.annotate_json([("oci:x:1", RESULT, None), ("oci:y", None, "gone")], {"failed": 1})["results"]
    assert document[0] == {
        "reference": "oci:x:1",
        "old_digest": "sha256:a",
        "new_digest": "sha256:b",
        "changed": True,
        "written": ["sha256:b"],
        "converted": True,
        "warnings": ["careful"],
        "error": None,
        "changes": [],
        "undecided": [],
        "attached": [],
    }
    assert (document[1]["old_digest"], document[1]["changed"], document[1]["error"]) == (None, False, "gone")
    assert report.annotate_text("oci:x:1", RESULT, dry_run=False) == "oci:x:1: sha256:a -> sha256:b\n"
    assert report.annotate_text("oci:x:1", RESULT, dry_run=True) == "oci:x:1: sha256:a would become sha256:b\n"


def test_a_document_is_one_json_text() -> None:
    text = report.dumps({"a": "ö", "b": ["\u2028", "\x1b"]})
    assert text.endswith("}\n") and json.loads(text) == {"a": "ö", "b": ["\u2028", "\x1b"]}
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("counts", "told"), [({"changed": 1}, "1 reference: 1 "), ({"changed": 2}, "2 references: 2 ")]
)
def test_one_is_no_plural(counts: dict[str, int], told: str) -> None:
    assert report.annotate_summary(counts).startswith(told)
