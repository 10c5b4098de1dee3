"""A stack: which packages count (R1), and what is reached over which edges."""

from __future__ import annotations

from collections.abc import Iterable

from hpc3build.stack import RUNTIME_KINDS, Package
from tests.stacks import pkg, root, stack

STACK = stack(
    root("app@1", "mid", "build:cmake"), pkg("mid@2", "leaf", "run:tool"), pkg("leaf@3"), pkg("tool@4", "toolchain:tc"),
    pkg("cmake@5", "curl"), pkg("curl@6"), pkg("tc@7", "leaf"), root("other@8"), pkg("nobodys@9"),
)  # fmt: skip


def names(packages: Iterable[Package]) -> list[str]:
    return [package.name for package in packages]


def test_what_only_a_build_needs_does_not_count_nor_what_it_links() -> None:
    assert names(STACK.roots) == ["app", "other"]
    assert names(STACK.counted) == ["app", "mid", "leaf", "tool", "tc", "other"], "each once, in the stack's order"


def test_edges_are_of_the_kinds_that_are_asked_for() -> None:
    app = STACK.by_id["app"]
    assert names(package for _, package in STACK.edges(app)) == ["mid"]
    assert names(package for _, package in STACK.edges(app, frozenset({"build"}))) == ["cmake"]
    assert names(STACK.runtime_closure(STACK.by_id["tool"], kinds=RUNTIME_KINDS - {"toolchain"})) == ["tool"]


def test_a_closure_does_not_pass_through_what_is_named() -> None:
    """It holds the package itself, and nothing that only that one leads to."""
    found = STACK.runtime_closure(STACK.by_id["app"], without=frozenset({"mid"}))
    assert names(found) == ["app", "mid"]


def test_a_loop_ends() -> None:
    loop = stack(root("a@1", "b"), pkg("b@1", "a"))
    assert names(loop.counted) == ["a", "b"]


def test_a_variant_is_a_text_or_a_list() -> None:
    package = pkg("x@1", variants={"fabrics": ("ofi", "ucx"), "netmod": "ofi", "cuda": True})
    assert package.says("fabrics", "ucx") and package.says("netmod", "ofi")
    assert not package.says("netmod", "o") and not package.says("fabrics", "uc")
    assert not package.says("cuda", "True") and not package.says("none", "")
