"""The CPU of a probe, by archspec's rules applied to what was read, so that any host can be named anywhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hpc3build.host.fingerprint import Cpu
from hpc3build.host.probe import Probe

if TYPE_CHECKING:
    from archspec.cpu import Microarchitecture

CPUINFO = "/proc/cpuinfo"


def cpu(probe: Probe) -> Cpu:
    """Architecture, target, vendor, model and flags."""
    machine = probe.values.get("machine")
    fields: dict[str, str] = {}
    for line in probe.files.get(CPUINFO, "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
        elif fields:
            break
    flags = fields.get("flags") or fields.get("Features")
    features = tuple(sorted(set(flags.split()))) if flags else None
    vendor = _vendor(fields)
    target = _target(machine, vendor, features, fields) if machine and fields else None
    model = fields.get("model name") or fields.get("cpu") or fields.get("uarch")
    known = {"vendor": vendor, "model": model, "features": features}
    sources = {name: CPUINFO for name, value in known.items() if value is not None}
    if machine:
        sources["architecture"] = "uname -m"
    if target:
        sources["target"] = f"archspec, of {CPUINFO}"
    return Cpu(architecture=machine, target=target, vendor=vendor, model=model, features=features, sources=sources)


def _vendor(fields: dict[str, str]) -> str | None:
    if code := fields.get("CPU implementer"):
        from archspec.cpu.schema import TARGETS_JSON

        return str(TARGETS_JSON["conversions"]["arm_vendors"].get(code, code))
    return fields.get("vendor_id")


def _target(machine: str, vendor: str | None, features: tuple[str, ...] | None, fields: dict[str, str]) -> str | None:
    """archspec's choice (archspec.cpu.detect.host), from values in place of this machine's files."""
    from archspec.cpu import TARGETS

    if machine not in TARGETS:
        return None
    root = TARGETS[machine]
    family = [target for target in TARGETS.values() if target == root or root in target.ancestors]
    flags = set(features or ())
    if "ssse3" in flags:
        flags.add("sse3")
    power = re.search(r"POWER(\d{1,4})(?!\d)", fields.get("cpu", ""))
    generation = int(power.group(1)) if power else 0
    uarch = {"sifive,u74-mc": "u74mc", "spacemit,x60": "x60"}.get(fields.get("uarch", ""), fields.get("uarch", ""))

    def fits(target: Microarchitecture) -> bool:
        if machine.startswith("ppc64"):
            return bool(target.generation <= generation)
        if machine == "riscv64":
            return bool(target.name == uarch or target.vendor == "generic")
        if machine == "aarch64" and target.vendor == "generic" and target.name != "aarch64":
            return False
        return bool(target.vendor in (vendor, "generic") and target.features <= flags)

    def depth(target: Microarchitecture) -> tuple[int, int]:
        return len(target.ancestors), len(target.features)

    candidates = [target for target in family if fits(target)] or [root]
    generic = max((target for target in candidates if target.vendor == "generic"), key=depth, default=root)
    part = fields.get("CPU part", "")
    if part and any(target.cpu_part == part for target in candidates):
        candidates = [target for target in candidates if target.cpu_part == part]
    better = [target for target in candidates if target > generic]
    return str(max(better, key=depth, default=generic))
