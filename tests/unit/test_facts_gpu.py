"""GPU platforms, versions and architectures: every sentence of rule R4."""

from __future__ import annotations

import pytest

from hpc3build.facts import Conflict, Fact, Key, Source, gather, gpu, gpu_found
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.agreement import reconcile
from hpc3build.facts.subjects import of_stack
from hpc3build.stack import Stack, Toolchain
from tests.stacks import conflicts, eb, notes, pkg, root, stack, values

CUDA = {voc.GPU: "cuda", voc.CUDA_VERSION: "12.4.0"}


def facts(made: Stack) -> dict[object, str]:
    return dict(values(gpu.from_stack(made)))


@pytest.mark.parametrize(
    ("spec", "variant", "expected"),
    [
        ("cuda@12.4.0", "cuda", CUDA),
        ("hip@6.2.4", "rocm", {voc.GPU: "rocm", voc.ROCM_VERSION: "6.2.4"}),
    ],
)
def test_a_root_that_is_says_or_reaches_the_run_time_uses_it(
    spec: str, variant: str, expected: dict[object, str]
) -> None:
    name = spec.partition("@")[0]
    assert facts(stack(root(spec))) == expected
    assert facts(stack(root("a@1", name, variants={variant: True}), pkg(spec))) == expected
    assert facts(stack(root("a@1", name), pkg(spec))) == expected
    assert facts(stack(root("a@1", "run:b"), pkg("b@1", name), pkg(spec))) == expected


def test_a_variant_alone_is_use_without_a_version() -> None:
    assert facts(stack(root("a@1", variants={"cuda": True}))) == {voc.GPU: "cuda"}


@pytest.mark.parametrize("barrier", ["ucx", "libfabric", "hwloc", "openmpi", "mpich", "cray-mpich"])
def test_reached_only_through_a_transport_is_left_to_evidence(barrier: str) -> None:
    made = stack(root("a@1", barrier), pkg(f"{barrier}@1", "cuda"), pkg("cuda@12.4.0"))
    found = list(gpu.from_stack(made))
    assert values(found) == {}
    assert notes(found) == [voc.GPU]


def test_a_barrier_is_a_barrier_at_any_depth_and_a_second_way_is_enough() -> None:
    deep = (pkg("b@1", "openmpi"), pkg("openmpi@4", "c"), pkg("c@1", "cuda"), pkg("cuda@12.4.0"))
    assert facts(stack(root("a@1", "b"), *deep)) == {}
    assert facts(stack(root("a@1", "b", "c"), *deep)) == CUDA


def test_a_provider_is_a_barrier_by_its_virtual_too() -> None:
    made = stack(root("a@1", "newmpi"), pkg("newmpi@1", "cuda", virtuals=("mpi",)), pkg("cuda@12.4.0"))
    assert facts(made) == {}


def test_a_root_that_is_the_barrier_itself_uses_what_it_links() -> None:
    assert facts(stack(root("ucx@1", "cuda"), pkg("cuda@12.4.0"))) == CUDA


def test_a_root_that_says_no_is_left_to_evidence_when_a_run_time_is_there() -> None:
    with_it = stack(root("a@1", "b", variants={"cuda": False}), pkg("b@1", "cuda"), pkg("cuda@12.4.0"))
    assert facts(with_it) == {}
    assert notes(gpu.from_stack(with_it)) == [voc.GPU]
    assert facts(stack(root("a@1", variants={"cuda": False}))) == {voc.GPU: "none"}


def test_another_root_settles_it() -> None:
    made = stack(root("a@1", variants={"cuda": False}), root("b@1", "cuda"), pkg("cuda@12.4.0"))
    assert facts(made) == CUDA


@pytest.mark.parametrize("need", ["build:cuda", "test:cuda"])
def test_a_run_time_that_does_not_count_is_none(need: str) -> None:
    assert facts(stack(root("a@1", need), pkg("cuda@12.4.0"))) == {voc.GPU: "none"}


def test_without_roots_nothing_is_said() -> None:
    assert facts(stack(pkg("a@1"))) == {}


def test_several_platforms_are_a_sorted_list() -> None:
    made = stack(root("a@1", "hip", variants={"cuda": True, "sycl": True}), pkg("hip@6.2.4"))
    assert facts(made) == {voc.GPU: "cuda,rocm,sycl", voc.ROCM_VERSION: "6.2.4"}


