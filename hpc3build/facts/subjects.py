"""All subjects together: the facts of a stack, and those of an image's files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from hpc3build.evidence.image import Evidence
from hpc3build.facts import (
    Conflict,
    Fact,
    Facts,
    Key,
    Note,
    Source,
    Statement,
    cpu,
    declared,
    fabric,
    fabric_found,
    gather,
    gpu,
    gpu_found,
    libc,
    licences,
    mpi,
    mpi_found,
    provenance,
    system,
)
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.agreement import agree
from hpc3build.stack import Stack

_OF_STACK = (cpu.from_stack, gpu.from_stack, mpi.from_stack, fabric.from_stack, libc.from_stack)
_OF_FILES = (
    system.from_files,
    libc.from_files,
    mpi_found.from_files,
    fabric_found.from_files,
    gpu_found.from_files,
)


def of_stack(stack: Stack, *, folder: str = "", said: tuple[Statement, ...] = ()) -> Facts:
    """What rules R1–R7 say of a stack; ``said`` are statements of the user, which win."""
    statements: list[Statement] = list(said)
    for subject in _OF_STACK:
        statements += subject(stack)
    statements += provenance.from_stack(stack, folder=folder)
    facts = gather(statements, agree)
    return gather([*statements, *_least_driver(facts)], agree)


def _least_driver(facts: Facts) -> Iterator[Fact]:
    """Of what uses CUDA, by all that is known of it."""
    doubted = {conflict.key for conflict in facts.conflicts}
    uses_cuda = voc.GPU not in doubted and "cuda" in (facts.value(voc.GPU) or "cuda").split(",")
    cuda, code = facts.get(voc.CUDA_VERSION), facts.get(voc.GPU_ARCHITECTURE)
    if uses_cuda and cuda is not None and code is not None:
        # What follows from the user's word is no finding's to contradict.
        decided = replace(cuda, source=Source.USER) if code.source is Source.USER else cuda
        yield from gpu_found.driver(decided, code.value)


def wanted(path: str) -> int | None:
    """Bytes to read of a file in an image: the most that any subject asks for."""
    asked = (subject.wanted(path) for subject in (system, gpu_found, licences))
    return max((count for count in asked if count is not None), default=None)


def of_image(evidence: Evidence, stack: Stack | None, labels: Mapping[str, str]) -> Facts:
    """What an image's own records, files and labels say. The better source wins, and disagreement is a conflict."""
    statements: list[Statement] = list(of_labels(labels))
    told = {statement.key for statement in statements if isinstance(statement, Fact)}
    if stack is not None:
        for subject in _OF_STACK:
            statements += subject(stack)
        # Title and version of the image are its publisher's word, where there is one.
        statements += [
            statement
            for statement in provenance.from_stack(stack)
            if isinstance(statement, Fact) and statement.key not in told
        ]
        statements += licences.of_roots(evidence.files, stack)
    decided = {
        statement.key for statement in statements if isinstance(statement, Fact) and statement.source > Source.FILES
    }
    # With layers unread any list may be short, and any greatest number too small.
    for found in _OF_FILES if evidence.complete else (system.distribution,):
        statements += (_no_conflict(statement, decided) for statement in found(evidence))
    statements += declared.statements(evidence.env, labels)
    statements += declared.of_builder(evidence.history, labels)
    statements += [Note(voc.MPI_VERSION, f"its packages are not known: {why}", path) for path, why in evidence.unread]
    facts = gather(statements, agree)
    derived = [*declared.of_mpi(labels, facts), *mpi_found.from_history(evidence, facts), *_least_driver(facts)]
    return gather([*statements, *derived], agree) if derived else facts


def _no_conflict(statement: Statement, decided: Collection[Key]) -> Statement:
    """Files that differ among themselves leave a better source's word alone."""
    if isinstance(statement, Conflict) and statement.key in decided:
        told = "; ".join(f"{fact.value} ({fact.evidence})" for fact in statement.values)
        return Note(statement.key, statement.message, told)
    return statement


def of_labels(labels: Mapping[str, str]) -> Iterator[Fact]:
    """Labels of the vocabulary, as the weakest kind of evidence (R10); what breaks a key's grammar says nothing."""
    for name, value in sorted(labels.items()):
        key = voc.BY_NAME.get(name)
        if key is not None and key.holds(value):
            yield Fact(key, value, Source.LABEL, f"label {name}")
