"""Keys, facts and their merging: what is known of an image or a host, each fact with where it came from.

A subject (cpu, gpu, mpi, …) is one module of this package. It derives the facts of its keys from a concretized stack
(``from_stack``) and from files found in an image (``from_files``). Rules R1–R10 are those of docs/vocabulary.md.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from hpc3build.errors import InputError
from hpc3build.pairs import check_pair


class Source(enum.IntEnum):
    """Who says it; the larger wins (rule of design: USER > STACK > FILES > LABEL)."""

    LABEL = 1
    FILES = 2
    STACK = 3
    USER = 4


class Need(enum.Enum):
    """Whether a key must be there: M mandatory, O optional, C when its condition holds."""

    MANDATORY = "M"
    OPTIONAL = "O"
    CONDITIONAL = "C"


class Place(enum.Flag):
    """Where a key is written (rule N4)."""

    LABEL = enum.auto()  # Config.Labels and the same pair as a manifest annotation
    DESCRIPTOR = enum.auto()  # also on the index descriptor
    REFERRER = enum.auto()


@dataclass(frozen=True, kw_only=True)
class Key:
    """One row of the vocabulary: the only place where an annotation is defined.

    ``grammar`` is the value's form in words, ``pattern`` the regular expression that it must match in full.
    ``condition`` tells when a conditional key applies. ``confirmed`` is False where the key or its values are this
    project's own and no public text carries them yet. ``further`` asks of a value what no pattern can.
    """

    name: str
    grammar: str
    pattern: re.Pattern[str]
    need: Need
    place: Place
    derived: str
    consumers: str
    subject: str
    condition: str = ""
    aliases: tuple[str, ...] = ()
    confirmed: bool = True
    further: Callable[[str], bool] | None = None

    def normal(self, value: str) -> str:
        """``value`` as rule N3 writes it: a LIST sorted, each item once, unless its order means something."""
        if not self.grammar.startswith("LIST") or "best first" in self.grammar:
            return value
        return ",".join(sorted(set(value.split(","))))

    def value_in(self, pairs: Mapping[str, str]) -> str | None:
        """What ``pairs`` say of this key, by its newest spelling there; None where they say nothing."""
        return next((pairs[name] for name in (self.name, *self.aliases) if name in pairs), None)

    def check(self, value: str) -> None:
        """Raise InputError when ``value`` does not follow the grammar or is too long for a label."""
        if not self.pattern.fullmatch(value) or (self.further is not None and not self.further(value)):
            raise InputError(f"{self.name}: {value!r} is not a value of this key", hint=f"expected {self.grammar}")
        check_pair(self.name, value)

    def holds(self, value: str) -> bool:
        """Whether ``check`` takes ``value``."""
        try:
            self.check(value)
        except InputError:
            return False
        return True


@dataclass(frozen=True)
class Fact:
    """One statement: ``value`` in the key's grammar; ``evidence`` says where it was read, for people."""

    key: Key
    value: str
    source: Source
    evidence: str


@dataclass(frozen=True)
class Conflict:
    """Statements that cannot all hold: the key has no value until the user decides."""

    key: Key
    values: tuple[Fact, ...]
    message: str


@dataclass(frozen=True)
class Note:
    """Something seen that decides nothing, shown to people: an MPI that no root says it uses, say."""

    key: Key
    message: str
    evidence: str


Statement = Fact | Conflict | Note


@dataclass(frozen=True)
class Facts(Mapping[Key, Fact]):
    """An immutable set of facts, one a key, with the conflicts and notes met on the way."""

    facts: Mapping[Key, Fact] = field(default_factory=lambda: MappingProxyType({}))
    conflicts: tuple[Conflict, ...] = ()
    notes: tuple[Note, ...] = ()

    def __getitem__(self, key: Key) -> Fact:
        return self.facts[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self.facts)

    def __len__(self) -> int:
        return len(self.facts)

    def value(self, key: Key) -> str | None:
        """The value of ``key``, None when unknown."""
        fact = self.facts.get(key)
        return fact.value if fact else None

    def annotations(self) -> dict[str, str]:
        """The pairs to write, sorted by key."""
        return {key.name: self.facts[key].value for key in sorted(self.facts, key=lambda key: key.name)}


Comparison = Callable[[Key, str, str], bool]


def same(_key: Key, one: str, other: str) -> bool:
    """The plainest comparison of two values."""
    return one == other


def gather(statements: Iterable[Statement], agree: Comparison = same) -> Facts:
    """Join statements into Facts.

    Of several facts of one key the better source wins, the first among equals, provided that they agree; equal values
    add up their evidence. Facts that do not agree become a conflict, unless the user decided (source USER).
    What breaks its key's grammar is no fact: of the user an InputError, of everything else, which somebody else wrote,
    a note, and the key stays unknown.
    """
    by_key: dict[Key, list[Fact]] = {}
    conflicts: dict[Key, Conflict] = {}
    notes: list[Note] = []
    for statement in statements:
        if isinstance(statement, Fact):
            try:
                statement.key.check(statement.value)
            except InputError as error:
                notes.append(_refused(statement, error))
            else:
                by_key.setdefault(statement.key, []).append(statement)
        elif isinstance(statement, Conflict):
            conflicts.setdefault(statement.key, statement)
        else:
            notes.append(statement)
    facts: dict[Key, Fact] = {}
    for key, found in by_key.items():
        best = max(found, key=lambda fact: fact.source)
        if best.source is Source.USER:
            conflicts.pop(key, None)
        elif key in conflicts:
            continue
        elif strangers := [fact for fact in found if not agree(key, best.value, fact.value)]:
            values = (best, *strangers)
            told = "; ".join(f"{fact.value} ({fact.evidence})" for fact in values)
            conflicts[key] = Conflict(key, values, f"these do not agree: {told}")
            continue
        facts[key] = _with_all_evidence(best, found)
    return Facts(MappingProxyType(facts), tuple(conflicts.values()), tuple(notes))


def _refused(fact: Fact, error: InputError) -> Note:
    """What remains of a fact whose value is none of its key's."""
    message = _shortened(error.message)
    if fact.source is Source.USER:
        raise InputError(f"{fact.evidence}: {message}", hint=error.hint) from error
    return Note(fact.key, f"left out: {message}", _shortened(fact.evidence))


def _shortened(text: str) -> str:
    """What an image or a lock says may be megabytes long."""
    return text if len(text) <= 400 else f"{text[:300]} … {text[-80:]}"


def _with_all_evidence(best: Fact, found: Iterable[Fact]) -> Fact:
    texts = dict.fromkeys(fact.evidence for fact in (best, *found) if fact.value == best.value)
    return Fact(best.key, best.value, best.source, "; ".join(texts))
