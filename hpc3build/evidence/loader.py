"""Which file of an image answers to a library's name, as its dynamic linker would look for it (ld.so(8)).

glibc looks into the DT_RPATH of the file that needs it and of those that loaded that one (unless the first has a
DT_RUNPATH), into LD_LIBRARY_PATH, its own DT_RUNPATH, the directories of ld.so.conf and last the standard ones. musl
takes both kinds of paths of all loading files after LD_LIBRARY_PATH.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from hpc3build.evidence.binary import elf_of
from hpc3build.evidence.elf import Elf
from hpc3build.evidence.layers import ImageFile, ImageFiles

How = Literal["rpath", "environment", "runpath", "cache", "standard", "path"]
LD_SO_CONF = "/etc/ld.so.conf"
MAX_LIBRARIES = 4096  # of one program
MAX_INCLUDES = 64
_MULTIARCH = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu", "ppc64le": "powerpc64le-linux-gnu"}


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``: the configuration of the dynamic linkers."""
    if not path.startswith("/etc/ld"):
        return None
    if path == LD_SO_CONF or (path.startswith("/etc/ld.so.conf.d/") and path.endswith(".conf")):
        return 64 << 10
    return 64 << 10 if re.match(r"/etc/ld-musl-[^/]+\.path$", path) else None


@dataclass(frozen=True)
class Loaded:
    """One library that a program needs: ``file`` is None where the image has none; ``by`` is the file that needs it."""

    name: str
    by: str
    file: ImageFile | None = None
    how: How | None = None
    chain: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loader:
    """The dynamic linker of an image; ``library_path`` is its LD_LIBRARY_PATH."""

    files: ImageFiles
    library_path: tuple[str, ...] = ()

    @cached_property
    def configured(self) -> tuple[str, ...]:
        """The directories of ld.so.conf, with what it includes."""
        return tuple(dict.fromkeys(self._conf(LD_SO_CONF, [MAX_INCLUDES])))

    def _conf(self, path: str, left: list[int]) -> Iterator[str]:
        left[0] -= 1
        found = self.files.resolve(path)
        if found is None or left[0] < 0:
            return
        for line in found.data.decode("utf-8", "replace").splitlines():
            words = line.partition("#")[0].replace(",", " ").split()
            if words[:1] == ["include"]:
                for pattern in words[1:]:
                    full = pattern if pattern.startswith("/") else f"/etc/{pattern}"
                    for name in sorted(name for name in self.files if fnmatch.fnmatchcase(name, full)):
                        yield from self._conf(name, left)
            elif words[:1] != ["hwcap"]:
                yield from (word for word in words if word.startswith("/"))

    def libraries(self, program: ImageFile) -> tuple[Loaded, ...]:
        """All that ``program`` needs, directly or not, in the order of loading; each name once."""
        found: dict[str, Loaded] = {}
        elf = elf_of(program)
        if elf is None:
            return ()
        queue: list[tuple[ImageFile, Elf, tuple[ImageFile, ...]]] = [(program, elf, ())]
        while queue:
            file, elf, loaders = queue.pop(0)
            for name in elf.needed:
                if name in found or len(found) >= MAX_LIBRARIES:
                    continue
                library, how = self._find(name, file, elf, loaders)
                chain = (*(loader.path for loader in loaders), file.path)
                found[name] = Loaded(name, file.path, library, how, chain)
                if library is not None and (below := elf_of(library)) is not None:
                    queue.append((library, below, (*loaders, file)[:32]))
        return tuple(found.values())

    def _find(
        self, name: str, file: ImageFile, elf: Elf, loaders: Sequence[ImageFile]
    ) -> tuple[ImageFile | None, How | None]:
        if "/" in name:
            return self._library(name, elf), "path"
        for how, folder in self._folders(file, elf, loaders):
            if (found := self._library(f"{folder.rstrip('/')}/{name}", elf)) is not None:
                return found, how
        return None, None

    def _folders(self, file: ImageFile, elf: Elf, loaders: Sequence[ImageFile]) -> Iterator[tuple[How, str]]:
        musl = _is_musl(next((program for program in (*loaders, file)), file))
        chain = [(file, elf), *((loader, its) for loader in reversed(loaders) if (its := elf_of(loader)))]
        if musl:
            yield from (("environment", folder) for folder in self.library_path)
            for each, its in chain:
                yield from (("runpath", folder) for folder in _expanded(each, its, (*its.rpath, *its.runpath)))
            yield from (("standard", folder) for folder in self._of_musl())
            return
        if not elf.runpath:
            for each, its in chain:
                if not its.runpath:
                    yield from (("rpath", folder) for folder in _expanded(each, its, its.rpath))
        yield from (("environment", folder) for folder in self.library_path)
        yield from (("runpath", folder) for folder in _expanded(file, elf, elf.runpath))
        yield from (("cache", folder) for folder in self.configured)
        multiarch = _MULTIARCH.get(elf.machine or "")
        if multiarch:
            yield from (("standard", f"{folder}/{multiarch}") for folder in ("/lib", "/usr/lib"))
        yield from (("standard", folder) for folder in ("/lib64", "/usr/lib64", "/lib", "/usr/lib"))

    def _of_musl(self) -> tuple[str, ...]:
        for file in self.files.glob("/etc/ld-musl-*.path"):
            return tuple(re.split(r"[:\n]", file.data.decode("utf-8", "replace").strip()))
        return ("/lib", "/usr/local/lib", "/usr/lib")

    def _library(self, path: str, elf: Elf) -> ImageFile | None:
        """The ELF file at ``path``, for the same machine: others are passed over."""
        file = self.files.resolve(path)
        its = elf_of(file)
        return file if its is not None and (its.machine, its.bits) == (elf.machine, elf.bits) else None


def _is_musl(program: ImageFile) -> bool:
    elf = elf_of(program)
    return elf is not None and "/ld-musl-" in (elf.interpreter or "")


def _expanded(file: ImageFile, elf: Elf, paths: Sequence[str]) -> Iterator[str]:
    """Paths with the linker's own variables replaced; relative ones depend on where a program is started."""
    values: Mapping[str, str] = {
        "ORIGIN": file.path.rpartition("/")[0],
        "LIB": "lib64" if elf.bits == 64 else "lib",
        "PLATFORM": elf.machine or "",
    }
    for path in paths:
        full = re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: values.get(match[1] or match[2], match[0]), path)
        if full.startswith("/"):
            yield full
