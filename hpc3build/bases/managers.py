"""Package managers as data: their commands, and what a builder needs of their packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class Manager:
    """Shell commands of a package manager; ``{packages}`` stands for names.

    ``sources`` adds EPEL, as Spack's command of the same name does; a system without it goes on, and a package that
    only EPEL has is then missed by its own name. ``dev`` marks development packages, ``venv`` is what
    ``python3 -m venv`` takes, ``final`` what the entry point takes where base images lack it.
    """

    name: str
    update: str = ""
    sources: str = ""
    upgrade: str
    install: str
    clean: str
    dev: str = "-devel"
    venv: str = "python3-pip"
    final: tuple[str, ...] = ()
    spack_packages: tuple[str, ...]
    easybuild_packages: tuple[str, ...]


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _if_there_is(install: str) -> str:
    return f"{{ {install} || echo 'EPEL is not to be had here' >&2; }}"


_COMMON = "bzip2 ca-certificates file gcc git gzip make patch python3 tar unzip xz"
_SPACK_RPM = _names(f"{_COMMON} curl findutils gcc-c++ gcc-gfortran gnupg2 hostname")
_EASYBUILD_RPM = _names(f"{_COMMON} Lmod findutils gcc-c++ python3-pip")

APT = Manager(
    name="apt",
    update="apt-get update",
    upgrade="apt-get upgrade -y",
    install="apt-get install -y --no-install-recommends {packages}",
    clean="rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log /var/log/alternatives.log",
    dev="-dev",
    venv="python3-venv",
    spack_packages=_names(
        "bash bzip2 ca-certificates curl file g++ gcc gfortran git gnupg gzip make patch patchelf python3 tar unzip "
        "xz-utils zstd"
    ),
    easybuild_packages=_names(
        "bzip2 ca-certificates file g++ gcc git gzip lmod make patch python3 python3-venv tar unzip xz-utils"
    ),
)
DNF = Manager(
    name="dnf",
    upgrade="dnf upgrade -y",
    install="dnf install -y --setopt=install_weak_deps=False {packages}",
    clean="dnf clean all && rm -rf /var/cache/dnf /var/log/dnf*",
    spack_packages=_SPACK_RPM,
    easybuild_packages=_EASYBUILD_RPM,
)
DNF_EPEL = replace(DNF, name="dnf_epel", sources=_if_there_is("dnf install -y epel-release"))
MICRODNF = replace(
    DNF,
    name="microdnf",
    upgrade="microdnf upgrade -y",
    install="microdnf install -y --setopt=install_weak_deps=0 {packages}",
    clean="microdnf clean all && rm -rf /var/cache/dnf /var/cache/yum /var/log/dnf*",
)
YUM = Manager(
    name="yum",
    sources=_if_there_is("yum install -y epel-release"),
    upgrade="yum update -y",
    install="yum install -y {packages}",
    clean="yum clean all && rm -rf /var/cache/yum /var/log/yum.log",
    spack_packages=_SPACK_RPM,
    easybuild_packages=_EASYBUILD_RPM,
)
YUM_AMAZON = replace(YUM, name="yum_amazon", sources=_if_there_is("amazon-linux-extras install epel -y"))
ZYPPER = Manager(
    name="zypper",
    update="zypper --non-interactive refresh",
    upgrade="zypper --non-interactive update",
    install="zypper --non-interactive install --no-recommends {packages}",
    clean="zypper clean --all && rm -rf /var/cache/zypp /var/log/zypp /var/log/zypper.log",
    spack_packages=_names(f"{_COMMON} curl findutils gcc-c++ gcc-fortran gpg2 hostname zstd"),
    easybuild_packages=_names(f"{_COMMON} findutils gcc-c++ lua-lmod python3-pip"),
)
APK = Manager(
    name="apk",
    upgrade="apk upgrade --no-cache",
    install="apk add --no-cache {packages}",
    clean="rm -rf /var/cache/apk/*",
    dev="-dev",
    venv="py3-pip",
    final=("bash",),
    spack_packages=_names(
        f"{_COMMON} bash binutils coreutils curl findutils g++ gfortran gnupg linux-headers musl-dev zstd"
    ),
    easybuild_packages=(),  # EasyBuild's toolchains are made for glibc
)
MANAGERS: Mapping[str, Manager] = MappingProxyType(
    {each.name: each for each in (APT, YUM, DNF, MICRODNF, ZYPPER, APK, YUM_AMAZON, DNF_EPEL)}
)
