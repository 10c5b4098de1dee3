"""C library, kernel, operating system and engines of a probe."""

from __future__ import annotations

import re

from hpc3build.host.fingerprint import Engine, Kernel, Libc, OperatingSystem
from hpc3build.host.probe import Probe

ENGINES = ("podman", "docker", "apptainer", "singularity", "enroot", "sarus", "shifter", "ch-run", "buildah", "skopeo",
           "nerdctl")  # fmt: skip
_VERSION = r"\d+(?:\.\d+)+"


def libc(probe: Probe) -> Libc:
    """glibc by its library's own banner; musl by its loader, where there is no glibc."""
    for path, library in probe.libraries.items():
        banner = next((mark for mark in library.marks if mark.startswith("GNU C Library")), None)
        if path.endswith("/libc.so.6") and banner and (version := re.search(rf"version ({_VERSION})", banner)):
            sources = dict.fromkeys(("provider", "version"), library.real)
            return Libc(provider="glibc", version=version.group(1), sources=sources)
    if loaders := probe.there("/lib/ld-musl-*.so.1"):
        return Libc(provider="musl", sources={"provider": loaders[0]})
    return Libc()


def kernel(probe: Probe) -> Kernel:
    """Release, modules (loaded and built in), cgroup version and whether users may make namespaces."""
    sources: dict[str, str] = {}
    release = probe.files.get("/proc/sys/kernel/osrelease")
    if release:
        sources["version"] = "/proc/sys/kernel/osrelease"
    loaded = probe.files.get("/proc/modules")
    builtin = next(iter(probe.matching("/lib/modules/*/modules.builtin")), None)
    names = {line.split(" ", 1)[0] for line in (loaded or "").splitlines() if line}
    names |= {name.rpartition("/")[2] for name in probe.there("/sys/module/*")}
    if builtin:
        names |= {line.rpartition("/")[2].partition(".ko")[0].replace("-", "_") for line in builtin[1].splitlines()}
    if names:
        read = ("/proc/modules" if loaded is not None else "", "/sys/module", builtin[0] if builtin else "")
        sources |= dict.fromkeys(("modules", "modules_complete"), ", ".join(filter(None, read)))
    cgroup = None
    if probe.first("/sys/fs/cgroup/cgroup.controllers"):
        cgroup, sources["cgroup"] = "2", "/sys/fs/cgroup/cgroup.controllers"
    elif probe.there("/sys/fs/cgroup/memory"):
        cgroup, sources["cgroup"] = "1", "/sys/fs/cgroup/memory"
    namespaces = _user_namespaces(probe)
    if namespaces is not None:
        sources["user_namespaces"] = "/proc/sys/user/max_user_namespaces, /proc/sys/kernel"
    subuid = {"yes": True, "no": False}.get(probe.values.get("subuid", ""))
    if subuid is not None:
        sources["subuid"] = "/etc/subuid"
    return Kernel(
        version=release.strip() if release else None,
        modules=tuple(sorted(names)) if names else None,
        modules_complete=(loaded is not None and builtin is not None) if names else None,
        cgroup=cgroup,
        user_namespaces=namespaces,
        subuid=subuid,
        sources=sources,
    )


def _user_namespaces(probe: Probe) -> bool | None:
    """Linux's own limit, Debian's switch and Ubuntu's restriction by AppArmor."""
    limit = probe.files.get("/proc/sys/user/max_user_namespaces", "").strip()
    if not limit.isdecimal():
        return None
    debian = probe.files.get("/proc/sys/kernel/unprivileged_userns_clone", "1").strip()
    ubuntu = probe.files.get("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "0").strip()
    return int(limit[:9]) > 0 and debian != "0" and ubuntu != "1"


def operating_system(probe: Probe) -> OperatingSystem:
    """os-release(5): /etc before /usr/lib."""
    found = probe.first("/etc/os-release", "/usr/lib/os-release")
    if found is None:
        return OperatingSystem()
    path, text = found
    fields = {
        name: value.strip().strip("\"'")
        for name, equals, value in (line.partition("=") for line in text.splitlines())
        if equals
    }
    values = {"id": fields.get("ID"), "version": fields.get("VERSION_ID"), "name": fields.get("PRETTY_NAME")}
    return OperatingSystem(**values, sources={name: path for name, value in values.items() if value})


def engines(probe: Probe) -> tuple[Engine, ...]:
    """Container engines on PATH, with the version that they print."""
    found = []
    for name in ENGINES:
        if name in probe.programs:
            version = re.search(_VERSION, probe.commands.get(name, ""))
            sources = {"name": "$PATH", "path": "$PATH"} | ({"version": f"{name} --version"} if version else {})
            found.append(
                Engine(
                    name=name, version=version.group() if version else None, path=probe.programs[name], sources=sources
                )
            )
    return tuple(found)
