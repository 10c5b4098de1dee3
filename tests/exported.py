"""Images as values for the tests of exports, and readers of what is written."""

from __future__ import annotations

import dataclasses
from typing import Any

from hpc3build.exports import Subject
from hpc3build.facts import vocabulary as voc
from hpc3build.host.fingerprint import Fingerprint, Mpi
from hpc3build.reference import parse

P = "org.supercontainers."
DIGEST = f"sha256:{'ab' * 32}"
OTHER = f"sha256:{'cd' * 32}"
AMD64 = {"os": "linux", "architecture": "amd64"}

_DEBIAN = {
    P + "libc.provider": "glibc",
    P + "glibc": "2.36",
    P + "os.vendor": "debian",
    P + "os.version": "12",
    P + "kernel.version": "3.2",
}
#: CUDA and Open MPI.
CUDA = {
    **_DEBIAN,
    "org.opencontainers.image.title": "gromacs",
    "org.opencontainers.image.version": "2024.4",
    P + "hardware.cpu.optimized.version": "x86_64_v3",
    P + "gpu": "cuda",
    P + "hardware.gpu.architecture": "compute_90,sm_80,sm_90",
    P + "hardware.gpu.cuda.version": "12.4",
    P + "hardware.gpu.driver.version": "525.60.13",
    P + "mpi": "openmpi",
    P + "mpi.implementation": "openmpi",
    P + "mpi.version": "4.1.6",
    P + "mpi.abi.version": "40.30.6",
    P + "communication.framework": "ucx",
    P + "kernel.modules": "nvidia_uvm,xpmem?",
    "io.github.hpc3build.rank": "30",
}
ROCM = {
    P + "hardware.cpu.optimized.version": "zen3",
    P + "gpu": "rocm",
    P + "hardware.gpu.architecture": "gfx90a",
    P + "hardware.gpu.rocm.version": "6.2.1",
    P + "mpi": "none",
    P + "mpi.implementation": "none",
    P + "communication.framework": "rccl",
}
MPICH = {
    P + "hardware.cpu.optimized.version": "neoverse_v1",
    P + "gpu": "none",
    P + "mpi": "mpich",
    P + "mpi.implementation": "mpich",
    P + "mpi.version": "4.2.2",
    P + "mpi.abi.version": "12.4.1",
    P + "mpi.portability.mode": "mpi_replace,libfabric_inject",
    P + "communication.framework": "libfabric",
    P + "libfabric.abi.version": "1.6",
}
#: Values that are none of their keys', and one text that may be anything in one line.
TITLE = "a\"b'c $(id) `id` #{x}: [y]\\n ä 日本 %s"
HOSTILE = {
    "org.opencontainers.image.title": TITLE,
    P + "hardware.cpu.optimized.version": "zen3\n- evil: true",
    P + "gpu": "cuda'; rm -rf $HOME",
    P + "hardware.gpu.architecture": 'sm_80"',
    P + "mpi": "mpich\x1b[31m",
    P + "mpi.portability.mode": "mpi_replace,$(id)",
    P + "communication.framework": "libfabric\n[evil]",
    P + "kernel.modules": "overlay\n",
    "com.hooks.mpi.enabled": "true",
}
HOST = Fingerprint(mpi=(Mpi(family="mpich", path="/opt/mpich/lib/libmpi.so.12"), Mpi(family="openmpi", path="/x.so")))


def subject(pairs: dict[str, str] | None = None, **fields: Any) -> Subject:
    """An image of a registry that says ``pairs``, as labels."""
    pairs = pairs or {}
    known = Subject(parse("registry.example/hpc/app:1.0"), DIGEST, AMD64, pairs, pairs)
    return dataclasses.replace(known, **fields)


def as_ch_run(text: str) -> dict[str, str]:
    """What ch-run --env-no-expand --set-env=FILE sets (hpc/charliecloud bin/ch_misc.c, env_file_read)."""
    found = {}
    for line in text.split("\n"):
        if line:
            name, equals, value = line.partition("=")
            assert name and equals, "ch-run: can't parse variable"
            found[name] = value[1:-1] if len(value) >= 2 and value[0] == value[-1] == "'" else value
    return found


def keys() -> list[str]:
    """All spellings of all keys."""
    return sorted(voc.BY_NAME)
