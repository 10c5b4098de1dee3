"""GPUs and their drivers: what a driver says of itself first, then the PCI bus, which needs no driver."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from hpc3build.host.fingerprint import Driver, Gpu
from hpc3build.host.probe import Probe

VENDORS = {"10DE": "nvidia", "1002": "amd", "8086": "intel"}

#: Compute capability by product, where nvidia-smi is not there to say it. Source: developer.nvidia.com/cuda-gpus
#: and its page of legacy GPUs.
CAPABILITIES: tuple[tuple[str, str], ...] = (
    (r"\bGB10\b", "121"),
    (r"\bRTX (PRO \d000 Blackwell|50[5-9]0)", "120"),
    (r"\bG?B300\b", "103"),
    (r"\bG?B200\b", "100"),
    (r"\bH100\b|\bH200\b|\bH800\b|\bGH200\b|\bH20\b", "90"),
    (r"\bL4\b|\bL40S?\b|\bRTX \d000 (SFF )?Ada\b|\bRTX 40[5-9]0", "89"),
    (r"\bA40\b|\bA10G?\b|\bA16\b|\bA2\b|\bRTX A\d000\b|\bRTX 30[5-9]0", "86"),
    (r"\bA100\b|\bA30\b|\bA800\b", "80"),
    (r"\bT4\b|\bRTX [4568]000\b|\bRTX 20[678]0|\bGTX 16[56]0", "75"),
    (r"\bV100S?\b|\bTITAN V\b", "70"),
    (r"\bP40\b|\bP4\b|\bGTX 10[5678]0", "61"),
    (r"\bP100\b", "60"),
)
#: Jetson's chips by their device tree, which has no GPU on the PCI bus. Source: developer.nvidia.com/cuda-gpus.
TEGRA = {"tegra194": "sm_72", "tegra234": "sm_87", "tegra264": "sm_110"}


def gpus(probe: Probe) -> tuple[Gpu, ...] | None:
    """All GPUs; None where neither a driver nor the PCI bus could be read."""
    found = [*(list(_nvidia(probe)) or _tegra(probe)), *_amd(probe)]
    with_driver = {gpu.vendor for gpu in found}
    found += [gpu for gpu in _pci(probe) if gpu.vendor not in with_driver]
    looked = "/sys/bus/pci/devices" in probe.names
    return tuple(found) if found or looked else None


def _nvidia(probe: Probe) -> Iterator[Gpu]:
    """nvidia-smi's lines, else what /proc has of each card."""
    lines = [line for line in probe.commands.get("nvidia-smi-query", "").splitlines() if line.count(",") == 2]
    for line in lines:
        name, _, capability = (part.strip() for part in line.split(","))
        architecture = f"sm_{capability.replace('.', '')}" if re.fullmatch(r"\d{1,2}\.\d", capability) else None
        told = "nvidia-smi --query-gpu"
        sources = {"vendor": told, "name": told, "driver": told} | ({"architecture": told} if architecture else {})
        yield Gpu(vendor="nvidia", name=name, architecture=architecture, driver=True, sources=sources)
    if lines:
        return
    for path, text in probe.matching("/proc/driver/nvidia/gpus/*/information"):
        model = re.search(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE)
        name = model.group(1) if model else ""
        capability = next((value for pattern, value in CAPABILITIES if re.search(pattern, name)), "")
        sources = {"vendor": path, "name": path, "driver": path, "pci": path}
        if capability:
            sources["architecture"] = f"the model's name, by NVIDIA's table; {path}"
        yield Gpu(
            vendor="nvidia",
            name=name or None,
            architecture=f"sm_{capability}" if capability else None,
            driver=True,
            pci=path.split("/")[-2],
            sources=sources,
        )


def _tegra(probe: Probe) -> Iterator[Gpu]:
    path = "/proc/device-tree/compatible"
    chip = re.search(r"nvidia,(tegra\d{3})", probe.files.get(path, ""))
    if chip:
        architecture = TEGRA.get(chip.group(1))
        sources = dict.fromkeys(("vendor", "name", *(("architecture",) if architecture else ())), path)
        yield Gpu(vendor="nvidia", name=chip.group(1), architecture=architecture, sources=sources)


