"""YAML that people wrote: read within bounds, every value with its line for messages, written anew for Spack."""

from __future__ import annotations

import datetime
import difflib
import io
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hpc3build.errors import InputError

#: Real ones are below 20 kB; a parser that keeps lines takes seconds for a megabyte.
MAX_YAML_BYTES = 128 << 10


def read_text(path: Path, limit: int, what: str) -> str:
    """The text of a file that a person gave. Raises InputError when it is none, missing, too large or not UTF-8."""
    try:
        check_kind(path, what)
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise InputError(f"{path}:1: larger than {limit >> 10} KiB", hint=f"expected {what}")
        return data.decode().replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", hint=f"expected {what}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not UTF-8 text", hint=f"expected {what}") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def check_kind(path: Path, what: str) -> None:
    """Raise InputError for what is no file: reading it might never end. OSError where nothing is there."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise InputError(f"{path} is a folder, expected {what}")
    if not stat.S_ISREG(mode) and not _handed_over(path, mode):
        raise InputError(f"{path}: not a file", hint=f"expected {what}")


def _handed_over(path: Path, mode: int) -> bool:
    """Whether it is a shell's ``<(…)``: what writes into the pipe is at work, and a named one may never be written."""
    return stat.S_ISFIFO(mode) and (str(path) == "/dev/stdin" or str(path.parent) in ("/dev/fd", "/proc/self/fd"))


