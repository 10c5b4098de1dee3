"""One installed package, as any manager records it."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Names, lower-cased, of packages that say something about MPI, CUDA, ROCm, UCX, libfabric or process management.
MATTER = re.compile(
    r"(?:lib)?(?:openmpi|mpich|mvapich2?|intel-?mpi|impi|intel-oneapi-mpi|hpcx|pmix|ucx|fabric1?|ucp?0|mpi4py)"
    r"[a-z0-9._+-]*"
    r"|intel-oneapi-mpi[a-z0-9.-]*|impi[-_]rt|mpi"
    r"|cuda[a-z0-9._-]*|nvidia[-_]cuda[a-z0-9._-]*|libcudart[a-z0-9.]*|cudatoolkit"
    r"|rocm[a-z0-9._-]*|hip[-_a-z0-9.]*|torch|tensorflow[a-z0-9._-]*|jaxlib|jax-cuda[a-z0-9._-]*|cupy[a-z0-9._-]*|pytorch"
)
#: Of one record file: Debian's status of a large image is 4 MiB.
MAX_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Installed:
    """``version`` as the manager writes it, ``upstream`` without its own revision; ``path`` the record it stands in."""

    manager: str
    name: str
    version: str
    upstream: str
    path: str

    @property
    def origin(self) -> str:
        """For evidence texts."""
        return f"{self.path}: {self.name} {self.version}"
