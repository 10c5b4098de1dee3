"""Title, version and where an image comes from (rule R7)."""

from __future__ import annotations

from collections.abc import Iterator

from hpc3build.facts import Fact, Source, Statement
from hpc3build.facts import vocabulary as voc
from hpc3build.stack import Stack


def from_stack(stack: Stack, *, folder: str = "") -> Iterator[Statement]:
    """R7: from the root when there is one; with several the folder's name, and no version."""
    roots = stack.roots
    if len(roots) == 1:
        yield Fact(voc.TITLE, roots[0].name, Source.STACK, roots[0].origin)
        if roots[0].version:
            yield Fact(voc.IMAGE_VERSION, roots[0].version, Source.STACK, roots[0].origin)
    elif roots and folder:
        yield Fact(
            voc.TITLE, folder, Source.STACK, f"{stack.origin}: the folder's name, as there are {len(roots)} roots"
        )
