"""What subjects say of files, where images of real programs do not reach: other MPIs, drivers, layers unread."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hpc3build.evidence.applications import TOOLS, find
from hpc3build.evidence.binary import Binary
from hpc3build.evidence.elf import Elf
from hpc3build.evidence.image import Evidence
from hpc3build.evidence.layers import ImageFile, ImageFiles
from hpc3build.evidence.packages import Installed
from hpc3build.facts import (
    Fact,
    Facts,
    Key,
    Note,
    Source,
    Statement,
    declared,
    fabric_found,
    gather,
    gpu_found,
    libc,
    mpi_found,
)
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.agreement import agree
from hpc3build.facts.subjects import of_image
from tests.stacks import conflicts, notes, pkg, root, stack, values

APP = "/opt/app/bin/app"


def binary(*needed: str, marks: tuple[str, ...] = (), code: str = "", targets: str = "", **more: Any) -> Binary:
    elf = Elf(machine="x86_64", bits=64, little=True, type="dyn", needed=needed, **more)
    return Binary(elf, frozenset(code.split()), frozenset(targets.split()), frozenset(marks))


def image(
    app: Binary, *, packages: tuple[Installed, ...] = (), complete: bool = True, **more: Binary | str
) -> Evidence:
    files: dict[str, ImageFile] = {}
    named = {"/usr/lib/" + name.replace("_so", ".so"): what for name, what in more.items()}
    for path, what in {APP: app, **named}.items():
        link = what if isinstance(what, str) else ""
        kind: Any = "symlink" if link else "file"
        extract = None if link else what
        files[path] = ImageFile(path, kind, 0o755, 0, 0, 1, link, b"", "sha256:0", extract)
    found = ImageFiles(files)
    return Evidence(
        files=found, applications=find(found, {"PATH": "/opt/app/bin"}), packages=packages, complete=complete
    )


def libmpi(marks: str, *needed: str) -> dict[str, Binary | str]:
    return {"libmpi.so.12": "libmpi.so.12.1.8", "libmpi.so.12.1.8": binary(*needed, marks=(marks,))}


@pytest.mark.parametrize(
    ("marks", "implementation"),
    [("MPICH Version", "mpich"), ("Intel(R) MPI Library", "intel-mpi"), ("MVAPICH2 Version", "mvapich2"),
     ("MVAPICH Version", "mvapich"), ("CRAY MPICH", "cray-mpich"), ("ParaStation MPI", "parastation"), ("", None)],
)  # fmt: skip
def test_one_soname_and_many_implementations(marks: str, implementation: str | None) -> None:
    found = values(mpi_found.from_files(image(binary("libmpi.so.12"), **libmpi(marks))))
    assert found[voc.MPI] == "mpich" and found[voc.MPI_ABI] == "12.1.8"
    assert found.get(voc.MPI_IMPLEMENTATION) == implementation


def test_the_version_is_the_packages_where_it_is_of_that_implementation() -> None:
    record = Installed("conda", "impi_rt", "2021.11.0", "2021.11.0", "/usr/conda-meta/x.json")
    evidence = image(binary("libmpi.so.12"), packages=(record,), **libmpi("Intel(R) MPI Library"))
    assert values(mpi_found.from_files(evidence))[voc.MPI_VERSION] == "2021.11.0"
    evidence = image(binary("libmpi.so.12"), packages=(record,), **libmpi("MPICH Version"))
    assert voc.MPI_VERSION not in values(mpi_found.from_files(evidence))


def test_a_package_says_nothing_of_an_mpi_that_lies_elsewhere() -> None:
    record = Installed("dpkg", "libmpich12", "4.0.2-3", "4.0.2", "/var/lib/dpkg/status")
    lies = {"libmpi.so.12": "/opt/mpich/lib/libmpi.so.12.1.8"}
    evidence = image(binary("libmpi.so.12"), packages=(record,), **libmpi("MPICH Version"))
    assert values(mpi_found.from_files(evidence))[voc.MPI_VERSION] == "4.0.2"
    elsewhere = replace(evidence.files["/usr/lib/libmpi.so.12.1.8"], path=lies["libmpi.so.12"])
    files = ImageFiles(
        {
            APP: evidence.files[APP],
            elsewhere.path: elsewhere,
            "/usr/lib/libmpi.so.12": replace(evidence.files["/usr/lib/libmpi.so.12"], target=elsewhere.path),
        }
    )
    moved = replace(evidence, files=files, applications=find(files, {"PATH": "/opt/app/bin"}))
    assert voc.MPI_VERSION not in values(mpi_found.from_files(moved))


def test_files_that_differ_leave_the_stacks_word_alone() -> None:
    evidence = image(binary("libk.so", code="sm_70"), **{"libk.so": binary(code="sm_80")})
    made = stack(root("a@1", "cuda", variants={"cuda": True, "cuda_arch": ("80",)}), pkg("cuda@12.4"))
    joined = of_image(evidence, made, {})
    assert joined.value(voc.GPU_ARCHITECTURE) == "sm_80" and not joined.conflicts
    assert voc.GPU_ARCHITECTURE in {note.key for note in joined.notes}


@pytest.mark.parametrize(
    ("package", "version", "folder", "expected"),
    [("openmpi4-pmix-gnu12-ohpc", "4.1.6", "openmpi4-gnu12/4.1.6", "4.1.6"),
     ("openmpi5-gnu14-ohpc", "5.0.10", "openmpi5-gnu14/5.0.10", "5.0.10"),
     ("openmpi5-gnu14-ohpc", "5.0.10", "openmpi5-gnu14/5.0.9", None),  # another one, by hand
     ("openmpi-gnu12-ohpc-devel", "4.1.6", "openmpi-gnu12/4.1.6", None),
     ("mpich-ofi-gnu12-ohpc", "4.1.6", "openmpi4-gnu12/4.1.6", None)],
)  # fmt: skip
def test_openhpc_has_its_own_names_and_places(package: str, version: str, folder: str, expected: str | None) -> None:
    record = Installed("rpm", package, f"{version}-1", version, "/var/lib/rpm/rpmdb.sqlite")
    evidence = image(binary("libmpi.so.40"), packages=(record,), **{"libmpi.so.40": binary(marks=("Open MPI v",))})
    (program,) = evidence.applications.programs
    (library,) = program.libraries
    assert library.file is not None
    there = replace(library.file, path=f"/opt/ohpc/pub/mpi/{folder}/lib/libmpi.so.40.30.6")
    moved = replace(program, libraries=(replace(library, file=there),))
    evidence = replace(evidence, applications=replace(evidence.applications, programs=(moved,)))
    assert values(mpi_found.from_files(evidence)).get(voc.MPI_VERSION) == expected


def test_libfabric_is_injected_where_it_is_loaded_and_can_be_exchanged() -> None:
    more = libmpi("MPICH Version", "libfabric.so.1")
    fabric = binary(version_definitions=("FABRIC_1.0", "FABRIC_1.10", "FABRIC_1.9"))
    evidence = image(binary("libmpi.so.12"), **more, **{"libfabric.so.1": fabric})
    assert values(mpi_found.from_files(evidence))[voc.MPI_MODE] == "mpi_replace,libfabric_inject"
    assert values(fabric_found.from_files(evidence)) == {voc.FRAMEWORK: "libfabric", voc.LIBFABRIC_ABI: "1.10"}


def test_versions_of_symbols_without_end_are_none() -> None:
    long = "9" * 5000
    fabric = binary(version_definitions=(f"FABRIC_{long}.0", f"FABRIC_1.{long}", "FABRIC_1.6"))
    needs = {"libc.so.6": (f"GLIBC_{long}.1", f"GLIBC_2.{long}", "GLIBC_2.34")}
    app = binary("libmpi.so.12", version_needs=needs)
    evidence = image(app, **libmpi("MPICH Version", "libfabric.so.1"), **{"libfabric.so.1": fabric})
    assert values(fabric_found.from_files(evidence))[voc.LIBFABRIC_ABI] == "1.6"
    libc_so = binary(marks=("2.36",))
    evidence = image(app, **{"libc.so.6": libc_so}, **libmpi("MPICH Version"))
    (note,) = [found for found in libc.from_files(evidence) if isinstance(found, Note)]
    assert "need glibc 2.34" in note.message


def test_an_mpi_with_layers_unread_is_never_denied() -> None:
    assert values(mpi_found.from_files(image(binary(), complete=False))) == {}
    assert values(mpi_found.from_files(image(binary())))[voc.MPI] == "none"
    assert values(gpu_found.from_files(image(binary(), complete=False))) == {}
    record = Installed("dpkg", "libopenmpi3", "4", "4", "/var/lib/dpkg/status")
    assert notes(mpi_found.from_files(image(binary(), packages=(record,)))) == [voc.MPI]


def test_gromacs_may_have_a_thread_mpi_inside() -> None:
    found = values(mpi_found.from_files(image(binary("libgromacs.so.8"), **{"libgromacs.so.8": binary()})))
    assert found == {voc.MPI: "none"}


def test_gpus_behind_mpi_and_hwloc_are_not_the_applications() -> None:
    more = {"libmpi.so.40": binary("libcuda.so.1"), "libcuda.so.1": binary()}
    assert notes(gpu_found.from_files(image(binary("libmpi.so.40"), **more))) == [voc.GPU]
    assert values(gpu_found.from_files(image(binary("libcuda.so.1"), **more))) == {voc.GPU: "cuda"}


def test_architectures_are_what_all_objects_have_and_vendors_say_nothing() -> None:
    more = {"libk.so": binary(code="sm_80 sm_90"), "libcublas.so.12": binary(code="sm_50")}
    found = values(gpu_found.from_files(image(binary("libk.so", "libcublas.so.12", code="sm_90 compute_90"), **more)))
    assert found == {voc.GPU: "cuda", voc.GPU_ARCHITECTURE: "sm_90"}
    torn = list(gpu_found.from_files(image(binary("libk.so", code="sm_70"), **more)))
    assert conflicts(torn) == {voc.GPU_ARCHITECTURE: {"sm_70", "sm_80,sm_90"}}


@pytest.mark.parametrize(
    ("cuda", "architectures", "least"),
    [("12.4", "sm_80", "525.60.13"), ("12.4.1", "compute_90,sm_80", "525.60.13"), ("11.8", "sm_80", "450.80.02"),
     ("13.0", "sm_90", "580"), ("12.4", "compute_80", "550.54.14"), ("12.9", "compute_80", "575.51.03"),
     ("13.2", "compute_80", "595.45.04"), ("13.3", "compute_80", None), ("13.3", "compute_80,sm_80", "580"),
     ("10.2", "sm_70", "440.33"),
     ("12.4", None, None), ("14.0", "sm_90", None), ("12.4", "gfx90a", None), ("12", "sm_80", None)],
)  # fmt: skip
def test_the_least_driver(cuda: str, architectures: str | None, least: str | None) -> None:
    fact = Fact(voc.CUDA_VERSION, cuda, Source.FILES, "x")
    assert values(gpu_found.driver(fact, architectures)).get(voc.GPU_DRIVER) == least


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"CUDA_VERSION": "12.4.1"}, {voc.CUDA_VERSION: "12.4.1"}),
        ({"NVIDIA_REQUIRE_CUDA": "cuda>=12.4 brand=tesla,driver>=470"}, {voc.GPU: "cuda", voc.CUDA_VERSION: "12.4"}),
        ({"ROCM_VERSION": "6.2"}, {voc.ROCM_VERSION: "6.2"}),
        ({"CUDA_VERSION": "$(id)", "NVIDIA_REQUIRE_CUDA": "driver>=470", "ROCM_VERSION": ""}, {}),
    ],
)
def test_environments_of_base_images(env: dict[str, str], expected: dict[Key, str]) -> None:
    found: list[Statement] = list(declared.statements(env, {}))
    assert values(found) == expected
    assert all(isinstance(fact, Fact) and fact.source is Source.LABEL for fact in found)


def test_hpccm_says_the_version_of_the_mpi_in_use_alone() -> None:
    known = gather([Fact(voc.MPI_IMPLEMENTATION, "openmpi", Source.FILES, "x")])
    labels = {"hpccm.openmpi.version": "4.1.6", "hpccm.mpich.version": "4.2"}
    assert values(declared.of_mpi(labels, known)) == {voc.MPI_VERSION: "4.1.6"}
    assert values(declared.of_mpi(labels, Facts())) == {}


def test_with_layers_unread_only_the_distribution_is_said_of_files() -> None:
    evidence = image(binary("libmpi.so.12", abi_tag="3.2.0"), complete=False, **libmpi("MPICH Version"))
    assert len(of_image(evidence, None, {})) == 0


@pytest.mark.parametrize(
    "name", ["mpirun", "mpiexec.hydra", "ompi_info", "mpichversion", "ucx_info", "nvcc", "orterun"]
)
def test_tools_are_no_applications(name: str) -> None:
    assert TOOLS.fullmatch(name)


@pytest.mark.parametrize("name", ["gmx_mpi", "lmp", "mpi-hello", "hello", "pw.x", "python3", "osu_bw", "cp2k.psmp"])
def test_applications_are_no_tools(name: str) -> None:
    assert not TOOLS.fullmatch(name)


@pytest.mark.parametrize(
    ("key", "plan", "found", "holds"),
    [
        (voc.GPU, "cuda,rocm", "cuda", True), (voc.GPU, "none", "cuda", False), (voc.GPU, "cuda", "rocm", False),
        (voc.FRAMEWORK, "ucx", "libfabric,ucx", True), (voc.FRAMEWORK, "libfabric", "ucx", False),
        (voc.PMI, "pmix", "pmix-4.2.2", True), (voc.PMI, "pmix-4.2.2", "pmix", True),
        (voc.PMI, "pmix-4.2.2", "pmix-5.0", False), (voc.PMI, "1", "2", False), (voc.PMI, "2,pmix-4.2", "pmix", True),
        (voc.MPI_IMPLEMENTATION, "threadmpi", "none", True), (voc.MPI_IMPLEMENTATION, "mpich", "openmpi", False),
    ],
)  # fmt: skip
def test_what_files_leave_true_of_a_plan(key: Key, plan: str, found: str, holds: bool) -> None:
    assert agree(key, plan, found) is holds
