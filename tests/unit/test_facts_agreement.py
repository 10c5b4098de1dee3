"""Plan against finding: every sentence of rule R9, and labels as evidence (R10)."""

from __future__ import annotations

import base64

import pytest

from hpc3build.errors import Contradiction
from hpc3build.evidence.image import Evidence
from hpc3build.evidence.layers import ImageFiles
from hpc3build.facts import Conflict, Fact, Facts, Key, Note, Source, gather
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.agreement import agree, of_packages, reconcile
from hpc3build.facts.subjects import of_image, of_labels
from hpc3build.stack import Stack
from tests.stacks import eb, pkg, root, stack

NOTHING = Evidence(files=ImageFiles({}))


def facts(source: Source, **named: str) -> Facts:
    return gather(Fact(getattr(voc, name), value, source, f"{source.name} {name}") for name, value in named.items())


def plan(**named: str) -> Facts:
    return facts(Source.STACK, **named)


def found(**named: str) -> Facts:
    return facts(Source.FILES, **named)


AGREE: list[tuple[Key, str, str, bool]] = [
    # CPU evidence is a lower bound.
    (voc.CPU_VERSION, "zen3", "x86_64_v3", True),
    (voc.CPU_VERSION, "zen3", "zen3", True),
    (voc.CPU_VERSION, "x86_64_v3", "x86_64", True),
    (voc.CPU_VERSION, "x86_64_v3", "zen3", False),
    (voc.CPU_VERSION, "x86_64_v3", "x86_64_v4", False),
    (voc.CPU_VERSION, "zen2", "x86_64_v4", False),
    (voc.CPU_VERSION, "zen2", "aarch64", False),
    (voc.CPU_VERSION, "zen3", "unheard_of", True),  # not known to be above
    (voc.CPU_MODE, "microarch", "generic", True),
    # PTX and additional SASS refine.
    (voc.GPU_ARCHITECTURE, "sm_80", "compute_80,sm_80", True),
    (voc.GPU_ARCHITECTURE, "sm_80", "sm_70,sm_80,sm_90", True),
    (voc.GPU_ARCHITECTURE, "sm_80,sm_90", "sm_80", False),
    (voc.GPU_ARCHITECTURE, "sm_80", "sm_90", False),
    # A provider that is present and not needed is no contradiction.
    (voc.MPI, "mpich,openmpi", "openmpi", True),
    (voc.MPI, "openmpi", "openmpi", True),
    (voc.MPI, "openmpi", "mpich", False),
    (voc.MPI, "openmpi", "mpich,openmpi", False),
    (voc.MPI, "none", "openmpi", False),
    # Versions on the digits that both give.
    (voc.CUDA_VERSION, "11.8.0", "11.8", True),
    (voc.CUDA_VERSION, "11.8", "11.8.89", True),
    (voc.CUDA_VERSION, "11.8", "11.80", False),
    (voc.CUDA_VERSION, "11.8", "12.4", False),
    (voc.ROCM_VERSION, "6.2", "6.2.4", True),
    (voc.MPI_VERSION, "4.1.5", "4.1.6", False),
    (voc.MPI_VERSION, "5.0.0rc1", "5.0.0", True),
    (voc.IMAGE_VERSION, "2021.5", "2021.5", True),
    (voc.IMAGE_VERSION, "2021.5", "2022", False),
    (voc.IMAGE_VERSION, "main", "develop", False),
    # All else is equal or not.
    (voc.TITLE, "gromacs", "gromacs", True),
    (voc.TITLE, "gromacs", "lammps", False),
    (voc.GPU, "cuda", "none", False),
    (voc.MPI_IMPLEMENTATION, "openmpi", "hpcx", False),
    (voc.LIBC_PROVIDER, "glibc", "musl", False),
    (voc.OS_VERSION, "12", "12.5", False),
]


