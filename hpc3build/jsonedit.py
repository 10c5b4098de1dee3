"""Byte-true editing of JSON text: one member changes, every other byte stays.

Registries, signatures and people compare OCI content by its bytes, so a rewriter must not re-serialise what it read
(oci.md §8 rule 1: order, spacing, number forms and unknown fields stay). Go's decoders match keys without regard to
case and take the last of two equal ones, so text whose meaning depends on the reader is refused, not edited.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from hpc3build.errors import ImageError

MAX_BYTES = 4 * 1024 * 1024  # what registries accept for a manifest (oci.md §3)
MAX_DEPTH = 64
#: Members whose keys are data: readers use maps there, so case distinguishes and is no error.
FREE_MAPS = frozenset({"annotations", "Labels", "labels", "ExposedPorts", "Volumes"})

Path = tuple[str | int, ...]

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BLANK = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def load(raw: bytes, what: str = "JSON") -> Any:
    """Parse strictly; ``what`` names the document in errors.

    Raises ImageError for text that is no UTF-8 JSON, for duplicate or case-variant keys in one object, NaN and
    Infinity, lone surrogates, more than MAX_DEPTH levels and more than MAX_BYTES; it names the member's path.
    """
    return _load(_decode(raw, what), what)


def get(document: Any, path: Path) -> Any:
    """The value at ``path``, None when any step is missing or null."""
    for step in path:
        if isinstance(step, str):
            document = document.get(step) if isinstance(document, dict) else None
        else:
            document = document[step] if isinstance(document, list) and 0 <= step < len(document) else None
    return document


def where(path: Path) -> str:
    """A path in words: ``layers[0].size``, ``annotations["a.b"]``; the document itself is ``the top level``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"\w+", step):
            text += f".{step}" if text else step
        else:
            text += f"[{json.dumps(step)}]"
    return text or "the top level"


def set_member(raw: bytes, path: Path, value: Any, *, ordered: bool = False) -> bytes:
    """Give the member at ``path`` a value; an equal value returns ``raw`` itself.

    A missing member is added in the style of its object: at the end, or with ``ordered`` in sorted position where the
    object's keys are sorted. Missing or null objects on the way are made. Raises ImageError for text that cannot be
    edited safely and for a path that leads through something that is no object or list.
    """
    return _edit(raw, [(path, value)], [], ordered)


def remove_member(raw: bytes, path: Path) -> bytes:
    """Take the member at ``path`` out; ``raw`` itself when there is none. Raises ImageError as set_member does."""
    return _edit(raw, [], [path], False)


def set_pairs(raw: bytes, path: Path, pairs: Mapping[str, Any], remove: Iterable[str] = ()) -> bytes:
    """Edit a map of pairs, member by member: first ``remove``, then ``pairs``, new ones in sorted position."""
    removed = [(*path, key) for key in remove if key not in pairs]
    return _edit(raw, [((*path, key), pairs[key]) for key in sorted(pairs)], removed, True)


def edit(raw: bytes, values: list[tuple[Path, Any]], removed: list[Path]) -> bytes:
    """Several edits, checked once: first ``removed``, then ``values`` in their order, new ones in sorted position."""
    return _edit(raw, values, removed, True)


def _edit(raw: bytes, values: list[tuple[Path, Any]], removed: list[Path], ordered: bool) -> bytes:
    text = before = _decode(raw, "JSON")
    expected = copy.deepcopy(_load(text, "JSON"))
    for path in removed:
        text = _removed(text, path)
        _expect_removed(expected, path)
    for path, value in values:
        rendered = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if not _encodable(rendered):
            raise ImageError(f"{where(path)}: the value holds half a character (a lone surrogate)")
        text = _set(text, path, value, ordered)
        expected = _expect_set(expected, path, value)
    if text == before:
        return raw
    edited = text.encode()
    if not _same(load(edited), expected):  # a defect here must never reach a registry
        raise ImageError("the edited JSON is not what was asked for; nothing was changed")
    return edited


# ---- strict reading


def _decode(raw: bytes, what: str) -> str:
    if len(raw) > MAX_BYTES:
        raise ImageError(f"{what}: {len(raw)} bytes, more than the {MAX_BYTES} that registries take")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ImageError(f"{what}: not UTF-8 at byte {error.start}") from error


