"""A probe's raw texts turned into a fingerprint. Values in, values out: nothing of this machine is read here."""

from __future__ import annotations

from hpc3build.host import cpu, gpu, mpi, system
from hpc3build.host.fingerprint import Fingerprint
from hpc3build.host.probe import Probe


def interpret(probe: Probe) -> Fingerprint:
    """What a probe says; what it does not hold stays unknown."""
    return Fingerprint(
        cpu=cpu.cpu(probe),
        gpus=gpu.gpus(probe),
        driver=gpu.driver(probe),
        mpi=mpi.mpi(probe),
        launcher=mpi.launcher(probe),
        fabric=mpi.fabric(probe),
        libc=system.libc(probe),
        kernel=system.kernel(probe),
        os=system.operating_system(probe),
        engines=system.engines(probe),
        injected=mpi.injected(probe),
    )
