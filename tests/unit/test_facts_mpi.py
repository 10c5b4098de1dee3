"""MPI: every sentence of rule R3."""

from __future__ import annotations

import pytest

from hpc3build.evidence.binary import is_libmpi
from hpc3build.facts import mpi
from hpc3build.facts import vocabulary as voc
from hpc3build.sonames import MPI_FAMILIES
from hpc3build.stack import Package, Stack, Toolchain
from tests.stacks import eb, notes, pkg, root, stack, values

FAMILIES = [
    ("mpich", "mpich", "mpich"),
    ("mvapich", "mpich", "mvapich"),
    ("mvapich2", "mpich", "mvapich2"),
    ("intel-mpi", "mpich", "intel-mpi"),
    ("intel-oneapi-mpi", "mpich", "intel-mpi"),
    ("cray-mpich", "mpich", "cray-mpich"),
    ("parastation", "mpich", "parastation"),
    ("openmpi", "openmpi", "openmpi"),
    ("hpcx-mpi", "openmpi", "hpcx"),
    ("spectrum-mpi", None, "spectrum"),
    ("mpitrampoline", None, "mpitrampoline"),
]
USED = {voc.MPI: "openmpi", voc.MPI_IMPLEMENTATION: "openmpi", voc.MPI_VERSION: "4.1"}
NONE = {voc.MPI: "none", voc.MPI_IMPLEMENTATION: "none"}


def facts(made: Stack) -> dict[object, str]:
    return dict(values(mpi.from_stack(made)))


@pytest.mark.parametrize(("name", "family", "implementation"), FAMILIES)
def test_every_provider_has_its_family_and_implementation(name: str, family: str | None, implementation: str) -> None:
    found = facts(stack(root("app@1", f"{name}=mpi"), pkg(f"{name}@4.1")))
    expected = {voc.MPI_IMPLEMENTATION: implementation, voc.MPI_VERSION: "4.1"}
    assert found == (expected | {voc.MPI: family} if family else expected)


def test_a_root_that_is_a_provider_uses_mpi() -> None:
    assert facts(stack(root("openmpi@4.1"))) == USED
    other = stack(root("fork@4.1", virtuals=("mpi",)))
    assert facts(other) == {}
    assert notes(mpi.from_stack(other)) == [voc.MPI]


@pytest.mark.parametrize("kind", ["link", "run", "build+link"])
def test_a_direct_edge_with_the_virtual_is_use(kind: str) -> None:
    assert facts(stack(root("app@1", f"{kind}:openmpi=c,mpi"), pkg("openmpi@4.1"))) == USED


def test_a_build_edge_is_not() -> None:
    assert facts(stack(root("app@1", "build:openmpi=mpi"), pkg("openmpi@4.1"))) == NONE


def test_in_old_locks_a_known_name_is_enough_and_in_new_ones_the_edge_decides() -> None:
    packages = (root("app@1", "openmpi"), pkg("openmpi@4.1"))
    assert facts(stack(*packages, virtual_edges=False)) == USED
    newer = stack(*packages)
    assert facts(newer) == {}
    assert notes(mpi.from_stack(newer)) == [voc.MPI]


def test_a_variant_and_a_provider_anywhere_below_is_use() -> None:
    made = stack(root("app@1", "fftw", variants={"mpi": True}), pkg("fftw@3", "openmpi=mpi"), pkg("openmpi@4.1"))
    assert facts(made) == USED


def test_a_variant_without_a_provider_is_undecided() -> None:
    made = stack(root("app@1", variants={"mpi": True}))
    assert facts(made) == {}
    assert notes(mpi.from_stack(made)) == [voc.MPI]


def test_a_variant_against_it_wins_over_what_dependencies_drag_in() -> None:
    made = stack(root("app@1", "fftw", variants={"mpi": False}), pkg("fftw@3", "openmpi=mpi"), pkg("openmpi@4.1"))
    assert facts(made) == NONE


def test_gromacs_without_mpi_has_its_threads() -> None:
    made = stack(root("gromacs@2021", "fftw", variants={"mpi": False}), pkg("fftw@3", "openmpi=mpi"), pkg("openmpi@4"))
    assert facts(made) == {voc.MPI: "none", voc.MPI_IMPLEMENTATION: "threadmpi"}
    assert all("~mpi" in statement.evidence for statement in mpi.from_stack(made))  # type: ignore[union-attr]
    assert facts(stack(root("gromacs@2021"))) == NONE


def test_a_silent_root_with_a_provider_below_is_undecided() -> None:
    made = stack(root("py-torch@2", "run:valgrind"), pkg("valgrind@3", "openmpi=mpi"), pkg("openmpi@4.1"))
    found = list(mpi.from_stack(made))
    assert values(found) == {}
    assert notes(found) == [voc.MPI]
    assert "py-torch" in found[0].message  # type: ignore[union-attr]
    assert "openmpi" in found[0].evidence  # type: ignore[union-attr]


def test_one_undecided_root_keeps_none_from_being_said() -> None:
    made = stack(root("a@1", variants={"mpi": False}), root("b@1", "c"), pkg("c@1", "openmpi=mpi"), pkg("openmpi@4.1"))
    assert facts(made) == {}
    assert notes(mpi.from_stack(made)) == [voc.MPI]


def test_one_root_that_uses_it_settles_for_all() -> None:
    made = stack(
        root("a@1", "openmpi=mpi"), root("b@1", "c"), pkg("c@1", "mpich=mpi"), pkg("mpich@3"), pkg("openmpi@4.1")
    )
    assert facts(made) == USED


