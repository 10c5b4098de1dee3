"""JSON of others, parsed, and typed access to it: the value, or an ImageError that says where something else stands.

Go writes null for an empty list or map and reads it as one, so images with it are about: null is nothing here, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hpc3build.errors import ImageError

EMPTY: Mapping[str, str] = MappingProxyType({})


def parsed(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for all that is none, also where json raises RecursionError."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def as_object(value: Any, what: str) -> dict[str, Any]:
    """``value``, when it is an object."""
    if not isinstance(value, dict):
        raise ImageError(f"{what}: {_kind(value)} where an object belongs")
    return value


def get_list(fields: Mapping[str, Any], key: str, what: str) -> list[Any]:
    """The list under ``key``, empty when it is null; it must be there."""
    value = fields.get(key)
    if value is None and key in fields:
        return []
    if not isinstance(value, list):
        raise ImageError(f"{what}.{key}: {_kind(value)} where a list belongs")
    return value


def get_text(fields: Mapping[str, Any], key: str, what: str, default: str | None = None) -> str:
    """The text under ``key``; without a ``default`` it must be there and not be empty."""
    value = fields.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or (default is None and not value):
        raise ImageError(f"{what}.{key}: {_kind(value)} where a text belongs")
    return value


def get_texts(fields: Mapping[str, Any], key: str, what: str) -> tuple[str, ...] | None:
    """The list of texts under ``key``, None when it is missing or null."""
    if fields.get(key) is None:
        return None
    values = get_list(fields, key, what)
    if not all(isinstance(value, str) for value in values):
        raise ImageError(f"{what}.{key}: holds something that is no text")
    return tuple(values)


def get_pairs(fields: Mapping[str, Any], key: str, what: str) -> Mapping[str, str]:
    """The map of texts under ``key``, empty when it is missing or null; a pair whose value is null says nothing."""
    if fields.get(key) is None:
        return EMPTY
    pairs = {name: value for name, value in as_object(fields[key], f"{what}.{key}").items() if value is not None}
    for name, value in pairs.items():
        if not isinstance(value, str):
            raise ImageError(f"{what}.{key}[{name!r}]: {_kind(value)} where a text belongs")
    return MappingProxyType(pairs)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "nothing"}
    return "an empty text" if value == "" else names.get(type(value), "a number")
