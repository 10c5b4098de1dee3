"""Base images as data: the package manager of each operating system, and what a builder needs of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hpc3build.errors import InputError

#: Where every base has its own programs, for images that say nothing.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Manager:
    """Shell commands of a package manager; ``{packages}`` stands for names, ``dev`` marks development packages."""

    name: str
    update: str
    upgrade: str
    install: str
    clean: str
    dev: str


APT = Manager(
    "apt",
    "apt-get update",
    "apt-get upgrade -y",
    "apt-get install -y --no-install-recommends {packages}",
    "rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log /var/log/alternatives.log",
    "-dev",
)
DNF = Manager(
    "dnf",
    "",
    "dnf upgrade -y",
    "dnf install -y --setopt=install_weak_deps=False {packages}",
    "dnf clean all && rm -rf /var/cache/dnf /var/log/dnf*",
    "-devel",
)
YUM = Manager(
    "yum",
    "",
    "yum update -y",
    "yum install -y {packages}",
    "yum clean all && rm -rf /var/cache/yum /var/log/yum.log",
    "-devel",
)
MANAGERS: Mapping[str, Manager] = MappingProxyType({"apt": APT, "dnf": DNF, "yum": YUM})

_SPACK_APT = (
    "bash",
    "bzip2",
    "ca-certificates",
    "curl",
    "file",
    "g++",
    "gcc",
    "gfortran",
    "git",
    "gnupg",
    "gzip",
    "make",
    "patch",
    "patchelf",
    "python3",
    "tar",
    "unzip",
    "xz-utils",
    "zstd",
)
_SPACK_RPM = (
    "bzip2",
    "ca-certificates",
    "curl",
    "file",
    "findutils",
    "gcc",
    "gcc-c++",
    "gcc-gfortran",
    "git",
    "gnupg2",
    "gzip",
    "hostname",
    "make",
    "patch",
    "python3",
    "tar",
    "unzip",
    "xz",
)
_EB_APT = (
    "bzip2",
    "ca-certificates",
    "file",
    "g++",
    "gcc",
    "git",
    "gzip",
    "lmod",
    "make",
    "patch",
    "python3",
    "python3-venv",
    "tar",
    "unzip",
    "xz-utils",
)
_EB_RPM = (
    "Lmod",
    "bzip2",
    "ca-certificates",
    "file",
    "findutils",
    "gcc",
    "gcc-c++",
    "git",
    "gzip",
    "make",
    "patch",
    "python3",
    "python3-pip",
    "tar",
    "unzip",
    "xz",
)


@dataclass(frozen=True)
class Base:
    """One operating system release. ``os`` is Spack's name of it; ``compilers`` those its packages give, by name."""

    image: str
    manager: Manager
    os: str
    compilers: Mapping[str, str]
    spack_packages: tuple[str, ...]
    easybuild_packages: tuple[str, ...]


def _apt(image: str, os: str, **compilers: str) -> Base:
    return Base(image, APT, os, MappingProxyType(compilers), _SPACK_APT, _EB_APT)


def _rpm(image: str, manager: Manager, os: str, **compilers: str) -> Base:
    return Base(image, manager, os, MappingProxyType(compilers), _SPACK_RPM, _EB_RPM)


#: Compiler versions are those of the release's own packages, given where they do not move within the release.
BASES = (
    _apt("debian:12", "debian12", gcc="12.2.0", clang="14.0.6", llvm="14.0.6"),
    _apt("debian:13", "debian13"),
    _apt("ubuntu:20.04", "ubuntu20.04"),
    _apt("ubuntu:22.04", "ubuntu22.04"),
    _apt("ubuntu:24.04", "ubuntu24.04"),
    _rpm("amazonlinux:2", YUM, "amzn2"),
    _rpm("amazonlinux:2023", DNF, "amzn2023"),
    _rpm("rockylinux:8", DNF, "rocky8"),
    _rpm("rockylinux:9", DNF, "rocky9"),
    _rpm("almalinux:8", DNF, "almalinux8"),
    _rpm("almalinux:9", DNF, "almalinux9"),
    _rpm("fedora:40", DNF, "fedora40"),
    _rpm("fedora:41", DNF, "fedora41"),
)
#: Debian's package of each compiler that is not among the builder's own.
COMPILER_PACKAGES: Mapping[str, str] = MappingProxyType({"clang": "clang", "llvm": "clang"})


def find(image: str) -> Base:
    """The row for an image by the last part of its name and its tag, wherever it comes from.

    Raises InputError for an image of which the package manager is not known.
    """
    name = image.split("@")[0].rsplit("/", 1)[-1]
    for base in BASES:
        if name == base.image or re.match(re.escape(base.image) + r"(?:[.-]|$)", name):
            return base
    # nvidia/cuda:12.4.1-devel-ubuntu22.04, rocm/dev-ubuntu-22.04:6.2: built on one of them, and named so.
    for base in BASES:
        system, _, release = base.image.partition(":")
        if re.search(rf"{system}[-:]?{re.escape(release)}(?![.\d])", name):
            return base
    known = ", ".join(base.image for base in BASES)
    raise InputError(
        f"the base image {image} is not in the table of operating systems",
        hint=f"known are {known}; another registry's copy (host/path/debian:12) is known by its name and tag",
    )
