"""``-a KEY=VALUE`` of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hpc3build.errors import InputError
from hpc3build.facts import given


def parse_pairs(texts: Iterable[str]) -> dict[str, str]:
    """The pairs of several ``-a``, which people type. Raises InputError, also for two values of one key."""
    pairs: dict[str, str] = {}
    for key, value in (parse_pair(text, given.typed) for text in texts):
        if pairs.setdefault(key, value) != value:
            raise InputError(f"-a {key}: given twice, as {pairs[key]!r} and {value!r}")
    return pairs


def parse_pair(text: str, check: Callable[[str, str], str] = given.checked) -> tuple[str, str]:
    """``KEY=VALUE``, checked against the vocabulary where the key is of it. Raises InputError."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"-a {text}: expected KEY=VALUE")
    return key, check(key, value)
