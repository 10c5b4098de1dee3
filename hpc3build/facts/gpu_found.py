"""GPUs by an image's files: run times that the applications load, code for GPUs inside them, versions and drivers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from types import MappingProxyType

from hpc3build.evidence.applications import Program
from hpc3build.evidence.binary import Binary
from hpc3build.evidence.image import Evidence
from hpc3build.evidence.loader import Loaded
from hpc3build.facts import Conflict, Fact, Note, Source, Statement, cuda_drivers
from hpc3build.facts import vocabulary as voc

#: Libraries of the vendors: their code is for every GPU that they know, and says nothing of the application.
VENDOR = MappingProxyType(
    {
        "cuda": re.compile(
            r"lib(?:cuda|cudart|cudadevrt|cublas|cublasLt|nvblas|cufft|cufftw|cufftMp|curand|cusolver|cusolverMg|cusparse"
            r"|cusparseLt|cutensor\w*|cudnn\w*|nccl|nvshmem\w*|nvrtc[-\w.]*|nvjpeg|npp\w+|nvJitLink|nvToolsExt|cupti"
            r"|cufile\w*|cudss\w*|nvinfer\w*|nvvm|nvidia-ml)(?:-[0-9a-f]+)?\.so"
        ),
        "rocm": re.compile(
            r"lib(?:amdhip64|hiprtc[-\w]*|hsa-runtime64|rocblas|rocfft|rocsolver|rocsparse|rocrand|rccl|hipblas|hipblaslt"
            r"|hipfft|hipfftw|hiprand|hipsolver|hipsparse|hipsparselt|MIOpen|amd_comgr|roctx64|roctracer64|amdocl64)\.so"
        ),
        "sycl": re.compile(r"lib(?:sycl|ze_loader|ur_loader|pi_level_zero)\.so"),
        "opencl": re.compile(r"libOpenCL\.so"),
    }
)
#: Ways that ask for no GPU (R4): MPI, transports and hwloc bring run times in for those who have one.
BARRIERS = re.compile(r"lib(?:mpi|mpich|open-rte|open-pal|ucp|ucs|uct|ucm|fabric|hwloc|pmix)[-_.\w]*\.so")
_VERSION_JSON = re.compile(r"^/usr/local/cuda(?:-[\d.]+)?/version\.json$")
_ROCM_VERSION = re.compile(r"^/opt/rocm(?:-[\d.]+)?/\.info/version$")
#: Packages with a toolkit's version: of the run time itself, whose own first two numbers are the toolkit's.
_CUDA_PACKAGES = re.compile(
    r"cuda-cudart-\d+-\d+|cuda-cudart|cudatoolkit|cuda-toolkit|cuda-version|libcudart\d[\d.]*"
    r"|nvidia-cuda-runtime(?:-cu\d+)?"
)
_LOCAL = re.compile(r"\+cu(\d{2})(\d)$")


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``, for readers of layers."""
    return 64 << 10 if _VERSION_JSON.match(path) or _ROCM_VERSION.match(path) else None


def from_files(evidence: Evidence) -> Iterator[Statement]:
    """Platforms and architectures of the applications, the versions of their run times; ``none``, or a note."""
    used: dict[str, str] = {}
    deciding: list[Program] = []
    for program in evidence.applications.programs:
        found = dict(_platforms(program))
        if found:
            deciding.append(program)
        for platform, told in found.items():
            used.setdefault(platform, told)
    if used:
        yield Fact(voc.GPU, ",".join(sorted(used)), Source.FILES, "; ".join(used[name] for name in sorted(used)))
        yield from _architectures(deciding)
    else:
        yield from _without(evidence)
    if "cuda" in used:
        yield from _cuda_version(evidence, deciding)
    if "rocm" in used:
        yield from _rocm_version(evidence)


def _platforms(program: Program) -> Iterator[tuple[str, str]]:
    for path, binary in _own_code(program):
        where = program.path if path == program.path else f"{program.path} loads {path}"
        if binary.architectures:
            yield "cuda", f"{where}: code for {', '.join(sorted(binary.architectures))}"
        if binary.targets:
            yield "rocm", f"{where}: code for {', '.join(sorted(binary.targets))}"
    for library in program.reach(without=BARRIERS):
        for platform, pattern in VENDOR.items():
            # OpenCL and Level Zero also run on CPUs, and what comes with the distribution may merely look for them.
            if pattern.match(library.name) and (program.chosen or platform in ("cuda", "rocm")):
                way = "" if library.by == program.path else f" by {library.by}"
                yield platform, f"{program.path} ({program.why}): NEEDED {library.name}{way}"


def _own_code(program: Program) -> Iterator[tuple[str, Binary]]:
    """The program and the libraries it loads that are no vendor's, as far as they hold code for GPUs."""
    yield program.path, program.binary
    for library in program.reach(without=BARRIERS):
        if library.file is not None and isinstance(library.file.extract, Binary) and not _is_vendors(library):
            yield library.file.path, library.file.extract


