"""Several writers of one tag, who know of each other by the intents that they leave in its repository.

What each does, again and again: leave an intent; list those of the others, make their edits its own, and say so in the
intent; read the tag, and write what all mean where it does not say so yet. It goes when the tag says it all and each
other intent either names it as seen or has run out; the intents that ran out are removed then, and its own.

Why nothing is lost. An intent is left before the others' are listed, and they are listed before the tag is read. So of
two writers one at least sees the other; who was seen stays until the other says so, or until its lease is over; and who
says so writes both from then on. Who is killed has its edits in its intent, and nobody goes before they are in the tag.

The bounds: a write lands within the deadline that it is given or never, the deadline is a part of the lease, and nobody
begins to write after half of its lease. A list of tags shows what was put before it was asked for. Leases are measured
by each reader from when it first saw an intent, so clocks need not agree; but one older by SKEW than its lease by this
machine's clock has run out, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

from hpc3build.errors import Hpc3BuildError, StoreError, TagMoved
from hpc3build.rewrite import Result
from hpc3build.rewrite.intent import Edits, Intent, KeyEdit, merged

LEASE = 180.0
SKEW = 3600.0
#: How often a write may go wrong before the writer gives up; its intent stays, and others write it.
FAULTS = 3
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 2.0


@dataclass(frozen=True)
class Posted:
    """An intent as it lies in the repository."""

    digest: str
    intent: Intent


class Board(Protocol):
    """One tag of a repository and the intents about it."""

    def others(self) -> list[Posted]:
        """All intents but this writer's own, those that are done left out."""

    def post(self, intent: Intent) -> str:
        """Leave an intent in the place of this writer's last one; its digest."""

    def remove(self, posted: Posted) -> None:
        """Take an intent away, or where that is refused put one that is done there; one that is gone is no fault."""

    def write(self, edits: Edits, ready: Callable[[], None]) -> Result:
        """Make the tag say all this, ``ready`` called just before. Raises TagMoved, and StoreError after a fault."""


class LeaseOver(Exception):
    """There is no time left to write under this lease."""


@dataclass(frozen=True)
class Clocks:
    """``steady`` counts seconds, ``wall`` is the time of day in seconds since 1970."""

    steady: Callable[[], float]
    wall: Callable[[], float]
    sleep: Callable[[float], None]


def deadline(lease: float) -> float:
    """Seconds within which a request lands or is lost: before a write come a question and this writer's own time."""
    return lease / 6


def edits_of(pairs: Mapping[str, str], remove: tuple[str, ...], start: int, writer: str) -> Edits:
    """A wish as edits."""
    gone = {key: KeyEdit(None, start, writer) for key in remove}
    return MappingProxyType({**gone, **{key: KeyEdit(value, start, writer) for key, value in pairs.items()}})


def coordinate(board: Board, mine: Intent, clocks: Clocks) -> Result:
    """Write what ``mine`` and all other intents mean. Raises what writing raises; the intent stays then."""
    return _Writer(board, mine, clocks).run()


class _Writer:
    def __init__(self, board: Board, mine: Intent, clocks: Clocks) -> None:
        self._board, self._intent, self._clocks = board, mine, clocks
        self._digest = ""
        self._posted = 0.0  # when the lease began
        self._first_seen: dict[str, float] = {}  # others' intents, by digest
        self._written: list[Result] = []
        self._faults = 0

    def run(self) -> Result:
        try:
            return self._run()
        except Hpc3BuildError as error:
            if self._digest and (not isinstance(error, StoreError) or 400 <= (error.status or 0) < 500):
                # A write that cannot be: nobody is to try it for me.
                self._board.remove(Posted(self._digest, self._intent))
            raise

    def _run(self) -> Result:
        self._post()
        pause = _FIRST_PAUSE
        while True:
            if self._age() > self._intent.lease / 2:
                self._post()
            others = self._board.others()
            if self._take_up(others):
                self._post()  # and look again: whoever came meanwhile must be seen after this
                continue
            result = self._write()
            if result is None:
                continue
            if not result.changed and self._may_go(others):
                return self._go(others, result)
            if result.changed:
                pause = _FIRST_PAUSE
            else:
                self._clocks.sleep(pause)
                pause = min(2 * pause, _LAST_PAUSE)

    def _age(self) -> float:
        return self._clocks.steady() - self._posted

    def _post(self) -> None:
        began = self._clocks.steady()
        self._intent = replace(self._intent, at=round(self._clocks.wall(), 3))
        self._digest = self._board.post(self._intent)
        self._posted = began

    def _take_up(self, others: list[Posted]) -> bool:
        """Make the others' edits mine. Whether my intent does not say so yet."""
        now = self._clocks.steady()
        self._first_seen = {one.digest: self._first_seen.get(one.digest, now) for one in others}
        edits = merged([self._intent.edits, *(one.intent.edits for one in others)])
        seen = self._intent.seen | {one.intent.writer for one in others}
        if edits == self._intent.edits and seen == self._intent.seen:
            return False
        self._intent = replace(self._intent, edits=edits, seen=seen)
        return True

    def _write(self) -> Result | None:
        """None where it has to be tried again."""
        try:
            result = self._board.write(self._intent.edits, self._ready)
        except LeaseOver:
            return None
        except TagMoved:
            return None
        except StoreError as error:
            if 400 <= (error.status or 0) < 500:
                raise
            # The write may land yet, up to its deadline; until then nothing may be said to be there or not.
            self._faults += 1
            if self._faults == FAULTS:
                raise
            self._clocks.sleep(deadline(self._intent.lease))
            return None
        if result.changed:
            self._written.append(result)
        return result

    def _ready(self) -> None:
        if self._age() > self._intent.lease / 2:
            raise LeaseOver

    def _is_over(self, posted: Posted) -> bool:
        lease = posted.intent.lease
        old = self._clocks.wall() - posted.intent.at > lease + SKEW
        return old or self._clocks.steady() - self._first_seen[posted.digest] >= lease

    def _may_go(self, others: list[Posted]) -> bool:
        """Whether each living writer knows of me, and of the dead whose intents go with mine."""
        living = [one.intent for one in others if not self._is_over(one)]
        known = {self._intent.writer, *(one.intent.writer for one in others if self._is_over(one))}
        return all(known <= one.seen for one in living)

    def _go(self, others: list[Posted], result: Result) -> Result:
        # The dead first: what they say may be older than what this intent says of the same keys.
        for one in others:
            if self._is_over(one):
                self._board.remove(one)
        self._board.remove(Posted(self._digest, self._intent))
        if not self._written:
            return result
        first, last = self._written[0], self._written[-1]
        digests = tuple(digest for one in self._written for digest in one.written)
        changes = tuple(dict.fromkeys(change for one in self._written for change in one.changes))
        return replace(last, old_digest=first.old_digest, written=digests, changes=changes, undo=None)