def _amd(probe: Probe) -> Iterator[Gpu]:
    """KFD's topology, with the target features that rocminfo adds (LLVM's target id)."""
    targets = re.findall(r"amdgcn-amd-amdhsa--(gfx[0-9a-f]+)((?::[a-z]+[+-])*)", probe.commands.get("rocminfo", ""))
    features = {name: rest for name, rest in targets if rest}
    for path, text in probe.matching("/sys/class/kfd/kfd/topology/nodes/*/properties"):
        fields = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
        name = _gfx(fields.get("gfx_target_version", ""))
        if name is None:
            continue  # a CPU node
        sources = {"vendor": path, "architecture": path, "driver": path}
        if name in features:
            sources["architecture"] += " and rocminfo"
        yield Gpu(vendor="amd", architecture=name + features.get(name, ""), driver=True, sources=sources)


def _gfx(version: str) -> str | None:
    """``90402`` → gfx942: major, minor and stepping of two decimal digits each, the last two written in hex."""
    if not re.fullmatch(r"[1-9]\d{4,5}", version):
        return None
    number = int(version)
    return f"gfx{number // 10000}{number // 100 % 100:x}{number % 100:x}"


def _pci(probe: Probe) -> Iterator[Gpu]:
    """Display controllers (class 03) and accelerators (12) of the three vendors."""
    for path, text in probe.matching("/sys/bus/pci/devices/*/uevent"):
        fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        vendor = VENDORS.get(fields.get("PCI_ID", "").partition(":")[0].upper())
        kind = fields.get("PCI_CLASS", "").zfill(6)[:2]
        if vendor is None or kind not in ("03", "12"):
            continue
        driver = fields.get("DRIVER")
        sources = {"vendor": path, "driver": path, "pci": path}
        yield Gpu(vendor=vendor, driver=_drives(vendor, driver), pci=fields.get("PCI_SLOT_NAME"), sources=sources)


def _drives(vendor: str, driver: str | None) -> bool:
    return driver in {"nvidia": ("nvidia",), "amd": ("amdgpu",), "intel": ("i915", "xe")}[vendor]


def driver(probe: Probe) -> Driver:
    """Versions of the GPU drivers."""
    found = Driver()
    sources: dict[str, str] = {}
    for path, pattern in (
        ("/proc/driver/nvidia/version", r"Kernel Module\s+(?:for \S+\s+)?(\d+(?:\.\d+)+)"),
        ("/sys/module/nvidia/version", r"^(\d+(?:\.\d+)+)$"),
    ):
        match = re.search(pattern, probe.files.get(path, "").strip())
        if match and found.nvidia is None:
            found, sources["nvidia"] = replace(found, nvidia=match.group(1)), path
    query = re.search(r",\s*(\d+(?:\.\d+)+)\s*,", probe.commands.get("nvidia-smi-query", ""))
    if found.nvidia is None and query:
        found, sources["nvidia"] = replace(found, nvidia=query.group(1)), "nvidia-smi --query-gpu"
    if cuda := re.search(r"CUDA Version:\s*(\d+\.\d+)", probe.commands.get("nvidia-smi", "")):
        found, sources["cuda"] = replace(found, cuda=cuda.group(1)), "nvidia-smi"
    if amdgpu := re.match(r"\d+(?:\.\d+)+", probe.files.get("/sys/module/amdgpu/version", "")):
        found, sources["amdgpu"] = replace(found, amdgpu=amdgpu.group()), "/sys/module/amdgpu/version"
    if rocm := re.match(r"\d+(?:\.\d+)+", probe.files.get("/opt/rocm/.info/version", "")):
        found, sources["rocm"] = replace(found, rocm=rocm.group()), "/opt/rocm/.info/version"
    return replace(found, sources=sources)
