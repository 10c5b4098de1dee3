"""A concretized software stack, whoever made it: Spack's concrete specs and EasyBuild's closures both end here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

Variant = bool | str | tuple[str, ...]
NO_VARIANTS: Mapping[str, Variant] = MappingProxyType({})

#: Edges over which a package counts at run time (rule R1). An EasyBuild toolchain is a run-time edge of its own kind,
#: because some rules ask whether a package is reached only through it.
RUNTIME_KINDS = frozenset({"link", "run", "toolchain"})


@dataclass(frozen=True, kw_only=True)
class Dependency:
    """An edge: ``package`` is the id of the package it leads to, ``kinds`` of build, link, run, toolchain."""

    package: str
    kinds: frozenset[str]
    virtuals: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """EasyBuild's toolchain of one module; ``mpi_family`` and ``mpi_modules`` come from its instance."""

    name: str
    version: str
    mpi_family: str | None = None
    mpi_modules: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Package:
    """One concrete node.

    ``id`` is unique in its stack (Spack's DAG hash, EasyBuild's module name). ``version`` and ``target`` (an archspec
    name) are None where the package manager does not say; a package with neither target nor ``unmapped_flags`` holds
    no code of a chosen target. ``unmapped_flags`` are compiler flags that decide the target and that archspec does not
    know. ``virtuals`` are the interfaces that the package provides. ``origin`` is where it was read, for evidence
    texts: ``spack.lock: openmpi@4.1.5/abc1234``; ``target_origin`` says what decided the target where that is not the
    node itself. ``capabilities`` are an easyconfig's own CUDA compute capabilities.
    ``prefix`` is where an image has it, as an absolute path. ``compilers`` are those of its C, C++ and Fortran, as
    ``gcc@12.2.0``.
    """

    id: str
    name: str
    version: str | None
    origin: str
    target: str | None = None
    target_origin: str = ""
    unmapped_flags: str = ""
    os: str | None = None
    compilers: tuple[str, ...] = ()
    variants: Mapping[str, Variant] = field(default_factory=lambda: NO_VARIANTS)
    dependencies: tuple[Dependency, ...] = ()
    virtuals: tuple[str, ...] = ()
    toolchain: Toolchain | None = None
    capabilities: tuple[str, ...] = ()
    is_toolchain: bool = False
    prefix: str | None = None
    external: bool = False
    root: bool = False

    def says(self, variant: str, value: str) -> bool:
        """Whether the list or string variant holds ``value``."""
        found = self.variants.get(variant)
        return value in found if isinstance(found, tuple) else found == value


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What the package manager decided.

    ``manager`` is ``spack`` or ``easybuild``; ``origin`` names the file or image it was read from; ``options`` are
    the settings of the whole build (``target``, ``native``, ``cuda_compute_capabilities``).
    ``virtual_edges`` says whether edges
    name the virtuals they stand for (Spack's lock version 5 on), so that providers need not be guessed by name.
    """

    manager: str
    manager_version: str | None
    packages: tuple[Package, ...]
    origin: str
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    virtual_edges: bool = True

    @cached_property
    def by_id(self) -> Mapping[str, Package]:
        return MappingProxyType({package.id: package for package in self.packages})

    @cached_property
    def roots(self) -> tuple[Package, ...]:
        return tuple(package for package in self.packages if package.root)

    @cached_property
    def counted(self) -> tuple[Package, ...]:
        """The packages that count (R1): reachable from the roots over link and run edges, in the stack's order."""
        seen: set[str] = set()
        for root in self.roots:
            seen.update(package.id for package in self.runtime_closure(root))
        return tuple(package for package in self.packages if package.id in seen)

    def edges(self, package: Package, kinds: frozenset[str] = RUNTIME_KINDS) -> Iterator[tuple[Dependency, Package]]:
        """The edges of these kinds that leave ``package``, with where they lead."""
        for dependency in package.dependencies:
            if dependency.kinds & kinds:
                yield dependency, self.by_id[dependency.package]

    def runtime_closure(
        self, start: Package, *, without: frozenset[str] = frozenset(), kinds: frozenset[str] = RUNTIME_KINDS
    ) -> tuple[Package, ...]:
        """``start`` and all it reaches over edges of ``kinds``, never passing through packages named in ``without``."""
        seen = {start.id: start}
        queue = [start]
        while queue:
            for _, package in self.edges(queue.pop(), kinds):
                if package.id not in seen:
                    seen[package.id] = package
                    if package.name not in without:
                        queue.append(package)
        return tuple(seen.values())
