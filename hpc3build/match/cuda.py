"""CUDA: the driver against the toolkit, and the code in the image against the GPUs.

Rules of NVIDIA's compatibility guides: a cubin runs on the same major capability with the same or a higher minor one;
PTX on every capability from its own on, if the driver can compile it; the suffixes a and f bind code to a device or to
a family of devices.
"""

from __future__ import annotations

import re

from hpc3build.facts import cuda_drivers
from hpc3build.facts import vocabulary as voc
from hpc3build.findings import Finding
from hpc3build.host.fingerprint import Driver, Fingerprint, Gpu, numbers
from hpc3build.match import tables
from hpc3build.match.judgement import Judgement, at_least, degraded, fails, ok, unknown

EXACT, SAME_MAJOR, PTX = 3, 2, 1  # scores of code
_CODE = re.compile(r"(sm|compute)_(\d{2,3})([af]?)")


def judge(values: tuple[str | None, ...], devices: tuple[Gpu, ...], host: Fingerprint) -> Judgement:
    """``values``: run times, architectures, CUDA, ROCm, least driver, kernel modules."""
    _, architectures, toolkit, _, least, _ = values
    findings = [_driver(toolkit, least, host.driver)]
    code = [_code(architectures, toolkit, gpu, host.driver) for gpu in devices]
    worst = max(code, key=lambda found: (found.severity, -found.score))
    findings += worst.findings
    if (old := _dropped(toolkit, devices)) is not None:
        findings.append(old)
    return Judgement(tuple(findings), worst.score)


def _driver(toolkit: str | None, least: str | None, driver: Driver) -> Finding:
    """Minor-version compatibility: one driver serves all toolkits of its major release, and all older ones."""
    if toolkit is None and least is None:
        return unknown("cuda.driver", voc.CUDA_VERSION, "the image does not say which CUDA it holds")
    if driver.nvidia is None:
        if toolkit and driver.cuda and at_least(driver.cuda, toolkit):
            return ok("cuda.driver", voc.CUDA_VERSION, f"CUDA {toolkit}, and the driver serves {driver.cuda}")
        return unknown("cuda.driver", voc.CUDA_VERSION, "the version of this host's NVIDIA driver could not be read")
    key = voc.GPU_DRIVER if least else voc.CUDA_VERSION
    needs, row = least, None
    if needs is None and toolkit is not None:
        row = cuda_drivers.least(toolkit)
        needs = row.value if row else None
    said = f"CUDA {toolkit}" if toolkit else "the image"
    if needs is None:
        return unknown("cuda.driver", key, f"the least driver of {said} is not known here")
    if at_least(driver.nvidia, needs):
        own = cuda_drivers.own(toolkit) if toolkit else None
        older = own is not None and not at_least(driver.nvidia, own.value)
        hint = "by minor-version compatibility: what came new with that toolkit's driver is missing" if older else ""
        return ok("cuda.driver", key, f"{said} needs driver {needs}, this host has {driver.nvidia}", hint)
    message = f"{said} needs driver {needs} or newer, this host has {driver.nvidia}"
    if row is not None and not row.confirmed:
        return degraded("cuda.driver", key, message, f"unconfirmed number: {row.source}")
    return fails(
        "cuda.driver", key, message, "a newer driver, or on data-centre GPUs the package cuda-compat in the image"
    )


