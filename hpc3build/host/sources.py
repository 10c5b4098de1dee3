"""What is read on a host, as one table for the collector in Python and for the shell script.

Patterns are the shell's. Sources: proc(5), sysfs of the kernels' Documentation/ABI, NVIDIA's driver README (procfs),
AMD's KFD topology, Slurm's plugin names, ld.so(8).
"""

from __future__ import annotations

from types import MappingProxyType

from hpc3build import mpinames

#: Files whose head is kept, with the number of bytes. ``{release}`` is the kernel's.
FILES: tuple[tuple[str, int], ...] = (
    ("/proc/cpuinfo", 8192),
    ("/proc/sys/kernel/osrelease", 256),
    ("/etc/os-release", 4096),
    ("/usr/lib/os-release", 4096),
    ("/proc/modules", 131072),
    ("/lib/modules/{release}/modules.builtin", 131072),
    ("/proc/driver/nvidia/version", 1024),
    ("/proc/driver/nvidia/gpus/*/information", 1024),
    ("/sys/module/nvidia/version", 128),
    ("/sys/module/amdgpu/version", 128),
    ("/proc/device-tree/compatible", 1024),
    ("/sys/class/kfd/kfd/topology/nodes/*/properties", 4096),
    ("/opt/rocm/.info/version", 128),
    ("/sys/class/infiniband/*/ports/1/link_layer", 64),
    ("/sys/class/infiniband/*/ports/1/rate", 64),
    ("/sys/fs/cgroup/cgroup.controllers", 512),
    ("/proc/sys/user/max_user_namespaces", 64),
    ("/proc/sys/kernel/unprivileged_userns_clone", 64),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 64),
)
#: One file a PCI device; those of the classes display, accelerator, network and InfiniBand are kept.
PCI = "/sys/bus/pci/devices/*/uevent"
PCI_BYTES = 1024
PCI_CLASSES = r"^PCI_CLASS=(3....|12....|2....|C06..)$"

#: Paths of which only their being there is kept.
NAMES: tuple[str, ...] = (
    "/sys/bus/pci/devices",
    "/sys/module/*",
    "/sys/class/infiniband/*",
    "/sys/class/cxi/*",
    "/dev/cxi[0-9]*",
    "/dev/infiniband/uverbs*",
    "/dev/hfi1_[0-9]*",
    "/dev/nvidia[0-9]*",
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/kfd",
    "/dev/dri/renderD*",
    "/dev/xpmem",
    "/dev/knem",
    "/dev/gdrdrv",
    "/dev/fuse",
    "/sys/fs/cgroup/memory",
    "/lib/ld-musl-*.so.1",
    "/usr/lib64/slurm/mpi_*.so",
    "/usr/lib/*/slurm*/mpi_*.so",
    "/usr/lib/slurm/mpi_*.so",
    "/opt/slurm*/lib*/slurm/mpi_*.so",
    "/usr/lib64/libfabric/*-fi.so",
    "/usr/lib/*/libfabric/*-fi.so",
    "/usr/lib64/ucx/libuct_*.so.0",
    "/usr/lib/*/ucx/libuct_*.so.0",
)
#: Folders of a module tree: what they hold are versions.
MODULES: tuple[str, ...] = tuple(mpinames.MODULES)
#: Libraries, where no cache and no variable leads to them.
LIBRARIES: tuple[str, ...] = (
    "/lib64/libc.so.6",
    "/lib/*-linux-gnu*/libc.so.6",
    "/usr/lib64/openmpi*/lib/libmpi.so.*",
    "/usr/lib64/mpich*/lib/libmpi.so.*",
    "/usr/lib64/mvapich2*/lib/libmpi.so.*",
    "/usr/lib/*-linux-gnu*/openmpi*/lib/libmpi.so.*",
    "/usr/lib/*-linux-gnu*/libmpi.so.*",
    "/usr/lib/*-linux-gnu*/libmpich.so.*",
    "/usr/lib/*-linux-gnu*/libfabric.so.1",
    "/usr/mpi/gcc/*/lib64/libmpi.so.*",
    "/opt/amazon/openmpi*/lib*/libmpi.so.*",
    "/opt/amazon/efa/lib*/libfabric.so.1",
    "/opt/cray/pe/mpich/*/ofi/*/*/lib-abi-mpich/libmpi.so.12",
    "/opt/cray/libfabric/*/lib64/libfabric.so.1",
    "/opt/intel/oneapi/mpi/*/lib/libmpi.so.12",
    "/opt/intel/oneapi/mpi/*/lib/release/libmpi.so.12",
    "/opt/hpcx*/ompi/lib/libmpi.so.*",
)
#: Base names of libraries that count, as in ld.so.cache and in the folders that variables name.
LIBRARY_NAMES = r"lib(mpi|mpich|mpi_abi)\.so\.[0-9]+|libfabric\.so\.1|libucp\.so\.0"
#: What is kept of a library's content: symbol versions, and how MPI libraries call themselves.
MARKS = (
    r"GLIBC_[0-9]+\.[0-9.]+|FABRIC_1\.[0-9]+|GNU C Library [^\n]* release version [0-9.]+|Open MPI v[0-9][0-9a-z.]*|"
    r"CRAY MPICH version [0-9.]+|Intel\(R\) MPI Library|MVAPICH2? Version|ParaStation MPI|MPICH Version"
)
LIBRARY_BYTES = 96 << 20

#: Variables of the environment that say where things are.
VARIABLES: tuple[str, ...] = (
    "PATH",
    "LD_LIBRARY_PATH",
    "LOADEDMODULES",
    "MODULEPATH",
    "CRAY_MPICH_VERSION",
    "SLURM_JOB_ID",
)
#: Programs that are looked for on PATH; those with arguments are run, unless commands are left out.
PROGRAMS: tuple[str, ...] = (
    "podman",
    "docker",
    "apptainer",
    "singularity",
    "enroot",
    "sarus",
    "shifter",
    "ch-run",
    "buildah",
    "skopeo",
    "nerdctl",
    "mpirun",
    "mpichversion",
    "srun",
    "wi4mpi",
    "nvidia-smi",
    "rocminfo",
    "ucx_info",
    "fi_info",
    "newuidmap",
)
COMMANDS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "nvidia-smi": ("nvidia-smi",),
        "nvidia-smi-query": ("nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"),
        "rocminfo": ("rocminfo",),
        "fi_info": ("fi_info", "-l"),
        "ucx_info": ("ucx_info", "-v"),
        "mpirun": ("mpirun", "--version"),
        "mpichversion": ("mpichversion",),
        "srun-mpi": ("srun", "--mpi=list"),
        "srun": ("srun", "--version"),
        "podman": ("podman", "--version"),
        "docker": ("docker", "--version"),
        "apptainer": ("apptainer", "--version"),
        "singularity": ("singularity", "--version"),
        "enroot": ("enroot", "version"),
        "sarus": ("sarus", "--version"),
        "shifter": ("shifter", "--version"),
        "ch-run": ("ch-run", "--version"),
        "buildah": ("buildah", "--version"),
        "skopeo": ("skopeo", "--version"),
        "nerdctl": ("nerdctl", "--version"),
    }
)
#: The commands whose answers the rules of match read.
MATCHING = frozenset({"nvidia-smi", "nvidia-smi-query", "rocminfo", "mpirun", "mpichversion", "srun-mpi", "ucx_info"})
COMMAND_SECONDS = 2
COMMAND_BYTES = 65536
