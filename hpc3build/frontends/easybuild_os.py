"""What EasyBuild needs of an operating system, as data: packages by each manager's names, and where Lmod comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from hpc3build.bases import Base
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
        for alternatives in wished(module):
            found.add(name := _one_of(alternatives, base))
            known = known and name in alternatives
    return tuple(sorted(found)), known


def wished(module: Mapping[str, Any]) -> Iterator[list[str]]:
    """What an easyconfig wants of the system, each thing by all its names. Raises InputError for what is no name."""
    for names in module.get("osdependencies") or ():
        alternatives = names if isinstance(names, list) else [names]
        for name in alternatives or [()]:
            if not isinstance(name, str) or not _PACKAGE.fullmatch(name):
                raise InputError(
                    f"{module['easyconfig']}: osdependencies: {name!r} is not the name of a package",
                    hint="expected names as package managers have them, alternatives in parentheses",
                )
        yield alternatives


def run_packages(modules: Iterable[Mapping[str, Any]], base: Base) -> tuple[str, ...]:
    """The OS packages that the run-time modules of a closure need in the final image, sorted."""
    needed, _ = packages((module for module in modules if not module.get("builddep")), base)
    return tuple(sorted({name for wanted in needed for name in _AT_RUN_TIME.get(wanted, ())}))


def _one_of(alternatives: list[str], base: Base) -> str:
    """Of alternatives that name one thing, the one that this manager knows."""
    for name in alternatives:
        if name in _NAMES:
            apt, rpm = _NAMES[name]
            return apt if base.manager.name == "apt" else rpm
    named = [name for name in alternatives if name.endswith(base.manager.dev)]
    return (named or alternatives)[0]


#: EasyBuild 5 wants Lmod 8 or newer, and these have 6: the tag 8.7.60, by its commit.
LMOD_SOURCE = "https://github.com/TACC/Lmod.git"
LMOD_COMMIT = "7a3209f067ca98e0c444d0b2d30b91eafbe9763c"
_OLD_LMOD = frozenset({"ubuntu:16.04", "ubuntu:18.04", "ubuntu:20.04", "ubuntu:22.04"})
_OF_LMOD_SOURCE = ("lua-filesystem", "lua-posix", "lua5.3", "tcl")
_LMOD_NAMES = frozenset({"lmod", "Lmod", "lua-lmod"})


def builder_packages(base: Base) -> tuple[str, ...]:
    """What a builder of this base takes to run EasyBuild. Raises InputError for a base without any Lmod."""
    packages = tuple(name for name in base.easybuild_packages if name not in _LMOD_NAMES)
    return (*packages, *lmod_packages(base))


def lmod_packages(base: Base) -> tuple[str, ...]:
    """The OS packages of Lmod, or those that a Lmod built from source runs with. Raises InputError for neither."""
    if lmod_commit(base):
        return _OF_LMOD_SOURCE
    found = tuple(name for name in base.easybuild_packages if name in _LMOD_NAMES)
    if not found:
        raise InputError(
            f"EasyBuild 5 needs Lmod 8 or newer, and {base.image} has none",
            hint="debian:12, ubuntu:22.04, rockylinux:9 and fedora:41 are among the bases that do",
        )
    return found


def lmod_commit(base: Base) -> str:
    """The commit of Lmod to build; empty where the base's own is new enough."""
    return LMOD_COMMIT if base.image in _OLD_LMOD else ""
