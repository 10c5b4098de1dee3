"""Operating systems as data: every name that ``images:os`` of Spack 0.17 to develop knows, and more.

glibc and compilers are those of the release's own packages, given where they do not move within the release. Names of
systems are Spack's: the ID and the version of os-release, as its LinuxDistro cuts them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from hpc3build.bases.managers import APK, APT, DNF, DNF_EPEL, MICRODNF, YUM, YUM_AMAZON, ZYPPER, Manager

_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Base:
    """One operating system release, by its ``image``.

    ``pull`` is the image where the name alone is none, ``builder`` that of the build stage where it is another.
    ``os`` is Spack's name of the system and ``glibc`` the version that it ships; empty is unknown, and musl has none.
    ``compilers`` are those that its packages give. ``differs`` renames packages of the manager's list for builders
    (an empty name takes one out). ``suffix`` is how images that are built on it name it.
    """

    image: str
    manager: Manager
    os: str = ""
    glibc: str = ""
    compilers: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    pull: str = ""
    builder: str = ""
    differs: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    suffix: str = ""

    @property
    def spack_packages(self) -> tuple[str, ...]:
        """What a builder of this system takes to run Spack and to compile."""
        return self._named(self.manager.spack_packages)

    @property
    def easybuild_packages(self) -> tuple[str, ...]:
        """The same for EasyBuild."""
        return self._named(self.manager.easybuild_packages)

    def _named(self, packages: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for each in packages if (name := self.differs.get(each, each)))

    def names(self, image: str) -> bool:
        """Whether ``image`` (without digest) is a copy of this one, wherever it comes from."""
        if self.suffix:
            minimal = "-minimal" if self.image.endswith("-minimal") else ""
            system = self.suffix.removesuffix("-minimal")
            return re.search(rf"(?:^|/){system}(?:/ubi)?{minimal}(?::|$)", image) is not None
        # Of CUDA's images a name that says more is built on another system.
        end = "(?:-[a-z]+)?$" if self.builder else "(?:[.-]|$)"
        return re.search(rf"(?:^|/){re.escape(self.image)}{end}", image) is not None

    def carries(self, image: str) -> bool:
        """Whether ``image`` says that it is built on this one: nvidia/cuda:12.4.1-devel-ubuntu22.04."""
        last = image.rsplit("/", 1)[-1]
        if self.suffix:
            return re.search(rf"{self.suffix}(?![.\w-])", last.partition(":")[2]) is not None
        system, _, release = self.image.partition(":")
        return re.search(rf"{re.escape(system)}[-:]?{re.escape(release)}(?![.\d])", last) is not None


# These images have the small one, which the large one cannot stand beside.
_CURL = MappingProxyType({"curl": "curl-minimal"})
_AMAZON = MappingProxyType({"curl": "curl-minimal", "gnupg2": "", "Lmod": ""})
_QUAY = "quay.io/almalinuxorg/almalinux"
_UBI = "registry.access.redhat.com"


def _gcc(version: str, clang: str = "") -> Mapping[str, str]:
    return MappingProxyType({"gcc": version, **({"clang": clang, "llvm": clang} if clang else {})})


BASES = (
    Base(image="debian:12", manager=APT, os="debian12", glibc="2.36", compilers=_gcc("12.2.0", "14.0.6")),
    Base(image="debian:13", manager=APT, os="debian13", glibc="2.41", compilers=_gcc("14.2.0")),
    Base(image="ubuntu:16.04", manager=APT, os="ubuntu16.04", glibc="2.23"),
    Base(image="ubuntu:18.04", manager=APT, os="ubuntu18.04", glibc="2.27"),
    Base(image="ubuntu:20.04", manager=APT, os="ubuntu20.04", glibc="2.31"),
    Base(image="ubuntu:22.04", manager=APT, os="ubuntu22.04", glibc="2.35"),
    Base(image="ubuntu:24.04", manager=APT, os="ubuntu24.04", glibc="2.39"),
    Base(image="amazonlinux:2", manager=YUM_AMAZON, os="amzn2", glibc="2.26"),
    Base(image="amazonlinux:2023", manager=DNF, os="amzn2023", glibc="2.34", differs=_AMAZON),
    Base(image="rockylinux:8", manager=DNF_EPEL, os="rocky8", glibc="2.28"),
    Base(image="rockylinux:9", manager=DNF_EPEL, os="rocky9", glibc="2.34", differs=_CURL),
    Base(image="almalinux:8", manager=DNF_EPEL, os="almalinux8", glibc="2.28", pull=f"{_QUAY}:8"),
    Base(image="almalinux:9", manager=DNF_EPEL, os="almalinux9", glibc="2.34", pull=f"{_QUAY}:9", differs=_CURL),
    Base(image="centos:7", manager=YUM, os="centos7", glibc="2.17"),
    Base(image="centos:8", manager=DNF_EPEL, os="centos8", glibc="2.28"),
    Base(image="centos:stream", manager=DNF_EPEL, os="centos8", glibc="2.28", pull="quay.io/centos/centos:stream"),
    Base(
        image="centos:stream9",
        manager=DNF_EPEL,
        os="centos9",
        glibc="2.34",
        pull="quay.io/centos/centos:stream9",
        differs=_CURL,
    ),
    Base(
        image="centos:stream10",
        manager=DNF_EPEL,
        os="centos10",
        glibc="2.39",
        pull="quay.io/centos/centos:stream10",
    ),
    Base(image="ubi8", manager=DNF, os="rhel8", glibc="2.28", pull=f"{_UBI}/ubi8/ubi:8.10", suffix="ubi8"),
    Base(
        image="ubi9", manager=DNF, os="rhel9", glibc="2.34", pull=f"{_UBI}/ubi9/ubi:9.5", suffix="ubi9", differs=_CURL
    ),
    Base(
        image="ubi8-minimal",
        manager=MICRODNF,
        os="rhel8",
        glibc="2.28",
        pull=f"{_UBI}/ubi8/ubi-minimal:8.10",
        suffix="ubi8-minimal",
    ),
    Base(
        image="ubi9-minimal",
        manager=MICRODNF,
        os="rhel9",
        glibc="2.34",
        pull=f"{_UBI}/ubi9/ubi-minimal:9.5",
        suffix="ubi9-minimal",
        differs=_CURL,
    ),
    Base(image="fedora:37", manager=DNF, os="fedora37", glibc="2.36"),
    Base(image="fedora:38", manager=DNF, os="fedora38", glibc="2.37"),
    Base(image="fedora:39", manager=DNF, os="fedora39", glibc="2.38"),
    Base(image="fedora:40", manager=DNF, os="fedora40", glibc="2.39"),
    Base(image="fedora:41", manager=DNF, os="fedora41", glibc="2.40"),
    Base(image="fedora:42", manager=DNF, os="fedora42", glibc="2.41"),
    Base(image="opensuse/leap:15", manager=ZYPPER, os="opensuse15"),
    Base(image="alpine:3", manager=APK, os="alpine3"),
    # Spack's only CUDA name; other CUDA and ROCm images say in their names what they are built on.
    Base(
        image="nvidia/cuda:11.2.1",
        manager=APT,
        pull="nvidia/cuda:11.2.1-base",
        builder="nvidia/cuda:11.2.1-devel",
    ),
)
