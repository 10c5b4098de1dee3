"""What MPI libraries, packages and modules are called, in stacks, in images and on hosts alike."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Provider:
    """What a package that provides the virtual ``mpi`` is called; no family where its ABI is neither's."""

    implementation: str
    family: str | None


#: How MPI libraries call themselves, and whose they are; the first that a library holds, since all but Open MPI hold
#: MPICH's own text, too.
SELVES = (
    ("Intel(R) MPI Library", "intel-mpi"),
    ("CRAY MPICH", "cray-mpich"),
    ("ParaStation MPI", "parastation"),
    ("MVAPICH2 Version", "mvapich2"),
    ("MVAPICH Version", "mvapich"),
    ("Open MPI v", "openmpi"),
    ("MPICH Version", "mpich"),
)

#: Spack's package names and EasyBuild's module names (their case differs) of the providers of the virtual ``mpi``.
PROVIDERS = MappingProxyType(
    {
        "mpich": Provider("mpich", "mpich"),
        "mvapich": Provider("mvapich", "mpich"),
        "mvapich2": Provider("mvapich2", "mpich"),
        "mvapich2-gdr": Provider("mvapich2", "mpich"),
        "mvapich2x": Provider("mvapich2", "mpich"),
        "cray-mvapich2": Provider("mvapich2", "mpich"),
        "intel-mpi": Provider("intel-mpi", "mpich"),
        "intel-oneapi-mpi": Provider("intel-mpi", "mpich"),
        "cray-mpich": Provider("cray-mpich", "mpich"),
        "parastation": Provider("parastation", "mpich"),
        "openmpi": Provider("openmpi", "openmpi"),
        "hpcx-mpi": Provider("hpcx", "openmpi"),
        "spectrum-mpi": Provider("spectrum", None),
        "mpitrampoline": Provider("mpitrampoline", None),
        "OpenMPI": Provider("openmpi", "openmpi"),
        "MPICH": Provider("mpich", "mpich"),
        "MVAPICH2": Provider("mvapich2", "mpich"),
        "impi": Provider("intel-mpi", "mpich"),
        "psmpi": Provider("parastation", "mpich"),
        "NVHPC": Provider("hpcx", "openmpi"),
        "SpectrumMPI": Provider("spectrum", None),
        "MPItrampoline": Provider("mpitrampoline", None),
    }
)

#: Names of sites' modules, without SDKs that hold an MPI among other things.
MODULES = MappingProxyType(
    {
        **{name: provider for name, provider in PROVIDERS.items() if name != "NVHPC"},
        "hpcx": Provider("hpcx", "openmpi"),
        "cray-mpich-abi": Provider("cray-mpich", "mpich"),
    }
)
