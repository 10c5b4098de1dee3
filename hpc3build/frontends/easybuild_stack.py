"""The resolver's document as a Stack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from hpc3build.facts import cpu
from hpc3build.frontends import easybuild_flags as flags
from hpc3build.frontends.easybuild_graph import full_version, identity
from hpc3build.frontends.easybuild_resolve import PINNED
from hpc3build.stack import Dependency, Package, Stack, Toolchain, Variant


def stack_of_closure(
    closure: Mapping[str, Any], *, target: str | None = None, capabilities: str | None = None
) -> Stack:
    """The closure's modules and edges. Modules of the SYSTEM toolchain take no target.

    ``target`` is what the build is given; ``native`` is decided in the builder, and so unknown here.
    """
    native = target == flags.NATIVE
    if native:
        target = None
    modules = closure["modules"]
    ids = {identity(module): module["module"] for module in modules}
    by_version = {(module["name"], full_version(module)): module["module"] for module in modules}
    roots = set(closure["roots"])
    told = told_capabilities(modules, roots, capabilities)
    externals: dict[str, Package] = {}
    packages = [_package(module, ids, by_version, externals, module["module"] in roots, target) for module in modules]
    if told:
        packages = [replace(each, capabilities=told.get(each.id, each.capabilities)) for each in packages]
    capabilities = None if told else capabilities or _capabilities_of(closure)
    options = {"target": target, "cuda_compute_capabilities": capabilities, "native": "true" if native else None}
    return Stack(
        manager="easybuild",
        manager_version=closure.get("easybuild_version") or PINNED,
        packages=(*packages, *externals.values()),
        origin=", ".join(sorted(roots)),
        options=MappingProxyType({name: value for name, value in options.items() if value}),
    )


def _capabilities_of(closure: Mapping[str, Any]) -> str | None:
    """What eb itself was told, in the document of the hooks; the resolver is told nothing."""
    told = (closure.get("easybuild_options") or {}).get("cuda_compute_capabilities")
    return ",".join(map(str, told)) if isinstance(told, list) and told else None


def told_capabilities(
    modules: Iterable[Mapping[str, Any]], roots: Iterable[str], for_all: str | None
) -> dict[str, tuple[str, ...]]:
    """By root what it is built for, where an easystack tells one of them; empty where all are told the same, or none.

    ``for_all`` is what the command line gives to those that are told nothing.
    """
    roots = set(roots)
    told = {
        module["module"]: (module.get("told") or {}).get("cuda_compute_capabilities") or for_all
        for module in modules
        if module["module"] in roots
    }
    if all(value == for_all for value in told.values()):
        return {}
    return {name: tuple(value.split(",")) for name, value in told.items() if value}


def _package(
    module: Mapping[str, Any],
    ids: Mapping[tuple[str, str, str, str], str],
    by_version: Mapping[tuple[str, str], str],
    externals: dict[str, Package],
    root: bool,
    target: str | None,
) -> Package:
    edges = []
    for kind, listed in (("run", module["deps"]), ("build", module["builddeps"])):
        for dependency in listed:
            leads_to = ids.get(identity(dependency)) or by_version.get((dependency["name"], full_version(dependency)))
            if leads_to is None:
                leads_to = f"{dependency['name']}/{full_version(dependency)}"
                externals[leads_to] = Package(
                    id=leads_to,
                    name=dependency["name"],
                    version=dependency["version"],
                    origin=f"external module {leads_to}",
                    external=True,
                )
            edges.append(Dependency(package=leads_to, kinds=frozenset({kind})))
    toolchain = module.get("toolchain") or {}
    name, version = str(toolchain.get("name", "system")), str(toolchain.get("version", ""))
    with_code = name.lower() != "system" and module.get("moduleclass") != "toolchain"
    if name.lower() != "system" and (leads_to := by_version.get((name, version))):
        edges.append(Dependency(package=leads_to, kinds=frozenset({"toolchain"})))
    own, unmapped = flags.own_target(module) if with_code else (None, "")
    its, whose = flags.own_flags(module)
    if target and its == flags.GENERIC:
        own = cpu.family(target)
    decided = whose if own else f"--target {target}" if target else ""
    if with_code and module.get("built"):
        own, unmapped = flags.built_target(module)
        decided = f"built with {module['built'].get('CFLAGS', '')}"
    return Package(
        id=module["module"],
        name=module["name"],
        version=None if module["version"] == "system" else module["version"],
        origin=module["easyconfig"],
        target=(own or target) if with_code and not unmapped else None,
        target_origin=decided,
        unmapped_flags=unmapped,
        compilers=(flags.compiler_of(module),) if with_code else (),
        variants=_variants(module),
        dependencies=tuple(edges),
        toolchain=Toolchain(
            name=name,
            version=version,
            mpi_family=module.get("mpi_family"),
            mpi_modules=tuple(module.get("mpi_module") or ()),
        ),
        capabilities=tuple(module.get("cuda_compute_capabilities") or ()) if root else (),
        is_toolchain=module.get("moduleclass") == "toolchain",
        root=root,
    )


def _variants(module: Mapping[str, Any]) -> Mapping[str, Variant]:
    options = module.get("toolchainopts") or {}
    return MappingProxyType({name: value for name, value in options.items() if isinstance(value, bool | str)})
