"""MPI libraries, launchers and fabrics of a probe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from hpc3build.host.fingerprint import Fabric, Injected, Launcher, Mpi, newest
from hpc3build.host.probe import Library, Probe
from hpc3build.mpinames import MODULES, SELVES
from hpc3build.sonames import MPI_FAMILIES

#: Sites write names of modules in capitals and without.
_PROVIDERS = {name.lower(): provider for name, provider in MODULES.items()}
_VERSION = r"\d+(?:\.\d+)+"


def mpi(probe: Probe) -> tuple[Mpi, ...]:
    """Every MPI library found, then modules whose library was not looked into."""
    found = [entry for path, library in probe.libraries.items() if (entry := _of_library(path, library))]
    return (*(_completed(entry, probe) for entry in found), *_of_modules(probe))


def _completed(entry: Mpi, probe: Probe) -> Mpi:
    """What mpichversion says of its own MPICH, whose file may carry no version in its name (PyPI's wheel)."""
    prefix = probe.programs.get("mpichversion", "").rpartition("/bin/")[0]
    said = probe.commands.get("mpichversion", "")
    # libtool's current:revision:age is the file version (current - age).age.revision.
    numbers = re.search(r"^MPICH ABI:\s*(\d{1,4}):(\d{1,4}):(\d{1,4})$", said, re.MULTILINE)
    if entry.abi or entry.implementation != "mpich" or not numbers or not prefix:
        return entry
    if not (entry.path or "").startswith(f"{prefix}/"):
        return entry
    current, revision, age = map(int, numbers.groups())
    version = re.search(rf"^MPICH Version:\s*({_VERSION})", said, re.MULTILINE)
    told = {"abi": f"{current - age}.{age}.{revision}", "version": version.group(1) if version else entry.version}
    sources = {**entry.sources, **dict.fromkeys((name for name, value in told.items() if value), "mpichversion")}
    return replace(entry, sources=sources, **told)


def _of_library(path: str, library: Library) -> Mpi | None:
    if path.startswith("injected:"):
        return None
    family = MPI_FAMILIES.get(path.rpartition("/")[2])
    if family is None:
        return None
    implementation = next((name for text, name in SELVES if any(text in mark for mark in library.marks)), None)
    said = next((mark for mark in library.marks if mark.startswith(("Open MPI v", "CRAY MPICH version"))), "")
    version = re.search(_VERSION, said)
    abi = re.search(rf"\.so\.({_VERSION})$", library.real)
    values = {
        "implementation": implementation,
        "version": version.group() if version else None,
        "abi": abi.group(1) if abi else None,
        "glibc": needed_glibc(library),
    }
    sources = {"family": path, "path": path} | {name: library.real for name, value in values.items() if value}
    return Mpi(family=family, path=path, sources=sources, **values)


def needed_glibc(library: Library) -> str | None:
    """The newest glibc symbol version in a library."""
    return newest(mark[6:] for mark in library.marks if re.fullmatch(rf"GLIBC_{_VERSION}", mark))


def _of_modules(probe: Probe) -> Iterator[Mpi]:
    trees = [folder for folder in probe.values.get("env.MODULEPATH", "").split(":") if folder]
    available = [
        (name[len(tree) :].strip("/"), name) for tree in trees for name in probe.names if name.startswith(f"{tree}/")
    ]
    loaded = [(name, "$LOADEDMODULES") for name in probe.values.get("env.LOADEDMODULES", "").split(":")]
    seen = set()
    for module, where in (*loaded, *available):
        name, _, rest = module.partition("/")
        version = re.match(_VERSION, rest)
        provider = _PROVIDERS.get(name.lower())
        if provider is not None and module not in seen and not rest.startswith("."):
            seen.add(module)
            sources = dict.fromkeys(("family", "implementation", "version"), where)
            yield Mpi(
                family=provider.family,
                implementation=provider.implementation,
                version=version.group() if version else None,
                sources=sources,
            )


def launcher(probe: Probe) -> Launcher:
    """Slurm's plugins by their files, else by srun; whose mpirun is on PATH."""
    sources: dict[str, str] = {}
    plugins = [name for pattern in ("*/slurm/mpi_*.so", "*/slurm*/mpi_*.so") for name in probe.there(pattern)]
    pmi: tuple[str, ...] | None = None
    if plugins:
        pmi = tuple(sorted({re.sub(r".*/mpi_(.*)\.so", r"\1", name) for name in plugins} - {"none"}))
        sources["pmi"] = plugins[0].rpartition("/")[0]
    elif "srun-mpi" in probe.commands:
        words = re.findall(r"\b(pmi2|pmi1|pmix(?:_v\d+)?|cray_shasta|openmpi)\b", probe.commands["srun-mpi"])
        pmi, sources["pmi"] = tuple(sorted(set(words))), "srun --mpi=list"
    slurm = re.search(_VERSION, probe.commands.get("srun", ""))
    if slurm:
        sources["slurm"] = "srun --version"
    said = probe.commands.get("mpirun", "")
    mpirun = next(
        (
            name
            for text, name in (("Open MPI", "openmpi"), ("HYDRA", "mpich"), ("Intel(R) MPI", "intel-mpi"))
            if text in said
        ),
        None,
    )
    version = re.search(_VERSION, said)
    if mpirun:
        sources |= {"mpirun": "mpirun --version"} | ({"mpirun_version": "mpirun --version"} if version else {})
    return Launcher(
        slurm=slurm.group() if slurm else None,
        pmi=pmi,
        mpirun=mpirun,
        mpirun_version=version.group() if version and mpirun else None,
        sources=sources,
    )


def fabric(probe: Probe) -> Fabric:
    """libfabric's ABI by its symbol versions, providers, UCX and the devices."""
    sources: dict[str, str] = {}
    libraries = [(path, library) for path, library in probe.libraries.items() if path.endswith("/libfabric.so.1")]
    best = max(libraries, key=lambda found: _abi(found[1]), default=None)
    abi = newest(mark[7:] for mark in best[1].marks if mark.startswith("FABRIC_")) if best else None
    if best:
        sources |= dict.fromkeys(("libfabric", "libfabric_glibc", "libfabric_path"), best[1].real)
    ucx = re.search(r"(?:v|version )(\d+\.\d+\.\d+)", probe.commands.get("ucx_info", ""))
    ucx_library = next((path for path in probe.libraries if path.endswith("/libucp.so.0")), None)
    if ucx or ucx_library:
        sources["ucx"] = "ucx_info -v" if ucx else str(ucx_library)
    providers = _providers(probe)
    if providers is not None:
        sources["providers"] = "fi_info -l" if "fi_info" in probe.commands else "libfabric's folder of providers"
    devices = [name.rpartition("/")[2] for name in probe.there("/sys/class/infiniband/*")]
    devices += [name.rpartition("/")[2] for name in probe.there("/sys/class/cxi/*") or probe.there("/dev/cxi*")]
    devices += [name.rpartition("/")[2] for name in probe.there("/dev/hfi1_*")]
    looked = bool(probe.there("/sys/module/*"))
    if looked or devices:
        sources["devices"] = "/sys/class/infiniband, /sys/class/cxi, /dev"
    return Fabric(
        libfabric=abi,
        libfabric_glibc=needed_glibc(best[1]) if best else None,
        libfabric_path=best[0] if best else None,
        ucx=ucx.group(1) if ucx else "present" if ucx_library else None,
        providers=providers,
        devices=tuple(devices) if looked or devices else None,
        sources=sources,
    )


def _abi(library: Library) -> int:
    return max((int(mark[9:]) for mark in library.marks if re.fullmatch(r"FABRIC_1\.\d{1,6}", mark)), default=-1)


def _providers(probe: Probe) -> tuple[str, ...] | None:
    if "fi_info" in probe.commands:
        return tuple(sorted(set(re.findall(r"^([a-z0-9_;]+):?$", probe.commands["fi_info"], re.MULTILINE))))
    files = [name.rpartition("/")[2] for name in probe.there("*/libfabric/*-fi.so")]
    return tuple(sorted({re.sub(r"^lib|-fi\.so$", "", name) for name in files})) if files else None


def injected(probe: Probe) -> tuple[Injected, ...]:
    """What the site said that it binds into every container."""
    return tuple(
        Injected(
            path=path.removeprefix("injected:"),
            glibc=needed_glibc(library),
            sources={"path": "--injects", "glibc": library.real},
        )
        for path, library in probe.libraries.items()
        if path.startswith("injected:")
    )