@pytest.mark.parametrize(("key", "planned", "seen", "expected"), AGREE)
def test_agree(key: Key, planned: str, seen: str, expected: bool) -> None:
    assert agree(key, planned, seen) is expected
    if expected:
        reconcile(gather([Fact(key, planned, Source.STACK, "p")]), gather([Fact(key, seen, Source.FILES, "f")]))
    else:
        with pytest.raises(Contradiction):
            reconcile(gather([Fact(key, planned, Source.STACK, "p")]), gather([Fact(key, seen, Source.FILES, "f")]))


def test_a_contradiction_names_every_key_with_plan_finding_and_their_evidence() -> None:
    with pytest.raises(Contradiction) as stopped:
        reconcile(plan(MPI="openmpi", GPU="none", GLIBC="2.36"), found(MPI="mpich", GPU="cuda", GLIBC="2.36"))
    text = stopped.value.message
    for part in ("openmpi", "mpich", "STACK MPI", "FILES MPI", voc.MPI.name, voc.GPU.name, "FILES GPU"):
        assert part in text
    assert voc.GLIBC.name not in text
    assert stopped.value.exit_code == 1


def test_what_the_user_decided_is_not_contradicted() -> None:
    joined = reconcile(facts(Source.USER, MPI="openmpi"), found(MPI="mpich"))
    assert joined.value(voc.MPI) == "openmpi"


def test_plan_and_finding_complete_each_other() -> None:
    joined = reconcile(plan(MPI="openmpi", TITLE="x"), found(GLIBC="2.36", TITLE="x"))
    assert joined.annotations() == {voc.MPI.name: "openmpi", voc.TITLE.name: "x", voc.GLIBC.name: "2.36"}


def test_a_lower_bound_leaves_the_plan_and_more_detail_replaces_it() -> None:
    joined = reconcile(
        plan(
            CPU_VERSION="zen3", CPU_MODE="microarch", CUDA_VERSION="12.4", MPI_VERSION="4.1.5",
            GPU_ARCHITECTURE="sm_80",
        ),
        found(
            CPU_VERSION="x86_64", CPU_MODE="generic", CUDA_VERSION="12.4.1", MPI_VERSION="4.1",
            GPU_ARCHITECTURE="compute_80,sm_80",
        ),
    )  # fmt: skip
    expected = {
        voc.CPU_VERSION: "zen3",
        voc.CPU_MODE: "microarch",
        voc.CUDA_VERSION: "12.4.1",
        voc.MPI_VERSION: "4.1.5",
        voc.GPU_ARCHITECTURE: "compute_80,sm_80",
    }
    assert {key: fact.value for key, fact in joined.items()} == expected


def test_a_provider_planned_in_union_stays_planned() -> None:
    joined = reconcile(plan(MPI="mpich,openmpi"), found(MPI="openmpi"))
    assert joined.value(voc.MPI) == "mpich,openmpi"


@pytest.mark.parametrize("in_plan", [True, False])
def test_a_conflict_of_either_side_leaves_its_key_without_a_value(in_plan: bool) -> None:
    clash = Facts(conflicts=(Conflict(voc.MPI, (), "two"),), notes=(Note(voc.GPU, "n", "e"),))
    sides = (clash, found(MPI="mpich")) if in_plan else (plan(MPI="mpich"), clash)
    joined = reconcile(*sides)
    assert voc.MPI not in joined
    assert joined.conflicts == clash.conflicts
    assert joined.notes == clash.notes


def clash(key: Key, *values: tuple[str, Source]) -> Facts:
    told = tuple(Fact(key, value, source, f"{source.name} {value}") for value, source in values)
    return Facts(conflicts=(Conflict(key, told, "these do not agree"),))


FILES, STACK, LABEL = Source.FILES, Source.STACK, Source.LABEL


def test_the_user_decides_what_the_findings_leave_in_doubt() -> None:
    doubt = clash(voc.MPI_VERSION, ("4.1.4", FILES), ("4.1.5", FILES))
    joined = reconcile(facts(Source.USER, MPI_VERSION="5.0"), doubt)
    assert joined.value(voc.MPI_VERSION) == "5.0" and not joined.conflicts
    assert [(note.key, note.message) for note in joined.notes] == [(voc.MPI_VERSION, "these do not agree")]


