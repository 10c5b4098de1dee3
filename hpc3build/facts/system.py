"""The user land of the final stage: os-release."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from hpc3build.evidence.layers import ImageFiles
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


def from_files(files: ImageFiles) -> Iterator[Statement]:
    """Vendor and version as os-release says; a rolling distribution has no VERSION_ID and so no version."""
    for path in OS_RELEASE:
        found = files.resolve(path)
        if found is None or not found.data:
            continue
        values = os_release(found.data.decode("utf-8", "replace"))
        for name, key in (("ID", voc.OS_VENDOR), ("VERSION_ID", voc.OS_VERSION)):
            if (value := values.get(name)) and key.pattern.fullmatch(value):
                yield Fact(key, value, Source.FILES, f"{path}: {name}={value}")
        return