def _is_vendors(library: Loaded) -> bool:
    return any(pattern.match(library.name) for pattern in VENDOR.values()) or BARRIERS.match(library.name) is not None


def _architectures(programs: Iterable[Program]) -> Iterator[Statement]:
    """R4: what is common to all objects that hold code, by platform."""
    objects = {path: binary for program in programs for path, binary in _own_code(program)}
    names: set[str] = set()
    texts: list[str] = []
    for attribute in ("architectures", "targets"):
        sets = {path: frozenset(getattr(binary, attribute)) for path, binary in sorted(objects.items())}
        sets = {path: found for path, found in sets.items() if found}
        if not sets:
            continue
        common = {name for name in frozenset.intersection(*sets.values()) if _holds(name)}
        if not common:
            facts = tuple(
                Fact(voc.GPU_ARCHITECTURE, ",".join(sorted(found)), Source.FILES, path)
                for path, found in sets.items()
                if all(map(_holds, found))
            )
            yield Conflict(voc.GPU_ARCHITECTURE, facts, "no GPU architecture is common to all files that hold code")
            return
        names |= common
        first, *others = sets
        texts.append(f"code in {first}" + (f" and {len(others)} more" if others else ""))
    if names:
        yield Fact(voc.GPU_ARCHITECTURE, ",".join(sorted(names)), Source.FILES, "; ".join(texts))


def _holds(name: str) -> bool:
    return voc.GPU_ARCHITECTURE.pattern.fullmatch(name) is not None


def _without(evidence: Evidence) -> Iterator[Statement]:
    """No application uses a GPU: ``none`` where nothing in the image could."""
    present = next((path for path in sorted(evidence.files) if _speaks_of_gpus(evidence, path)), None)
    if present is not None:
        yield Note(voc.GPU, "a GPU's run time is in the image, and no application is known to use it", present)
    elif evidence.applications.chosen and evidence.complete:
        told = f"no GPU run time in the image, no code for GPUs in {evidence.applications.in_words}"
        yield Fact(voc.GPU, "none", Source.FILES, told)


def _speaks_of_gpus(evidence: Evidence, path: str) -> bool:
    name = path.rpartition("/")[2]
    binary = evidence.files[path].extract
    code = isinstance(binary, Binary) and (binary.architectures or binary.targets)
    return bool(code) or any(pattern.match(name) for pattern in VENDOR.values())


def _cuda_version(evidence: Evidence, programs: Iterable[Program]) -> Iterator[Statement]:
    for path in sorted(evidence.files):
        if _VERSION_JSON.match(path):
            try:
                version = str(json.loads(evidence.files[path].data)["cuda"]["version"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            if voc.is_version(version):
                yield Fact(voc.CUDA_VERSION, version, Source.FILES, path)
    for program in programs:
        for library in program.reach(without=BARRIERS):
            file = library.file
            match = re.search(r"/libcudart\.so\.(\d+\.\d+)(?:\.\d+)*$", file.path) if file else None
            # libcudart.so.11.0 is the SONAME of all of CUDA 11: only a file with more numbers tells its release.
            if match and file and re.search(r"\.so\.\d+\.\d+\.\d+", file.path):
                yield Fact(voc.CUDA_VERSION, match[1], Source.FILES, f"{program.path} loads {file.path}")
    for package in evidence.packages:
        if _CUDA_PACKAGES.fullmatch(package.name.lower()):
            numbers = re.match(r"\d+\.\d+", package.upstream)
            if numbers:
                yield Fact(voc.CUDA_VERSION, numbers[0], Source.FILES, package.origin)
        elif (local := _LOCAL.search(package.version)) is not None:
            yield Fact(voc.CUDA_VERSION, f"{local[1]}.{local[2]}", Source.FILES, package.origin)


def _rocm_version(evidence: Evidence) -> Iterator[Statement]:
    for path in sorted(evidence.files):
        if _ROCM_VERSION.match(path):
            version = evidence.files[path].data.decode("utf-8", "replace").strip().partition("-")[0]
            if voc.is_version(version):
                yield Fact(voc.ROCM_VERSION, version, Source.FILES, path)


def driver(cuda: Fact, architectures: str | None) -> Iterator[Fact]:
    """The least driver: by the toolkit's family, or by the toolkit itself where all code is PTX.

    PTX is compiled by the driver, which must know the toolkit that wrote it. Without known architectures nothing is
    said: the code may be PTX alone. Nor is a number that is not confirmed.
    """
    release = re.match(r"\d+\.\d+", cuda.value)
    if release is None or architectures is None:
        return
    names = [name for name in architectures.split(",") if name.startswith(("sm_", "compute_"))]
    only_ptx = all(name.startswith("compute_") for name in names)
    row = cuda_drivers.own(cuda.value) if only_ptx else cuda_drivers.least(cuda.value)
    if names and row is not None and row.confirmed:
        what = f"{'PTX alone' if only_ptx else 'machine code'}, of CUDA {release[0]}"
        yield Fact(voc.GPU_DRIVER, row.value, cuda.source, f"table of CUDA drivers: {what}; {cuda.evidence}")
