"""The numbers of the rules, each with the page it stands on; those of CUDA's drivers are ``facts.cuda_drivers``.

``confirmed`` is False for what no primary page was read for: such a number is warned about and never decides a NO.
"""

from __future__ import annotations

from types import MappingProxyType

from hpc3build.facts.cuda_drivers import NOTES, Row

FAMILIES = (
    "developer.nvidia.com/blog/nvidia-blackwell-and-nvidia-cuda-12-9-introduce-family-specific-architecture-features"
)
AMPERE = "docs.nvidia.com/cuda/archive/11.8.0/ampere-compatibility-guide"
LLVM = "llvm.org/docs/AMDGPUUsage.html, processors and target ids; gcc.gnu.org GCC 15.1 AMD GCN options"
ROCM = "rocm.docs.amd.com, user and kernel-space support matrix 6.3"

#: Least compute capability that a toolkit's own libraries serve.
LEAST_CAPABILITY = MappingProxyType({13: Row("75", NOTES, confirmed=False)})
#: Devices that code with the suffix f runs on; code with the suffix a runs on its own capability alone.
FAMILY = MappingProxyType(
    {
        100: Row("100 103", FAMILIES),
        103: Row("103", FAMILIES),
        120: Row("120 121", FAMILIES),
        121: Row("121", FAMILIES),
        110: Row("110", FAMILIES, confirmed=False),
    }
)
#: Jetson's own capabilities: their cubins and those of discrete GPUs are said not to be interchangeable.
TEGRA = Row("53 62 72 87 101 110", AMPERE, confirmed=False)

#: Generic targets of code object version 6 and the processors that run them.
GENERIC_GFX = MappingProxyType(
    {
        "gfx9-generic": Row("gfx900 gfx902 gfx904 gfx906 gfx909 gfx90c", LLVM),
        "gfx9-4-generic": Row("gfx940 gfx941 gfx942", LLVM, confirmed=False),
        "gfx10-1-generic": Row("gfx1010 gfx1011 gfx1012 gfx1013", LLVM, confirmed=False),
        "gfx10-3-generic": Row("gfx1030 gfx1031 gfx1032 gfx1033 gfx1034 gfx1035 gfx1036", LLVM),
        "gfx11-generic": Row("gfx1100 gfx1101 gfx1102 gfx1103 gfx1150 gfx1151 gfx1152 gfx1153", LLVM, confirmed=False),
        "gfx12-generic": Row("gfx1200 gfx1201", LLVM, confirmed=False),
    }
)
#: Releases of ROCm in order: user space and kernel driver may lie two apart.
ROCM_RELEASES = Row("5.5 5.6 5.7 6.0 6.1 6.2 6.3 6.4 7.0 7.1 7.2", ROCM, confirmed=False)
ROCM_DISTANCE = 2

#: Open MPI's major release by the second number of libmpi.so.40's file version (VERSION of each release).
OPENMPI_MAJOR = MappingProxyType(
    {
        0: Row("3", "Open MPI 3.0's VERSION", confirmed=False),
        10: Row("3", "Open MPI 3.1's VERSION", confirmed=False),
        20: Row("4", "Open MPI 4.0's VERSION", confirmed=False),
        30: Row("4", "Debian 12: mpirun 4.1.4 beside libmpi.so.40.30.4"),
        40: Row("5", "docs.open-mpi.org/en/v5.0.x/building-apps/abi-compatibility.html: 5.0 keeps libmpi.so.40"),
    }
)
