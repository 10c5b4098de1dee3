"""Reading the sources of a host: files below a root folder, and commands side by side. Nothing is interpreted here."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from hpc3build.errors import ToolError
from hpc3build.host import sources
from hpc3build.host.probe import Library, Probe
from hpc3build.mpinames import SELVES
from hpc3build.run import Runner

_NAMES = re.compile(sources.LIBRARY_NAMES)
_MARKS = re.compile(sources.MARKS.encode())
#: How marks begin: a plain search for these is many times quicker than the expression over the whole library.
_BEGINNINGS = (b"GLIBC_", b"FABRIC_1", b"GNU C Library ", *(text.encode() for text, _ in SELVES))
_CACHED = re.compile(rb"/[^\0\n]+")


def collect(
    root: Path,
    environ: Mapping[str, str],
    *,
    machine: str,
    user: str,
    runner: Runner | None = None,
    commands: Collection[str] = sources.COMMANDS,
    injects: tuple[str, ...] = (),
) -> Probe:
    """Read all sources below ``root`` (``/`` for this host).

    ``environ``, ``machine`` (as uname -m) and ``user`` (its name) are the edge's. Without a ``runner`` no command is
    run, with one those of ``commands``. ``injects`` are libraries that the site binds into every container. What
    cannot be read is left out.
    """
    from concurrent.futures import ThreadPoolExecutor

    reader = _Root(root)
    variables = {name: _one_line(environ[name]) for name in sources.VARIABLES if environ.get(name)}
    values = {"machine": machine, **{f"env.{name}": text for name, text in variables.items()}}
    if (text := reader.text("/etc/subuid", 1 << 20)) is not None:
        values["subuid"] = "yes" if any(line.startswith(f"{user}:") for line in text.splitlines()) else "no"
    programs = {name: path for name in sources.PROGRAMS if (path := reader.program(name, variables.get("PATH", "")))}
    with ThreadPoolExecutor(len(sources.COMMANDS)) as pool:
        ran = {
            name: pool.submit(_output, runner, argv)
            for name, argv in sources.COMMANDS.items()
            if runner is not None and argv[0] in programs and name in commands
        }
        files = dict(_files(reader))
        names = tuple(_names(reader, variables.get("MODULEPATH", "")))
        libraries = {path: library for path in _libraries(reader, variables) if (library := reader.library(path))}
        chosen = {f"injected:{path}": library for path in injects if (library := reader.library(path))}
    printed = {name: text for name, future in ran.items() if (text := future.result()) is not None}
    return Probe(
        values=MappingProxyType(values),
        files=MappingProxyType(files),
        names=names,
        programs=MappingProxyType(programs),
        libraries=MappingProxyType(_distinct(libraries) | chosen),
        commands=MappingProxyType(printed),
    )


def _output(runner: Runner, argv: tuple[str, ...]) -> str | None:
    try:
        done = runner(argv, timeout=sources.COMMAND_SECONDS, check=False)
    except ToolError:
        return None
    # srun --mpi=list and fi_info print to standard error in some releases.
    return (done.stdout or done.stderr)[: sources.COMMAND_BYTES].rstrip("\n") if done.returncode == 0 else None


def _files(reader: _Root) -> Iterator[tuple[str, str]]:
    release = (reader.text("/proc/sys/kernel/osrelease", 256) or "").strip()
    for pattern, limit in sources.FILES:
        for path in reader.glob(pattern.replace("{release}", glob.escape(release))):
            if (text := reader.text(path, limit)) is not None:
                yield path, text.rstrip("\n")
    wanted = re.compile(sources.PCI_CLASSES, re.MULTILINE)
    for path in reader.glob(sources.PCI):
        text = reader.text(path, sources.PCI_BYTES)
        if text is not None and wanted.search(text):
            yield path, text.rstrip("\n")


def _names(reader: _Root, modulepath: str) -> Iterator[str]:
    for pattern in sources.NAMES:
        yield from reader.glob(pattern)
    for folder in filter(None, modulepath.split(":")):
        for name in sources.MODULES:
            yield from reader.glob(f"{glob.escape(folder)}/{name}/*")


def _libraries(reader: _Root, variables: Mapping[str, str]) -> Iterator[str]:
    """Paths of libraries that count, in the order in which the loader would look."""
    folders = [folder for folder in variables.get("LD_LIBRARY_PATH", "").split(":") if folder.startswith("/")]
    for folder in filter(None, variables.get("PATH", "").split(":")):
        if reader.exists(f"{folder}/mpirun") or reader.exists(f"{folder}/mpiexec"):
            folders += [os.path.normpath(f"{folder}/../lib"), os.path.normpath(f"{folder}/../lib64")]
    for folder in dict.fromkeys(folders):
        for name in reader.listed(folder):
            if _NAMES.fullmatch(name):
                yield f"{folder}/{name}"
    for path in _CACHED.findall(reader.content("/etc/ld.so.cache", 8 << 20) or b""):
        if _NAMES.fullmatch(path.rpartition(b"/")[2].decode("ascii", "replace")):
            yield os.fsdecode(path)
    for pattern in sources.LIBRARIES:
        yield from (path for path in reader.glob(pattern) if re.search(r"\.so\.[0-9]+$", path))


def _distinct(libraries: Mapping[str, Library]) -> dict[str, Library]:
    """One name a file: /lib and /usr/lib may be one folder."""
    by_file = {library.real: path for path, library in reversed(list(libraries.items()))}
    return {path: library for path, library in libraries.items() if by_file[library.real] == path}


def _one_line(text: str) -> str:
    return re.sub(r"[\t\r\n]", " ", text)


class _Root:
    """Files below a folder that stands for ``/``."""

    def __init__(self, root: Path) -> None:
        self._root = "" if root == Path("/") else str(root)

    def glob(self, pattern: str) -> list[str]:
        if not glob.has_magic(pattern):
            return [pattern] if self.exists(pattern) else []
        found = glob.glob(glob.escape(self._root) + pattern)  # noqa: PTH207 (far quicker than Path.glob here)
        return sorted(path[len(self._root) :] for path in found if path.isprintable())

    def exists(self, path: str) -> bool:
        return os.path.lexists(self._root + path)

    def listed(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self._root + folder))  # noqa: PTH208
        except OSError:
            return []

    def content(self, path: str, limit: int) -> bytes | None:
        """The head of a regular file; None for what is not there, not readable or would wait (a pipe)."""
        try:
            with open(os.open(self._root + path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:  # noqa: PTH123
                return stream.read(limit) if stat.S_ISREG(os.fstat(stream.fileno()).st_mode) else None
        except (OSError, ValueError):
            return None

    def text(self, path: str, limit: int) -> str | None:
        content = self.content(path, limit)
        return None if content is None else content.decode("utf-8", "replace").replace("\0", "")

    def program(self, name: str, path: str) -> str | None:
        folders = (folder for folder in path.split(":") if folder.startswith("/"))
        return next(
            (f"{folder}/{name}" for folder in folders if os.access(f"{self._root}{folder}/{name}", os.X_OK)), None
        )

    def library(self, path: str) -> Library | None:
        content = self.content(path, sources.LIBRARY_BYTES)
        if content is None:
            return None
        real = os.path.realpath(self._root + path)
        real = real[len(self._root) :] if real.startswith(self._root) else path
        return Library(real, tuple(sorted(marks(content))))


def marks(content: bytes) -> set[str]:
    """The version texts in a library; the same as ``grep -ao`` with the same expression gives."""
    found = set()
    for beginning in _BEGINNINGS:
        position = content.find(beginning)
        while position >= 0:
            if match := _MARKS.match(content, position, position + 300):
                found.add(match.group().decode("ascii", "replace").rstrip("."))
            position = content.find(beginning, position + len(beginning))
    return found