def test_what_the_user_decided_is_not_refined() -> None:
    said = facts(Source.USER, CUDA_VERSION="12.4", GPU_ARCHITECTURE="sm_80")
    joined = reconcile(said, found(CUDA_VERSION="12.4.1", GPU_ARCHITECTURE="sm_80,sm_90"))
    assert joined.annotations() == said.annotations()


def test_files_that_differ_leave_a_plan_that_one_of_them_bears_out() -> None:
    joined = reconcile(plan(MPI_VERSION="4.1.5"), clash(voc.MPI_VERSION, ("4.1.4", FILES), ("4.1", FILES)))
    assert joined.value(voc.MPI_VERSION) == "4.1.5" and not joined.conflicts and len(joined.notes) == 1


@pytest.mark.parametrize(
    "values",
    [
        [("4.1.4", FILES), ("5.0.3", FILES)],  # each says otherwise
        [("4.1.5", STACK), ("5.0.3", FILES)],  # the record says what was planned, the program has another
    ],
)
def test_files_of_which_none_bears_out_the_plan_contradict_it(values: list[tuple[str, Source]]) -> None:
    with pytest.raises(Contradiction, match=r"planned 4\.1\.5 .*, found .*5\.0\.3 \(FILES 5\.0\.3\)"):
        reconcile(plan(MPI_VERSION="4.1.5"), clash(voc.MPI_VERSION, *values))


@pytest.mark.parametrize("other", [STACK, LABEL])
def test_records_and_labels_that_differ_leave_the_key_without_a_value(other: Source) -> None:
    joined = reconcile(plan(CUDA_VERSION="12.4.0"), clash(voc.CUDA_VERSION, ("12.4.0", STACK), ("12.4.1", other)))
    assert voc.CUDA_VERSION not in joined and len(joined.conflicts) == 1


def test_labels_are_the_weakest_evidence_and_aliases_are_read() -> None:
    labels = {
        "org.supercontainers.glibc.version": "2.36",
        "io.archspec.cpu.target": "zen3",
        "org.supercontainers.gpu": "cuda",
        "maintainer": "me",
    }
    told = {fact.key: fact for fact in of_labels(labels)}
    assert {key.name: fact.value for key, fact in told.items()} == {
        voc.GLIBC.name: "2.36",
        voc.CPU_VERSION.name: "zen3",
        voc.GPU.name: "cuda",
    }
    assert {fact.source for fact in told.values()} == {Source.LABEL}
    assert told[voc.GLIBC].evidence == "label org.supercontainers.glibc.version"


@pytest.mark.parametrize(
    "labels",
    [
        {voc.GPU.name: "nvidia"},
        {voc.GPU.name: ""},
        {voc.TITLE.name: "a\nb"},
        {voc.DOCUMENTATION.name: base64.b64encode(b"x" * 4000).decode()},
        {voc.TITLE.name: "x" * 5000},
        {voc.TITLE.name: "\ud800"},
    ],
)
def test_a_label_that_breaks_a_rule_says_nothing(labels: dict[str, str]) -> None:
    assert list(of_labels(labels)) == []
    assert len(of_image(NOTHING, None, labels)) == 0


def test_stack_files_and_labels_of_an_image_join() -> None:
    made = stack(root("a@1", target="zen3"))
    labels = {voc.CPU_VERSION.name: "x86_64_v3", voc.TITLE.name: "told", voc.RANK.name: "3"}
    joined = of_image(NOTHING, made, labels)
    assert joined.value(voc.CPU_VERSION) == "zen3"
    assert joined.value(voc.TITLE) == "told"
    assert joined.value(voc.IMAGE_VERSION) == "1"
    assert joined.value(voc.RANK) == "3"


