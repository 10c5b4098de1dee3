"""Facts out of the document that ``facts --json`` writes: from another machine, or from a package manager's hook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hpc3build.errors import InputError
from hpc3build.facts import Fact, Facts, Note, Source, Statement, gather
from hpc3build.facts import vocabulary as voc


def is_document(data: Any) -> bool:
    """Whether ``data`` is a document of ``facts --json``."""
    return isinstance(data, Mapping) and {"subject", "annotations", "facts"} <= set(data)


def read(data: Mapping[str, Any], where: str) -> Facts:
    """The facts of a document. What is in conflict there has no value here, and is told as a note.

    Raises InputError, naming the file ``where`` and the entry, for keys and values that are not of the vocabulary.
    """
    return gather(_statements(data, where))


def _statements(data: Mapping[str, Any], where: str) -> Iterator[Statement]:
    entries = data["facts"]
    if not isinstance(entries, list):
        raise InputError(f"{where}: facts: expected a list")
    seen = set()
    for position, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not all(
            isinstance(entry.get(name), str) for name in ("key", "value", "source", "evidence")
        ):
            raise InputError(f"{where}: facts[{position}]: expected key, value, source and evidence")
        key = voc.BY_NAME.get(entry["key"])
        if key is None or key.name != entry["key"] or key in seen:
            raise InputError(
                f"{where}: facts[{position}]: {entry['key']!r} is no key of the vocabulary, or there twice"
            )
        seen.add(key)
        try:
            source = Source[entry["source"].upper()]
            key.check(entry["value"])
        except KeyError as error:
            raise InputError(f"{where}: facts[{position}]: unknown source {entry['source']!r}") from error
        except InputError as error:
            raise InputError(f"{where}: facts[{position}]: {error.message}", hint=error.hint) from error
        yield Fact(key, entry["value"], source, entry["evidence"])
    conflicts = data.get("conflicts")
    for conflict in conflicts if isinstance(conflicts, list) else ():
        key = voc.BY_NAME.get(str(conflict.get("key"))) if isinstance(conflict, Mapping) else None
        if key is not None:
            yield Note(key, f"in conflict: {conflict.get('message')}", where)
