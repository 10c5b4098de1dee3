"""GPU run times, their versions and architectures (rule R4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hpc3build.facts import Conflict, Fact, Key, Note, Source, Statement, mpi
from hpc3build.facts import vocabulary as voc
from hpc3build.stack import Package, Stack

#: What a package may bring in without its user asking for a GPU.
TRANSPORTS = frozenset({"ucx", "libfabric", "hwloc", "UCX", "UCX-CUDA", "UCX-ROCm"})
_DIRECT = frozenset({"link", "run"})


@dataclass(frozen=True)
class Platform:
    """One row of LIST ``org.supercontainers.gpu``: the variant that asks for it, the packages that are its run time.

    ``carriers`` ship its run time beside other things: they forbid to say ``none`` and prove nothing.
    """

    name: str
    variant: str
    packages: frozenset[str]
    version: Key | None
    arch_variant: str
    virtual: str = ""
    carriers: frozenset[str] = frozenset()


PLATFORMS = (
    # NVIDIA's SDK bundles CUDA: easyconfigs of NVHPC without -CUDA- in their name have no other.
    Platform(
        "cuda",
        "cuda",
        frozenset({"cuda", "CUDA"}),
        voc.CUDA_VERSION,
        "cuda_arch",
        carriers=frozenset({"nvhpc", "NVHPC", "nvidia-compilers"}),
    ),
    Platform("rocm", "rocm", frozenset({"hip", "HIP"}), voc.ROCM_VERSION, "amdgpu_target"),
    Platform(
        "sycl",
        "sycl",
        frozenset(),
        None,
        "",
        virtual="sycl",
        carriers=frozenset({"intel-oneapi-compilers", "intel-oneapi-runtime", "intel-compilers"}),
    ),
)


def from_stack(stack: Stack) -> Iterator[Statement]:
    """R4 for every platform, then versions and architectures of those in use."""
    used: dict[Platform, str] = {}
    undecided = False
    for platform in PLATFORMS:
        if evidence := _used(stack, platform):
            used[platform] = evidence
        elif present := next((package for package in stack.counted if _carries(package, platform)), None):
            undecided = True
            yield Note(
                voc.GPU,
                f"{present.name} is in the closure, and no root is known to use it: left to evidence",
                present.origin,
            )
    if used:
        names = ",".join(sorted(platform.name for platform in used))
        yield Fact(voc.GPU, names, Source.STACK, "; ".join(dict.fromkeys(used.values())))
    elif not undecided and stack.roots:
        yield Fact(voc.GPU, "none", Source.STACK, f"{stack.origin}: no CUDA, HIP or SYCL run time in the closure")
    for platform in used:
        yield from _version(stack, platform)
    yield from _architectures(stack, tuple(used))


def _is_runtime(package: Package, platform: Platform) -> bool:
    return package.name in platform.packages or (bool(platform.virtual) and platform.virtual in package.virtuals)


def _carries(package: Package, platform: Platform) -> bool:
    return _is_runtime(package, platform) or package.name in platform.carriers


def _runtime(stack: Stack, platform: Platform) -> list[Package]:
    return [package for package in stack.counted if _is_runtime(package, platform)]


def _used(stack: Stack, platform: Platform) -> str:
    """The evidence of the first root that uses ``platform``, or an empty text."""
    barriers = TRANSPORTS | {package.name for package in stack.packages if mpi.provides(package)}
    for root in stack.roots:
        if _is_runtime(root, platform):
            return root.origin
        says = root.variants.get(platform.variant)
        if says is True:
            return f"{root.origin} +{platform.variant}"
        if says is False:
            continue
        for package in stack.runtime_closure(root, without=barriers, kinds=_DIRECT):
            if _is_runtime(package, platform):
                return f"{root.origin} reaches {package.origin}"
    return ""


def _version(stack: Stack, platform: Platform) -> Iterator[Statement]:
    if platform.version is None:
        return
    found = {package.version: package for package in _runtime(stack, platform) if voc.is_version(package.version)}
    facts = tuple(
        Fact(platform.version, version, Source.STACK, package.origin) for version, package in sorted(found.items())
    )
    if len(facts) > 1:
        versions = ", ".join(fact.value for fact in facts)
        yield Conflict(platform.version, facts, f"the stack holds {len(facts)} versions of {platform.name}: {versions}")
    else:
        yield from facts


def _architectures(stack: Stack, used: tuple[Platform, ...]) -> Iterator[Statement]:
    names: set[str] = set()
    evidence: list[str] = []
    for platform in used:
        sets = list(_arch_sets(stack, platform))
        if not sets:
            continue
        common = frozenset.intersection(*(found for found, _ in sets))
        if not common:
            facts = tuple(
                Fact(voc.GPU_ARCHITECTURE, ",".join(sorted(found)), Source.STACK, origin) for found, origin in sets
            )
            yield Conflict(voc.GPU_ARCHITECTURE, facts, "no GPU architecture is common to all packages that set one")
            return
        names |= common
        evidence.append(sets[0][1] + (f" and {len(sets) - 1} more" if len(sets) > 1 else ""))
    if names:
        yield Fact(voc.GPU_ARCHITECTURE, ",".join(sorted(names)), Source.STACK, "; ".join(evidence))


def _arch_sets(stack: Stack, platform: Platform) -> Iterator[tuple[frozenset[str], str]]:
    """The architectures that each package that counts sets, with where."""
    if stack.manager == "easybuild":
        if platform.name == "cuda":
            yield from _capabilities(stack)
        return
    for package in stack.counted:
        value = package.variants.get(platform.arch_variant)
        words = value if isinstance(value, tuple) else str(value).split(",") if isinstance(value, str) else ()
        found = _named(word for word in words if word.strip() not in ("none", "auto"))
        if found and not package.external:
            yield found, f"{package.origin} {platform.arch_variant}={','.join(sorted(words))}"


def _capabilities(stack: Stack) -> Iterator[tuple[frozenset[str], str]]:
    option = stack.options.get("cuda_compute_capabilities", "")
    if found := _named(option.split(",")):
        yield found, f"--cuda-compute-capabilities={option}"
        return
    for root in stack.roots:
        if found := _named(root.capabilities):
            yield found, f"{root.origin}: cuda_compute_capabilities"


def _named(words: Iterable[str]) -> frozenset[str]:
    return frozenset(architecture(word) for word in words if word.strip())


def architecture(text: str) -> str:
    """``80``, ``8.0`` → ``sm_80``, ``9.0a`` → ``sm_90a``; gfx names as they are."""
    text = text.strip()
    return f"sm_{text.replace('.', '')}" if re.match(r"\d", text) else text