def read_yaml(path: Path, *, may_be_empty: bool = False) -> Any:
    """A YAML mapping whose keys know their lines, empty where nothing is there and that is allowed.

    Raises InputError with file:line.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    text = read_text(path, MAX_YAML_BYTES, "YAML")
    _shallow(path, text)
    reader = YAML(typ="rt")
    reader.allow_duplicate_keys = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = reader.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1 if mark else 1}"
        raise InputError(f"{where}: not valid YAML: {error.problem or error.context}") from error
    except ReaderError as error:
        raise InputError(
            f"{path}:{text.count(chr(10), 0, error.position) + 1}: not valid YAML: {error.reason}"
        ) from error
    except RecursionError as error:
        raise InputError(f"{path}:1: not valid YAML: nested too deeply") from error
    except Exception as error:
        # ruamel's constructors raise whatever a tag's value provokes (KeyError for `!!bool x`).
        raise InputError(
            f"{path}:1: not valid YAML: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error
    if data is None and may_be_empty:
        return {}
    if not isinstance(data, Mapping):
        raise InputError(f"{path}:1: expected a mapping, found {kind(data)}")
    _bound(path, data)
    return data


def dump_yaml(document: Any) -> bytes:
    """A document as YAML, with what read_yaml keeps of its text."""
    from ruamel.yaml import YAML

    writer = YAML(typ="rt")
    writer.width = 4096
    buffer = io.StringIO()
    writer.dump(document, buffer)
    return buffer.getvalue().encode()


def _shallow(path: Path, text: str) -> None:
    """Refuse brackets nested without end before the parser works on them for seconds."""
    depth = 0
    for at, character in enumerate(text):
        if character in "[{":
            depth += 1
            if depth > 256:
                line = text.count("\n", 0, at) + 1
                raise InputError(f"{path}:{line}: not valid YAML: nested too deeply")
        elif character in "]}":
            depth = max(0, depth - 1)


def _bound(path: Path, data: Any, limit: int = 200_000) -> None:
    """Refuse documents whose aliases unfold into loops or into billions of nodes."""
    seen = 0
    queue: list[tuple[Any, int]] = [(data, 0)]
    while queue:
        node, depth = queue.pop()
        seen += 1
        if depth > 64 or seen > limit:
            raise InputError(f"{path}:1: nested too deeply, or its aliases unfold without end")
        children = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
        queue.extend((child, depth + 1) for child in children)


def line_of(data: Any, key: Any) -> int:
    """The line, counted from 1, of ``key`` (or list position) in a mapping or list from read_yaml; 1 when unknown."""
    try:
        marks: Any = getattr(data, "lc")  # noqa: B009 (ruamel's, on its own mappings and lists)
        position = marks.key(key) if isinstance(data, Mapping) else marks.item(key)
        return int(position[0]) + 1
    except (AttributeError, KeyError, TypeError, IndexError):
        return 1


def kind(value: object) -> str:
    """What a YAML value is, in words."""
    if value is None:
        return "nothing"
    names: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", str: "text"}
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return next((name for known, name in names.items() if isinstance(value, known)), type(value).__name__)


def _written_otherwise(value: object) -> bool:
    """Whether the text of a number or a time is not that of its value: 0022, 0x10, 1_000."""
    from ruamel.yaml.scalarint import ScalarInt

    if isinstance(value, ScalarInt):
        marks: Any = value
        zeros = marks._width is not None and marks._width > len(str(abs(value)))
        return type(value) is not ScalarInt or zeros or marks._underscore is not None
    return isinstance(value, datetime.datetime)


def texts_of(path: Path, data: Any, name: str = "", line: int = 1) -> Iterator[tuple[str, str]]:
    """Every text in a document, with its file, line and key."""
    if isinstance(data, str):
        yield f"{path}:{line}: {name}", data
    elif isinstance(data, Mapping | list):
        for key, value in data.items() if isinstance(data, Mapping) else enumerate(data):
            inner = f"{name}:{key}".lstrip(":") if isinstance(data, Mapping) else name
            yield from texts_of(path, value, inner, line_of(data, key))


class Section:
    """A YAML mapping that is read key by key, with errors that name file, line and key."""

    def __init__(self, path: Path, data: Any, name: str = "", line: int = 1) -> None:
        if data is None:
            data = {}
        if not isinstance(data, Mapping):
            raise InputError(f"{path}:{line}: {name or 'the document'}: expected a mapping, found {kind(data)}")
        self.path, self.data, self.name = path, data, name

    def where(self, key: object) -> str:
        return f"{self.path}:{line_of(self.data, key)}: {self.name + ':' if self.name else ''}{key}"

    def only(self, known: Iterable[str]) -> None:
        """Raise InputError for the first key that is not among ``known``, naming the nearest one."""
        names = list(known)
        for key in self.data:
            if key not in names:
                near = difflib.get_close_matches(str(key), names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"keys are {', '.join(names)}"
                raise InputError(f"{self.where(key)}: unknown key", hint=hint)

    def text(self, key: str, *, one_line: bool = True) -> str | None:
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, float):
            raise InputError(f"{self.where(key)}: {value} may have lost digits in YAML", hint="put it in quotes")
        if isinstance(value, bool) or not isinstance(value, str | int | datetime.date):
            raise InputError(f"{self.where(key)}: expected text, found {kind(value)}")
        if _written_otherwise(value):
            what = "a number" if isinstance(value, int) else "a time"
            raise InputError(f"{self.where(key)}: {what}, which YAML reads as {value}", hint="put it in quotes")
        if one_line and re.search(r"[\x00-\x1f\x7f]", str(value).rstrip("\n")):
            raise InputError(f"{self.where(key)}: expected one line of text")
        return str(value).rstrip("\n") if one_line else str(value)

    def choice(self, key: str, values: Iterable[str]) -> str | None:
        value = self.text(key)
        if value is not None and value not in values:
            raise InputError(f"{self.where(key)}: {value!r} is none of {', '.join(values)}")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            raise InputError(f"{self.where(key)}: expected true or false, found {kind(value)}")
        return value

    def integer(self, key: str) -> int | None:
        value = self.data.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise InputError(f"{self.where(key)}: expected a whole number, found {kind(value)}")
        return None if value is None else int(value)

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.data.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise InputError(f"{self.where(key)}: expected a list, found {kind(value)}")
        for position, item in enumerate(value):
            if not isinstance(item, str) or re.search(r"[\x00-\x1f\x7f]", item):
                where = f"{self.path}:{line_of(value, position)}: {self.name + ':' if self.name else ''}{key}"
                raise InputError(f"{where}: expected one line of text, found {kind(item)}")
        return tuple(map(str, value))

    def packages(self, key: str) -> tuple[str, ...]:
        """Names of operating system packages; anything a shell would read otherwise is refused."""
        names = self.texts(key)
        for name in names:
            if not re.fullmatch(r"[A-Za-z0-9@][A-Za-z0-9@+._:/=~^-]*", name):
                raise InputError(f"{self.where(key)}: {name!r} is not a package name")
        return names

    def pairs(self, key: str) -> Mapping[str, str]:
        section = self.section(key)
        values = {str(name): section.text(name) for name in section.data}
        return MappingProxyType({name: value for name, value in values.items() if value is not None})

    def section(self, key: str) -> Section:
        return Section(self.path, self.data.get(key), f"{self.name}:{key}".lstrip(":"), line_of(self.data, key))
