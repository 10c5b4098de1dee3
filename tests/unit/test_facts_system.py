"""os-release of the final stage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpc3build.evidence.image import Evidence
from hpc3build.evidence.layers import ImageFile, ImageFiles
from hpc3build.facts import Statement, system
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.subjects import of_image, of_stack
from tests.stacks import eb, pkg, root, values

DEBIAN = b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n'


def image(**paths: bytes) -> ImageFiles:
    names = {"etc": "/etc/os-release", "usr": "/usr/lib/os-release"}
    return ImageFiles(
        {names[k]: ImageFile(names[k], "file", 0o644, 0, 0, len(d), "", d, "sha256:0") for k, d in paths.items()}
    )


def distribution(files: ImageFiles) -> Iterator[Statement]:
    return system.distribution(Evidence(files=files))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DEBIAN, ("debian", "12")),
        (b"ID=\"rocky\"\nVERSION_ID='9.4'\n", ("rocky", "9.4")),
        (b"ID=arch\n", ("arch", None)),
        (b"# ID=no\n\nNAME=x\nID=alpine\r\nVERSION_ID=3.20.1\r\n", ("alpine", "3.20.1")),
        (b"ID=Debian\nVERSION_ID=12\n", (None, "12")),
        (b'ID="deb"\nVERSION_ID="unclosed\n', ("deb", None)),
        (b"\xff\xfe\nID=x\n=\n==\nno line\n", ("x", None)),
        (b"", (None, None)),
    ],
)
def test_vendor_and_version(text: bytes, expected: tuple[str | None, str | None]) -> None:
    found = values(distribution(image(etc=text)))
    assert (found.get(voc.OS_VENDOR), found.get(voc.OS_VERSION)) == expected


@pytest.mark.parametrize("value", ["$(reboot)", "`id`", "a\\nb", "a b;c", "../x", "\x1b[2J"])
def test_hostile_values_never_become_facts(value: str) -> None:
    assert values(distribution(image(etc=f"ID='{value}'\n".encode()))).get(voc.OS_VENDOR) is None


def test_etc_comes_first_and_usr_lib_stands_in() -> None:
    assert values(distribution(image(etc=b"ID=a\n", usr=b"ID=b\nVERSION_ID=1\n"))) == {voc.OS_VENDOR: "a"}
    assert values(distribution(image(usr=DEBIAN))) == {voc.OS_VENDOR: "debian", voc.OS_VERSION: "12"}
    assert values(distribution(image())) == {}


def test_the_usual_link_from_etc_is_followed() -> None:
    link = ImageFile("/etc/os-release", "symlink", 0o777, 0, 0, 0, "../usr/lib/os-release", b"", "sha256:0")
    files = ImageFiles({**image(usr=DEBIAN), "/etc/os-release": link})
    assert values(distribution(files)) == {voc.OS_VENDOR: "debian", voc.OS_VERSION: "12"}


def test_only_os_release_is_read() -> None:
    assert system.wanted("/etc/os-release")
    assert system.wanted("/usr/lib/os-release")
    assert system.wanted("/etc/passwd") is None


def test_a_value_that_no_label_can_hold_leaves_the_rest_of_the_image() -> None:
    files = image(etc=b"ID=debian\nVERSION_ID=" + b"9" * 5000 + b"\n")
    found = of_image(Evidence(files=files), None, {})
    assert found.annotations() == {voc.OS_VENDOR.name: "debian"}
    assert [note.key for note in found.notes if note.evidence.startswith("/etc/os-release")] == [voc.OS_VERSION]


def test_a_capability_that_is_none_leaves_the_rest_of_the_stack() -> None:
    found = of_stack(eb(root("A@1", "run:CUDA", capabilities=("weird",)), pkg("CUDA@12.4.0")))
    assert (found.value(voc.GPU), found.value(voc.GPU_ARCHITECTURE)) == ("cuda", None)
    assert any(note.key is voc.GPU_ARCHITECTURE and "test: A@1" in note.evidence for note in found.notes)
