"""Which row of the table an image is, by its name, and what a row says."""

from __future__ import annotations

import re

import pytest

from hpc3build import bases
from hpc3build.errors import InputError


@pytest.mark.parametrize(
    ("image", "row"),
    [
        ("debian:12", "debian:12"),
        ("docker.io/library/debian:12-slim", "debian:12"),
        ("registry.example.org:5000/mirror/ubuntu:22.04@sha256:" + "0" * 64, "ubuntu:22.04"),
        ("nvcr.io/nvidia/cuda:12.4.1-devel-ubuntu22.04", "ubuntu:22.04"),
        ("nvidia/cuda:12.4.1-runtime-rockylinux9", "rockylinux:9"),
        ("nvidia/cuda:12.4.1-devel-ubi9", "ubi9"),
        ("nvidia/cuda:11.2.1-devel-ubuntu20.04", "ubuntu:20.04"),
        ("nvidia/cuda:11.2.1-devel", "nvidia/cuda:11.2.1"),
        ("rocm/dev-ubuntu-24.04:6.2", "ubuntu:24.04"),
        ("amazonlinux:2", "amazonlinux:2"),
        ("public.ecr.aws/amazonlinux/amazonlinux:2023", "amazonlinux:2023"),
        ("amazonlinux:2.0.20240131.0", "amazonlinux:2"),
        ("registry.access.redhat.com/ubi9/ubi:9.4-1214", "ubi9"),
        ("registry.access.redhat.com/ubi9/ubi", "ubi9"),
        ("redhat/ubi9:9.4", "ubi9"),
        ("redhat/ubi9-minimal", "ubi9-minimal"),
        ("registry.access.redhat.com/ubi8/ubi-minimal:8.10", "ubi8-minimal"),
        ("quay.io/almalinuxorg/almalinux:9.5", "almalinux:9"),
        ("quay.io/centos/centos:stream9", "centos:stream9"),
        ("registry.opensuse.org/opensuse/leap:15.6", "opensuse/leap:15"),
        ("alpine:3.20", "alpine:3"),
        ("fedora:41", "fedora:41"),
    ],
)
def test_an_image_is_known_by_its_name(image: str, row: str) -> None:
    assert bases.find(image).image == row


@pytest.mark.parametrize(
    "image",
    ["debian:1", "alpine:30", "nvidia/cuda:12.4.1-devel-ubuntu22.10", "mydebian", "redhat/ubi9-micro", "fedora:4"],
)
def test_an_image_of_no_row_is_refused_with_the_rows(image: str) -> None:
    with pytest.raises(InputError) as refused:
        bases.find(image)
    assert image in refused.value.message and "debian:12" in refused.value.hint
    assert "os_packages:command" in refused.value.hint


#: images.json of Spack 0.17 to develop.
OF_SPACK = """
alpine:3 amazonlinux:2 fedora:40 fedora:39 fedora:38 fedora:37 rockylinux:9 rockylinux:8 almalinux:9 almalinux:8
centos:stream9 centos:stream centos:8 centos:7 opensuse/leap:15 nvidia/cuda:11.2.1 ubuntu:24.04 ubuntu:22.04
ubuntu:20.04 ubuntu:18.04 ubuntu:16.04
""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", OF_SPACK)
def test_every_name_that_spack_knows(name: str) -> None:
    assert bases.find(name).image == name
    builder, final = bases.images(name)
    assert bases.find(builder).image == bases.find(final).image == name


def test_every_row_is_found_by_its_own_name_and_by_what_is_pulled() -> None:
    for base in bases.BASES:
        assert bases.find(base.image) is base
        assert bases.find(f"host.example:5000/mirror/{base.image}@sha256:{'0' * 64}") is base
        for image in bases.images(base.image):
            assert bases.find(image) is base
        assert base.os == "" or re.fullmatch(r"[a-z]+\d+(\.\d+)?", base.os)
        assert base.glibc == "" or re.fullmatch(r"2\.\d\d", base.glibc)


def test_images_that_the_name_alone_is_not() -> None:
    assert bases.images("centos:stream9") == ("quay.io/centos/centos:stream9",) * 2
    assert bases.images("nvidia/cuda:11.2.1") == ("nvidia/cuda:11.2.1-devel", "nvidia/cuda:11.2.1-base")
    assert bases.images("example.org/own:1") == ("example.org/own:1",) * 2


def test_managers_say_all_that_a_stage_needs() -> None:
    """Spack's test_package_info: no command is empty."""
    for name, manager in bases.MANAGERS.items():
        assert manager.name == name
        assert manager.upgrade and manager.clean and "{packages}" in manager.install
        assert {"git", "make", "python3"} <= set(manager.spack_packages)
        assert any(base.manager is manager for base in bases.BASES), "a row shows it"


def test_what_cannot_stand_beside_what_the_image_has() -> None:
    assert "curl" in bases.find("rockylinux:8").spack_packages
    assert "curl-minimal" in bases.find("rockylinux:9").spack_packages
    assert not {"curl", "gnupg2"} & set(bases.find("amazonlinux:2023").spack_packages)


@pytest.mark.parametrize(
    ("image", "package", "brings"),
    [
        ("nvcr.io/nvidia/cuda:12.4.1-devel-ubuntu22.04", "cuda", True),
        ("nvidia/cuda:11.2.1", "cuda", True),
        ("rocm/dev-ubuntu-24.04:6.2", "hip", True),
        ("debian:12", "cuda", False),
        ("example.org/notnvidia/cuda:1", "cuda", False),
    ],
)
def test_what_an_image_brings_along(image: str, package: str, brings: bool) -> None:
    assert (package in bases.provided(image)) is brings
