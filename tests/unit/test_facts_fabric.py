"""Fabric and process management: every sentence of rule R5."""

from __future__ import annotations

import pytest

from hpc3build.facts import fabric
from hpc3build.facts import vocabulary as voc
from hpc3build.stack import Stack, Toolchain
from tests.stacks import eb, pkg, root, stack, values


def facts(made: Stack) -> dict[object, str]:
    return dict(values(fabric.from_stack(made)))


def used(spec: str, *needs: str, **variants: object) -> Stack:
    name = spec.partition("@")[0]
    below = [pkg(f"{need.rpartition(':')[2]}@5.0.1") for need in needs]
    return stack(root("app@1", f"{name}=mpi"), pkg(spec, *needs, variants=variants), *below)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("word", "expected"),
    [("ofi", "libfabric"), ("nemesisofi", "libfabric"), ("ucx", "ucx"), ("nemesisucx", "ucx"), ("verbs", "verbs"),
     ("mrail", "verbs"), ("sock", "tcp"), ("tcp", "tcp"), ("psm2", "psm2")],
)  # fmt: skip
@pytest.mark.parametrize("variant", ["fabrics", "netmod", "device"])
def test_a_word_of_a_variant_is_a_framework(variant: str, word: str, expected: str) -> None:
    for value in (word, (word,)):
        assert facts(used("openmpi@4", **{variant: value})) == {voc.FRAMEWORK: expected}


@pytest.mark.parametrize("word", ["none", "auto", "cma", "knem", "xpmem", "hcoll", "ch4", "psm", "mxm", "fca"])
def test_every_other_word_says_nothing(word: str) -> None:
    assert facts(used("openmpi@4", fabrics=(word,))) == {}


def test_other_variants_and_truth_values_say_nothing() -> None:
    assert facts(used("openmpi@4", schedulers=("tcp",), fabrics=True, netmod=False)) == {}


def test_several_words_are_a_sorted_list() -> None:
    assert facts(used("openmpi@4", fabrics=("verbs", "ofi", "cma", "ucx"))) == {voc.FRAMEWORK: "libfabric,ucx,verbs"}


@pytest.mark.parametrize("name", ["intel-mpi", "intel-oneapi-mpi"])
def test_intel_mpi_is_libfabric(name: str) -> None:
    assert facts(used(f"{name}@2021")) == {voc.FRAMEWORK: "libfabric"}


def test_only_the_providers_in_use_say_something_and_their_union() -> None:
    made = stack(
        root("a@1", "openmpi=mpi"), root("b@1", "mpich=mpi"), root("c@1", "d", variants={"mpi": False}),
        pkg("openmpi@4", variants={"fabrics": ("ucx",)}), pkg("mpich@4", variants={"netmod": "ofi"}),
        pkg("d@1", "mvapich2=mpi"), pkg("mvapich2@2", variants={"fabrics": "mrail"}),
    )  # fmt: skip
    assert facts(made) == {voc.FRAMEWORK: "libfabric,ucx"}


def test_an_undecided_or_unused_provider_says_nothing() -> None:
    provider = pkg("openmpi@4", "link:pmix", variants={"fabrics": ("ucx",)})
    below = (pkg("valgrind@3", "openmpi=mpi"), provider, pkg("pmix@5"))
    assert facts(stack(root("a@1", "valgrind"), *below)) == {}
    assert facts(stack(root("a@1", "valgrind", variants={"mpi": False}), *below)) == {}


@pytest.mark.parametrize(("value", "expected"), [("pmi", "1"), ("pmi2", "2"), ("default", None), ("cray", None)])
def test_pmi_by_variant(value: str, expected: str | None) -> None:
    assert facts(used("mpich@4", pmi=value)).get(voc.PMI) == expected


def test_pmix_by_dependency_with_its_version() -> None:
    assert facts(used("openmpi@5", "link:pmix")) == {voc.PMI: "pmix-5.0.1"}
    assert facts(used("mpich@4", "link:pmix", pmi="pmi2")) == {voc.PMI: "2,pmix-5.0.1"}
    assert facts(used("openmpi@5", "build:pmix")) == {}


def test_a_pmix_version_that_is_none_is_not_told() -> None:
    made = stack(root("a@1", "openmpi=mpi"), pkg("openmpi@5", "pmix"), pkg("pmix@develop"))
    assert facts(made) == {voc.PMI: "pmix"}


def module(name: str, *needs: str) -> Stack:
    chain = Toolchain(name="foss", version="1", mpi_modules=(name,))
    app = root("A@1", f"toolchain:{name}", toolchain=chain, variants={"usempi": True})
    below = [pkg(f"{need.rpartition(':')[2]}@1.2") for need in needs]
    return eb(app, pkg(f"{name}@4.1", *needs), *below)


@pytest.mark.parametrize("name", ["OpenMPI", "MPICH"])
def test_easybuilds_providers_say_it_by_their_run_time_dependencies(name: str) -> None:
    found = facts(module(name, "run:UCX", "run:libfabric", "run:PMIx", "run:hwloc"))
    assert found == {voc.FRAMEWORK: "libfabric,ucx", voc.PMI: "pmix-1.2"}
    assert facts(module(name, "run:UCX")) == {voc.FRAMEWORK: "ucx"}
    assert facts(module(name, "build:UCX", "run:zlib")) == {}


def test_easybuilds_intel_mpi_is_libfabric_whatever_lies_beside_it() -> None:
    assert facts(module("impi", "run:UCX")) == {voc.FRAMEWORK: "libfabric"}