def _load(text: str, what: str) -> Any:
    if _depth(text) > MAX_DEPTH:
        raise ImageError(f"{what}: nested deeper than {MAX_DEPTH} levels")
    doubled: list[tuple[dict[str, Any], str]] = []

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(members)
        if len(found) < len(members):
            keys = [key for key, _ in members]
            doubled.append((found, next(key for key in keys if keys.count(key) > 1)))
        return found

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON value")

    try:
        document = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what}: not valid JSON: {error}") from error
    _check(document, (), what, {id(found): key for found, key in doubled})
    if doubled:  # inside a value that a later duplicate replaced
        raise ImageError(f"{what}: the key {doubled[0][1]!r} stands twice in one object")
    if re.search(r"\\u[dD][89a-fA-F]", text) and not _encodable(json.dumps(document, ensure_ascii=False)):
        raise ImageError(f"{what}: a text holds half a character (a lone surrogate)")
    return document


def _depth(text: str) -> int:
    level = deepest = 0
    for bracket in re.findall(r"[\[{\]}]", _STRING.sub("", text)):
        level += 1 if bracket in "[{" else -1
        deepest = max(deepest, level)
    return deepest


def _check(value: Any, path: Path, what: str, doubled: Mapping[int, str]) -> None:
    if isinstance(value, dict):
        if id(value) in doubled:
            raise ImageError(f"{what}: the key {doubled[id(value)]!r} stands twice in {where(path)}")
        seen: dict[str, str] = {}
        for key, member in value.items():
            other = seen.setdefault(key.casefold(), key)
            if other != key and not (path and path[-1] in FREE_MAPS):
                raise ImageError(
                    f"{what}: the keys {other!r} and {key!r} in {where(path)} differ only in case",
                    hint="tools written in Go read them as one key; have the image's producer write one of them",
                )
            _check(member, (*path, key), what, doubled)
    elif isinstance(value, list):
        for position, member in enumerate(value):
            _check(member, (*path, position), what, doubled)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _same(one: Any, other: Any) -> bool:
    """Equality that tells true from 1 and 1 from 1.0, and does not mind the order of keys."""
    return one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


# ---- spans


@dataclass(frozen=True)
class _Member:
    """``start`` is where the key (in a list, the value) begins; the value is text[value:end]."""

    key: str | int
    start: int
    value: int
    end: int


@dataclass(frozen=True)
class _Container:
    """An object or a list: text[start] is its bracket, text[close] the closing one."""

    start: int
    close: int
    members: tuple[_Member, ...]
    is_object: bool

    def find(self, step: str | int) -> _Member | None:
        return next((member for member in self.members if member.key == step), None)


def _skip(text: str, position: int) -> int:
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


def _container(text: str, start: int, path: Path) -> _Container:
    is_object = text[start] == "{"
    if not is_object and text[start] != "[":
        raise ImageError(f"{where(path)} is no object", hint="the image is malformed; nothing was changed")
    members: list[_Member] = []
    position = _skip(text, start + 1)
    while text[position] not in "]}":
        begin = value = position
        key: str | int = len(members)
        if is_object:
            key, after = _DECODER.raw_decode(text, begin)
            value = _skip(text, _skip(text, after) + 1)
        _, end = _DECODER.raw_decode(text, value)
        members.append(_Member(key, begin, value, end))
        position = _skip(text, end)
        if text[position] == ",":
            position = _skip(text, position + 1)
    return _Container(start, position, tuple(members), is_object)


def _set(text: str, path: Path, value: Any, ordered: bool) -> str:
    here = _container(text, _skip(text, 0), ())
    for depth, step in enumerate(path):
        if here.is_object is not isinstance(step, str):
            raise ImageError(f"{where(path[:depth])} is no {'object' if isinstance(step, str) else 'list'}")
        member = here.find(step)
        rest = path[depth + 1 :]
        if member is None:
            return _insert(text, here, depth, step, _nested(rest, value), ordered)
        old = _DECODER.raw_decode(text, member.value)[0]
        if not rest or old is None:
            new = _nested(rest, value)
            if _same(old, new):
                return text
            return text[: member.value] + _Style.of(text).render(new, depth + 1) + text[member.end :]
        here = _container(text, member.value, path[: depth + 1])
    raise ImageError("a path names at least one member")


