"""Licences: what the roots' package recipes say of them, for people; one for the image is its publisher's word.

A lock carries no licence, recipes state theirs under conditions that only Spack can weigh, and the base's packages have
their own: no value is ever derived.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hpc3build.evidence.layers import ImageFiles
from hpc3build.facts import Note
from hpc3build.facts import vocabulary as voc
from hpc3build.stack import Package, Stack

#: Where Spack keeps the recipes of an environment's packages; from Spack 1.0 on folders have names of Python's.
_RECIPE = re.compile(r"/\.spack-env/repos/(?:[^/]+/)+packages/(?P<folder>[^/]+)/package\.py$")
#: The longest recipe of Spack's own, of llvm, has 60 kB.
_MAX_RECIPE = 512 << 10


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``, for readers of layers."""
    return _MAX_RECIPE if _RECIPE.search(path) else None


def of_roots(files: ImageFiles, stack: Stack) -> Iterator[Note]:
    """A note for each root whose package recipe in the image states a licence."""
    roots = {_plain(root.name): root for root in stack.roots}
    for path in sorted(files):
        found = _RECIPE.search(path)
        root = roots.get(_plain(found["folder"])) if found else None
        if root is not None and files[path].whole and (said := "; ".join(stated(files[path].data))):
            yield Note(voc.LICENSES, _message(root, said), path)


def stated(recipe: bytes) -> Iterator[str]:
    """The licences that a package.py states, each with its condition. Nothing of it is run."""
    try:
        tree = ast.parse(recipe)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "license"):
            continue
        name = _text(node.args[0]) if node.args else None
        conditions = [_text(word.value) or "a condition holds" for word in node.keywords if word.arg == "when"]
        if name is not None:
            yield f"{name} when {conditions[0]}" if conditions else name


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _plain(name: str) -> str:
    return name.replace("-", "_").lstrip("_")


def _message(root: Package, said: str) -> str:
    text = "".join(character if character.isprintable() else "?" for character in said)[:300]
    return f"the package recipe of {root.name} says {text}; the image holds more than that, so nothing is derived"
