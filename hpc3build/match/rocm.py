"""ROCm: code objects are bound to one processor (or a generic target), and to the features in its target id."""

from __future__ import annotations

from hpc3build.facts import vocabulary as voc
from hpc3build.findings import Finding
from hpc3build.host.fingerprint import Fingerprint, Gpu
from hpc3build.match import tables
from hpc3build.match.judgement import Judgement, degraded, fails, ok, unknown

EXACT, GENERIC = 3, 2


def judge(values: tuple[str | None, ...], devices: tuple[Gpu, ...], host: Fingerprint) -> Judgement:
    """``values``: run times, architectures, CUDA, ROCm, least driver, kernel modules."""
    _, architectures, _, version, _, _ = values
    code = [_code(architectures, gpu) for gpu in devices]
    worst = max(code, key=lambda found: (found.severity, -found.score))
    release = _release(version, host.driver.rocm)
    return Judgement((*worst.findings, *((release,) if release else ())), worst.score)


def _code(architectures: str | None, gpu: Gpu) -> Judgement:
    key = voc.GPU_ARCHITECTURE
    if architectures is None:
        return Judgement((unknown("rocm.code", key, "the image does not say for which GPUs its code is"),))
    if gpu.architecture is None:
        return Judgement((unknown("rocm.code", key, "the processor of this host's AMD GPU could not be read"),))
    objects = [name for name in architectures.split(",") if name.startswith("gfx")]
    judged = [_fit(name, gpu.architecture) for name in objects]
    if judged:
        return min(judged, key=lambda found: (found.severity, -found.score))
    return Judgement((fails("rocm.code", key, f"has code for {architectures} and none for AMD GPUs"),))


def _fit(wanted: str, have: str) -> Judgement:
    key = voc.GPU_ARCHITECTURE
    name, _, features = wanted.partition(":")
    own, _, settings = have.partition(":")
    row = tables.GENERIC_GFX.get(name)
    if name != own and (row is None or own not in row.value.split()):
        message = f"has code for {wanted}, and this host's GPU is {have}: code objects of one do not run on the other"
        return Judgement((fails("rocm.code", key, message),))
    score = GENERIC if row else EXACT
    set_here = {setting[:-1]: setting[-1] for setting in settings.split(":") if setting}
    for feature in filter(None, features.split(":")):
        here = set_here.get(feature[:-1])
        if here is None:
            message = f"needs {feature} of {own}, and how this host has it set could not be read"
            return Judgement((unknown("rocm.code", key, message, "rocminfo shows it"),), score)
        if here != feature[-1]:
            message = f"has code for {wanted}, and this host's GPU is {have}: {feature[:-1]} is set otherwise"
            return Judgement((fails("rocm.code", key, message),))
    told = f"has code for {wanted}, which this host's {have} runs"
    if row is not None and not row.confirmed:
        return Judgement((degraded("rocm.code", key, told, f"unconfirmed: {row.source}"),), score)
    return Judgement((ok("rocm.code", key, told),), score)


def _release(image: str | None, host: str | None) -> Finding | None:
    """User space and driver of ROCm may lie two releases apart; the order of releases is unconfirmed, only warned."""
    if image is None or host is None:
        return None
    releases = tables.ROCM_RELEASES.value.split()
    one, other = (".".join(version.split(".")[:2]) for version in (image, host))
    if one not in releases or other not in releases:
        return None
    apart = abs(releases.index(one) - releases.index(other))
    if apart <= tables.ROCM_DISTANCE:
        return ok("rocm.release", voc.ROCM_VERSION, f"ROCm {image} on a host with ROCm {host}")
    message = f"ROCm {image} on a host with ROCm {host}: more than {tables.ROCM_DISTANCE} releases apart"
    return degraded("rocm.release", voc.ROCM_VERSION, message, f"unconfirmed: {tables.ROCM_RELEASES.source}")
