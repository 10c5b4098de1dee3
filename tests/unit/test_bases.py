"""Which row of the table an image is, by its name."""

from __future__ import annotations

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
        ("rocm/dev-ubuntu-24.04:6.2", "ubuntu:24.04"),
        ("amazonlinux:2", "amazonlinux:2"),
        ("amazonlinux:2023", "amazonlinux:2023"),
    ],
)
def test_an_image_is_known_by_its_name(image: str, row: str) -> None:
    assert bases.find(image).image == row


@pytest.mark.parametrize("image", ["debian:1", "alpine:3", "nvidia/cuda:12.4.1-devel-ubuntu22.10", "mydebian"])
def test_an_image_of_no_row_is_refused_with_the_rows(image: str) -> None:
    with pytest.raises(InputError) as refused:
        bases.find(image)
    assert image in refused.value.message and "debian:12" in refused.value.hint
