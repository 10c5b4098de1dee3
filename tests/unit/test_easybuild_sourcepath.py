"""``--sourcepath``: where EasyBuild looks, what travels, and checksums of every form."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc3build.containerfile import build_context
from hpc3build.errors import InputError
from hpc3build.frontends import easybuild, easybuild_files
from hpc3build.frontends.easybuild import EasyBuildRecipe
from hpc3build.frontends.easybuild_sourcepath import Given, find, listed
from hpc3build.frontends.easybuild_sources import Sources, sources_of
from hpc3build.frontends.settings import read_settings
from hpc3build.recipe import Settings
from tests.unit.test_easybuild import GCC, closure, module

DATA = b"source"
SHA256 = hashlib.sha256(DATA).hexdigest()
MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()


def wanted(name: str = "A-1.tar.gz", software: str = "A", **fields: Any) -> dict[str, Any]:
    return {"name": name, "software": software, "extension": False, "path": None, "checksum": None, **fields}


def put(*files: Path, data: bytes = DATA) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def places(*files: dict[str, Any], folders: tuple[Path, ...] = (), robot: tuple[Path, ...] = ()) -> dict[str, Path]:
    found = find([module("A", files=list(files), path="/own/A-1.eb")], robot, folders)
    return {file.place: file.path for file in found.given}


# ---- the search


@pytest.mark.parametrize(
    ("file", "order", "place"),
    [
        (wanted(), ("a/A/A-1.tar.gz", "A/A-1.tar.gz", "A-1.tar.gz"), "a/A/A-1.tar.gz"),
        (wanted(software="3proxy"), ("0/3proxy/A-1.tar.gz", "3proxy/A-1.tar.gz"), "0/3proxy/A-1.tar.gz"),
        (
            wanted(extension=True),
            tuple(f"{at}{sub}A-1.tar.gz" for at in ("a/A/", "A/", "") for sub in ("extensions/", "packages/", "")),
            "a/A/extensions/A-1.tar.gz",
        ),
        (wanted("sub/x"), ("a/A/sub/x", "sub/x"), "a/A/sub/x"),
        (wanted("https://h/x/6.tgz"), ("a/A/6.tgz", "6.tgz"), "fetched/a/A/6.tgz"),
    ],
)
def test_the_order_of_the_search(tmp_path: Path, file: dict[str, Any], order: tuple[str, ...], place: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    expected = [folder / at for folder in (one, two) for at in order]
    put(*expected)
    for path in expected:
        assert places(file, folders=(one, two)) == {place: path}
        path.unlink()
    assert find([module("A", files=[file])], (), (one, two)).missing == (
        place.rpartition("/")[2].replace("x", file["name"]) if place.endswith("/x") else place.rpartition("/")[2],
    )


def test_what_is_there_already(tmp_path: Path) -> None:
    """A patch that EasyBuild ships, and a file beside an own easyconfig, travel without our doing."""
    put(tmp_path / "A-1.tar.gz", tmp_path / "robot/A-1.eb", tmp_path / "robot/A-1.tar.gz", tmp_path / "robot/a/A/x")
    robot = (tmp_path / "robot",)
    shipped = wanted(path="/opt/eb/easyconfigs/a/A/A-1.tar.gz")
    assert places(shipped, folders=(tmp_path,), robot=robot) == {}
    own = module(
        "A",
        path=str(tmp_path / "robot/A-1.eb"),
        sources=["A-1.tar.gz"],
        files=[
            wanted(path=str(tmp_path / "robot/A-1.tar.gz")),
            wanted("x", path=str(tmp_path / "robot/a/A/x")),
            wanted("A-1.eb", path=str(tmp_path / "robot/A-1.eb")),
        ],
    )
    found = find([own], robot, (tmp_path,))
    assert [file.place for file in found.given] == ["a/A/x", "a/A/A-1.eb"], "no list of the easyconfig's names them"
    assert found.missing == ()


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "a\nb", "https://h/.."])
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"A-1.eb: .* is not the name of a source"):
        places(wanted(name), folders=(tmp_path,))
    with pytest.raises(InputError, match="is not the name"):
        places(wanted(software="../a"), folders=(tmp_path,))


def test_the_note(tmp_path: Path) -> None:
    put(tmp_path / "A-1.tar.gz")
    files = [wanted(), *(wanted(f"{number}.tgz") for number in range(9)), wanted("0.tgz")]
    found = find([module("A", files=files)], (), (tmp_path,))
    assert found.note((tmp_path,)).startswith(
        f"--sourcepath {tmp_path}: 9 files are not there, and the builder fetches"
    )
    assert "0.tgz, 1.tgz" in found.note((tmp_path,)) and "8.tgz" not in found.note((tmp_path,))
    one = find([module("A", files=files[:2])], (), (tmp_path,))
    assert one.note((tmp_path,)) == f"--sourcepath {tmp_path}: 1 file is not there, and the builder fetches it: 0.tgz"
    there = find([module("A", files=files[:1])], (), (tmp_path,))
    assert there.note((tmp_path, tmp_path)) == f"--sourcepath {tmp_path}:{tmp_path}: all sources are there"


# ---- checksums


def given_file(path: Path, checksum: Any, software: str = "A") -> Given:
    plain = easybuild_files.plain(checksum, path.name) if not isinstance(checksum, tuple) else checksum[0]
    return Given("A/1", path.name, software, False, plain, path)


GOOD = [
    None,
    SHA256,
    MD5,
    [SHA256, MD5],
    {"x": SHA256},
    [{"x": SHA256}],
    ({"any": [{"sha256": "0" * 64}, {"sha256": SHA256}]},),
    ({"any": [{"sha256": "0" * 64}, None]},),
    ({"sha512": hashlib.sha512(DATA).hexdigest()},),
    ({"size": len(DATA)},),
    ({"adler32": "0x1"},),
]
BAD = [
    ("0" * 64, f"its sha256 is {SHA256}, not {'0' * 64}"),
    ("0" * 32, f"its md5 is {MD5}"),
    ([SHA256, "0" * 64], "its sha256 is"),
    ({"y": SHA256}, "no checksum for x in the list"),
    ("abc", "'abc' is neither an MD5 nor a SHA256"),
    (5, "5 is no checksum"),
    (({"any": [{"sha256": "0" * 64}, {"md5": "0" * 32}]},), f"its sha256 is {SHA256}, not {'0' * 64}; its md5 is"),
    (({"size": 5},), "its size is 6, not 5"),
]


@pytest.mark.parametrize("checksum", GOOD)
def test_a_checksum_that_holds(tmp_path: Path, checksum: Any) -> None:
    put(tmp_path / "x")
    assert listed([given_file(tmp_path / "x", checksum)]) == {"a/A/x": SHA256}


@pytest.mark.parametrize(("checksum", "says"), BAD)
def test_a_checksum_that_does_not_hold(tmp_path: Path, checksum: Any, says: str) -> None:
    put(tmp_path / "x")
    with pytest.raises(InputError) as caught:
        listed([given_file(tmp_path / "x", checksum)])
    assert caught.value.message.startswith(f"{tmp_path}/x: {says}") and "A/1" in caught.value.message


@given(st.recursive(st.sampled_from([SHA256, "0" * 64]), lambda each: st.lists(each, max_size=3), max_leaves=6))
def test_all_of_a_list_have_to_hold(checksum: Any) -> None:
    text = json.dumps(checksum)
    plain = easybuild_files.plain(checksum, "x")
    path = Path(__file__)
    its = hashlib.sha256(path.read_bytes()).hexdigest()
    file = Given("A/1", "x", "A", False, json.loads(json.dumps(plain).replace(SHA256, its)), path)
    if "0" * 64 in text:
        with pytest.raises(InputError):
            listed([file])
    else:
        assert listed([file]) == {"a/A/x": its}


def test_two_files_for_one_place(tmp_path: Path) -> None:
    put(tmp_path / "one/x", tmp_path / "two/x")
    both = [given_file(tmp_path / name / "x", None) for name in ("one", "two")]
    assert listed(both) == {"a/A/x": SHA256}
    put(tmp_path / "two/x", data=b"other")
    with pytest.raises(InputError, match="EasyBuild would look for both at a/A/x"):
        listed(both)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: No such file"):
        listed([given_file(tmp_path / "gone", None)])


# ---- the settings


def test_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    asked = sources_of(("A-1.eb",), Settings(sourcepath=(f"{tmp_path}/a:{tmp_path}/b:", f"{tmp_path}/a")))
    assert asked.sourcepath == (tmp_path / "a", tmp_path / "b")
    with pytest.raises(InputError, match=rf"--sourcepath {tmp_path}/none: no such folder"):
        sources_of(("A-1.eb",), Settings(sourcepath=(f"{tmp_path}/none",)))
    (tmp_path / "hpc3build.yaml").write_text("easybuild:\n  sourcepath: [a]\n")
    assert read_settings(tmp_path).sourcepath == (str(tmp_path / "a"),)


# ---- the context


def recipe(folder: Path) -> EasyBuildRecipe:
    modules = (
        GCC,
        module("C", files=[wanted("v1.tar.gz", "C")]),
        module("A", files=[wanted("v1.tar.gz"), wanted("https://h/1/u.tgz")]),
    )
    found = find(modules, (), (folder,))
    sources = Sources(easyconfigs=("A-1.eb",), sourcepath=(folder,))
    return EasyBuildRecipe(
        origin=Path("A-1.eb"),
        folder=folder,
        settings=Settings(),
        sources=sources,
        closure=closure(*modules),
        given=found.given,
    )


def test_each_step_mounts_its_sources(tmp_path: Path) -> None:
    """Files of one name, as GitHub's are, are told apart by their software; nothing of them is in a layer."""
    put(tmp_path / "in/A/v1.tar.gz", tmp_path / "in/A/u.tgz")
    put(tmp_path / "in/c/C/v1.tar.gz", data=b"other")
    put(tmp_path / "in/A/secret")
    made = recipe(tmp_path / "in")
    context = build_context(made, easybuild.context(made, None))
    assert set(context.large) == {
        "sources/application/a/A/v1.tar.gz",
        "sources/application/fetched/a/A/u.tgz",
        "sources/dependencies/c/C/v1.tar.gz",
    }
    assert context.files["hpc3build/easybuild/application/sources.txt"].decode() == (
        f"{SHA256}  a/A/v1.tar.gz\n{SHA256}  fetched/a/A/u.tgz\n"
    )
    text = context.containerfile
    for part in ("application", "dependencies"):
        assert f"--mount=type=bind,source=sources/{part},target=/run/sources/{part} \\" in text
        assert f"install.sh /opt/easybuild {part} /run/sources/{part}\n" in text
    assert "COPY sources" not in text
    before = os.umask(0o077)
    try:
        for _ in range(2):
            context.write(tmp_path / "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out/sources/dependencies/c/C/v1.tar.gz").read_bytes() == b"other"
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in (tmp_path / "out/sources").rglob("*")}
    assert modes == {True: 0o755, False: 0o644}, "a plain user reads them in the builder"
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").glob("**/easybuild/")} == {0o755}
    again = recipe(tmp_path / "in")
    assert build_context(again, easybuild.context(again, None)) == context


