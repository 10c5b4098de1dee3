"""The C library: whose by the plan (rule R6), and which version the image ships."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpc3build.evidence.layers import ImageFiles
from hpc3build.facts import Conflict, Fact, Source, Statement
from hpc3build.facts import vocabulary as voc
from hpc3build.stack import Stack

_BANNER = re.compile(rb"GNU C Library [^\n\0]{0,200}?release version (\d+\.\d+(?:\.\d+)?)")
_LIBC = re.compile(r"^(?:/usr)?/lib(?:64)?(?:/[^/]+-linux-gnu[^/]*)?/libc(?:\.so\.6|-\d[.\d]*\.so)$")
_MUSL = re.compile(r"^(?:/usr)?/lib/ld-musl-[^/]+\.so\.1$")
WHOLE_LIBRARY = 8 << 20


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


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``, for readers of layers."""
    if _LIBC.match(path):
        return WHOLE_LIBRARY
    return 0 if _MUSL.match(path) else None


def from_files(files: ImageFiles) -> Iterator[Statement]:
    """What the image ships. A musl loader beside glibc is an extra (musl-tools), not the image's libc."""
    musl = None
    for path in sorted(files):
        if _MUSL.match(path):
            musl = musl or path
        elif _LIBC.match(path) and (library := files.resolve(path)) and (banner := _BANNER.search(library.data)):
            yield Fact(voc.LIBC_PROVIDER, "glibc", Source.FILES, path)
            yield Fact(
                voc.GLIBC, banner.group(1).decode(), Source.FILES, f"{path}: release version {banner.group(1).decode()}"
            )
            return
    if musl:
        yield Fact(voc.LIBC_PROVIDER, "musl", Source.FILES, musl)
