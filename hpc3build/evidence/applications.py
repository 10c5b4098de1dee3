"""An image's applications: the programs that decide what it needs, each with why it counts and what it loads."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from hpc3build.evidence import profile
from hpc3build.evidence.binary import Binary, is_library
from hpc3build.evidence.elf import Elf
from hpc3build.evidence.layers import ImageFile, ImageFiles
from hpc3build.evidence.loader import Loaded, Loader

#: What MPI, CUDA and fabric packages themselves put on the PATH: needing their own library makes it no application.
TOOLS = re.compile(
    r"(?:mpi(?:run|exec|cc|cxx|c\+\+|f77|f90|fort|chversion|vars|_opt|tune\w*)|orte\w*|orted|opal_wrapper|ompi[-_]\w+"
    r"|ompi_info|os?hmem_info|oshmem\w*|oshrun|oshcc|osh\w*|prte\w*|pmix_info|pmix\w*|p[a-z]*rte?|hydra_\w+|mpiname"
    r"|parkill|ucx_\w+|fi_\w+|fabtests|lstopo\S*|hwloc\S*|nvidia-\S+|nvcc|cuda-\S+|cuobjdump|nvprof|nsys|ncu"
    r"|nvdisasm|nvlink|ptxas|fatbinary|bin2c|clinfo|rocm\S*|rocminfo|hipcc\S*|io_demo|iotest)(?:\.\S+)?"
)
_MODULE = re.compile(r"/(?:site|dist)-packages/([^/]+)/(?:.*/)?[^/]+\.so[.0-9]*$")
#: Interpreters and shells that start something else.
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "busybox", "zsh", "env", "tini", "dumb-init", "su", "login"})


@dataclass(frozen=True)
class Program:
    """``why`` says what makes it an application's; ``chosen`` is False for programs that merely lie on the PATH."""

    file: ImageFile
    binary: Binary
    why: str
    chosen: bool
    libraries: tuple[Loaded, ...] = ()

    @property
    def path(self) -> str:
        return self.file.path

    @property
    def elf(self) -> Elf:
        return self.binary.elf

    @cached_property
    def by_name(self) -> Mapping[str, Loaded]:
        """What it loads, by the name that is needed."""
        return MappingProxyType({library.name: library for library in self.libraries})

    def reach(self, without: Collection[str] | re.Pattern[str] = ()) -> Iterator[Loaded]:
        """What it loads, never passing through libraries whose name ``without`` matches."""
        seen: set[str] = set()
        queue = list(self.elf.needed)
        while queue:
            name = queue.pop(0)
            if name in seen or (found := self.by_name.get(name)) is None:
                continue
            seen.add(name)
            yield found
            stop = without.match(name) if isinstance(without, re.Pattern) else name in without
            if not stop and found.file is not None and isinstance(found.file.extract, Binary):
                queue.extend(found.file.extract.elf.needed)

    @cached_property
    def folder(self) -> str:
        """The prefix that it is installed in: the folder above its ``bin``."""
        parent, _, last = self.path.rpartition("/")[0].rpartition("/")
        return parent if last in ("bin", "sbin", "libexec") else f"{parent}/{last}"


@dataclass(frozen=True)
class Applications:
    """The programs of an image. ``missing`` are what the user or the entry point names and the image lacks."""

    programs: tuple[Program, ...] = ()
    missing: tuple[str, ...] = ()
    others: int = 0
    files: ImageFiles = field(default_factory=lambda: ImageFiles({}))

    @cached_property
    def chosen(self) -> tuple[Program, ...]:
        return tuple(program for program in self.programs if program.chosen)

    @property
    def in_words(self) -> str:
        """The first that is chosen, why, and how many more there are."""
        first, *others = self.chosen
        return f"{first.path} ({first.why})" + (f" and {len(others)} more" if others else "")


def find(
    files: ImageFiles,
    env: Mapping[str, str],
    command: tuple[str, ...] = (),
    *,
    stack: Iterable[str] | None = None,
    frameworks: Iterable[str] = (),
    named: tuple[str, ...] = (),
) -> Applications:
    """The applications of ``files``.

    What the user ``named`` (files or folders); else the programs of the ``stack``'s roots, where there is one; else the
    program that ``command`` starts, the Python packages ``frameworks`` and what lies on the login PATH. Of the last
    only what lies outside the distribution's own folders is chosen; the others are kept beside them.
    """
    found: dict[str, tuple[str, bool]] = {}
    missing = []
    on_path = profile.folders(files, env)
    for name in named:
        under = [path for path in _programs(files) if path == name or path.startswith(name.rstrip("/") + "/")]
        if not under and (resolved := files.resolve(name)) is not None:
            under = [resolved.path]
        missing += [] if under else [name]
        found.update((path, ("named by the user", True)) for path in under)
    if not named and stack is not None:
        found.update((path, ("a root of the stack", True)) for path in stack)
    elif not named:
        modules = _modules(files, frozenset(frameworks))
        found.update((path, ("of an installed Python package", True)) for path in modules)
        if (entry := _entry(files, command, on_path)) is not None:
            found.setdefault(entry, ("the entry point", True))
        for path, real, where in _on_path(files, on_path):
            own = path.rpartition("/")[0] not in profile.SYSTEM
            tool = TOOLS.fullmatch(path.rpartition("/")[2]) or TOOLS.fullmatch(real.rpartition("/")[2])
            if not tool:
                found.setdefault(real, (f"on the login PATH ({where})", own))
    library_path = tuple(folder for folder in env.get("LD_LIBRARY_PATH", "").split(":") if folder.startswith("/"))
    loader = Loader(files, library_path)
    programs = []
    for path, (why, chosen) in found.items():
        file = files.get(path)
        if file is not None and isinstance(file.extract, Binary):
            programs.append(Program(file, file.extract, why, chosen, loader.libraries(file)))
    return Applications(tuple(programs), tuple(missing), len(found), files)


def _modules(files: ImageFiles, names: Collection[str]) -> Iterator[str]:
    """Python's extension modules of these packages, and the libraries that they bring."""
    for path in _programs(files):
        if (match := _MODULE.search(path)) and match[1] in names:
            yield path


def _programs(files: ImageFiles) -> Iterator[str]:
    return (path for path, file in files.items() if isinstance(file.extract, Binary))


def _on_path(files: ImageFiles, folders: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Path, the ELF file that it leads to, and who says that its folder is on the PATH."""
    real = {files.real_path(folder) or folder: (folder, where) for folder, where in reversed(list(folders.items()))}
    for path in sorted(files):
        folder = path.rpartition("/")[0]
        if folder not in real or is_library(path):
            continue
        file = files.resolve(path)
        if file is not None and isinstance(file.extract, Binary) and file.extract.elf.type in ("exec", "dyn"):
            yield path, file.path, f"{real[folder][0]}, {real[folder][1]}"


def _entry(files: ImageFiles, command: tuple[str, ...], folders: Mapping[str, str]) -> str | None:
    """The program that the configuration starts, unless it is a shell: what that starts is not to be guessed."""
    for word in command[:1]:
        if word.rpartition("/")[2] in _SHELLS:
            return None
        for candidate in [word] if word.startswith("/") else [f"{folder}/{word}" for folder in folders]:
            file = files.resolve(candidate)
            if file is not None and isinstance(file.extract, Binary) and file.path.rpartition("/")[2] not in _SHELLS:
                return file.path
    return None
