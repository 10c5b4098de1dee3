"""Fabric and process management of the MPI providers in use (rule R5)."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from hpc3build.facts import Fact, Source, Statement, mpi
from hpc3build.facts import vocabulary as voc
from hpc3build.mpinames import PROVIDERS
from hpc3build.stack import Package, Stack

#: Values of Spack's variants ``fabrics``, ``netmod`` and ``device``; every other value says nothing.
FRAMEWORKS = MappingProxyType(
    {
        "ofi": "libfabric",
        "nemesisofi": "libfabric",
        "ucx": "ucx",
        "nemesisucx": "ucx",
        "verbs": "verbs",
        "mrail": "verbs",
        "sock": "tcp",
        "tcp": "tcp",
        "psm2": "psm2",
    }
)
_VARIANTS = ("fabrics", "netmod", "device")
#: EasyBuild's modules, by name.
_MODULES = MappingProxyType({"UCX": "ucx", "libfabric": "libfabric"})
#: Values of MPICH's variant ``pmi`` and of MVAPICH2's ``pmi_version``; PMIx is known by its package, with its version.
_PMI = MappingProxyType({"pmi": "1", "pmi1": "1", "pmi2": "2"})
_PMI_VARIANTS = ("pmi", "pmi_version")


def from_stack(stack: Stack) -> Iterator[Statement]:
    """R5 for the union of the providers in use by R3; the PMI flavours that they were built for."""
    providers = mpi.use(stack).providers
    frameworks: dict[str, str] = {}
    flavours: dict[str, str] = {}
    for provider in providers:
        for framework, evidence in _frameworks(stack, provider):
            frameworks.setdefault(framework, evidence)
        for flavour, evidence in _pmi(stack, provider):
            flavours.setdefault(flavour, evidence)
    for key, found in ((voc.FRAMEWORK, frameworks), (voc.PMI, flavours)):
        if found:
            yield Fact(key, ",".join(sorted(found)), Source.STACK, "; ".join(dict.fromkeys(found.values())))


def _frameworks(stack: Stack, provider: Package) -> Iterator[tuple[str, str]]:
    for variant in _VARIANTS:
        value = provider.variants.get(variant)
        for word in value if isinstance(value, tuple) else (value,):
            if isinstance(word, str) and word in FRAMEWORKS:
                yield FRAMEWORKS[word], f"{provider.origin} {variant}={word}"
    if PROVIDERS.get(provider.name) == PROVIDERS["impi"]:
        # R5 ends here for it: EasyBuild gives impi a UCX beside its libfabric, which is one way to reach a network.
        yield "libfabric", f"{provider.origin}: Intel MPI runs over libfabric"
    elif stack.manager == "easybuild":
        for _, package in stack.edges(provider):
            if package.name in _MODULES:
                yield _MODULES[package.name], f"{provider.origin} depends on {package.origin}"


def _pmi(stack: Stack, provider: Package) -> Iterator[tuple[str, str]]:
    for variant in _PMI_VARIANTS:
        says = provider.variants.get(variant)
        if isinstance(says, str) and says in _PMI:
            yield _PMI[says], f"{provider.origin} {variant}={says}"
    for _, package in stack.edges(provider):
        if package.name.lower() == "pmix":
            version = f"-{package.version}" if voc.is_version(package.version) else ""
            yield f"pmix{version}", f"{provider.origin} depends on {package.origin}"
