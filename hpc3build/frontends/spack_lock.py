"""spack.lock, versions 4 to 7: concrete specs as a Stack."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from hpc3build.errors import InputError
from hpc3build.stack import Dependency, Package, Stack, Variant

VERSIONS = range(4, 8)
MAX_BYTES = 256 << 20
_COMPILER_VIRTUALS = ("c", "cxx", "fortran")


class _Reader:
    """Reads one lock; every error names the file and the node."""

    def __init__(self, origin: str, text: str) -> None:
        self.origin = origin
        self.label = origin.rsplit("/", 1)[-1]
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{origin}:{error.lineno}: not valid JSON: {error.msg}",
                hint="a spack.lock that Spack wrote; is the file truncated?",
            ) from error
        except (RecursionError, ValueError) as error:
            raise InputError(f"{origin}: not valid JSON: nested too deeply, or a number too long") from error
        self.data = self.mapping(data, "the document")

    def fail(self, what: str, expected: str) -> InputError:
        what = "".join(character if character.isprintable() else "?" for character in what)[:300]
        return InputError(f"{self.origin}: {what}: expected {expected}", hint="the file is not as Spack writes it")

    def mapping(self, value: Any, what: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(what, "a mapping")
        return value

    def text(self, value: Any, what: str) -> str:
        if not isinstance(value, str) or not value or not value.isprintable():
            raise self.fail(what, "one line of text")
        return value

    def items(self, value: Any, what: str) -> list[Any]:
        if not isinstance(value, list):
            raise self.fail(what, "a list")
        return value

    def version(self) -> int:
        meta = self.mapping(self.data.get("_meta"), "_meta")
        if meta.get("file-type", "spack-lockfile") != "spack-lockfile":
            raise self.fail("_meta:file-type", "spack-lockfile")
        version = meta.get("lockfile-version")
        if isinstance(version, bool) or not isinstance(version, int):
            raise self.fail("_meta:lockfile-version", "a number")
        if version not in VERSIONS:
            newer = version > VERSIONS[-1]
            hint = (
                "update hpc3build" if newer else "let a Spack of 0.18 or newer read the environment and write it anew"
            )
            raise InputError(
                f"{self.origin}: spack.lock of version {version}; versions {VERSIONS[0]} to {VERSIONS[-1]} can be read",
                hint=hint,
            )
        return version

    def stack(self) -> Stack:
        version = self.version()
        nodes = self.mapping(self.data.get("concrete_specs"), "concrete_specs")
        for key in nodes:
            self.text(key, "concrete_specs")
        roots = {}
        for root in self.items(self.data.get("roots"), "roots"):
            digest = self.text(self.mapping(root, "roots").get("hash"), "roots:hash")
            if digest not in nodes:
                raise self.fail(f"the root {digest}", "a node of concrete_specs")
            roots[digest] = True
        edges = {key: tuple(self.edges(key, self.mapping(node, key), nodes)) for key, node in nodes.items()}
        provided = _provided(edges)
        packages = tuple(
            self.package(key, node, edges, provided.get(key, ()), key in roots, nodes) for key, node in nodes.items()
        )
        spack = self.data.get("spack")
        made_by = spack.get("version") if isinstance(spack, dict) else None
        return Stack(
            manager="spack",
            manager_version=made_by if isinstance(made_by, str) else None,
            packages=packages,
            origin=self.origin,
            virtual_edges=version > 4,
        )

    def edges(self, key: str, node: Mapping[str, Any], nodes: Mapping[str, Any]) -> Iterator[Dependency]:
        for edge in self.items(node.get("dependencies", []), f"{key}: dependencies"):
            edge = self.mapping(edge, f"{key}: dependencies")
            target = self.text(edge.get("hash"), f"{key}: dependencies: hash")
            if target not in nodes:
                raise self.fail(f"{key}: dependency {edge.get('name')}/{target}", "a node of concrete_specs")
            parameters = self.mapping(edge.get("parameters", {}), f"{key}: dependencies: parameters")
            kinds = self.items(parameters.get("deptypes", edge.get("type", [])), f"{key}: dependencies: deptypes")
            virtuals = self.items(parameters.get("virtuals", []), f"{key}: dependencies: virtuals")
            yield Dependency(package=target, kinds=frozenset(map(str, kinds)), virtuals=tuple(map(str, virtuals)))

    def package(
        self,
        key: str,
        node: Mapping[str, Any],
        edges: Mapping[str, tuple[Dependency, ...]],
        virtuals: tuple[str, ...],
        root: bool,
        nodes: Mapping[str, Any],
    ) -> Package:
        name = self.text(node.get("name"), f"{key}: name")
        version = self.text(node.get("version"), f"{name}/{key}: version")
        arch = self.mapping(node.get("arch"), f"{name}/{key}: arch")
        target = arch.get("target")
        if isinstance(target, dict):
            target = target.get("name")
        os = arch.get("platform_os")
        external = node.get("external")
        return Package(
            id=key,
            name=name,
            version=version,
            origin=f"{self.label}: {name}@{version}/{key[:7]}",
            target=self.text(target, f"{name}/{key}: arch: target"),
            os=os if isinstance(os, str) else None,
            compiler=self.compiler(key, node, edges, nodes),
            variants=self.variants(name, node),
            dependencies=edges[key],
            virtuals=virtuals,
            external=isinstance(external, dict) and bool(external),
            root=root,
        )

    def compiler(
        self, key: str, node: Mapping[str, Any], edges: Mapping[str, tuple[Dependency, ...]], nodes: Mapping[str, Any]
    ) -> str | None:
        """``gcc@12.2.0`` from the attribute (to version 5), or from the edge that stands for c (from version 6)."""
        compiler = node.get("compiler")
        for edge in edges[key] if compiler is None else ():
            if set(edge.virtuals) & set(_COMPILER_VIRTUALS):
                compiler = nodes[edge.package]
                break
        if compiler is None:
            return None
        compiler = self.mapping(compiler, f"{key}: compiler")
        name, version = (self.text(compiler.get(part), f"{key}: compiler: {part}") for part in ("name", "version"))
        return f"{name}@{version}"

    def variants(self, name: str, node: Mapping[str, Any]) -> Mapping[str, Variant]:
        found: dict[str, Variant] = {}
        for variant, value in self.mapping(node.get("parameters", {}), f"{name}: parameters").items():
            if isinstance(value, list):
                found[variant] = tuple(map(str, value))
            elif isinstance(value, bool | str):
                found[variant] = value
        return MappingProxyType(found)


def _provided(edges: Mapping[str, tuple[Dependency, ...]]) -> dict[str, tuple[str, ...]]:
    """The virtuals that each node stands for on the edges that lead to it."""
    found: dict[str, set[str]] = {}
    for dependencies in edges.values():
        for edge in dependencies:
            found.setdefault(edge.package, set()).update(edge.virtuals)
    return {key: tuple(sorted(virtuals)) for key, virtuals in found.items()}


def read_lock(text: str, origin: str) -> Stack:
    """The Stack of a spack.lock's text; ``origin`` is the file's name for messages.

    Raises InputError for JSON that Spack did not write, and for versions that cannot be read. Source: Spack's
    lib/spack/spack/environment/environment.py (lockfile formats).
    """
    reader = _Reader(origin, text)
    stack = reader.stack()
    if not stack.roots:
        raise InputError(f"{origin}: the lock has no roots", hint="add specs to the environment and concretize it")
    return stack