def test_a_label_above_what_the_stack_says_is_a_conflict() -> None:
    joined = of_image(NOTHING, stack(root("a@1", target="x86_64")), {voc.CPU_VERSION.name: "zen3"})
    assert voc.CPU_VERSION not in joined
    assert {conflict.key for conflict in joined.conflicts} >= {voc.CPU_VERSION}


def test_what_the_recipe_overrules_is_told() -> None:
    """R9: the user's word stands, and nobody publishes it unknowingly."""
    said = {"MPI": "mpich", "GPU": "cuda", "GLIBC": "2.17", "OS_VENDOR": "ubuntu", "CPU_VERSION": "zen3"}
    there = {"MPI": "openmpi", "GPU": "none", "GLIBC": "2.36", "OS_VENDOR": "debian", "CPU_VERSION": "x86_64"}
    joined = reconcile(facts(Source.USER, **said), found(**there))
    assert {key.name: fact.value for key, fact in joined.items()} == {
        getattr(voc, name).name: value for name, value in said.items()
    }
    told = {note.key: note for note in joined.notes}
    assert set(told) == {getattr(voc, name) for name in said}
    assert told[voc.MPI].message == "the recipe says mpich (USER MPI), which stands, and the image says openmpi"
    assert told[voc.MPI].evidence == "FILES MPI"


def test_nothing_is_told_of_what_agrees_or_is_nobody_elses_to_say() -> None:
    said = facts(Source.USER, MPI="openmpi", MPI_VERSION="4.1", TITLE="mine", IMAGE_VERSION="7", GLIBC="2.36")
    there = found(MPI="openmpi", MPI_VERSION="4.1.4", TITLE="theirs", IMAGE_VERSION="1", OS_VENDOR="debian")
    assert reconcile(said, there).notes == ()
    assert reconcile(plan(CPU_VERSION="zen3"), found(CPU_VERSION="x86_64")).notes == (), "a lower bound of the plan's"


# ---- package by package


def planned(target: str | None) -> Stack:
    return eb(root("A@1", "B", target=target), pkg("B@1", target=target), pkg("C@1", external=True))


def built(**fields: object) -> Stack:
    return eb(root("A@1", "B", target="x86_64_v3"), pkg("B@1", **{"target": "x86_64_v3", **fields}))


@pytest.mark.parametrize(
    ("plan", "fields", "words"),
    [
        ("x86_64_v3", {}, None),
        ("zen3", {}, None),  # lower than planned
        (None, {"target": None, "unmapped_flags": "-march=native"}, None),  # nothing was planned
        ("x86_64_v3", {"target": None}, None),  # no code of its own
        ("x86_64_v3", {"target": None, "unmapped_flags": "-march=native"}, ["B", "x86_64_v3", "-march=native"]),
        ("x86_64_v3", {"target": "zen4", "target_origin": "B.env: -march=znver4"}, ["B", "zen4", "B.env: -march=znv"]),
        # archspec gives several targets of oneAPI these flags, so they name none of them, and may be those of zen3.
        ("zen3", {"target": None, "unmapped_flags": "-march=core-avx2", "compilers": ("oneapi",)}, None),
        ("zen3", {"target": None, "unmapped_flags": "-march=core-avx2", "compilers": ("gcc",)}, ["core-avx2"]),
    ],
)
def test_packages(plan: str | None, fields: dict[str, object], words: list[str] | None) -> None:
    told = of_packages(planned(plan), built(**fields))
    assert len(told) == (words is not None)
    assert all(word in told[0] for word in words or ())


def test_packages_that_are_not_there() -> None:
    assert of_packages(planned("zen3"), eb(root("A@1", target="zen3"))) == ["B: planned, and not in the image"]
    assert of_packages(None, eb(root("A@1"))) == of_packages(planned("zen3"), None) == []


def test_a_contradiction_of_one_package_stops_the_build() -> None:
    with pytest.raises(Contradiction, match=r"B: planned for x86_64_v3, built with -march=native"):
        reconcile(Facts({}), Facts({}), ["B: planned for x86_64_v3, built with -march=native (B.env)"])
