"""Spack's concrete nodes, in every format of spec files (1 to 6), as Packages.

Source: SpecfileV1 to SpecfileV5 in Spack's lib/spack/spack/spec.py, and its documentation of format 6.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hpc3build.frontends.spack_json import Document
from hpc3build.stack import RUNTIME_KINDS, Dependency, Package, Variant

#: The first format whose edges name the virtuals that they stand for.
VIRTUAL_EDGES = 4
#: Languages in the order in which a package's compilers are told.
_LANGUAGES = ("c", "cxx", "fortran")
#: Hashes that edges and nodes are known by; which one depends on the Spack that wrote the file.
_HASHES = ("hash", "full_hash", "build_hash")


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The nodes of one file by the key that they have there, and what the file says of them.

    ``specfile`` is the format. ``roots`` and ``prefixes`` are by the same keys. ``installed``: records of what is
    installed lack the build dependencies that ``spack gc`` removed.
    """

    document: Document
    specfile: int
    nodes: Mapping[str, Any]
    roots: Collection[str]
    prefixes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    installed: bool = False


class _Reader:
    def __init__(self, given: Nodes) -> None:
        self.given, self.document = given, given.document
        self.names: dict[str, str] = {}
        self.fields: dict[str, Mapping[str, Any]] = {}
        for key, node in given.nodes.items():
            self.names[key], self.fields[key] = self.unwrapped(self.document.text(key, "a node's hash"), node)
        # To format 2 edges may name another hash than the key. Two nodes may then differ in their build dependencies
        # alone; Spack keeps the first as well.
        self.keys: dict[str, str] = {}
        for name in _HASHES if given.specfile < 3 else ():
            for key, fields in self.fields.items():
                if isinstance(digest := fields.get(name), str):
                    self.keys.setdefault(digest, key)
        for key in self.fields:
            self.keys[key] = key

    def unwrapped(self, key: str, node: Any) -> tuple[str, Mapping[str, Any]]:
        """Name and fields of a node; format 1 has them as ``{name: fields}``."""
        fields = self.document.mapping(node, key)
        if "name" not in fields and len(fields) == 1:
            name, inner = next(iter(fields.items()))
            return self.document.text(name, f"{key}: name"), self.document.mapping(inner, f"{key}: {name}")
        return self.document.text(fields.get("name"), f"{key}: name"), fields

    def packages(self) -> tuple[Package, ...]:
        edges = {key: tuple(self.edges(key)) for key in self.fields}
        provided: dict[str, set[str]] = {}
        for dependencies in edges.values():
            for edge in dependencies:
                if edge.virtuals:
                    provided.setdefault(edge.package, set()).update(edge.virtuals)
        return tuple(self.package(key, edges, provided.get(key, set())) for key in self.fields)

    def edges(self, key: str) -> Iterator[Dependency]:
        document, where = self.document, f"{self.names[key]}/{key}: dependencies"
        given = self.fields[key].get("dependencies", [])
        if isinstance(given, dict):
            given = [{**document.mapping(edge, where), "name": name} for name, edge in given.items()]
        for edge in document.items(given, where):
            edge = document.mapping(edge, where)
            digest = document.text(next((edge[name] for name in _HASHES if name in edge), None), f"{where}: hash")
            parameters = document.mapping(edge.get("parameters", {}), f"{where}: parameters")
            kinds = document.items(parameters.get("deptypes", edge.get("type", [])), f"{where}: deptypes")
            virtuals = document.items(parameters.get("virtuals", []), f"{where}: virtuals")
            found = frozenset(map(str, kinds))
            if digest in self.keys:
                yield Dependency(package=self.keys[digest], kinds=found, virtuals=tuple(map(str, virtuals)))
            elif not self.given.installed or found & RUNTIME_KINDS:
                raise document.fail(f"{where}: {edge.get('name')}/{digest}", "a node of the same file")

    def package(self, key: str, edges: Mapping[str, tuple[Dependency, ...]], virtuals: set[str]) -> Package:
        document, node, name = self.document, self.fields[key], self.names[key]
        version = document.text(node.get("version"), f"{name}/{key}: version")
        arch = document.mapping(node.get("arch"), f"{name}/{key}: arch")
        target = arch.get("target")
        if isinstance(target, dict):
            target = target.get("name")
        os = arch.get("platform_os")
        external = node.get("external")
        for virtual in document.items(node.get("provided_virtuals", []), f"{name}/{key}: provided_virtuals"):
            virtuals.add(document.text(virtual, f"{name}/{key}: provided_virtuals").partition("@")[0])
        digest = document.text(node.get("hash", key), f"{name}/{key}: hash")
        return Package(
            id=key,
            name=name,
            version=version,
            origin=f"{document.label}: {name}@{version}/{digest[:7]}",
            target=document.text(target, f"{name}/{key}: arch: target"),
            os=os if isinstance(os, str) else None,
            compilers=tuple(dict.fromkeys(self.compilers(key, edges))),
            variants=self.variants(name, node),
            dependencies=edges[key],
            virtuals=tuple(sorted(virtuals)),
            prefix=self.given.prefixes.get(key),
            external=isinstance(external, dict) and bool(external),
            root=key in self.given.roots,
        )

    def compilers(self, key: str, edges: Mapping[str, tuple[Dependency, ...]]) -> Iterator[str]:
        """``gcc@12.2.0`` from the attribute (to format 4), or from the edges that stand for c, cxx and fortran.

        A node of format 5 that was first read from an older one keeps its attribute as an annotation; a spliced one
        has no build edges, and was compiled as the spec that it was spliced from.
        """
        document, node = self.document, self.fields[key]
        if (compiler := node.get("compiler")) is not None:
            yield self.compiler(document.mapping(compiler, f"{key}: compiler"), key)
        annotations = node.get("annotations")
        if isinstance(annotations, dict) and isinstance(annotations.get("compiler"), str):
            text = document.text(annotations["compiler"], f"{key}: annotations: compiler")
            yield text.split()[0].replace("@=", "@")
        spliced = node.get("build_spec")
        built = self.keys.get(str(spliced.get("hash"))) if isinstance(spliced, dict) else None
        for language in _LANGUAGES:
            for edge in (*edges[key], *(edges[built] if built else ())):
                if language in edge.virtuals:
                    named = {**self.fields[edge.package], "name": self.names[edge.package]}
                    yield self.compiler(named, key)

    def compiler(self, given: Mapping[str, Any], key: str) -> str:
        parts = (self.document.text(given.get(part), f"{key}: compiler: {part}") for part in ("name", "version"))
        return "@".join(parts)

    def variants(self, name: str, node: Mapping[str, Any]) -> Mapping[str, Variant]:
        found: dict[str, Variant] = {}
        for variant, value in self.document.mapping(node.get("parameters", {}), f"{name}: parameters").items():
            if isinstance(value, list):
                found[variant] = tuple(map(str, value))
            elif isinstance(value, bool | str):
                found[variant] = value
        return MappingProxyType(found)


def packages(given: Nodes) -> tuple[Package, ...]:
    """The Packages of a file's nodes, in its order. Raises InputError naming the file and the node."""
    return _Reader(given).packages()
