"""What an image's configuration says of itself, beside the vocabulary's own labels: the weakest kind of evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hpc3build.facts import Fact, Facts, Source, Statement
from hpc3build.facts import vocabulary as voc

_REQUIRED = re.compile(r"(?:^|\s)cuda>=(\d+\.\d+)")
_MPI_LABELS = {
    "hpccm.openmpi.version": "openmpi",
    "hpccm.mpich.version": "mpich",
    "hpccm.mvapich2.version": "mvapich2",
    "hpccm.intel-mpi.version": "intel-mpi",
}


def statements(env: Mapping[str, str], labels: Mapping[str, str]) -> Iterator[Statement]:
    """Env of NVIDIA's and AMD's base images, and labels of NVIDIA and HPCCM."""
    if required := _REQUIRED.search(env.get("NVIDIA_REQUIRE_CUDA", "")):
        # NVIDIA's runtime refuses to start such an image on a host without: it asks for a GPU, used or not.
        yield Fact(voc.GPU, "cuda", Source.LABEL, f"Env NVIDIA_REQUIRE_CUDA={required[0].strip()}")
    cuda = env.get("CUDA_VERSION", "")
    if voc.is_version(cuda):
        yield Fact(voc.CUDA_VERSION, cuda, Source.LABEL, f"Env CUDA_VERSION={cuda}")
    elif required:
        yield Fact(voc.CUDA_VERSION, required[1], Source.LABEL, f"Env NVIDIA_REQUIRE_CUDA={required[0].strip()}")
    rocm = env.get("ROCM_VERSION", "")
    if voc.is_version(rocm):
        yield Fact(voc.ROCM_VERSION, rocm, Source.LABEL, f"Env ROCM_VERSION={rocm}")
    label = labels.get("com.nvidia.cuda.version", "")
    if voc.is_version(label):
        yield Fact(voc.CUDA_VERSION, label, Source.LABEL, "label com.nvidia.cuda.version")


def of_mpi(labels: Mapping[str, str], known: Facts) -> Iterator[Statement]:
    """HPCCM's labels on the MPI that it installed, where that is known to be in use."""
    for name, implementation in _MPI_LABELS.items():
        version = labels.get(name)
        if voc.is_version(version) and known.value(voc.MPI_IMPLEMENTATION) == implementation:
            yield Fact(voc.MPI_VERSION, version, Source.LABEL, f"label {name}")
