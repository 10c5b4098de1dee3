"""The C library: whose by the plan (rule R6), and which version the image ships."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpc3build.evidence.applications import Program
from hpc3build.evidence.binary import Binary, elf_of
from hpc3build.evidence.image import Evidence
from hpc3build.evidence.layers import ImageFiles
from hpc3build.facts import Conflict, Fact, Note, Source, Statement
from hpc3build.facts import vocabulary as voc
from hpc3build.stack import Stack

_LIBC = re.compile(r"^(?:/usr)?/lib(?:64)?(?:/[^/]+-linux-gnu[^/]*)?/libc(?:\.so\.6|-\d[.\d]*\.so)$")
_MUSL = re.compile(r"^(?:/usr)?/lib/(?:ld-musl-[^/]+\.so\.1|libc\.musl-[^/]+\.so\.1)$")
_NEEDS = re.compile(r"GLIBC_(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?")


def from_stack(stack: Stack) -> Iterator[Statement]:
    """R6: the provider alone; a lock's glibc version is that of the machine which concretized."""
    found = {package.name: package for package in stack.counted if package.name in ("glibc", "musl")}
    facts = tuple(
        Fact(voc.LIBC_PROVIDER, name, Source.STACK, package.origin) for name, package in sorted(found.items())
    )
    if len(facts) > 1:
        yield Conflict(voc.LIBC_PROVIDER, facts, "packages of two C libraries count")
    else:
        yield from facts


def from_files(evidence: Evidence) -> Iterator[Statement]:
    """What the image ships, and what its applications ask of it.

    A musl loader beside glibc is an extra (musl-tools), not the image's libc.
    """
    files = evidence.files
    shipped = next((found for path in sorted(files) if _LIBC.match(path) and (found := _glibc(files, path))), None)
    musl = next((path for path in sorted(files) if _MUSL.match(path)), None)
    if shipped:
        path, version = shipped
        yield Fact(voc.LIBC_PROVIDER, "glibc", Source.FILES, path)
        yield Fact(voc.GLIBC, version, Source.FILES, f"{path}: release version {version}")
        yield from _asked(evidence, version)
    elif musl:
        yield Fact(voc.LIBC_PROVIDER, "musl", Source.FILES, musl)
    elif evidence.complete and _all_static(evidence.applications.chosen):
        first = evidence.applications.chosen[0]
        told = f"no C library in the image; {first.path} ({first.why}) is linked statically"
        yield Fact(voc.LIBC_PROVIDER, "none", Source.FILES, told)


def _glibc(files: ImageFiles, path: str) -> tuple[str, str] | None:
    library = files.resolve(path)
    marks = sorted(library.extract.marks) if library and isinstance(library.extract, Binary) else []
    return (path, marks[0]) if marks else None


def _all_static(programs: tuple[Program, ...]) -> bool:
    return bool(programs) and all(
        program.elf.complete and program.elf.interpreter is None and not program.elf.needed for program in programs
    )


def _asked(evidence: Evidence, shipped: str) -> Iterator[Statement]:
    """The newest version that an application needs; more than the image ships is worth telling."""
    floor, told = (0, 0, 0), ""
    for program in evidence.applications.chosen:
        loaded = [(program.path, program.elf)]
        loaded += [(each.file.path, elf) for each in program.libraries if each.file and (elf := elf_of(each.file))]
        for path, elf in loaded:
            for text in (version for versions in elf.version_needs.values() for version in versions):
                if (match := _NEEDS.fullmatch(text)) and (found := _numbers(*match.groups("0"))) > floor:
                    floor, told = found, f"{path}: needs {text}"
    if told:
        least = ".".join(map(str, floor)).removesuffix(".0")
        less = _numbers(*[*shipped.split("."), "0"][:3]) < floor
        what = f"the applications need glibc {least}" + (f", and the image ships {shipped}" if less else " or newer")
        yield Note(voc.GLIBC, what, told)


def _numbers(*texts: str) -> tuple[int, int, int]:
    first, second, third = map(int, texts)
    return first, second, third
