"""The seven traps that real locks hold for whoever derives facts from them, one test each, on those locks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc3build.errors import InputError
from hpc3build.facts import Facts, Source, cpu
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.agreement import agree
from hpc3build.facts.subjects import of_stack
from hpc3build.frontends import spack
from hpc3build.frontends.spack_lock import read_lock
from hpc3build.recipe import Settings
from hpc3build.run import run
from hpc3build.stack import Stack

ENVS = Path(__file__).resolve().parents[1] / "data" / "spack" / "envs"


def document(name: str) -> Any:
    return json.loads((ENVS / name / "spack.lock").read_text())


def stack(given: str | Any) -> Stack:
    return read_lock(json.dumps(document(given) if isinstance(given, str) else given), "spack.lock")


def facts(given: str | Any) -> Facts:
    return of_stack(stack(given), folder="env")


def retargeted(given: Any, target: str, **which: Any) -> Any:
    """The lock with another target on the nodes that have all of ``which``."""
    for node in given["concrete_specs"].values():
        if all(node.get(key) == value or (value is ... and key in node) for key, value in which.items()):
            node["arch"]["target"] = target
    return given


def test_1_a_root_that_says_no_mpi_uses_none_though_a_dependency_brings_one() -> None:
    lock = stack("gromacs-cuda80-nompi-v3")
    assert "openmpi" in {package.name for package in lock.counted}
    found = of_stack(lock)
    assert found.value(voc.MPI) == "none"
    assert found.value(voc.MPI_IMPLEMENTATION) == "threadmpi"
    assert "~mpi" in found[voc.MPI].evidence


def test_1_a_root_that_says_nothing_above_an_mpi_is_left_to_evidence() -> None:
    given = document("gromacs-cuda80-nompi-v3")
    given["concrete_specs"][given["roots"][0]["hash"]]["parameters"].pop("mpi")
    found = facts(given)
    assert voc.MPI not in found and voc.MPI_IMPLEMENTATION not in found
    assert [note.key for note in found.notes] == [voc.MPI]


@pytest.mark.parametrize("name", ["unify-false", "matrix"])
def test_2_a_preferred_target_binds_nobody(name: str) -> None:
    """Build tools stand at the build host's x86_64_v4: they never count, and what counts decides."""
    lock = stack(name)
    counted = {package.id for package in lock.counted}
    tools = {package.target for package in lock.packages if package.id not in counted and not package.external}
    runs = {package.target for package in lock.counted if not package.external and package.target}
    assert "x86_64_v4" in tools | runs
    found = of_stack(lock)
    top = cpu.highest(runs)
    assert (found.value(voc.CPU_VERSION),) == top if len(top) == 1 else voc.CPU_VERSION not in found


def test_2_a_build_tool_above_the_target_changes_nothing() -> None:
    given = document("gromacs-openmpi-ucx")
    before = facts(given).value(voc.CPU_VERSION)
    counted = {package.id for package in stack(given).counted}
    for digest, node in given["concrete_specs"].items():
        if digest not in counted:
            node["arch"]["target"] = "sapphirerapids"
    assert facts(given).value(voc.CPU_VERSION) == before != "sapphirerapids"


def test_3_a_target_required_of_externals_neither_counts_nor_disagrees(tmp_path: Path) -> None:
    given = document("osu-openmpi")
    before = facts(given).value(voc.CPU_VERSION)
    assert before is not None
    assert facts(retargeted(given, "sapphirerapids", external=...)).value(voc.CPU_VERSION) == before
    (tmp_path / "spack.yaml").write_text("spack:\n  specs: [osu-micro-benchmarks]\n")
    (tmp_path / "spack.lock").write_text(json.dumps(given))
    recipe = spack.load((str(tmp_path),), Settings(target=before), run)
    assert spack.stack(recipe) is not None
    assert recipe.manifest.document["packages"]["all"]["require"] == [f"target={before}"]


