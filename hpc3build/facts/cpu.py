"""CPU target (rules R1 and R2): what every host must satisfy to run what counts of a stack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

from hpc3build.errors import InputError
from hpc3build.facts import Conflict, Fact, Note, Source, Statement
from hpc3build.facts import vocabulary as voc
from hpc3build.stack import Package, Stack

if TYPE_CHECKING:
    from archspec.cpu import Microarchitecture


#: uname -m by GOARCH, which other tools write for a target, too.
MACHINES = MappingProxyType(
    {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "ppc64le", "riscv64": "riscv64", "s390x": "s390x", "386": "i686"}
)
#: Targets of amd64's variants (image-spec, image-index.md).
VARIANTS = MappingProxyType({"v1": "x86_64", "v2": "x86_64_v2", "v3": "x86_64_v3", "v4": "x86_64_v4"})


def microarchitecture(name: str) -> Microarchitecture | None:
    """archspec's description of the target ``name``, None when archspec does not know it."""
    from archspec.cpu import TARGETS

    return TARGETS.get(name)


def known(name: str) -> str:
    """``name`` when archspec knows it. Raises InputError with the nearest names otherwise."""
    import difflib

    from archspec.cpu import TARGETS

    if name in TARGETS:
        return name
    near = difflib.get_close_matches(name, list(TARGETS), n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "names are archspec's: x86_64_v3, zen3, neoverse_v1, …"
    raise InputError(f"{name!r} is not a CPU target that archspec knows", hint=hint)


def mode(target: str) -> str | None:
    """``generic`` or ``microarch``; None for a target that archspec does not know."""
    found = microarchitecture(target)
    if found is None:
        return None
    return "generic" if found.vendor == "generic" else "microarch"


def family(target: str) -> str:
    """The generic target of its kind (``x86_64``, ``aarch64``); ``target`` itself where archspec does not know it."""
    found = microarchitecture(target)
    return str(found.family) if found else target


def satisfies(one: str, other: str) -> bool | None:
    """Whether every CPU of target ``one`` runs code for ``other``; None when archspec knows one of them not."""
    left, right = microarchitecture(one), microarchitecture(other)
    if left is None or right is None:
        return True if one == other else None
    return bool(left >= right)


def highest(targets: Iterable[str]) -> tuple[str, ...]:
    """The maximal elements in archspec's order: one when it can order them all."""
    names = sorted(set(targets))
    return tuple(name for name in names if not any(other != name and satisfies(other, name) is True for other in names))


def facts_of(target: str, source: Source, evidence: str) -> Iterator[Fact]:
    """The two facts that a target gives."""
    yield Fact(voc.CPU_VERSION, target, source, evidence)
    if (found := mode(target)) is not None:
        yield Fact(voc.CPU_MODE, found, source, f"archspec: {target}; {evidence}")


def from_stack(stack: Stack) -> Iterator[Statement]:
    """R2: the highest target of the non-external packages that count; two that cannot be ordered are a conflict."""
    packages = [package for package in stack.counted if not package.external]
    unmapped = [package for package in packages if package.unmapped_flags]
    if unmapped:
        first = unmapped[0]
        yield Note(
            voc.CPU_VERSION,
            f"the flags {first.unmapped_flags!r} of {first.name} name no CPU target that "
            "archspec knows, so the target of the whole is unknown",
            first.origin,
        )
        return
    by_target: dict[str, list[Package]] = {}
    for package in packages:
        if package.target is not None:
            by_target.setdefault(package.target, []).append(package)
    top = highest(by_target)
    if len(top) > 1:
        statements = [tuple(facts_of(target, Source.STACK, _evidence(by_target[target]))) for target in top]
        message = f"the targets {' and '.join(top)} cannot be ordered: no host is known to run both"
        yield Conflict(voc.CPU_VERSION, tuple(facts[0] for facts in statements), message)
        yield Conflict(voc.CPU_MODE, tuple(facts[1] for facts in statements if len(facts) > 1), message)
    elif top:
        yield from facts_of(top[0], Source.STACK, _evidence(by_target[top[0]]))
    elif target := stack.options.get("target"):
        yield from facts_of(target, Source.STACK, f"the build is for --target {target}")
    elif stack.options.get("native"):
        yield Note(voc.CPU_VERSION, "native is decided by archspec in the builder: known after the build", stack.origin)


def _evidence(packages: list[Package]) -> str:
    first = next((package for package in packages if package.root), packages[0])
    others = f" and {len(packages) - 1} more" if len(packages) > 1 else ""
    decided = f" ({first.target_origin})" if first.target_origin else ""
    return f"{first.origin}{others}: target {first.target}{decided}"
