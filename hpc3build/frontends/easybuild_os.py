"""What EasyBuild needs of an operating system, as data: packages by each manager's names, and where Lmod comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hpc3build.bases import APT, Base
from hpc3build.errors import InputError

#: Names that easyconfigs use (all of EasyBuild 5.4.1's), and what they are called by apt and in the Fedora family.
_ROWS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("openssl-devel", "libssl-dev", "libopenssl-devel"), "libssl-dev", "openssl-devel"),
    (("openssl",), "openssl", "openssl"),
    (("libssl", "libopenssl"), "libssl3", "openssl-libs"),
    (("libibverbs-dev", "libibverbs-devel", "rdma-core-devel"), "libibverbs-dev", "rdma-core-devel"),
    (("pam-devel", "libpam0g-dev"), "libpam0g-dev", "pam-devel"),
    (("glibc-static",), "libc6-dev", "glibc-static"),
    (("glibc-devel", "libc6-dev"), "libc6-dev", "glibc-devel"),
    (("libudev-dev", "libsystemd-dev", "systemd-devel"), "libudev-dev", "systemd-devel"),
    (("ncurses-devel", "libncurses-dev"), "libncurses-dev", "ncurses-devel"),
    (("libxslt", "libxslt1.1"), "libxslt1.1", "libxslt"),
    (("p7zip-plugins", "p7zip-full"), "p7zip-full", "p7zip-plugins"),
    (("at-spi2-atk", "libatk-bridge2.0-0t64"), "libatk-bridge2.0-0", "at-spi2-atk"),
    (("xorg", "xorg-x11", "xorg-x11-apps", "xorg-x11-server-Xorg"), "xorg", "xorg-x11-server-Xorg"),
    (("perl-Thread-Queue",), "debianutils", "perl-Thread-Queue"),
    (("libopenmpi-dev", "openmpi-devel"), "libopenmpi-dev", "openmpi-devel"),
    (("libmpich-dev", "mpich-devel"), "libmpich-dev", "mpich-devel"),
    (("zlib-devel", "zlib1g-dev"), "zlib1g-dev", "zlib-devel"),
)
#: What a program that was built with these needs where it runs. `openssl` brings the release's own libssl.
_AT_RUN_TIME: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "libssl-dev": ("openssl",),
        "openssl-devel": ("openssl-libs",),
        "libibverbs-dev": ("ibverbs-providers", "libibverbs1", "librdmacm1"),
        "rdma-core-devel": ("libibverbs", "librdmacm"),
        "libpam0g-dev": ("libpam0g",),
        "pam-devel": ("pam-libs",),
        "libudev-dev": ("libudev1",),
        "systemd-devel": ("systemd-libs",),
        "libncurses-dev": ("libncurses6",),
        "ncurses-devel": ("ncurses-libs",),
        "zlib1g-dev": ("zlib1g",),
        "zlib-devel": ("zlib",),
    }
)
_NAMES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {name: (apt, rpm) for names, apt, rpm in _ROWS for name in names}
)
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9@+._:-]*")


def packages(modules: Iterable[Mapping[str, Any]], base: Base) -> tuple[tuple[str, ...], bool]:
    """The OS packages of a whole closure, sorted, and whether EasyBuild would know them by these names."""
    found, known = set(), True
    for module in modules:
        for names in module.get("osdependencies") or ():
            alternatives = [name for name in ([names] if isinstance(names, str) else names) if _PACKAGE.fullmatch(name)]
            if alternatives:
                found.add(name := _one_of(alternatives, base))
                known = known and name in alternatives
    return tuple(sorted(found)), known


def run_packages(modules: Iterable[Mapping[str, Any]], base: Base) -> tuple[str, ...]:
    """The OS packages that the run-time modules of a closure need in the final image, sorted."""
    needed, _ = packages((module for module in modules if not module.get("builddep")), base)
    return tuple(sorted({name for wanted in needed for name in _AT_RUN_TIME.get(wanted, ())}))


def _one_of(alternatives: list[str], base: Base) -> str:
    """Of alternatives that name one thing, the one that this manager knows."""
    for name in alternatives:
        if name in _NAMES:
            apt, rpm = _NAMES[name]
            return apt if base.manager is APT else rpm
    named = [name for name in alternatives if name.endswith(base.manager.dev)]
    return (named or alternatives)[0]


@dataclass(frozen=True)
class Lmod:
    """Lmod for one base: a command before its packages are installed, these packages, and a commit to build."""

    before: str = ""
    packages: tuple[str, ...] = ()
    commit: str = ""


#: EasyBuild 5 wants Lmod 8 or newer. The tag 8.7.60 of https://github.com/TACC/Lmod, found by its commit.
LMOD_SOURCE = "https://github.com/TACC/Lmod.git"
LMOD_COMMIT = "7a3209f067ca98e0c444d0b2d30b91eafbe9763c"
_PACKAGED_APT = Lmod(packages=("lmod",))
_BUILT_APT = Lmod(
    packages=("lua-filesystem", "lua-posix", "lua5.3", "tcl"),
    commit=LMOD_COMMIT,
)
_PACKAGED_RPM = Lmod(packages=("Lmod",))
#: EPEL has Lmod, and what Lmod needs lies in a repository that is switched off; EPEL's own `crb` switches it on.
_EPEL = Lmod("dnf install -y epel-release && crb enable", ("Lmod",))
_LMOD: Mapping[str, Lmod] = MappingProxyType(
    {
        "debian:12": _PACKAGED_APT,  # 8.6.19
        "debian:13": _PACKAGED_APT,  # 8.7
        "ubuntu:20.04": _BUILT_APT,  # 6.6
        "ubuntu:22.04": _BUILT_APT,  # 6.6
        "ubuntu:24.04": _PACKAGED_APT,  # 8.6.19
        "rockylinux:8": _EPEL,
        "rockylinux:9": _EPEL,
        "almalinux:8": _EPEL,
        "almalinux:9": _EPEL,
        "fedora:40": _PACKAGED_RPM,
        "fedora:41": _PACKAGED_RPM,
    }
)


def lmod(base: Base) -> Lmod:
    """Raises InputError for a base without any Lmod that EasyBuild could use."""
    found = _LMOD.get(base.image)
    if found is None:
        raise InputError(
            f"EasyBuild 5 needs Lmod 8 or newer, and {base.image} has none",
            hint=f"bases for EasyBuild: {', '.join(_LMOD)}",
        )
    return found
