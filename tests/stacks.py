"""Small stacks written by hand, for the rules about them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hpc3build.facts import Conflict, Fact, Key, Note
from hpc3build.stack import Dependency, Package, Stack

LINK, RUN, BUILD, TOOLCHAIN = (frozenset({kind}) for kind in ("link", "run", "build", "toolchain"))


def pkg(spec: str, *needs: str, root: bool = False, **fields: Any) -> Package:
    """A package from ``name@version``; each of ``needs`` is ``name``, ``build:name``, ``link:name=virtual,virtual``."""
    name, _, version = spec.partition("@")
    edges = []
    for need in needs:
        kind, _, rest = need.rpartition(":")
        leads_to, _, virtuals = rest.partition("=")
        edges.append(
            Dependency(
                package=leads_to,
                kinds=frozenset((kind or "link").split("+")),
                virtuals=tuple(virtuals.split(",")) if virtuals else (),
            )
        )
    fields.setdefault("id", name)
    fields["variants"] = MappingProxyType(fields.get("variants", {}))
    return Package(
        name=name, version=version or None, origin=f"test: {spec}", dependencies=tuple(edges), root=root, **fields
    )


def root(spec: str, *needs: str, **fields: Any) -> Package:
    """A root of the stack."""
    return pkg(spec, *needs, root=True, **fields)


def stack(*packages: Package, **fields: Any) -> Stack:
    """A stack of Spack's, with lock version 5's edges, unless ``fields`` say otherwise."""
    known = {"manager": "spack", "manager_version": "1.0.0", "origin": "spack.lock", **fields}
    return Stack(packages=packages, **known)


def eb(*packages: Package, options: Mapping[str, str] | None = None) -> Stack:
    """A stack of EasyBuild's."""
    return stack(
        *packages, manager="easybuild", manager_version="5.4.1", origin="x.eb", options=MappingProxyType(options or {})
    )


def values(statements: Any) -> dict[Key, str]:
    """The facts among statements, by key; every key at most once, every fact in its grammar and with evidence."""
    found: dict[Key, str] = {}
    for statement in statements:
        if isinstance(statement, Fact):
            assert statement.key not in found
            assert statement.evidence
            statement.key.check(statement.value)
            found[statement.key] = statement.value
    return found


def notes(statements: Any) -> list[Key]:
    """The keys of the notes."""
    return [statement.key for statement in statements if isinstance(statement, Note)]


def conflicts(statements: Any) -> dict[Key, set[str]]:
    """The values in conflict, by key."""
    return {
        statement.key: {fact.value for fact in statement.values}
        for statement in statements
        if isinstance(statement, Conflict)
    }
