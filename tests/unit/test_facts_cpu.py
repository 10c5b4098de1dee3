"""CPU targets: rules R1 and R2."""

from __future__ import annotations

import pytest

from hpc3build.errors import InputError
from hpc3build.facts import Source, cpu
from hpc3build.facts import vocabulary as voc
from hpc3build.stack import Stack
from tests.stacks import conflicts, eb, notes, pkg, root, stack, values


def test_the_highest_target_of_those_that_count_decides_wherever_it_lies() -> None:
    made = stack(root("a@1", "b", target="x86_64_v2"), pkg("b@1", "run:c", target="x86_64"), pkg("c@1", target="zen3"))
    assert values(cpu.from_stack(made)) == {voc.CPU_VERSION: "zen3", voc.CPU_MODE: "microarch"}


@pytest.mark.parametrize(
    ("target", "mode"),
    [
        ("x86_64", "generic"),
        ("x86_64_v4", "generic"),
        ("aarch64", "generic"),
        ("zen2", "microarch"),
        ("a64fx", "microarch"),
        ("skylake_avx512", "microarch"),
    ],
)
def test_mode_says_whether_archspec_calls_the_target_generic(target: str, mode: str) -> None:
    found = values(cpu.from_stack(stack(root("a@1", target=target))))
    assert found == {voc.CPU_VERSION: target, voc.CPU_MODE: mode}
    assert cpu.mode(target) == mode


def test_a_build_only_package_never_counts() -> None:
    made = stack(
        root("a@1", "build:cmake", target="x86_64"), pkg("cmake@3", "link:b", target="zen4"), pkg("b@1", target="zen4")
    )
    assert values(cpu.from_stack(made))[voc.CPU_VERSION] == "x86_64"


@pytest.mark.parametrize("kind", ["link", "run", "build+link", "build+run", "toolchain"])
def test_link_run_and_toolchain_edges_count(kind: str) -> None:
    made = stack(root("a@1", f"{kind}:b", target="x86_64"), pkg("b@1", target="zen4"))
    assert values(cpu.from_stack(made))[voc.CPU_VERSION] == "zen4"


def test_a_test_edge_does_not_count() -> None:
    made = stack(root("a@1", "test:b", target="x86_64"), pkg("b@1", target="zen4"))
    assert values(cpu.from_stack(made))[voc.CPU_VERSION] == "x86_64"


def test_an_external_package_does_not_count_for_the_target_but_what_it_needs_does() -> None:
    made = stack(
        root("a@1", "mpi", target="x86_64_v2"),
        pkg("mpi@1", "b", target="zen4", external=True),
        pkg("b@1", target="x86_64_v3"),
    )
    assert values(cpu.from_stack(made))[voc.CPU_VERSION] == "x86_64_v3"


def test_a_package_that_no_root_reaches_does_not_count() -> None:
    made = stack(root("a@1", target="x86_64"), pkg("lost@1", target="zen4"))
    assert [package.name for package in made.counted] == ["a"]
    assert values(cpu.from_stack(made))[voc.CPU_VERSION] == "x86_64"


@pytest.mark.parametrize(
    "targets", [("x86_64_v4", "zen2"), ("zen2", "aarch64"), ("icelake", "zen4"), ("unheard_of", "x86_64")]
)
def test_targets_that_cannot_be_ordered_are_a_conflict_and_no_value(targets: tuple[str, str]) -> None:
    made = stack(*(root(f"p{i}@1", target=target) for i, target in enumerate(targets)))
    found = list(cpu.from_stack(made))
    assert values(found) == {}
    told = conflicts(found)
    assert told[voc.CPU_VERSION] == set(targets)
    assert voc.CPU_MODE in told
    assert all(target in statement.message for statement in found for target in targets)  # type: ignore[union-attr]


def test_a_lower_target_is_no_part_of_a_conflict() -> None:
    made = stack(root("a@1", target="x86_64"), root("b@1", target="zen2"), root("c@1", target="x86_64_v4"))
    assert conflicts(cpu.from_stack(made))[voc.CPU_VERSION] == {"zen2", "x86_64_v4"}


def test_a_target_that_archspec_does_not_know_has_no_mode() -> None:
    assert values(cpu.from_stack(stack(root("a@1", target="zen99")))) == {voc.CPU_VERSION: "zen99"}


def test_flags_that_name_no_target_make_the_whole_unknown() -> None:
    made = eb(
        root("A@1", "run:B", target="zen3"), pkg("B@1", unmapped_flags="-march=native"), options={"target": "zen3"}
    )
    found = list(cpu.from_stack(made))
    assert values(found) == {}
    assert notes(found) == [voc.CPU_VERSION]
    assert "-march=native" in found[0].message  # type: ignore[union-attr]


def test_flags_of_what_does_not_count_decide_nothing() -> None:
    made = eb(root("A@1", "build:B", target="zen3"), pkg("B@1", unmapped_flags="-march=native"))
    assert values(cpu.from_stack(made))[voc.CPU_VERSION] == "zen3"


@pytest.mark.parametrize(("options", "expected"), [({}, None), ({"target": "x86_64_v3"}, "x86_64_v3")])
def test_a_recipe_that_names_no_target_has_a_cpu_fact_only_by_option(options: dict[str, str], expected: str) -> None:
    found = values(cpu.from_stack(eb(root("A@1"), options=options)))
    assert found.get(voc.CPU_VERSION) == expected
    assert (voc.CPU_MODE in found) is (expected is not None)


def test_evidence_names_a_root_first_and_what_decided() -> None:
    made: Stack = stack(
        pkg("b@1", target="zen3"), pkg("c@1", target="zen3"), root("a@2", "b", "c", target="zen3", target_origin="flag")
    )
    version = next(iter(cpu.from_stack(made)))
    assert version.evidence == "test: a@2 and 2 more: target zen3 (flag)"  # type: ignore[union-attr]
    assert version.source is Source.STACK  # type: ignore[union-attr]


def test_a_name_that_archspec_does_not_know_is_refused_with_the_nearest() -> None:
    assert cpu.known("zen3") == "zen3"
    with pytest.raises(InputError) as refused:
        cpu.known("x86-64-v3")
    assert "x86_64_v3" in refused.value.hint
    with pytest.raises(InputError) as refused:
        cpu.known("\n;$`")
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("zen3", "x86_64_v3", True), ("x86_64_v3", "zen3", False), ("zen2", "x86_64_v4", False), ("zen2", "zen2", True),
     ("aarch64", "x86_64", False), ("zen99", "zen99", True), ("zen99", "x86_64", None)],
)  # fmt: skip
def test_satisfies_is_archspecs_order(one: str, other: str, expected: bool | None) -> None:
    assert cpu.satisfies(one, other) is expected


def test_highest_keeps_the_maximal_elements() -> None:
    assert cpu.highest(["x86_64", "zen2", "x86_64_v3", "zen2"]) == ("zen2",)
    assert cpu.highest(["zen2", "x86_64_v4", "x86_64"]) == ("x86_64_v4", "zen2")
    assert cpu.highest([]) == ()
