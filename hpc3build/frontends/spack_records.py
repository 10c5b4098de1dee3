"""What an installed Spack says of itself: a prefix's spec.json, the database's index.json, ``spack find --json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc3build.errors import InputError
from hpc3build.frontends import spack_lock
from hpc3build.frontends.spack_json import Document
from hpc3build.frontends.spack_nodes import VIRTUAL_EDGES, Nodes, packages
from hpc3build.stack import Stack

#: The formats of spec files that can be read, and the format in each version of the database.
SPECFILES = range(1, 7)
DATABASES: Mapping[str, int] = {"0.9.3": 1, "5": 1, "6": 3, "7": 4, "8": 5}
#: Where Spack keeps them, below a prefix and below an install tree.
PLACES = SPEC_JSON, INDEX = ".spack/spec.json", ".spack-db/index.json"


def read_file(text: str, origin: str) -> Stack:
    """The Stack of any JSON file of Spack's that holds concrete specs; its content says which one it is.

    Raises InputError for JSON that Spack did not write, and for formats that are newer than those known.
    """
    document = Document(text, origin)
    data = document.data
    if isinstance(data, list):
        return _find(document)
    if isinstance(data, dict) and "database" in data:
        return _database(document)
    if isinstance(data, dict) and "spec" in data:
        return _specfile(document)
    return spack_lock.stack_of(document)


def _specfile(document: Document) -> Stack:
    """A spec file of one prefix; its first node is the root."""
    spec = document.data["spec"]
    if isinstance(spec, list):
        version, given = 1, spec
    else:
        meta = document.mapping(document.mapping(spec, "spec").get("_meta"), "spec:_meta")
        version = document.number(meta.get("version"), "spec:_meta:version")
        given = document.items(spec.get("nodes"), "spec:nodes")
    if version not in SPECFILES:
        raise _newer(document, "spec file", str(version), f"{SPECFILES[0]} to {SPECFILES[-1]}")
    nodes = _by_hash(document, given)
    if not nodes:
        raise InputError(f"{document.origin}: the spec file has no nodes", hint="is it truncated?")
    return _stack(Nodes(document=document, specfile=version, nodes=nodes, roots=(next(iter(nodes)),)))


def _database(document: Document) -> Stack:
    """The database of an install tree; its roots are what somebody asked for, and what nothing else needs."""
    database = document.mapping(document.data["database"], "database")
    version = document.text(database.get("version"), "database:version")
    if version not in DATABASES:
        raise _newer(document, "database", version, ", ".join(DATABASES))
    installs = document.mapping(database.get("installs"), "database:installs")
    nodes, prefixes = {}, {}
    asked, unneeded = [], []
    for digest, record in installs.items():
        record = document.mapping(record, f"database:installs:{digest}")
        nodes[digest] = document.mapping(record.get("spec"), f"{digest}: spec")
        if not record.get("installed"):
            continue
        if isinstance(path := record.get("path"), str) and path:
            prefixes[digest] = path
        if record.get("explicit"):
            asked.append(digest)
        if not record.get("ref_count"):
            unneeded.append(digest)
    roots = asked or unneeded
    if not roots:
        raise InputError(f"{document.origin}: nothing is installed", hint="spack install SPEC")
    specfile = DATABASES[version]
    return _stack(
        Nodes(document=document, specfile=specfile, nodes=nodes, roots=roots, prefixes=prefixes, installed=True)
    )


def _find(document: Document) -> Stack:
    """The list of ``spack find --json``; it does not say what was asked for, so its roots are what nothing needs."""
    nodes = _by_hash(document, document.data)
    if not nodes:
        raise InputError(f"{document.origin}: the list is empty", hint="spack find --json lists what is installed")
    edges = [edge for node in nodes.values() for edge in _edges(node)]
    specfile = SPECFILES[-1] if all("parameters" in edge for edge in edges) else VIRTUAL_EDGES - 1
    listed = packages(Nodes(document=document, specfile=specfile, nodes=nodes, roots=(), installed=True))
    needed = {edge.package for package in listed for edge in package.dependencies if edge.package != package.id}
    roots = [package.id for package in listed if package.id not in needed]
    return _stack(Nodes(document=document, specfile=specfile, nodes=nodes, roots=roots, installed=True))


def _edges(node: Any) -> list[Any]:
    """The edges of a node as they are; what is none of them is told when the node is read."""
    found = node.get("dependencies", [])
    found = list(found.values()) if isinstance(found, dict) else found
    return [edge for edge in found if isinstance(edge, dict)] if isinstance(found, list) else []


def _by_hash(document: Document, given: list[Any]) -> dict[str, Any]:
    """The nodes of a list by their hashes; format 1 has them as ``{name: node}``."""
    nodes: dict[str, Any] = {}
    for position, node in enumerate(given):
        fields = document.mapping(node, f"node {position}")
        if "name" not in fields and len(fields) == 1:
            fields = document.mapping(next(iter(fields.values())), f"node {position}")
        nodes.setdefault(document.text(fields.get("hash"), f"node {position}: hash"), node)
    return nodes


def _stack(given: Nodes) -> Stack:
    return Stack(
        manager="spack",
        manager_version=None,
        packages=packages(given),
        origin=given.document.origin,
        virtual_edges=given.specfile >= VIRTUAL_EDGES,
    )


def _newer(document: Document, what: str, version: str, known: str) -> InputError:
    return InputError(f"{document.origin}: {what} of version {version}; {known} can be read", hint="update hpc3build")
