"""spack.lock, versions 1 to 8: concrete specs as a Stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hpc3build.errors import InputError
from hpc3build.frontends.spack_json import Document
from hpc3build.frontends.spack_nodes import VIRTUAL_EDGES, Nodes, packages
from hpc3build.stack import Stack

#: The format of spec files in each version of the lock.
SPECFILES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 5, 8: 6}
VERSIONS = range(min(SPECFILES), max(SPECFILES) + 1)
# Spack includes concrete environments that include others; nobody nests them as deeply as this.
_MAX_DEPTH = 64


def read_lock(text: str, origin: str) -> Stack:
    """The Stack of a spack.lock's text; ``origin`` is the file's name for messages.

    Raises InputError for JSON that Spack did not write, and for versions that cannot be read. Source: Spack's
    lib/spack/spack/environment (its documentation of the formats, and its reader).
    """
    return stack_of(Document(text, origin))


def stack_of(document: Document) -> Stack:
    """The Stack of a lock that is parsed already. Raises InputError."""
    data = document.mapping(document.data, "the document")
    specfile = SPECFILES[_version(document, data)]
    nodes: dict[str, Any] = {}
    roots: dict[str, None] = {}
    for environment in _environments(document, data):
        for digest, node in document.mapping(environment.get("concrete_specs", {}), "concrete_specs").items():
            nodes.setdefault(digest, node)
        for root in document.items(environment.get("roots"), "roots"):
            roots[document.text(document.mapping(root, "roots").get("hash"), "roots:hash")] = None
    if not roots:
        raise InputError(
            f"{document.origin}: the lock has no roots", hint="add specs to the environment and concretize it"
        )
    if missing := [digest for digest in roots if digest not in nodes]:
        raise document.fail(f"the root {missing[0]}", "a node of concrete_specs")
    spack = data.get("spack")
    made_by = spack.get("version") if isinstance(spack, dict) else None
    return Stack(
        manager="spack",
        manager_version=made_by if isinstance(made_by, str) else None,
        packages=packages(Nodes(document=document, specfile=specfile, nodes=nodes, roots=roots)),
        origin=document.origin,
        virtual_edges=specfile >= VIRTUAL_EDGES,
    )


def _version(document: Document, data: Mapping[str, Any]) -> int:
    meta = document.mapping(data.get("_meta"), "_meta")
    if meta.get("file-type", "spack-lockfile") != "spack-lockfile":
        raise document.fail("_meta:file-type", "spack-lockfile")
    version = document.number(meta.get("lockfile-version"), "_meta:lockfile-version")
    if version not in SPECFILES:
        newer = version > VERSIONS[-1]
        raise InputError(
            f"{document.origin}: spack.lock of version {version}; versions {VERSIONS[0]} to {VERSIONS[-1]} can be read",
            hint="update hpc3build" if newer else "let Spack concretize the environment anew",
        )
    return version


def _environments(document: Document, data: Mapping[str, Any], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The environment itself, and those that it includes as concretized: their roots are installed with its own."""
    if depth > _MAX_DEPTH:
        raise document.fail("include_concrete", "environments that do not include one another without end")
    yield data
    for path, included in document.mapping(data.get("include_concrete", {}), "include_concrete").items():
        yield from _environments(document, document.mapping(included, f"include_concrete: {path}"), depth + 1)
