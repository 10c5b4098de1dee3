"""What a person may give EasyBuild, and every way to get it wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc3build.errors import InputError
from hpc3build.frontends import easybuild, for_source, for_sources, spack
from hpc3build.frontends.easybuild_sources import Sources, is_easystack, is_name, sources_of
from hpc3build.recipe import Settings
from hpc3build.run import run
from hpc3build.workflows.render import render

GROMACS = "GROMACS-2024.4-foss-2023b"


def touch(*files: Path, text: str = "") -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def asked(*given: object, **settings: object) -> Sources:
    return sources_of(tuple(map(str, given)), Settings(**settings))  # type: ignore[arg-type]


def refused(*given: object, **settings: object) -> InputError:
    with pytest.raises(InputError) as caught:
        asked(*given, **settings)
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{GROMACS}.eb", True),
        (GROMACS, True),
        ("bzip2-1.0.8", True),
        ("OpenFOAM-v2406-foss-2023b", True),
        ("GCC-system", True),
        ("x.eb", True),
        ("gromacs", False),
        ("no-such-thing", False),
        ("docker.io/library/debian-12", False),
        ("debian:12", False),
        ("oci:a-1", False),
        ("", False),
    ],
)
def test_names(text: str, expected: bool) -> None:
    assert is_name(text) is expected
    assert easybuild.recognises(text) is expected


def test_several_roots_with_the_folders_of_all(tmp_path: Path) -> None:
    one, two, site = tmp_path / "one" / "A-1.eb", tmp_path / "two" / "B-1.eb", tmp_path / "site"
    touch(one, two, site / "x")
    found = asked(one, two, one, GROMACS, robot_paths=(f"{site}:", str(one.parent)))
    assert found.easyconfigs == (str(one), str(two), GROMACS)
    assert found.robot_paths == (one.parent, two.parent, site)


def test_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "hello"
    touch(folder / "other-1.eb")
    assert asked(folder).easyconfigs == (str(folder / "other-1.eb"),)
    touch(folder / "Hello-1.eb", folder / "hello-2.eb")
    assert asked(folder).easyconfigs == (str(folder / "Hello-1.eb"), str(folder / "hello-2.eb"))
    touch(folder / "easystack.yaml", text="easyconfigs: [other-1.eb]")
    assert asked(folder).easyconfigs == (str(folder / "other-1.eb"),)
    touch(tmp_path / "none" / "a-1.eb", tmp_path / "none" / "b-1.eb")
    assert "a-1.eb, b-1.eb" in refused(tmp_path / "none").message
    (tmp_path / "empty").mkdir()
    assert "no easyconfig" in refused(tmp_path / "empty").message


def test_who_recognises_what(tmp_path: Path) -> None:
    touch(tmp_path / "both" / "a-1.eb", tmp_path / "both" / "spack.yaml", tmp_path / "eb" / "a-1.eb")
    stack, manifest = tmp_path / "stack.yaml", tmp_path / "spack.yaml"
    touch(stack, text="# a comment\neasyconfigs:\n  - a-1.eb\n")
    touch(manifest, text="spack:\n  specs: []\n")
    assert for_source(str(tmp_path / "both")) is spack
    assert for_source(str(manifest)) is spack
    for source in (tmp_path / "eb", stack, tmp_path / "eb" / "a-1.eb", GROMACS):
        assert for_source(str(source)) is easybuild
    with pytest.raises(InputError) as caught:
        for_source("gromacs")
    assert "easyconfig" in caught.value.hint


def test_recipes_of_two_package_managers_are_not_mixed(tmp_path: Path) -> None:
    touch(tmp_path / "eb" / "a-1.eb", tmp_path / "more" / "b-1.eb")
    touch(tmp_path / "sp" / "spack.yaml", text="spack:\n  specs: []\n")
    ours, more, theirs = (str(tmp_path / name) for name in ("eb", "more", "sp"))
    assert for_sources((ours, more, GROMACS)) is easybuild and for_sources((theirs,)) is spack
    for pair in ((ours, theirs), (theirs, ours), (ours, more, theirs)):
        with pytest.raises(InputError) as caught:
            render(pair, Settings(), run)
        told = f"{pair[0]} and {pair[-1]} are recipes of two package managers, and cannot be mixed in one image"
        assert caught.value.message == told


def test_an_easystack(tmp_path: Path) -> None:
    stack = tmp_path / "stack.yaml"
    touch(tmp_path / "own" / "A-1.eb")
    touch(
        stack, text=f"easyconfigs:\n  - own/A-1.eb\n  - {GROMACS}.eb\n  - B-1.eb:\n  - C-1.eb:\n      options: {{}}\n"
    )
    assert is_easystack(str(stack))
    found = asked(stack)
    assert found.easyconfigs == (str(tmp_path / "own" / "A-1.eb"), f"{GROMACS}.eb", "B-1.eb", "C-1.eb")
    assert found.robot_paths == (tmp_path / "own",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("easyconfigs:\n", "1: easyconfigs: expected a list, found nothing"),
        ("easyconfigs: []\n", "1: easyconfigs: expected a list, found an empty one: there is nothing to build"),
        ("easyconfigs: A\n", "expected a list, found text"),
        ("easyconfigs:\n  - 5\n", "2: expected the name of an easyconfig, found a number"),
        (
            "easyconfigs:\n  - A-1.eb\n  - B-1.eb:\n      options:\n        from-pr: 1\n",
            "5: B-1.eb:options:from-pr: easyconfigs are read without a network",
        ),
        ("easyconfigs:\n  - A-1.eb:\n      optoins: {}\n", "optoins: unknown key"),
        ("easyconfigs:\n  - ../A-1.eb\n", "2: ../A-1.eb: no such easyconfig"),
        ("easyconfigs:\n  - $(id)\n", "no such easyconfig"),
        ("easyconfigs: [A-1.eb\n", "not valid YAML"),
    ],
)
def test_broken_easystacks(tmp_path: Path, text: str, says: str) -> None:
    touch(tmp_path / "stack.yaml", text=text)
    error = refused(tmp_path / "stack.yaml")
    assert says in error.message and "stack.yaml:" in error.message


def test_easyblocks_and_hooks(tmp_path: Path) -> None:
    touch(tmp_path / "a.py", tmp_path / "generic" / "b.py", tmp_path / "hooks.py", tmp_path / "note.txt")
    found = asked(
        "A-1.eb", include_easyblocks=(f"{tmp_path}/*.py", f"{tmp_path}/generic/b.py"), hooks=f"{tmp_path}/hooks.py"
    )
    assert found.easyblocks == (tmp_path / "a.py", tmp_path / "hooks.py", tmp_path / "generic" / "b.py")
    assert found.hooks == tmp_path / "hooks.py"
    for wrong in ({"hooks": "none.py"}, {"include_easyblocks": ("none.py",)}, {"robot_paths": ("nowhere",)}):
        assert "no such" in refused("A-1.eb", **wrong).message
    assert "no such Python file" in refused("A-1.eb", include_easyblocks=(f"{tmp_path}/*.txt",)).message
    (tmp_path / "a:b").mkdir()
    touch(tmp_path / "a:b" / "A-1.eb")
    assert "rename it" in refused(tmp_path / "a:b" / "A-1.eb").hint


@given(st.text(max_size=40))
def test_any_text_is_recognised_or_not_without_a_word(text: str) -> None:
    assert easybuild.recognises(text) in (True, False)