def test_apptainer_has_them_in_the_builder_alone(tmp_path: Path) -> None:
    put(tmp_path / "in/v1.tar.gz")
    made = recipe(tmp_path / "in")
    text = build_context(made, easybuild.context(made, None), "apptainer").containerfile
    builder, final = text.split("Stage: final")
    assert "    sources /opt/hpc3build/sources\n" in builder and "sources" not in final
    assert "install.sh /opt/easybuild application /opt/hpc3build/sources/application" in builder


def test_without_sources_nothing_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    made = recipe(tmp_path / "in")
    context = build_context(made, easybuild.context(made, None))
    assert not context.large and "source=sources" not in context.containerfile
    assert not [name for name in context.files if name.endswith("sources.txt")]


def test_a_wrong_checksum_is_told_before_the_build(tmp_path: Path) -> None:
    put(tmp_path / "A-1.tar.gz")
    files = [wanted(checksum={"sha256": "0" * 64})]
    made = find([module("A", files=files)], (), (tmp_path,)).given
    plan = EasyBuildRecipe(
        origin=Path("A"),
        folder=tmp_path,
        settings=Settings(),
        sources=Sources(easyconfigs=("A-1.eb",)),
        closure=closure(GCC, module("A", files=files)),
        given=made,
    )
    with pytest.raises(InputError, match="which A/1 asks for") as caught:
        easybuild.context(plan, None)
    assert caught.value.exit_code == 2