def _code(architectures: str | None, toolkit: str | None, gpu: Gpu, driver: Driver) -> Judgement:
    """The best code in the image for one GPU."""
    key = voc.GPU_ARCHITECTURE
    what = gpu.name or "this host's NVIDIA GPU"
    if architectures is None:
        return Judgement((unknown("cuda.code", key, "the image does not say for which GPUs its code is"),))
    capability = re.fullmatch(r"sm_(\d{2,3})[af]?", gpu.architecture or "")
    if capability is None:
        return Judgement((unknown("cuda.code", key, f"the compute capability of {what} could not be read"),))
    have = int(capability.group(1))
    found = [(kind, int(number), suffix) for kind, number, suffix in _CODE.findall(architectures)]
    score = max((_fit(code, have) for code in found), default=0)
    named = f"{what} (sm_{have})"
    if score in (EXACT, SAME_MAJOR):
        best = next(code for code in found if _fit(code, have) == score)
        told = f"holds code for sm_{best[1]}{best[2]}, which {named} runs"
        if score == SAME_MAJOR and _tegra(have) != _tegra(best[1]):
            hint = f"Jetson's code and that of other GPUs may not be exchangeable (unconfirmed): {tables.TEGRA.source}"
            return Judgement((degraded("cuda.code", key, told, hint),), score)
        return Judgement((ok("cuda.code", key, told),), score)
    if score == PTX:
        return Judgement((_compiled(toolkit, named, driver),), PTX)
    ptx = any(kind == "compute" for kind, _, _ in found)
    why = "its PTX is for newer or other GPUs" if ptx else "it holds no PTX that could be compiled"
    return Judgement((fails("cuda.code", key, f"has code for {architectures} and none for {named}; {why}"),))


def _fit(code: tuple[str, int, str], have: int) -> int:
    """3 for code of this very capability, 2 of the same major one, 1 for PTX, 0 for none."""
    kind, number, suffix = code
    if suffix == "a":
        fits = number == have
    elif suffix == "f":
        row = tables.FAMILY.get(number)
        fits = str(have) in row.value.split() if row else number == have
    elif kind == "compute":
        fits = have >= number
    else:
        fits = have // 10 == number // 10 and have >= number
    if not fits:
        return 0
    return PTX if kind == "compute" else EXACT if number == have else SAME_MAJOR


def _tegra(capability: int) -> bool:
    return str(capability) in tables.TEGRA.value.split()


def _compiled(toolkit: str | None, named: str, driver: Driver) -> Finding:
    """PTX alone: the driver must be at least of the toolkit that wrote it."""
    key = voc.GPU_ARCHITECTURE
    told = f"has only PTX for {named}"
    if toolkit is None:
        return unknown(
            "cuda.ptx", key, f"{told}, and its CUDA is not known: whether the driver can compile it, neither"
        )
    if driver.cuda is not None:
        if at_least(driver.cuda, toolkit):
            return ok("cuda.ptx", key, f"{told}, which the driver compiles at the first start")
        return fails("cuda.ptx", key, f"{told} of CUDA {toolkit}, and the driver compiles up to {driver.cuda}")
    row = cuda_drivers.own(toolkit)
    if row is None or driver.nvidia is None:
        return unknown("cuda.ptx", key, f"{told} of CUDA {toolkit}: whether the driver can compile it is not known")
    if at_least(driver.nvidia, row.value):
        return ok("cuda.ptx", key, f"{told}, which the driver compiles at the first start")
    message = f"{told} of CUDA {toolkit}, which needs driver {row.value}; this host has {driver.nvidia}"
    if not row.confirmed:
        return degraded("cuda.ptx", key, message, f"unconfirmed number: {row.source}")
    return fails("cuda.ptx", key, message, "a newer driver, or code for this GPU in the image")


def _dropped(toolkit: str | None, devices: tuple[Gpu, ...]) -> Finding | None:
    row = tables.LEAST_CAPABILITY.get(next(iter(numbers(toolkit)), 0)) if toolkit else None
    if row is None:
        return None
    old = [gpu for gpu in devices if (found := re.fullmatch(r"sm_(\d{2,3})", gpu.architecture or ""))
           and int(found.group(1)) < int(row.value)]  # fmt: skip
    if not old:
        return None
    message = f"CUDA {toolkit} is said to serve sm_{row.value} and newer, and this host has {old[0].architecture}"
    return degraded("cuda.toolkit", voc.CUDA_VERSION, message, f"unconfirmed number: {row.source}")
