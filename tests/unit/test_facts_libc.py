"""The C library: rule R6 and what an image ships."""

from __future__ import annotations

import pytest

from hpc3build.evidence.binary import read_binary
from hpc3build.evidence.image import Evidence
from hpc3build.evidence.layers import ImageFile, ImageFiles
from hpc3build.facts import libc
from hpc3build.facts import vocabulary as voc
from tests.stacks import conflicts, pkg, root, stack, values

BANNER = b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u8) stable release version 2.36.\nCopyright\0"


ELF = b"\x7fELF\x02\x01\x01" + bytes(57)


def image(*files: tuple[str, bytes | str]) -> Evidence:
    """Files by path: bytes are content, text is where a symbolic link leads."""
    found = ImageFiles(
        {
            path: ImageFile(
                path,
                "symlink" if isinstance(data, str) else "file",
                0o755,
                0,
                0,
                len(data),
                data if isinstance(data, str) else "",
                b"",
                "sha256:0",
                None if isinstance(data, str) else read_binary(path, len(data), iter([data])),
            )
            for path, data in files
        }
    )
    return Evidence(files=found)


def test_a_lock_gives_the_provider_and_never_the_version() -> None:
    made = stack(root("a@1", "glibc=libc"), pkg("glibc@2.36", external=True))
    assert values(libc.from_stack(made)) == {voc.LIBC_PROVIDER: "glibc"}
    assert values(libc.from_stack(stack(root("a@1", "musl"), pkg("musl@1.2")))) == {voc.LIBC_PROVIDER: "musl"}


def test_nothing_is_said_where_no_libc_counts() -> None:
    assert values(libc.from_stack(stack(root("a@1", "build:glibc"), pkg("glibc@2.36")))) == {}


def test_two_libraries_are_a_conflict() -> None:
    found = list(libc.from_stack(stack(root("a@1", "glibc", "musl"), pkg("glibc@2.36"), pkg("musl@1.2"))))
    assert values(found) == {}
    assert conflicts(found) == {voc.LIBC_PROVIDER: {"glibc", "musl"}}


@pytest.mark.parametrize(
    "path",
    ["/lib/libc.so.6", "/usr/lib64/libc.so.6", "/lib64/libc.so.6", "/usr/lib/x86_64-linux-gnu/libc.so.6",
     "/lib/aarch64-linux-gnu/libc-2.31.so"],
)  # fmt: skip
def test_glibc_by_its_own_banner(path: str) -> None:
    assert values(libc.from_files(image((path, ELF + BANNER)))) == {
        voc.LIBC_PROVIDER: "glibc",
        voc.GLIBC: "2.36",
    }


@pytest.mark.parametrize(
    ("banner", "version"),
    [(b"GNU C Library (GNU libc) stable release version 2.28.\n", "2.28"),
     (b"GNU C Library (Ubuntu GLIBC 2.35-0ubuntu3.8) stable release version 2.35.\n", "2.35"),
     (b"GNU C Library (GNU libc) release release version 2.26, by Roland\n", "2.26"),
     (b"GNU C Library stable release version " + b"1" * 5000 + b".1\nGNU C Library release version 2.31.\n", "2.31"),
     (b"GNU C Library stable release version 2.3.4, by Roland McGrath et al.\n", "2.3.4")],
)  # fmt: skip
def test_banners_of_distributions(banner: bytes, version: str) -> None:
    assert values(libc.from_files(image(("/lib64/libc.so.6", ELF + banner))))[voc.GLIBC] == version


def test_a_link_is_followed_to_the_library() -> None:
    files = image(("/lib64/libc.so.6", "libc-2.28.so"), ("/lib64/libc-2.28.so", ELF + BANNER))
    assert values(libc.from_files(files)) == {voc.LIBC_PROVIDER: "glibc", voc.GLIBC: "2.36"}


def test_musl_by_its_loader_and_glibc_before_it() -> None:
    loader = ("/lib/ld-musl-x86_64.so.1", b"")
    assert values(libc.from_files(image(loader))) == {voc.LIBC_PROVIDER: "musl"}
    assert values(libc.from_files(image(loader, ("/usr/lib64/libc.so.6", ELF + BANNER))))[voc.LIBC_PROVIDER] == "glibc"


@pytest.mark.parametrize(
    "path", ["/opt/x/lib/libc.so.6", "/usr/lib/libc.a", "/usr/lib/musl/lib/libc.so", "/lib/libcrypt.so.1", "/libc.so.6"]
)
def test_libraries_elsewhere_are_not_the_images(path: str) -> None:
    assert values(libc.from_files(image((path, ELF + BANNER)))) == {}


def test_a_library_without_a_banner_says_nothing() -> None:
    assert values(libc.from_files(image(("/lib64/libc.so.6", ELF)))) == {}
    assert values(libc.from_files(image())) == {}
