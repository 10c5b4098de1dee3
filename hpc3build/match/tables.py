"""The numbers of the rules, each with the page it stands on.

``confirmed`` is False for what no primary page was read for: such a number is warned about and never decides a NO.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

MINOR = "docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"
NOTES = "docs.nvidia.com/cuda/cuda-toolkit-release-notes, table of toolkit driver versions"
FAMILIES = (
    "developer.nvidia.com/blog/nvidia-blackwell-and-nvidia-cuda-12-9-introduce-family-specific-architecture-features"
)
AMPERE = "docs.nvidia.com/cuda/archive/11.8.0/ampere-compatibility-guide"
LLVM = "llvm.org/docs/AMDGPUUsage.html, processors and target ids; gcc.gnu.org GCC 15.1 AMD GCN options"
ROCM = "rocm.docs.amd.com, user and kernel-space support matrix 6.3"


@dataclass(frozen=True)
class Row:
    """A value with its source."""

    value: str
    source: str
    confirmed: bool = True


#: Least driver of a CUDA major release: within it, newer minor releases run on that driver too.
LEAST_DRIVER = MappingProxyType(
    {
        11: Row("450.80.02", MINOR),
        12: Row("525.60.13", MINOR),
        13: Row("580", MINOR),
    }
)
#: Driver that a toolkit came with. It compiles PTX of that toolkit; before CUDA 11 it is also the least driver.
TOOLKIT_DRIVER = MappingProxyType(
    {
        (10, 0): Row("410.48", NOTES),
        (10, 1): Row("418.39", NOTES),
        (10, 2): Row("440.33", NOTES),
        (11, 0): Row("450.36.06", NOTES),
        (11, 1): Row("455.23", NOTES),
        (11, 2): Row("460.27.03", NOTES),
        (11, 3): Row("465.19.01", NOTES),
        (11, 4): Row("470.42.01", NOTES),
        (11, 5): Row("495.29.05", NOTES),
        (11, 6): Row("510.39.01", NOTES),
        (11, 7): Row("515.43", NOTES),
        (11, 8): Row("520.61", NOTES),
        (12, 0): Row("525.60", NOTES),
        (12, 1): Row("530.30", NOTES),
        (12, 2): Row("535.54.03", NOTES, confirmed=False),
        (12, 3): Row("545.23", NOTES),
        (12, 4): Row("550.54", NOTES),
        (12, 5): Row("555.42", NOTES),
        (12, 6): Row("560.28", NOTES),
        (12, 8): Row("570.26", NOTES, confirmed=False),
        (12, 9): Row("575.51.03", "the name of NVIDIA's installer cuda_12.9.0_575.51.03_linux.run"),
        (13, 0): Row("580.65.06", NOTES, confirmed=False),
    }
)
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