def test_several_providers_are_a_union_without_a_version() -> None:
    made = stack(
        root("a@1", "openmpi=mpi"), root("b@1", "mvapich=mpi"), root("c@1", "mpich=mpi"),
        pkg("openmpi@4.1"), pkg("mvapich@4.1"), pkg("mpich@4.1"),
    )  # fmt: skip
    assert facts(made) == {voc.MPI: "mpich,openmpi", voc.MPI_IMPLEMENTATION: "mpich,mvapich,openmpi"}


@pytest.mark.parametrize("version", ["main", "develop", "git.abc=5.0", "system", ""])
def test_a_version_that_is_none_is_unknown(version: str) -> None:
    found = facts(stack(root("app@1", "openmpi=mpi"), pkg(f"openmpi@{version}")))
    assert found == {voc.MPI: "openmpi", voc.MPI_IMPLEMENTATION: "openmpi"}


def test_no_provider_in_sight_is_none() -> None:
    assert facts(stack(root("zlib@1", "b"), pkg("b@1"))) == NONE
    assert facts(stack(pkg("zlib@1"))) == {}, "without a root nothing is said"


def test_a_provider_outside_the_table_decides_nothing() -> None:
    made = stack(root("app@1", "newmpi=mpi"), pkg("newmpi@1", virtuals=("mpi",)))
    assert facts(made) == {}
    assert notes(mpi.from_stack(made)) == [voc.MPI]


def module(
    spec: str, *needs: str, mpi_modules: tuple[str, ...] = (), toolchain: str = "foss", **fields: object
) -> object:
    chain = Toolchain(name=toolchain, version="2023b", mpi_modules=mpi_modules)
    return root(spec, *needs, toolchain=chain, **fields)


FOSS = (pkg("foss@2023b", "run:OpenMPI", is_toolchain=True), pkg("OpenMPI@4.1"))


def closure(*packages: Package) -> Stack:
    return eb(*packages, *FOSS)


def test_usempi_takes_the_toolchains_module() -> None:
    app = module("GROMACS@1", "toolchain:foss", mpi_modules=("OpenMPI",), variants={"usempi": True})
    assert facts(closure(app)) == USED


@pytest.mark.parametrize("variants", [{}, {"usempi": False}])
def test_an_mpi_toolchain_without_usempi_is_left_to_evidence(variants: dict[str, bool]) -> None:
    made = closure(module("PyTorch@2", "toolchain:foss", mpi_modules=("OpenMPI",), variants=variants))
    assert facts(made) == {}
    assert notes(mpi.from_stack(made)) == [voc.MPI]


def test_neither_toolchain_nor_closure_with_mpi_is_none() -> None:
    assert facts(eb(module("bzip2@1", toolchain="system"))) == NONE


def test_mpi_below_a_toolchain_without_it_is_left_to_evidence() -> None:
    made = eb(module("x@1", "run:OpenMPI", toolchain="GCC"), pkg("OpenMPI@4.1"))
    assert facts(made) == {}
    assert notes(mpi.from_stack(made)) == [voc.MPI]


def test_a_toolchain_root_uses_what_it_provides() -> None:
    made = eb(root("gompi@2023b", "run:GCC", "run:OpenMPI", is_toolchain=True), pkg("GCC@13"), pkg("OpenMPI@4.1"))
    assert facts(made) == USED
    assert facts(eb(root("GCC@13", is_toolchain=True))) == NONE
    assert facts(eb(root("OpenMPI@4.1"))) == USED


def test_the_mpi_inside_nvhpc_is_hpcx_of_unknown_version_and_only_by_the_toolchain() -> None:
    sdk = pkg("NVHPC@25.9")
    app = module("HDF5@1", "toolchain:NVHPC", mpi_modules=("NVHPC",), variants={"usempi": True}, toolchain="NVHPC")
    assert facts(eb(app, sdk)) == {voc.MPI: "openmpi", voc.MPI_IMPLEMENTATION: "hpcx"}
    assert facts(eb(module("x@1", "toolchain:NVHPC", toolchain="NVHPC"), sdk)) == NONE


@pytest.mark.parametrize(
    ("name", "family", "implementation"),
    [("OpenMPI", "openmpi", "openmpi"), ("MPICH", "mpich", "mpich"), ("MVAPICH2", "mpich", "mvapich2"),
     ("impi", "mpich", "intel-mpi"), ("psmpi", "mpich", "parastation")],
)  # fmt: skip
def test_modules_have_the_families_of_their_spack_packages(name: str, family: str, implementation: str) -> None:
    app = module("x@1", f"toolchain:{name}", mpi_modules=(name,), variants={"usempi": True})
    found = facts(eb(app, pkg(f"{name}@4.1")))
    assert found == {voc.MPI: family, voc.MPI_IMPLEMENTATION: implementation, voc.MPI_VERSION: "4.1"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/usr/lib/libmpi.so.40", True), ("/opt/lib/libmpi.so.12.5.0", True), ("/usr/lib/libmpich.so.12", True),
     ("/usr/lib/libmpi_abi.so.1", True), ("/usr/lib/libmpi_cray.so.12", True), ("/usr/lib/libmpi.so", True),
     ("/usr/lib/libmpi_cxx.so.40", False), ("/usr/lib/libmpi.a", False), ("/usr/lib/libmpifort.so.12", False)],
)  # fmt: skip
def test_names_of_mpi_libraries(path: str, expected: bool) -> None:
    assert is_libmpi(path) is expected


def test_sonames_lead_to_families() -> None:
    assert MPI_FAMILIES["libmpi.so.12"] == MPI_FAMILIES["libmpich.so.12"] == "mpich"
    assert MPI_FAMILIES["libmpi.so.40"] == "openmpi"
    assert MPI_FAMILIES["libmpi_abi.so.1"] == "mpi-abi"
