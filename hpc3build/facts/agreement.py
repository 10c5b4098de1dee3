"""Plan against finding (rule R9): what is a refinement, and what a contradiction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from hpc3build.errors import Contradiction
from hpc3build.facts import Conflict, Fact, Facts, Key, Note, Source, cpu, cpu_flags
from hpc3build.facts import vocabulary as voc
from hpc3build.stack import Stack

_VERSIONS = frozenset({voc.MPI_VERSION, voc.CUDA_VERSION, voc.ROCM_VERSION, voc.IMAGE_VERSION})
_OPEN_LISTS = frozenset({voc.FRAMEWORK, voc.MPI_MODE})


def agree(key: Key, plan: str, found: str) -> bool:
    """Whether ``found`` (in the image) leaves ``plan`` true."""
    if plan == found:
        return True
    if key in _VERSIONS:
        return _same_digits(plan, found)
    if key is voc.CPU_VERSION:
        return cpu.satisfies(plan, found) is not False
    if key is voc.CPU_MODE:
        return True
    one, other = set(plan.split(",")), set(found.split(","))
    if key is voc.GPU_ARCHITECTURE:
        return one <= other
    if key in (voc.MPI, voc.GPU):
        return other <= one
    if key in _OPEN_LISTS:
        # Neither side is a full list: variants name some ways to a network, libraries others.
        return one <= other or other <= one
    if key is voc.PMI:
        return all(_same_flavour(one, flavour) for flavour in other) or all(_same_flavour(other, word) for word in one)
    if key is voc.MPI_IMPLEMENTATION:
        return other <= one or (plan, found) == ("threadmpi", "none")
    return False


def _same_flavour(known: set[str], flavour: str) -> bool:
    """Whether ``flavour`` is in ``known``; PMIx of an unknown version is PMIx of any."""
    name, _, version = flavour.partition("-")
    return any((not version or each in (name, flavour)) for each in known if each.partition("-")[0] == name)


def _same_digits(plan: str, found: str) -> bool:
    """Versions compare on the digits that both give: 11.8 and 11.8.0 are one."""
    one, other = (re.findall(r"\d+", text) for text in (plan, found))
    common = min(len(one), len(other))
    return common > 0 and one[:common] == other[:common]


def of_packages(plan: Stack | None, found: Stack | None) -> list[str]:
    """Where the packages that are in an image are not those that were planned: each in words, with its flags.

    Code for a lower target than the planned one is no contradiction, nor are flags that some release of the compiler
    takes for the planned target and that archspec gives several targets.
    """
    if plan is None or found is None:
        return []
    told = []
    for package in plan.counted:
        there = found.by_id.get(package.id)
        if there is None:
            if plan.manager == "easybuild" and not package.external:
                told.append(f"{package.id}: planned, and not in the image")
        elif package.target is None:
            continue
        elif there.unmapped_flags and not cpu_flags.may_be_of(
            package.target, there.unmapped_flags, there.compilers[0].split("@")[0] if there.compilers else "gcc"
        ):
            told.append(
                f"{package.id}: planned for {package.target}, built with {there.unmapped_flags} ({there.origin})"
            )
        elif there.target and cpu.satisfies(package.target, there.target) is False:
            flags = there.target_origin or there.origin
            told.append(f"{package.id}: planned for {package.target}, built for {there.target} ({flags})")
    return told


def reconcile(plan: Facts, found: Facts, packages: Sequence[str] = ()) -> Facts:
    """The facts to write: the plan's, refined and completed by what was found; what the user decided stands.

    A note tells of what it stands over. ``packages`` are the contradictions of single packages. Raises Contradiction
    naming key, plan and finding for every pair that cannot both hold.
    """
    doubts = {conflict.key: conflict for conflict in found.conflicts if conflict.key in plan}
    contradictions = [*packages]
    for key, fact in plan.items():
        against = _files(doubts[key]) if key in doubts else (found[key],) if key in found else ()
        if (
            fact.source is not Source.USER
            and against
            and not any(agree(key, fact.value, each.value) for each in against)
        ):
            told = "; ".join(f"{each.value} ({each.evidence})" for each in against)
            contradictions.append(f"{key.name}: planned {fact.value} ({fact.evidence}), found {told}")
    if contradictions:
        raise Contradiction(
            "the image is not what the recipe planned:\n  " + "\n  ".join(contradictions),
            hint="nothing was published; mend the recipe, or the base that brought it in",
        )
    joined = {**found.facts, **{key: fact for key, fact in plan.items() if not _refined(fact, found)}}
    decided = {key for key in doubts if plan[key].source is Source.USER or _files(doubts[key])}
    unsettled = {each.key: each for each in (*plan.conflicts, *found.conflicts) if each.key not in decided}
    notes = [Note(key, doubts[key].message, plan[key].evidence) for key in doubts if key in decided]
    notes += _overruled(plan, found)
    return Facts(_without(joined, unsettled), tuple(unsettled.values()), (*plan.notes, *found.notes, *notes))


def _overruled(plan: Facts, found: Facts) -> Iterator[Note]:
    """What the user's word stands over, so that nobody publishes it unknowingly. Names and the like are that word."""
    for key, fact in plan.items():
        if fact.source is not Source.USER or key.subject == "provenance" or key not in found:
            continue
        there = found[key]
        # Of the user's word on the CPU nothing is a refinement: what was built is known better.
        same = fact.value == there.value if key.subject == "cpu" else agree(key, fact.value, there.value)
        if not same:
            told = f"the recipe says {fact.value} ({fact.evidence}), which stands, and the image says {there.value}"
            yield Note(key, told, there.evidence)


def _files(doubt: Conflict) -> tuple[Fact, ...]:
    """What the files of an image say where they differ, among themselves or from its records."""
    return tuple(fact for fact in doubt.values if fact.source is Source.FILES)


def _refined(planned: Fact, found: Facts) -> bool:
    """Whether the finding says more than the plan: additional architectures, more digits of a version."""
    key = planned.key
    if key not in found or planned.source is Source.USER:
        return False
    if key in _VERSIONS:
        return len(re.findall(r"\d+", found[key].value)) > len(re.findall(r"\d+", planned.value))
    return key is voc.GPU_ARCHITECTURE and found[key].value != planned.value


def _without(facts: dict[Key, Fact], conflicts: Mapping[Key, Conflict]) -> Mapping[Key, Fact]:
    return MappingProxyType({key: fact for key, fact in facts.items() if key not in conflicts})
