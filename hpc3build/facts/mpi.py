"""MPI (rule R3): whether the roots use it, whose it is, and the libmpi that their binaries really need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hpc3build.facts import Fact, Note, Source, Statement
from hpc3build.facts import vocabulary as voc
from hpc3build.mpinames import PROVIDERS
from hpc3build.stack import Package, Stack

#: EasyBuild's toolchain classes name NVHPC as their MPI module where HPC-X lies inside the SDK; as a mere compiler (its
#: moduleclass until 24.11) it provides none, so its presence alone says nothing.
_ONLY_BY_TOOLCHAIN = frozenset({"NVHPC"})


@dataclass(frozen=True)
class Use:
    """What R3 says of a stack: the providers in use, or the roots for which it cannot say."""

    providers: tuple[Package, ...]
    undecided: tuple[tuple[Package, Package | None], ...]


def use(stack: Stack) -> Use:
    """R3 over all roots."""
    providers: dict[str, Package] = {}
    undecided: list[tuple[Package, Package | None]] = []
    for root in stack.roots:
        found = _of_module(stack, root) if stack.manager == "easybuild" else _of_spec(stack, root)
        providers.update((package.id, package) for package in found.providers)
        undecided.extend(found.undecided)
    return Use(tuple(providers.values()), tuple(undecided))


def provides(package: Package) -> bool:
    """Whether ``package`` is a provider of the virtual ``mpi``."""
    return "mpi" in package.virtuals or (package.name in PROVIDERS and package.name not in _ONLY_BY_TOOLCHAIN)


def _of_spec(stack: Stack, root: Package) -> Use:
    if provides(root):
        return Use((root,), ())
    if stack.virtual_edges:
        direct = tuple(package for edge, package in stack.edges(root) if "mpi" in edge.virtuals)
    else:
        direct = tuple(package for _, package in stack.edges(root) if provides(package))
    if direct:
        return Use(direct, ())
    says = root.variants.get("mpi")
    if says is False:
        return Use((), ())
    below = tuple(package for package in stack.runtime_closure(root) if provides(package))
    if says is True and below:
        return Use(below, ())
    if says is True or below:
        return Use((), ((root, below[0] if below else None),))
    return Use((), ())


def _of_module(stack: Stack, root: Package) -> Use:
    closure = {package.name: package for package in stack.runtime_closure(root)}
    if provides(root) or (root.is_toolchain and root.name in _ONLY_BY_TOOLCHAIN):
        return Use((root,), ())
    if root.is_toolchain:
        return Use(tuple(package for package in closure.values() if provides(package)), ())
    toolchain = root.toolchain
    if toolchain is None or not toolchain.mpi_modules:
        below = next((package for package in closure.values() if provides(package)), None)
        return Use((), ((root, below),) if below else ())
    modules = tuple(closure[name] for name in toolchain.mpi_modules if name in closure)
    if root.variants.get("usempi") is True and modules:
        return Use(modules, ())
    return Use((), ((root, modules[0] if modules else None),))


def from_stack(stack: Stack) -> Iterator[Statement]:
    """R3 as facts: families, implementations and, with one provider, its version; or ``none``; or a note."""
    found = use(stack)
    if found.providers:
        yield from _used(found.providers)
    elif found.undecided:
        for root, provider in found.undecided:
            reason = f"{provider.name} lies below it" if provider else "it says +mpi, and no provider is in its closure"
            yield Note(
                voc.MPI,
                f"{root.name} does not say whether it uses MPI, and {reason}: left to evidence",
                (provider or root).origin,
            )
    elif stack.roots:
        yield from _none(stack)


def _used(providers: tuple[Package, ...]) -> Iterator[Statement]:
    known = [(package, PROVIDERS[package.name]) for package in providers if package.name in PROVIDERS]
    for package in providers:
        if package.name not in PROVIDERS:
            yield Note(voc.MPI, f"{package.name} provides MPI and is not in the table of providers", package.origin)
    if len(known) < len(providers):
        return
    evidence = "; ".join(package.origin for package in providers)
    families = sorted({provider.family for _, provider in known if provider.family})
    if families:
        yield Fact(voc.MPI, ",".join(families), Source.STACK, evidence)
    implementations = sorted({provider.implementation for _, provider in known})
    yield Fact(voc.MPI_IMPLEMENTATION, ",".join(implementations), Source.STACK, evidence)
    version = providers[0].version
    alone = len({(package.name, package.version) for package in providers}) == 1
    if alone and providers[0].name not in _ONLY_BY_TOOLCHAIN and voc.is_version(version):
        yield Fact(voc.MPI_VERSION, version, Source.STACK, evidence)


def _none(stack: Stack) -> Iterator[Statement]:
    thread = [root for root in stack.roots if root.name == "gromacs" and root.variants.get("mpi") is False]
    said = [root for root in stack.roots if root.variants.get("mpi") is False]
    evidence = "; ".join(f"{root.origin} ~mpi" for root in said) or f"{stack.origin}: no MPI in the run-time closure"
    yield Fact(voc.MPI, "none", Source.STACK, evidence)
    implementation = "threadmpi" if thread else "none"
    yield Fact(
        voc.MPI_IMPLEMENTATION,
        implementation,
        Source.STACK,
        f"{thread[0].origin} ~mpi brings its own thread-MPI" if thread else evidence,
    )