def test_sycl_by_variant_by_virtual_and_by_presence() -> None:
    assert facts(stack(root("a@1", variants={"sycl": True}))) == {voc.GPU: "sycl"}
    assert facts(stack(root("a@1", "x=sycl"), pkg("x@1", virtuals=("sycl",)))) == {voc.GPU: "sycl"}
    carried = stack(root("a@1", "intel-oneapi-runtime"), pkg("intel-oneapi-runtime@2024"))
    assert facts(carried) == {}
    assert notes(gpu.from_stack(carried)) == [voc.GPU]


def test_one_platform_undecided_and_another_used() -> None:
    made = stack(root("a@1", "hip", "ucx"), pkg("hip@6.2.4"), pkg("ucx@1", "cuda"), pkg("cuda@12"))
    found = list(gpu.from_stack(made))
    assert values(found) == {voc.GPU: "rocm", voc.ROCM_VERSION: "6.2.4"}
    assert notes(found) == [voc.GPU]


def test_two_versions_are_a_conflict_and_equal_ones_are_not() -> None:
    made = stack(root("a@1", "c1"), root("b@1", "c2"), pkg("cuda@11.8", id="c1"), pkg("cuda@12.4", id="c2"))
    found = list(gpu.from_stack(made))
    assert values(found) == {voc.GPU: "cuda"}
    assert conflicts(found) == {voc.CUDA_VERSION: {"11.8", "12.4"}}
    (conflict,) = (statement for statement in found if isinstance(statement, Conflict))
    assert conflict.message == "the stack holds 2 versions of cuda: 11.8, 12.4"
    same = stack(root("a@1", "c1"), root("b@1", "c2"), pkg("cuda@12.4.0", id="c1"), pkg("cuda@12.4.0", id="c2"))
    assert facts(same) == CUDA


def test_an_external_run_time_gives_its_version() -> None:
    assert facts(stack(root("a@1", "cuda"), pkg("cuda@12.4.0", external=True))) == CUDA


def archs(*sets: object, external: tuple[int, ...] = (), variant: str = "cuda_arch", **variants: bool) -> Stack:
    said = variants or {"cuda": True}
    packages = [
        pkg(f"p{i}@1", variants={variant: value}, external=i in external)  # type: ignore[dict-item]
        for i, value in enumerate(sets)
    ]
    return stack(root("a@1", *(package.name for package in packages), variants=said), *packages)


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ([("80",)], "sm_80"),
        ([("90a", "80", "100f")], "sm_100f,sm_80,sm_90a"),
        ([("70", "80"), ("80", "90")], "sm_80"),
        ([("80",), ("none",)], "sm_80"),
        ([("80",), ("auto",)], "sm_80"),
        (["80,90", ("90",)], "sm_90"),
        ([("none",), ("none",)], None),
        ([], None),
    ],
)
def test_architectures_are_the_intersection_of_the_sets(sets: list[object], expected: str | None) -> None:
    assert facts(archs(*sets)).get(voc.GPU_ARCHITECTURE) == expected


def test_an_empty_intersection_is_a_conflict() -> None:
    found = list(gpu.from_stack(archs(("70",), ("80", "90"))))
    assert voc.GPU_ARCHITECTURE not in values(found)
    assert conflicts(found) == {voc.GPU_ARCHITECTURE: {"sm_70", "sm_80,sm_90"}}


def test_external_and_build_only_packages_set_no_architecture() -> None:
    assert facts(archs(("70",), ("80",), external=(0,)))[voc.GPU_ARCHITECTURE] == "sm_80"
    made = stack(
        root("a@1", "build:b", variants={"cuda": True, "cuda_arch": ("80",)}),
        pkg("b@1", variants={"cuda_arch": ("70",)}),
    )
    assert facts(made)[voc.GPU_ARCHITECTURE] == "sm_80"


def test_amd_targets_keep_their_names_and_join_with_those_of_cuda() -> None:
    assert facts(archs(("gfx90a:xnack-", "gfx908"), variant="amdgpu_target", rocm=True)) == {
        voc.GPU: "rocm",
        voc.GPU_ARCHITECTURE: "gfx908,gfx90a:xnack-",
    }
    both = stack(root("a@1", variants={"cuda": True, "rocm": True, "cuda_arch": ("80",), "amdgpu_target": ("gfx90a",)}))
    assert facts(both)[voc.GPU_ARCHITECTURE] == "gfx90a,sm_80"


def test_architectures_of_a_platform_that_is_not_in_use_are_not_told() -> None:
    made = stack(root("a@1", variants={"cuda": False, "cuda_arch": ("80",)}))
    assert facts(made) == {voc.GPU: "none"}


TOOLCHAIN = Toolchain(name="NVHPC", version="25.9")