def test_4_cuda_without_an_architecture_has_none() -> None:
    found = facts("seed-gromacs-cuda-v3")
    assert found.value(voc.GPU) == "cuda"
    assert found.value(voc.CUDA_VERSION) is not None
    assert voc.GPU_ARCHITECTURE not in found


def test_4_two_versions_of_cuda_are_a_conflict_and_two_mpis_a_list() -> None:
    given = document("osu-openmpi-cuda")
    nodes = given["concrete_specs"]
    digest, cuda = next((digest, node) for digest, node in nodes.items() if node["name"] == "cuda")
    nodes["another"] = {**cuda, "version": "11.7.1", "hash": "another"}
    nodes["z" * 32] = {**nodes[given["roots"][0]["hash"]], "hash": "z" * 32}
    edges = json.loads(json.dumps(nodes["z" * 32]["dependencies"]).replace(digest, "another"))
    nodes["z" * 32]["dependencies"] = edges
    given["roots"].append({"hash": "z" * 32, "spec": "again"})
    found = facts(given)
    assert voc.CUDA_VERSION not in found
    assert [conflict.key for conflict in found.conflicts] == [voc.CUDA_VERSION]
    both = facts("matrix")
    assert both.value(voc.MPI) == "mpich,openmpi"
    assert voc.MPI_VERSION not in both


def test_4_two_c_libraries_of_one_name_are_one_provider() -> None:
    given = document("osu-openmpi")
    nodes = given["concrete_specs"]
    glibc = next(node for node in nodes.values() if node["name"] == "glibc")
    nodes["older"] = {**glibc, "version": "2.35", "hash": "older"}
    nodes[given["roots"][0]["hash"]]["dependencies"].append(
        {"name": "glibc", "hash": "older", "parameters": {"deptypes": ["link"], "virtuals": ["libc"]}}
    )
    assert facts(given).value(voc.LIBC_PROVIDER) == "glibc"


@pytest.mark.parametrize("name", ["osu-openmpi", "v0.22.5-gromacs-openmpi-ucx", "v0.20.3-seed-gromacs-cuda"])
def test_5_glibc_of_a_lock_is_the_build_hosts_and_says_nothing_of_the_image(name: str) -> None:
    found = facts(name)
    assert voc.GLIBC not in found
    has = any(package.name == "glibc" for package in stack(name).counted)
    assert (voc.LIBC_PROVIDER in found) is has is (not name.startswith("v0.20"))


def test_6_code_below_the_plan_is_no_contradiction_but_code_above_it_is() -> None:
    """External compilers and wrappers pass Spack's flags by: what they build may need less than the lock says."""
    found = facts("tiny-installed")
    assert (found.value(voc.CPU_VERSION), found[voc.CPU_VERSION].source) == ("x86_64_v3", Source.STACK)
    assert agree(voc.CPU_VERSION, "x86_64_v3", "x86_64")
    assert not agree(voc.CPU_VERSION, "x86_64_v3", "x86_64_v4")


def test_7_auto_is_no_architecture_of_a_gpu() -> None:
    lock = stack("lammps-rocm-gfx90a")
    said = {package.variants.get("amdgpu_target") for package in lock.counted} - {None}
    assert {("gfx90a",), "gfx90a", ("auto",)} <= said
    found = of_stack(lock)
    assert found.value(voc.GPU_ARCHITECTURE) == "gfx90a"
    assert found.value(voc.GPU) == "rocm"
    given = document("lammps-rocm-gfx90a")
    for node in given["concrete_specs"].values():
        if "amdgpu_target" in node["parameters"]:
            node["parameters"]["amdgpu_target"] = ["auto"]
    assert voc.GPU_ARCHITECTURE not in facts(given)


def test_a_lock_for_another_target_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "spack.yaml").write_text("spack:\n  specs: [osu-micro-benchmarks]\n")
    (tmp_path / "spack.lock").write_text(json.dumps(document("osu-openmpi")))
    with pytest.raises(InputError) as caught:
        spack.stack(spack.load((str(tmp_path),), Settings(target="zen4"), run))
    assert "osu-micro-benchmarks" in caught.value.message
