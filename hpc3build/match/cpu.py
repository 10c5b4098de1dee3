"""Operating system, architecture and CPU target of an image against a host (rules "platform" and "cpu").

Order of targets: archspec's. Where it does not order two, the target's features are looked for among the host's flags.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from hpc3build.facts import cpu as targets
from hpc3build.facts import vocabulary as voc
from hpc3build.host.fingerprint import Cpu, Fingerprint
from hpc3build.match.judgement import Judgement, degraded, fails, ok, unknown

if TYPE_CHECKING:
    from archspec.cpu import Microarchitecture

NEAREST = 60  # the score of a target that is the host's own
_SHOWN = 6


def judge(values: tuple[str | None, ...], host: Fingerprint) -> Judgement:
    """``values``: the platform's os, architecture and variant, and the CPU target."""
    system, architecture, variant, target = values
    if system not in (None, "", "linux"):
        return Judgement((fails("platform", None, f"the image is for {system}, and this host runs Linux"),))
    machine, own = targets.MACHINES.get(architecture or "", architecture or None), host.cpu.architecture
    if machine and own and machine != own and not (machine == "i686" and own == "x86_64"):
        message = f"the image is for {architecture}, and this host is {own}"
        return Judgement((fails("platform", None, message),))
    need = targets.MACHINES.get(target or "", target)
    if need is None and architecture == "amd64":
        need = targets.VARIANTS.get(variant or "")
    if need is None:
        message = "the image does not say what CPU it was built for"
        return Judgement((unknown("cpu", voc.CPU_VERSION, message, f"annotate it with -a {voc.CPU_VERSION.name}=…"),))
    return _compared(need, host.cpu)


def _compared(need: str, cpu: Cpu) -> Judgement:
    key = voc.CPU_VERSION
    wanted = targets.microarchitecture(need)
    if wanted is None:
        message = f"needs {need}, which archspec does not know"
        return Judgement((unknown("cpu", key, message, "a newer archspec may know it"),))
    own = targets.microarchitecture(cpu.target) if cpu.target else None
    if own is None and need == cpu.architecture:
        return Judgement((ok("cpu", key, f"built for every {need}, which this host is"),))
    if own is None and cpu.features is None:
        return Judgement((unknown("cpu", key, f"needs {need}, and this host's CPU could not be read"),))
    if own is not None and own >= wanted:
        message = f"built for {need}, which this {named(cpu)} host runs"
        return Judgement((ok("cpu", key, message),), NEAREST - distance(own.name, need))
    family = own.family.name if own is not None else cpu.architecture
    if family and wanted.family.name != family:
        message = f"needs {need}, of the family {wanted.family.name}, and this host is {family}"
        return Judgement((fails("cpu", key, message),))
    return _by_features(wanted, own, cpu)


def _by_features(wanted: Microarchitecture, own: Microarchitecture | None, cpu: Cpu) -> Judgement:
    """archspec orders the two not, or the other way round: look at the flags themselves."""
    key, need = voc.CPU_VERSION, wanted.name
    features = _features(wanted)
    generic = wanted.vendor == "generic"
    if not features or (generic and wanted.family.name == "aarch64"):
        # archspec lists no features of Power's and of Arm's generic levels, so that only its order can tell.
        if own is None or own.vendor == "generic":
            return Judgement((unknown("cpu", key, f"needs {need}, and this host is only known as {named(cpu)}"),))
        return Judgement((fails("cpu", key, f"needs {need}: this {named(cpu)} host is not of that level"),))
    if cpu.features is None and not generic:
        message = f"needs {need}: whether this {named(cpu)} host has its features, its flags would tell"
        return Judgement((unknown("cpu", key, message, "make the fingerprint anew on the host itself"),))
    missing = sorted(features - _flags(own, cpu))
    if not missing:
        if generic:
            return Judgement((ok("cpu", key, f"built for {need}, and this {named(cpu)} host has all its features"),))
        message = f"built for {need}, not for this {named(cpu)} host, which has all the features that {need} needs"
        return Judgement((degraded("cpu", key, message, "it runs, tuned for another CPU"),))
    shown = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
    return Judgement((fails("cpu", key, f"needs {need}: this {named(cpu)} host lacks {shown}"),))


def named(cpu: Cpu) -> str:
    """What the host's CPU is called."""
    return cpu.target or cpu.model or cpu.architecture or "unknown"


def _features(target: Microarchitecture) -> set[str]:
    found = set(target.features)
    if target.family.name == "aarch64":  # Arm's entries list what they add
        for ancestor in target.ancestors:
            found |= ancestor.features
    return found


def _flags(own: Microarchitecture | None, cpu: Cpu) -> set[str]:
    flags = set(cpu.features) if cpu.features is not None else _features(own) if own is not None else set()
    # Linux writes pni for sse3; archspec adds it so, too.
    return flags | ({"sse3"} if flags & {"pni", "ssse3"} else set())


@lru_cache(maxsize=4096)
def distance(host: str, target: str) -> int:
    """The longest way down archspec's graph from the host's target to an ancestor of it."""
    own = targets.microarchitecture(host)
    if own is None or host == target:
        return 0
    ways = [parent.name for parent in own.parents if targets.satisfies(parent.name, target)]
    return 1 + max((distance(parent, target) for parent in ways), default=0)
