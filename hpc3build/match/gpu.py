"""GPU run times, code and drivers of an image against a host (rules "gpu", "cuda.*", "rocm.*")."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from hpc3build.facts import vocabulary as voc
from hpc3build.findings import Finding
from hpc3build.host.fingerprint import Fingerprint, Gpu
from hpc3build.match import cuda, rocm
from hpc3build.match.judgement import Judgement, degraded, fails, ok, unknown

VENDORS = MappingProxyType({"cuda": ("nvidia",), "rocm": ("amd",), "sycl": ("intel", "nvidia", "amd"),
                            "opencl": ("intel", "nvidia", "amd")})  # fmt: skip
_NAMES = MappingProxyType({"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel"})
#: A mandatory module of a GPU driver says that the image cannot do without the GPU.
_DRIVERS = frozenset({"nvidia", "nvidia_uvm", "amdgpu", "i915", "xe"})
USES = 10  # the least score of an image that uses the host's GPU

_CODE: MappingProxyType[str, Callable[[tuple[str | None, ...], tuple[Gpu, ...], Fingerprint], Judgement]] = (
    MappingProxyType({"cuda": cuda.judge, "rocm": rocm.judge})
)


def judge(values: tuple[str | None, ...], host: Fingerprint) -> Judgement:
    """``values``: run times, architectures, CUDA, ROCm, least driver, kernel modules."""
    runtimes, modules = values[0], values[5]
    if runtimes is None:
        return Judgement((unknown("gpu", voc.GPU, "the image does not say whether it uses a GPU"),))
    if runtimes == "none":
        return Judgement((ok("gpu", voc.GPU, "needs no GPU"),))
    needed = bool(_DRIVERS & set((modules or "").split(",")))
    judged = [_judge(name, values, host, needed) for name in runtimes.split(",")]
    # Several run times are alternatives: the one that fits best is used.
    return min(judged, key=lambda found: (found.severity, -found.score))


def _judge(runtime: str, values: tuple[str | None, ...], host: Fingerprint, needed: bool) -> Judgement:
    if host.gpus is None:
        return Judgement((unknown("gpu", voc.GPU, f"uses {runtime}, and this host's GPUs could not be read"),))
    vendors = VENDORS.get(runtime, ())
    there = tuple(gpu for gpu in host.gpus if gpu.vendor in vendors)
    devices = tuple(gpu for gpu in there if gpu.driver is not False)
    if not devices:
        return Judgement((_without(runtime, vendors, there, needed),))
    if runtime in _CODE:
        found = _CODE[runtime](values, devices, host)
    else:
        names = ", ".join(sorted({name for gpu in devices if (name := _NAMES.get(gpu.vendor or ""))}))
        message = f"uses {runtime}, and this host has a GPU of {names}"
        found = Judgement((ok("gpu", voc.GPU, message, "whether its code fits that GPU is not known"),))
    return Judgement(found.findings, USES + found.score)


def _without(runtime: str, vendors: tuple[str, ...], there: tuple[Gpu, ...], needed: bool) -> Finding:
    vendor = _NAMES[vendors[0]] if len(vendors) == 1 else "usable"
    why = (
        f"has {'an' if vendor[0] in 'AN' else 'a'} {vendor} GPU without a loaded driver"
        if there
        else f"has no {vendor} GPU"
    )
    if needed:
        message = f"cannot do without its GPU ({runtime}), and this host {why}"
        return fails("gpu", voc.KERNEL_MODULES, message)
    hint = "the program may run on CPUs alone, if it can"
    return degraded("gpu", voc.GPU, f"uses {runtime}, and this host {why}", hint)
