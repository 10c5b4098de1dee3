"""What the name of a shared library says, in images and on hosts alike."""

from __future__ import annotations

from types import MappingProxyType

#: ABI family by SONAME. Open MPI 1.7 to 5 counted libmpi.so.1, 12 (1.10), 20, 40; 12 is the MPICH ABI initiative's too,
#: so it stands for mpich only: Open MPI 1.10 ended in 2017.
MPI_FAMILIES = MappingProxyType(
    {
        "libmpi.so.12": "mpich",
        "libmpich.so.12": "mpich",
        "libmpi_cray.so.12": "mpich",
        "libmpi.so.20": "openmpi",
        "libmpi.so.40": "openmpi",
        "libmpi_abi.so.1": "mpi-abi",
        "libmpi_abi.so.0": "mpi-abi",
    }
)