def _nested(path: Path, value: Any) -> Any:
    for step in reversed(path):
        value = {step: value} if isinstance(step, str) else [value]
    return value


def _insert(text: str, here: _Container, depth: int, step: str | int, value: Any, ordered: bool) -> str:
    style = _Style.of(text)
    if isinstance(step, int) and step != len(here.members):
        raise ImageError(f"there is no item {step} in a list of {len(here.members)}")
    rendered = style.render(value, depth + 1)
    key = json.dumps(step, ensure_ascii=False) if isinstance(step, str) else ""
    if not here.members:
        lead, tail = style.blank(depth + 1), style.blank(depth)
        member = f"{key}{style.colon}{rendered}" if key else rendered
        return text[: here.start + 1] + lead + member + tail + text[here.close :]
    last = here.members[-1]
    before = here.members[-2].end if len(here.members) > 1 else here.start
    blank = _trailing_blank(text[before : last.start]) or (style.comma[1:] if len(here.members) == 1 else "")
    colon = _colon(text, last) if key else ""
    keys = [str(member.key) for member in here.members]
    if ordered and key and keys == sorted(keys):
        after = next((member for member in here.members if str(member.key) > str(step)), None)
        if after:
            return text[: after.start] + f"{key}{colon}{rendered},{blank}" + text[after.start :]
    return text[: last.end] + f",{blank}{key}{colon}{rendered}" + text[last.end :]


def _trailing_blank(text: str) -> str:
    return text[len(text.rstrip(" \t\n\r")) :]


def _colon(text: str, member: _Member) -> str:
    return text[_DECODER.raw_decode(text, member.start)[1] : member.value]


def _removed(text: str, path: Path) -> str:
    here = _container(text, _skip(text, 0), ())
    for depth, step in enumerate(path[:-1]):
        member = here.find(step)
        if member is None or text[member.value] not in "[{":
            return text
        here = _container(text, member.value, path[: depth + 1])
    member = here.find(path[-1])
    if member is None:
        return text
    position = here.members.index(member)
    if len(here.members) == 1:
        return text[: here.start + 1] + text[here.close :]
    if position == 0:
        return text[: member.start] + text[here.members[1].start :]
    return text[: here.members[position - 1].end] + text[member.end :]


# ---- the style of new text


@dataclass(frozen=True)
class _Style:
    """How the document is laid out: its line end and indent (both empty when it is on one line) and its colon."""

    newline: str
    indent: str
    comma: str
    colon: str

    @classmethod
    def of(cls, text: str) -> _Style:
        root = _container(text, _skip(text, 0), ())
        if not root.members or not root.is_object:
            return cls("", "", ",", ":")
        lead = text[root.start + 1 : root.members[0].start]
        newline, _, indent = lead.rpartition("\n")
        if "\n" in lead:
            return cls(newline[-1:].strip(" \t\n") + "\n", indent, ",", _colon(text, root.members[0]))
        comma = "," + (" " if len(root.members) > 1 and text[root.members[1].start - 1] == " " else "")
        return cls("", "", comma, _colon(text, root.members[0]))

    def blank(self, depth: int) -> str:
        return self.newline + self.indent * depth if self.newline else ""

    def render(self, value: Any, depth: int) -> str:
        indent = self.indent if self.newline else None
        text = json.dumps(
            value, ensure_ascii=False, allow_nan=False, indent=indent, separators=(self.comma, self.colon)
        )
        return text.replace("\n", self.newline + self.indent * depth) if self.newline else text


# ---- what the edit must have done, worked out on the parsed values


def _expect_set(document: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    step, rest = path[0], path[1:]
    if document is None:
        return _nested(path, value)
    if isinstance(step, str):
        document[step] = _expect_set(document.get(step), rest, value)
    elif step < len(document):
        document[step] = _expect_set(document[step], rest, value)
    else:
        document.append(_nested(rest, value))
    return document


def _expect_removed(document: Any, path: Path) -> None:
    parent = get(document, path[:-1])
    step = path[-1]
    if isinstance(step, str):
        if isinstance(parent, dict):
            parent.pop(step, None)
    elif isinstance(parent, list) and 0 <= step < len(parent):
        del parent[step]
