"""The user land of the final stage: os-release, and the oldest kernel that it runs on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from hpc3build.evidence.binary import elf_of
from hpc3build.evidence.image import Evidence
from hpc3build.facts import Fact, Source, Statement
from hpc3build.facts import vocabulary as voc

#: os-release(5): the first that exists counts.
OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``, for readers of layers."""
    return 64 << 10 if path in OS_RELEASE else None


def os_release(text: str) -> dict[str, str]:
    """The assignments of an os-release file; lines that are none are skipped, as os-release(5) asks."""
    values = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and name.isidentifier():
            try:
                values[name] = "".join(shlex.split(value))
            except ValueError:
                continue
    return values


def from_files(evidence: Evidence) -> Iterator[Statement]:
    """Vendor and version of the distribution, and the oldest kernel that the applications run on."""
    yield from distribution(evidence)
    yield from _kernel(evidence)


def distribution(evidence: Evidence) -> Iterator[Statement]:
    """As os-release says; a rolling distribution has no VERSION_ID and so no version."""
    for path in OS_RELEASE:
        found = evidence.files.resolve(path)
        if found is None or not found.data:
            continue
        values = os_release(found.data.decode("utf-8", "replace"))
        for name, key in (("ID", voc.OS_VENDOR), ("VERSION_ID", voc.OS_VERSION)):
            if (value := values.get(name)) and key.pattern.fullmatch(value):
                yield Fact(key, value, Source.FILES, f"{path}: {name}={value}")
        return


def _kernel(evidence: Evidence) -> Iterator[Statement]:
    """The greatest NT_GNU_ABI_TAG among the applications and all that they load: the dynamic linker refuses less."""
    greatest: tuple[int, ...] = ()
    told = ""
    for program in evidence.applications.chosen:
        for file in (program.file, *(library.file for library in program.libraries if library.file)):
            elf = elf_of(file)
            if elf is None or elf.abi_tag is None:
                continue
            version = tuple(map(int, elf.abi_tag.split(".")))
            if version > greatest:
                greatest, told = version, f"{file.path}: ABI tag {elf.abi_tag}"
    if greatest:
        yield Fact(voc.KERNEL_VERSION, ".".join(map(str, greatest)), Source.FILES, told)
