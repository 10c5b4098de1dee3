"""Title and version: rule R7."""

from __future__ import annotations

from hpc3build.facts import Fact, Source, provenance
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.subjects import of_stack
from tests.stacks import pkg, root, stack, values


def test_one_root_gives_title_and_version() -> None:
    made = stack(root("gromacs@2021.5", "b"), pkg("b@1"))
    expected = {voc.TITLE: "gromacs", voc.IMAGE_VERSION: "2021.5"}
    assert values(provenance.from_stack(made, folder="folder")) == expected
    assert values(provenance.from_stack(made)) == expected


def test_a_root_without_a_version_has_none() -> None:
    assert values(provenance.from_stack(stack(root("a")))) == {voc.TITLE: "a"}


def test_several_roots_take_the_folders_name_and_no_version() -> None:
    made = stack(root("a@1"), root("b@1"))
    assert values(provenance.from_stack(made, folder="tools")) == {voc.TITLE: "tools"}
    assert values(provenance.from_stack(made)) == {}
    assert values(provenance.from_stack(stack(pkg("a@1")), folder="tools")) == {}


def test_what_the_user_says_wins_over_root_and_folder() -> None:
    said = (Fact(voc.TITLE, "mine", Source.USER, "--title"),)
    for made in (stack(root("a@1")), stack(root("a@1"), root("b@1"))):
        found = of_stack(made, folder="folder", said=said)
        assert found.value(voc.TITLE) == "mine"
        assert not found.conflicts
    assert of_stack(stack(root("a@1")), said=said).value(voc.IMAGE_VERSION) == "1"
