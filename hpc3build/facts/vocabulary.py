"""The whole annotation vocabulary, version 0, as one table. docs/vocabulary.md is generated from it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from types import MappingProxyType
from typing import TypeGuard

from hpc3build.facts import Key, Need, Place

VERSION = "0"

# The formatter would give every argument its own line, and the table its form away.
# fmt: off

_VER = r"\d+(?:\.\d+)*(?:[._+-]?[A-Za-z0-9_+-][A-Za-z0-9._+-]*)?"
_NAME = r"[a-z0-9][a-z0-9._+-]*"
_ANY = r"[^\x00-\x1f\x7f]+"
L, D, R = Place.LABEL, Place.DESCRIPTOR, Place.REFERRER
M, O, C = Need.MANDATORY, Need.OPTIONAL, Need.CONDITIONAL  # noqa: E741 (the vocabulary's own letters)
_P = "org.supercontainers."
_T = "io.github.hpc3build."
_OCI = "org.opencontainers.image."


def _list_of(item: str) -> str:
    return rf"(?:{item})(?:,(?:{item}))*"


def _one_of(*values: str) -> str:
    return "|".join(re.escape(value) for value in values)


def _key(name: str, grammar: str, pattern: str, need: Need, place: Place, derived: str, consumers: str,
         subject: str, *, condition: str = "", aliases: tuple[str, ...] = (), confirmed: bool = True,
         further: Callable[[str], bool] | None = None) -> Key:
    return Key(name=name, grammar=grammar, pattern=re.compile(pattern, re.ASCII), need=need, place=place,
               derived=derived, consumers=consumers, subject=subject, condition=condition, aliases=aliases,
               confirmed=confirmed, further=further)


def markdown(value: str) -> str:
    """The text in a value of DOCUMENTATION.

    Raises binascii.Error or UnicodeEncodeError for what is no base64, UnicodeDecodeError for what is not of UTF-8.
    """
    return base64.b64decode(value.encode("ascii"), validate=True).decode()


def _is_markdown(value: str) -> bool:
    try:
        markdown(value)
    except ValueError:
        return False
    return True


_MODES = ("mpi_replace", "mpi_system", "libfabric_inject", "ucx_inject", "mpi_translate")
_IMPLEMENTATIONS = ("mpich", "openmpi", "intel-mpi", "mvapich", "mvapich2", "cray-mpich", "parastation", "hpcx",
                    "spectrum", "mpitrampoline", "threadmpi")
_GPU_ARCH = r"(?:sm|compute)_\d{2,3}[af]?|gfx[0-9a-f]+(?:-[0-9]+)?(?:-generic)?(?::[a-z]+[+-])*"

CPU_MODE = _key(
    _P + "hardware.cpu.optimized.mode", "generic | microarch", _one_of("generic", "microarch"), M, L,
    "archspec: whether the target's vendor is generic", "hpc3build", "cpu", confirmed=False)
CPU_VERSION = _key(
    _P + "hardware.cpu.optimized.version", "archspec name (x86_64_v3, zen3, neoverse_v1)", _NAME, M, L | D,
    "R2: the highest target of any package that counts", "hpc3build, compspec, MetaHub, platform.variant", "cpu",
    aliases=("io.archspec.cpu.target",))
GPU = _key(
    _P + "gpu", "LIST of cuda, rocm, opencl, sycl | none",
    rf"none|{_list_of(_one_of('cuda', 'rocm', 'opencl', 'sycl'))}", M, L | D, "R4", "Shifter, Sarus, hpc3build", "gpu")
GPU_ARCHITECTURE = _key(
    _P + "hardware.gpu.architecture", "LIST of sm_NN[af], compute_NN[af] (PTX), gfx…[:feature±]", _list_of(_GPU_ARCH),
    C, L | D, "R4; fat binaries and code objects", "hpc3build", "gpu", condition="gpu")
CUDA_VERSION = _key(
    _P + "hardware.gpu.cuda.version", "VER of the toolkit", _VER, C, L | D, "the cuda package of the stack",
    "hpc3build, EDF, NVIDIA_REQUIRE_CUDA", "gpu", condition="cuda")
ROCM_VERSION = _key(
    _P + "hardware.gpu.rocm.version", "VER", _VER, C, L | D, "the hip package of the stack", "hpc3build, EDF", "gpu",
    condition="rocm", confirmed=False)
GPU_DRIVER = _key(
    _P + "hardware.gpu.driver.version", "VER, the least host driver", _VER, C, L | D, "R4: table of CUDA releases",
    "hpc3build", "gpu", condition="gpu")
MPI = _key(
    _P + "mpi", "LIST of mpich, openmpi, mpi-abi (ABI families) | none",
    rf"none|{_list_of(_one_of('mpich', 'openmpi', 'mpi-abi'))}", M, L | D, "R3",
    "Shifter, Sarus and Podman hooks, hpc3build", "mpi")
MPI_IMPLEMENTATION = _key(
    _P + "mpi.implementation", f"LIST of {', '.join(_IMPLEMENTATIONS)} | none",
    rf"none|{_list_of(_one_of(*_IMPLEMENTATIONS))}", M, L, "R3", "compspec, hpc3build", "mpi",
    aliases=(_P + "mpi.provider",))
MPI_VERSION = _key(
    _P + "mpi.version", "VER", _VER, C, L, "R3", "compspec", "mpi", condition="MPI",
    aliases=(_P + "openmpi.version", _P + "mpich.version"))
MPI_ABI = _key(
    _P + "mpi.abi.version", "version of the library's file (12.5.0, 40.40.7, 1.0.0)", r"\d+(?:\.\d+)*", C, L | D,
    "the file that libmpi.so.* links to", "hpc3build", "mpi", condition="MPI", confirmed=False)
MPI_MODE = _key(
    _P + "mpi.portability.mode", f"LIST, best first, of {', '.join(_MODES)}", _list_of(_one_of(*_MODES)), C, L,
    "R8, or the recipe's mpi.mode", "hpc3build, EDF and hook generators", "mpi", condition="MPI")
MPI_OPTIMIZATION = _key(
    _P + "mpi.portability.optimization", "stock | system id (cray_xc-CNL10)", r"[A-Za-z0-9][A-Za-z0-9._+-]*", O, L,
    "the recipe's settings", "people", "mpi", aliases=(_P + "mpi.portability.optimized",))
FRAMEWORK = _key(
    _P + "communication.framework", "LIST of libfabric, ucx, verbs, psm2, tcp, shm, nccl, rccl",
    _list_of(_one_of("libfabric", "ucx", "verbs", "psm2", "tcp", "shm", "nccl", "rccl")), C, L, "R5",
    "hpc3build, EDF (cxi)", "fabric", condition="MPI", aliases=(_P + "network.communication.framework",))
LIBFABRIC_ABI = _key(
    _P + "libfabric.abi.version", "VER", _VER, C, L, "table of libfabric releases", "CXI, injection check", "fabric",
    condition="libfabric", aliases=(_P + "libfabric.abi",))
PMI = _key(
    _P + "pmi.version", "LIST of 1, 2, pmix[-VER]", _list_of(rf"1|2|pmix(?:-{_VER})?"), C, L,
    "pmi= and pmix@ of the MPI provider in use", "srun --mpi advice", "fabric", condition="MPI", confirmed=False)
LIBC_PROVIDER = _key(
    _P + "libc.provider", "glibc | musl | none", _one_of("glibc", "musl", "none"), M, L, "R6; files of the image",
    "hpc3build", "libc")
GLIBC = _key(
    _P + "glibc", "X.Y[.Z], what the image ships", r"\d+\.\d+(?:\.\d+)?", C, L | D, "libc.so.6 of the image",
    "Shifter, injection check", "libc", condition="glibc", aliases=(_P + "glibc.version",))
OS_VENDOR = _key(
    _P + "os.vendor", "os-release ID", _NAME, M, L, "/etc/os-release of the final stage", "compspec, NFD", "system")
OS_VERSION = _key(
    _P + "os.version", "os-release VERSION_ID", r"[a-z0-9._-]+", M, L, "/etc/os-release of the final stage",
    "compspec, NFD", "system")
KERNEL_VERSION = _key(
    _P + "kernel.version", "VER, the least host kernel", _VER, O, L, "greatest NT_GNU_ABI_TAG; the recipe's settings",
    "hpc3build, NFD", "system", confirmed=False)
KERNEL_MODULES = _key(
    _P + "kernel.modules", "LIST, a ? behind an optional one", _list_of(r"[a-z0-9_]+\??"), O, L,
    "the recipe's settings; GPU and fabric", "hpc3build, NFD", "system", confirmed=False)
TOOLS = _key(
    _P + "tools", "LIST of executables on the login PATH", _list_of(r"[A-Za-z0-9][A-Za-z0-9._+-]*"), O, L, "probe list",
    "users", "system", confirmed=False)
DOCUMENTATION = _key(
    _P + "documentation", "base64 of markdown of at most 3045 bytes", r"[A-Za-z0-9+/]+={0,2}", O, L | R,
    "the recipe's docs", "hpc3build docs", "provenance", confirmed=False, further=_is_markdown)
VOCABULARY = _key(
    _T + "vocabulary", "0", r"\d+", M, L | D, "constant", "version gate", "provenance")
CONFORMANCE = _key(
    _T + "conformance", "LIST of login, exec-args, exit-code, any-uid, nobody, env-baked",
    _list_of(_one_of("login", "exec-args", "exit-code", "any-uid", "nobody", "env-baked")), O, L,
    "results of the image test", "users", "provenance")
LOCK = _key(
    _T + "lock", "sha256:<hex> of spack.lock or of the easyconfigs", r"sha256:[0-9a-f]{64}", O, L | R, "the build",
    "reproducibility", "provenance")
RANK = _key(
    _T + "rank", "integer, a tie-break only", r"-?\d+", O, D, "the recipe's settings", "pick", "provenance")
SIZE = _key(
    _T + "size", "bytes of the layers, as the registry has them", r"\d{1,18}", O, D, "the image's manifest",
    "match, pick", "provenance")
SEAL = _key(
    _T + "seal", "sha256:<hex> of what decides (docs/match.md)", r"sha256:[0-9a-f]{64}", O, D,
    "index create, index annotate", "match, pick", "provenance")
TITLE = _key(_OCI + "title", "one line", _ANY, M, L, "R7", "discovery", "provenance")
IMAGE_VERSION = _key(_OCI + "version", "one line", _ANY, C, L, "R7", "discovery", "provenance", condition="one root")
CREATED = _key(
    _OCI + "created", "RFC 3339", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", O, L,
    "SOURCE_DATE_EPOCH, else the config's own", "registries", "provenance")
LICENSES = _key(
    _OCI + "licenses", "SPDX expression", r"[A-Za-z0-9(][A-Za-z0-9.+():-]*(?: [A-Za-z0-9.+():-]+)*", O, L,
    "the recipe's labels, never derived", "registries", "provenance")
REVISION = _key(_OCI + "revision", "commit", _ANY, O, L, "git, of the recipe's folder", "provenance", "provenance")
SOURCE_URL = _key(_OCI + "source", "URL", r"[a-z][a-z0-9+.-]*://\S+", O, L, "git remote of the recipe's folder",
                  "registries", "provenance")
BASE_NAME = _key(_OCI + "base.name", "image reference", r"\S+", O, L, "FROM of the final stage", "registries",
                 "provenance")
BASE_DIGEST = _key(_OCI + "base.digest", "sha256:<hex>", r"sha256:[0-9a-f]{64}", O, L, "FROM of the final stage",
                   "registries", "provenance")

KEYS: tuple[Key, ...] = (
    CPU_MODE, CPU_VERSION, GPU, GPU_ARCHITECTURE, CUDA_VERSION, ROCM_VERSION, GPU_DRIVER, MPI, MPI_IMPLEMENTATION,
    MPI_VERSION, MPI_ABI, MPI_MODE, MPI_OPTIMIZATION, FRAMEWORK, LIBFABRIC_ABI, PMI, LIBC_PROVIDER, GLIBC, OS_VENDOR,
    OS_VERSION, KERNEL_VERSION, KERNEL_MODULES, TOOLS, DOCUMENTATION, VOCABULARY, CONFORMANCE, LOCK, RANK, SIZE, SEAL,
    TITLE, IMAGE_VERSION, CREATED, LICENSES, REVISION, SOURCE_URL, BASE_NAME, BASE_DIGEST)

BY_NAME = MappingProxyType({name: key for key in KEYS for name in (*reversed(key.aliases), key.name)})


def is_version(text: str | None) -> TypeGuard[str]:
    """Whether ``text`` is a VER (rule N3): ``main``, ``system`` and ``git.abc`` are none."""
    return text is not None and re.fullmatch(_VER, text, re.ASCII) is not None


#: Rule N1.
PREFIXES = (_P, _T)
#: Rule N6: privileged or engine-owned keys that are never written.
FORBIDDEN_PREFIXES = ("com.hooks.", "run.oci.", "org.systemd.property.", "cdi.k8s.io/", "io.podman.", "io.kubernetes.")
