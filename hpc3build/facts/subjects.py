"""All subjects together: the facts of a stack, and those of an image's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from hpc3build.errors import InputError
from hpc3build.evidence.elf import read_elf
from hpc3build.evidence.layers import ImageFile, ImageFiles
from hpc3build.facts import Fact, Facts, Key, Source, Statement, cpu, fabric, gather, gpu, libc, mpi, provenance, system
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.agreement import agree
from hpc3build.stack import Stack

_OF_STACK = (cpu.from_stack, gpu.from_stack, mpi.from_stack, fabric.from_stack, libc.from_stack)
#: .dynamic lies near a file's end: of 1,084 real libraries 11 are larger, and say less.
MAX_BINARY = 16 << 20


def of_stack(stack: Stack, *, folder: str = "", said: tuple[Statement, ...] = ()) -> Facts:
    """What rules R1–R7 say of a stack; ``said`` are statements of the user, which win."""
    statements: list[Statement] = list(said)
    for subject in _OF_STACK:
        statements += subject(stack)
    statements += provenance.from_stack(stack, folder=folder)
    return gather(statements, agree)


def wanted(path: str) -> int | None:
    """Bytes to read of a file in an image: the most that any subject asks for."""
    asked = [libc.wanted(path), system.wanted(path)]
    if mpi.is_libmpi(path):
        asked.append(0)
    elif is_program(path):
        asked.append(MAX_BINARY)
    return max((count for count in asked if count is not None), default=None)


def is_program(path: str) -> bool:
    """Whether ``path`` may be a program of an application."""
    return "/bin/" in path and path.startswith(("/opt/", "/app/"))


def extract(file: ImageFile) -> ImageFile:
    """A program's ELF facts in place of its bytes, so that thousands of heads never lie in memory together."""
    return replace(file, extract=read_elf(file.data), data=b"") if is_program(file.path) else file


def of_image(files: ImageFiles, stack: Stack | None, labels: Mapping[str, str], binaries: tuple[str, ...]) -> Facts:
    """What an image's own records, files and labels say; ``binaries`` are the paths of the roots' programs."""
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
    statements += system.from_files(files)
    statements += libc.from_files(files)
    statements += mpi.from_files(files, binaries)
    return gather(statements, agree)


def of_labels(labels: Mapping[str, str]) -> Iterator[Fact]:
    """Labels of the vocabulary, as the weakest kind of evidence (R10); what breaks a key's grammar says nothing."""
    for name, value in sorted(labels.items()):
        key = voc.BY_NAME.get(name)
        if key is not None and _holds(key, value):
            yield Fact(key, value, Source.LABEL, f"label {name}")


def _holds(key: Key, value: str) -> bool:
    try:
        key.check(value)
    except InputError:
        return False
    return True
