"""Where the dynamic linker of an image finds a library, rule by rule of ld.so(8)."""

from __future__ import annotations

from typing import Any

import pytest

from hpc3build.evidence.binary import Binary
from hpc3build.evidence.elf import Elf
from hpc3build.evidence.layers import ImageFile, ImageFiles
from hpc3build.evidence.loader import Loader

APP = "/opt/app/bin/app"


def elf(*needed: str, machine: str = "x86_64", **more: Any) -> Binary:
    return Binary(Elf(machine=machine, bits=64, little=True, type="dyn", needed=needed, **more))


def tree(files: dict[str, Binary | str | bytes]) -> ImageFiles:
    """By path: what a binary is, a text file's bytes, or where a link leads."""
    return ImageFiles(
        {
            path: ImageFile(
                path,
                "symlink" if isinstance(what, str) else "file",
                0o755,
                0,
                0,
                1,
                what if isinstance(what, str) else "",
                what if isinstance(what, bytes) else b"",
                "sha256:0",
                what if isinstance(what, Binary) else None,
            )
            for path, what in files.items()
        }
    )


def found(files: dict[str, Binary | str | bytes], *library_path: str) -> dict[str, tuple[str | None, str | None]]:
    made = tree(files)
    libraries = Loader(made, library_path).libraries(made[APP])
    return {each.name: (each.file.path if each.file else None, each.how) for each in libraries}


@pytest.mark.parametrize(
    ("tags", "library_path", "expected"),
    [
        ({"rpath": ("/r",)}, ("/e",), ("/r/liba.so", "rpath")),
        ({"runpath": ("/r",)}, ("/e",), ("/e/liba.so", "environment")),
        ({"runpath": ("/r",)}, (), ("/r/liba.so", "runpath")),
        ({"rpath": ("/s",), "runpath": ("/r",)}, (), ("/r/liba.so", "runpath")),
        ({}, (), ("/c/liba.so", "cache")),
        ({"rpath": ("$ORIGIN/../lib",)}, (), ("/opt/app/lib/liba.so", "rpath")),
        ({"rpath": ("${ORIGIN}/../lib:",)}, (), ("/c/liba.so", "cache")),
        ({"rpath": ("relative",)}, (), ("/c/liba.so", "cache")),
    ],
)
def test_order(tags: dict[str, Any], library_path: tuple[str, ...], expected: tuple[str, str]) -> None:
    folders = ("/r", "/s", "/e", "/c", "/opt/app/lib", "/usr/lib")
    files: dict[str, Binary | str | bytes] = {f"{folder}/liba.so": elf() for folder in folders}
    files |= {APP: elf("liba.so", **tags), "/etc/ld.so.conf": b"include ld.so.conf.d/*.conf # x\n",
              "/etc/ld.so.conf.d/c.conf": b"/c\n"}  # fmt: skip
    assert found(files, *library_path) == {"liba.so": expected}


def test_a_loaders_rpath_holds_below_it_and_its_runpath_does_not() -> None:
    libraries: dict[str, Binary | str | bytes] = {"/r/liba.so": elf("libb.so"), "/r/libb.so": elf()}
    assert found({APP: elf("liba.so", rpath=("/r",)), **libraries})["libb.so"] == ("/r/libb.so", "rpath")
    assert found({APP: elf("liba.so", runpath=("/r",)), **libraries})["libb.so"] == (None, None)


def test_a_runpath_shuts_the_rpaths_of_all_that_loaded_it_out() -> None:
    files: dict[str, Binary | str | bytes] = {
        APP: elf("liba.so", rpath=("/r",)), "/r/liba.so": elf("libb.so", runpath=("/x",)), "/r/libb.so": elf()
    }  # fmt: skip
    assert found(files)["libb.so"] == (None, None)


def test_links_are_followed_and_other_machines_passed_over() -> None:
    files: dict[str, Binary | str | bytes] = {
        APP: elf("liba.so.1"),
        "/lib64/liba.so.1": elf(machine="aarch64"),
        "/lib": "usr/lib",
        "/usr/lib/liba.so.1": "liba.so.1.2",
        "/usr/lib/liba.so.1.2": elf(),
    }
    assert found(files) == {"liba.so.1": ("/usr/lib/liba.so.1.2", "standard")}


def test_musl_looks_into_its_own_places() -> None:
    app = elf("liba.so", "libb.so", interpreter="/lib/ld-musl-x86_64.so.1", runpath=("/r",))
    files: dict[str, Binary | str | bytes] = {
        APP: app, "/r/liba.so": elf("libc2.so"), "/r/libc2.so": elf(), "/own/libb.so": elf(), "/usr/lib/libb.so": elf(),
        "/etc/ld-musl-x86_64.path": b"/own\n/usr/lib\n",
    }  # fmt: skip
    assert found(files) == {
        "liba.so": ("/r/liba.so", "runpath"),
        "libb.so": ("/own/libb.so", "standard"),
        "libc2.so": ("/r/libc2.so", "runpath"),
    }


def test_circles_and_self_includes_end() -> None:
    files: dict[str, Binary | str | bytes] = {
        APP: elf("liba.so"), "/usr/lib/liba.so": elf("libb.so"), "/usr/lib/libb.so": elf("liba.so"),
        "/etc/ld.so.conf": b"include /etc/ld.so.conf\n/x\n",
    }  # fmt: skip
    assert set(found(files)) == {"liba.so", "libb.so"}
