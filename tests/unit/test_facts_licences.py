"""Licences are noted as recipes state them, and never become a value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc3build.evidence.image import Evidence
from hpc3build.evidence.layers import ImageFile, ImageFiles
from hpc3build.facts import licences
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.subjects import of_image
from hpc3build.stack import Stack
from tests.stacks import pkg, root, stack

ENVIRONMENT = "/opt/spack-environment/.spack-env/repos"
OLD = f"{ENVIRONMENT}/builtin/packages/hello-mpi/package.py"
NEW = f"{ENVIRONMENT}/spack_repo/hello/packages/hello_mpi/package.py"
RECIPE = b"""\
class HelloMpi(Package):
    license("LGPL-2.1-or-later", checked_by="someone")
    license("MIT", when="@:1.0")
    license("Apache-2.0" if True else "x", when=other)
    license(NAME)
    def license(self): pass
"""


def image(**files: bytes) -> ImageFiles:
    return ImageFiles(
        {path: ImageFile(path, "file", 0o644, 0, 0, len(data), "", data, "sha256:0") for path, data in files.items()}
    )


def hello() -> Stack:
    return stack(root("hello-mpi@1.0", "zlib"), pkg("zlib@1.3"))


@pytest.mark.parametrize("path", [OLD, NEW])
def test_a_root_is_told_with_conditions_and_place(path: str) -> None:
    assert licences.wanted(path)
    (note,) = licences.of_roots(image(**{path: RECIPE}), hello())
    assert note.key is voc.LICENSES
    assert "hello-mpi says LGPL-2.1-or-later; MIT when @:1.0; the image" in note.message
    assert note.evidence == path


def test_no_value_is_derived_and_others_are_not_told() -> None:
    zlib = f"{ENVIRONMENT}/builtin/packages/zlib/package.py"
    found = of_image(Evidence(files=image(**{OLD: RECIPE, zlib: RECIPE})), hello(), {})
    assert voc.LICENSES not in found
    assert [note.evidence for note in found.notes if note.key is voc.LICENSES] == [OLD]
    assert licences.wanted("/opt/other/packages/zlib/package.py") is None


def test_what_the_publisher_says_is_the_value() -> None:
    found = of_image(
        Evidence(files=image()), hello(), {voc.LICENSES.name: "LGPL-2.1-or-later AND (MIT OR BSD-3-Clause)"}
    )
    assert found.value(voc.LICENSES) == "LGPL-2.1-or-later AND (MIT OR BSD-3-Clause)"
    assert not voc.LICENSES.pattern.fullmatch("see the file LICENSE, please")


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_state_something_or_nothing(data: bytes) -> None:
    assert all(isinstance(text, str) for text in licences.stated(data))


@pytest.mark.parametrize(
    "data", [b"(" * 100_000, b"-" * 100_000 + b"1", b"license('\\n\\x1b[31m')", b"license()", b"\0"]
)
def test_odd_recipes_are_passed_over(data: bytes) -> None:
    for note in licences.of_roots(image(**{OLD: data}), hello()):
        assert note.message.isprintable()
