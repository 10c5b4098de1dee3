"""Raw sources of one host as a value, and the text form in which nodes hand them over.

The form is lines, so that a POSIX shell can write it: a head, records, ``end``. What a file or command gave follows its
record with a ``|`` before every line, so no content can pass for a record. Parts of a record are separated by tabs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType

from hpc3build.errors import InputError

HEAD = "hpc3build-probe 1"
MAX_BYTES = 16 << 20
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Library:
    """A shared library: ``real`` is its path without symbolic links, ``marks`` the version texts found in it."""

    real: str
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Probe:
    """``values`` are what the machine and the environment say (``machine``, ``env.PATH``), ``files`` heads of files.

    ``names`` are paths that are there, ``programs`` commands found on PATH, ``commands`` what those printed that ended
    well.
    """

    values: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    files: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    names: tuple[str, ...] = ()
    programs: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    libraries: Mapping[str, Library] = field(default_factory=lambda: MappingProxyType({}))
    commands: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    def matching(self, pattern: str) -> list[tuple[str, str]]:
        """Files whose path fits a shell pattern, sorted by path."""
        return sorted((path, text) for path, text in self.files.items() if fnmatchcase(path, pattern))

    def there(self, pattern: str) -> list[str]:
        """Names that fit a shell pattern, sorted."""
        return sorted(name for name in self.names if fnmatchcase(name, pattern))

    def first(self, *paths: str) -> tuple[str, str] | None:
        """The first of these files that was read, with its text."""
        return next(((path, self.files[path]) for path in paths if path in self.files), None)

    def dump(self) -> str:
        """The text form; ``parse`` reads an equal value back."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield HEAD
        for name, value in self.values.items():
            yield f"value\t{name}\t{value}"
        for name, path in self.programs.items():
            yield f"program\t{name}\t{path}"
        for path, text in self.files.items():
            yield f"file\t{path}"
            yield from _quoted(text)
        for name in self.names:
            yield f"name\t{name}"
        for path, library in self.libraries.items():
            yield f"library\t{path}\t{library.real}"
            yield from (f"|{mark}" for mark in library.marks)
        for name, text in self.commands.items():
            yield f"command\t{name}"
            yield from _quoted(text)
        yield "end"

    @classmethod
    def parse(cls, text: str, where: str) -> Probe:
        """Read the text form. Raises InputError with the line for what is not of it, or was cut off."""
        lines = text.replace("\r\n", "\n").split("\n")
        if not lines or lines[0] != HEAD:
            told = "a newer probe" if re.fullmatch(r"hpc3build-probe \d+", lines[0]) else "no probe of hpc3build"
            raise InputError(f"{where}:1: {told}", hint=f"the first line of one is {HEAD}: fingerprint --script")
        while lines and not lines[-1]:
            lines.pop()
        if lines[-1] != "end":
            raise InputError(f"{where}:{len(lines)}: the probe was cut off: its last line is not 'end'")
        found = _Records(where)
        for number, line in enumerate(lines[1:-1], start=2):
            found.take(line, number)
        return found.probe()


def _quoted(text: str) -> Iterator[str]:
    yield from (f"|{line}" for line in text.split("\n"))


class _Records:
    """Lines of a probe, read one by one."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._kinds: dict[str, dict[str, list[str]]] = {}
        self._real: dict[str, str] = {}
        self._content: list[str] | None = None

    def take(self, line: str, number: int) -> None:
        if line.startswith("|"):
            if self._content is None:
                raise self._bad(number, "content without a record")
            self._content.append(line[1:])
            return
        kind, *parts = line.split("\t")
        sizes = {"value": 2, "program": 2, "file": 1, "name": 1, "library": 2, "command": 1}
        if kind not in sizes or len(parts) != sizes[kind]:
            raise self._bad(number, f"{line[:60]!r} is no record of a probe")
        content: list[str] = []
        self._kinds.setdefault(kind, {})[parts[0]] = content
        self._content = content if kind in ("file", "library", "command") else None
        if len(parts) == 2:
            self._real[f"{kind}\t{parts[0]}"] = parts[1]

    def probe(self) -> Probe:
        return Probe(
            values=self._second("value"),
            programs=self._second("program"),
            files=self._texts("file"),
            names=tuple(self._kinds.get("name", ())),
            libraries=MappingProxyType(
                {
                    path: Library(self._real[f"library\t{path}"], tuple(marks))
                    for path, marks in self._kinds.get("library", {}).items()
                }
            ),
            commands=self._texts("command"),
        )

    def _second(self, kind: str) -> Mapping[str, str]:
        return MappingProxyType({name: self._real[f"{kind}\t{name}"] for name in self._kinds.get(kind, {})})

    def _texts(self, kind: str) -> Mapping[str, str]:
        return MappingProxyType({name: "\n".join(lines) for name, lines in self._kinds.get(kind, {}).items()})

    def _bad(self, number: int, why: str) -> InputError:
        return InputError(f"{self._where}:{number}: {why}", hint="it was written by hpc3build fingerprint --script?")
