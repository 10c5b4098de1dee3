from __future__ import annotations

import pytest

from hpc3build.errors import InputError
from hpc3build.rewrite.target import Platform, Target, for_descriptors

V3 = {"os": "linux", "architecture": "amd64", "variant": "v3", "os.version": "5"}
PLAIN = {"os": "linux", "architecture": "amd64"}


@pytest.mark.parametrize(
    ("text", "on_v3", "on_plain"),
    [
        ("linux/amd64", True, True),  # go-containerregistry: an absent wish is not compared
        ("linux", True, True),
        ("linux/amd64/v3", True, False),
        ("linux/amd64/v2", False, False),
        ("linux/amd64/v3:5", True, False),
        ("linux/amd64:5", True, False),
        ("linux/amd64:6", False, False),
        ("linux/arm64", False, False),
        ("windows/amd64", False, False),
    ],
)
def test_platforms_are_compared_as_go_containerregistry_does(text: str, on_v3: bool, on_plain: bool) -> None:
    wish = Platform.parse(text)
    assert (wish.fits(V3), wish.fits(PLAIN)) == (on_v3, on_plain) and str(wish) == text


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux//v3", "a/b/c/d", "linux/amd64:", "linux amd64", "l/a:1:2"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(InputError, match="--platform"):
        Platform.parse(text)


AMD64 = (Platform("linux", "amd64"),)


@pytest.mark.parametrize(
    "options",
    [
        {"all_children": True, "index_only": True},
        {"all_children": True, "descriptors": True},
        {"index_only": True, "descriptors": True},
        {"platforms": AMD64, "all_children": True},
        {"platforms": AMD64, "index_only": True},
    ],
)
def test_options_that_exclude_each_other(options: dict[str, bool]) -> None:
    with pytest.raises(InputError, match="exclude each other"):
        Target(**options)


@pytest.mark.parametrize(
    ("target", "index", "descriptors", "images"),
    [
        (Target(), True, True, False),
        (Target(index_only=True), True, False, False),
        (Target(descriptors=True), False, True, False),
        (Target(platforms=AMD64), False, True, True),
        (Target(platforms=AMD64, descriptors=True), False, True, False),
        (Target(all_children=True), True, True, True),
    ],
)
def test_what_is_meant(target: Target, index: bool, descriptors: bool, images: bool) -> None:
    assert (target.on_index, target.on_descriptors, target.on_images) == (index, descriptors, images)


def test_discriminators_alone_stand_on_descriptors() -> None:
    pairs = {
        "org.supercontainers.gpu": "cuda",
        "org.supercontainers.glibc.version": "2.36",  # an alias
        "org.opencontainers.image.title": "x",
        "io.github.hpc3build.vocabulary": "0",
        "vendor": "x",
    }
    wanted = {"org.supercontainers.gpu", "org.supercontainers.glibc.version", "io.github.hpc3build.vocabulary"}
    assert set(for_descriptors(pairs, Target())) == wanted
    assert set(for_descriptors(pairs, Target(descriptors=True))) == wanted | {"vendor"}
    assert for_descriptors({"io.github.hpc3build.vocabulary": "0", "vendor": "x"}, Target()) == {}