def test_an_easybuild_root_reaches_cuda_over_its_dependencies_but_not_over_its_toolchain() -> None:
    assert facts(eb(root("A@1", "run:CUDA"), pkg("CUDA@12.4.0"))) == CUDA
    assert facts(eb(root("A@1", "run:NCCL"), pkg("NCCL@2", "run:CUDA"), pkg("CUDA@12.4.0"))) == CUDA
    made = eb(root("A@1", "toolchain:NVHPC", toolchain=TOOLCHAIN), pkg("NVHPC@25.9", "run:CUDA"), pkg("CUDA@12.4.0"))
    found = list(gpu.from_stack(made))
    assert values(found) == {}
    assert notes(found) == [voc.GPU]


@pytest.mark.parametrize("barrier", ["UCX", "UCX-CUDA", "OpenMPI", "libfabric", "hwloc"])
def test_easybuilds_transports_are_barriers(barrier: str) -> None:
    assert facts(eb(root("A@1", f"run:{barrier}"), pkg(f"{barrier}@1", "run:CUDA"), pkg("CUDA@12.4.0"))) == {}


@pytest.mark.parametrize(
    ("option", "own", "expected"),
    [
        ("8.0,9.0a", (), "sm_80,sm_90a"),
        ("8.0", ("7.0",), "sm_80"),
        ("8.0, 9.0 ,", (), "sm_80,sm_90"),
        ("", (" 9.0", "8.0\t", ""), "sm_80,sm_90"),
        ("", (" ",), None),
        ("", ("8.0", "10.0"), "sm_100,sm_80"),
        ("", (), None),
    ],
)
def test_capabilities_of_the_option_then_of_the_root(option: str, own: tuple[str, ...], expected: str | None) -> None:
    options = {"cuda_compute_capabilities": option} if option else {}
    made = eb(root("A@1", "run:CUDA", capabilities=own), pkg("CUDA@12.4.0", capabilities=("5.0",)), options=options)
    assert facts(made).get(voc.GPU_ARCHITECTURE) == expected


def test_capabilities_say_nothing_without_cuda_in_use() -> None:
    assert facts(eb(root("A@1"), options={"cuda_compute_capabilities": "8.0"})) == {voc.GPU: "none"}


def test_two_roots_with_capabilities_share_what_both_have() -> None:
    roots = (root("A@1", "run:CUDA", capabilities=("8.0", "9.0")), root("B@1", capabilities=("9.0",)))
    assert facts(eb(*roots, pkg("CUDA@12.4.0")))[voc.GPU_ARCHITECTURE] == "sm_90"


@pytest.mark.parametrize(
    ("cuda", "arch", "least"),
    [
        ("12.4.0", "80", "525.60.13"),
        ("11.8.0", "80,90", "450.80.02"),
        ("10.2.89", "70", "440.33"),
        ("13.3.0", "90", "580"),  # whatever its own driver is: there is machine code
        ("12.4.0", "none", None),  # which code it has, evidence tells
        ("14.0", "90", None),
    ],
)
def test_the_least_driver_is_planned_and_evidence_comes_to_the_same(cuda: str, arch: str, least: str | None) -> None:
    made = stack(root("a@1", "cuda", variants={"cuda": True, "cuda_arch": arch}), pkg(f"cuda@{cuda}"))
    plan = of_stack(made)
    assert plan.value(voc.GPU_DRIVER) == least
    for code in filter(None, (plan.value(voc.GPU_ARCHITECTURE), f"compute_{arch[:2]},sm_{arch.replace(',', ',sm_')}")):
        found = gather(gpu_found.driver(Fact(voc.CUDA_VERSION, cuda, Source.FILES, "x"), code))
        assert least is None or found.value(voc.GPU_DRIVER) == reconcile(plan, found).value(voc.GPU_DRIVER) == least


@pytest.mark.parametrize(("key", "value"), [(voc.CUDA_VERSION, "11.8"), (voc.GPU_ARCHITECTURE, "compute_80")])
def test_what_follows_from_the_users_word_stands_as_it_does(key: Key, value: str) -> None:
    made = stack(root("a@1", "cuda", variants={"cuda": True, "cuda_arch": "80"}), pkg("cuda@12.4.0"))
    plan = of_stack(made, said=(Fact(key, value, Source.USER, "labels of the recipe"),))
    joined = reconcile(plan, of_stack(made))
    assert joined.value(voc.GPU_DRIVER) == {"11.8": "450.80.02", "compute_80": "550.54.14"}[value]
    own = (Fact(voc.GPU_DRIVER, "999", Source.USER, "labels of the recipe"), Fact(key, value, Source.USER, "the same"))
    assert of_stack(made, said=own).value(voc.GPU_DRIVER) == "999"
