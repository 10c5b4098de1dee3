"""What a writer of a tag means to say, left where other writers of the tag find it, and how several become one.

Registries have no compare-and-swap, so writers that know of each other write the same: what all of them mean. Of one
key the later start counts, of two at the same time the writer whose name sorts last: ``merged`` is commutative,
associative and idempotent, so that all come to the same whatever they saw first. ``workflows.coordinate`` is the
protocol.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hpc3build.errors import ImageError, InputError
from hpc3build.facts import vocabulary as voc
from hpc3build.oci import Manifest
from hpc3build.pairs import check_pair
from hpc3build.rewrite.attach import annotations_alone
from hpc3build.stores.referrers import INTENT

ARTIFACT_TYPE = "application/vnd.hpc3build.intent.v0+json"
KEY = "io.github.hpc3build.intent"
_WRITER = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class KeyEdit:
    """What one key is to be, None for gone; ``start`` is when its writer began, in milliseconds since 1970."""

    value: str | None
    start: int
    writer: str

    @property
    def rank(self) -> tuple[int, str, bool, str]:
        """The highest counts."""
        return self.start, self.writer, self.value is not None, self.value or ""


Edits = Mapping[str, KeyEdit]


def merged(several: Iterable[Edits]) -> Edits:
    """What all of them mean together."""
    found: dict[str, KeyEdit] = {}
    for edits in several:
        for key, edit in edits.items():
            if key not in found or edit.rank > found[key].rank:
                found[key] = edit
    return MappingProxyType(dict(sorted(found.items())))


@dataclass(frozen=True)
class Intent:
    """``edits`` are the writer's own and all that it has seen, ``seen`` the writers that it knows of.

    ``writer`` is of one run, ``slot`` what its tag ends with. It writes no more ``lease`` seconds after this was left,
    unless it leaves another one. ``at`` is then, in seconds since 1970, ``base`` what the tag named. One that is
    ``done`` means nothing any more: it stays where a registry deletes nothing.
    """

    tag: str
    writer: str
    slot: str
    lease: float
    at: float
    base: str = ""
    edits: Edits = field(default_factory=lambda: MappingProxyType({}))
    seen: frozenset[str] = frozenset()
    done: bool = False

    @property
    def place(self) -> str:
        """The tag that it is left under."""
        return place(self.tag, self.slot)

    def manifest(self) -> Manifest:
        """A small artifact; the same intent gives the same bytes."""
        said = {
            "tag": self.tag,
            "writer": self.writer,
            "slot": self.slot,
            "lease": self.lease,
            "at": self.at,
            "base": self.base,
            "edits": {key: [edit.value, edit.start, edit.writer] for key, edit in sorted(self.edits.items())},
            "seen": sorted(self.seen),
            "done": self.done,
        }
        pairs = {KEY: json.dumps(said, ensure_ascii=False, separators=(",", ":"))}
        return annotations_alone(ARTIFACT_TYPE, pairs)


def place(tag: str, slot: str) -> str:
    """The tag of an intent about ``tag``."""
    return f"{prefix(tag)}{slot}"


def prefix(tag: str) -> str:
    """What the tags of all intents about ``tag`` begin with."""
    return f"{INTENT}{hashlib.sha256(tag.encode()).hexdigest()[:16]}."


def check_slot(name: str) -> None:
    """Raise InputError for a writer's name that no tag can end with, a number after it."""
    if not _WRITER.fullmatch(f"{name}-999"):
        raise InputError(f"--writer {name}: expected letters, digits, - and _, at most 60")


def read(manifest: Manifest) -> Intent:
    """The intent of a manifest. Raises ImageError for anything else.

    Its pairs are held to the same rules as a user's.
    """
    said = _document(manifest)
    try:
        edits = {str(key): KeyEdit(value, start, writer) for key, (value, start, writer) in said["edits"].items()}
        intent = Intent(
            said["tag"],
            said["writer"],
            said["slot"],
            _number(said["lease"]),
            _number(said["at"]),
            said["base"],
            MappingProxyType(edits),
            frozenset(said["seen"]),
            said["done"],
        )
        _check(intent)
    except (KeyError, ValueError, OverflowError, TypeError, AttributeError, InputError) as error:
        raise ImageError(f"{manifest.digest}: a writer's intent that is malformed: {error}") from error
    return intent


def _number(value: Any) -> float:
    """JSON as Python reads it has NaN, infinities, and integers of any length."""
    if type(value) not in (int, float) or not math.isfinite(number := float(value)):
        raise ValueError("a number that is none")
    return number


def _document(manifest: Manifest) -> Any:
    try:
        return json.loads(manifest.annotations[KEY])
    except (KeyError, ValueError, RecursionError) as error:
        raise ImageError(f"{manifest.digest} is no writer's intent") from error


def _check(intent: Intent) -> None:
    names = (intent.writer, intent.slot, *intent.seen, *(edit.writer for edit in intent.edits.values()))
    if not all(isinstance(text, str) for text in (intent.tag, intent.base, *names)) or type(intent.done) is not bool:
        raise ValueError("of other types")
    if not all(map(_WRITER.fullmatch, names)) or not 0 < intent.lease <= 86400:
        raise ValueError("writer or lease")
    (intent.tag + intent.base).encode()  # UnicodeEncodeError is a ValueError
    for key, edit in intent.edits.items():
        if type(edit.start) is not int or type(edit.value) not in (str, type(None)):
            raise ValueError(f"edit of {key}")
        if key.startswith(voc.FORBIDDEN_PREFIXES):
            raise ValueError(f"{key} is never written")
        check_pair(key, edit.value or "")
