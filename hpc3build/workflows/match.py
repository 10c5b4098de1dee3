"""Will it run here, and which of several runs best: candidates judged against one host, and ranked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from hpc3build.errors import ImageError, InputError, StoreError
from hpc3build.host.fingerprint import Fingerprint
from hpc3build.match import Match, Matcher, Verdict
from hpc3build.match.judgement import Judgement, fails
from hpc3build.reference import DOCKER, parse
from hpc3build.stores import is_absence
from hpc3build.workflows.candidates import MAX_READ, Candidate, Reading, candidates, is_records, whole
from hpc3build.workflows.names import tag_pattern

Missing = tuple[str, "StoreError | ImageError"]


@dataclass(frozen=True)
class Judged:
    """A candidate, and what the rules say of it on the host."""

    candidate: Candidate
    match: Match


@dataclass(frozen=True)
class Choice:
    """All candidates, the best first. ``missing`` are texts that named nothing, each with its error."""

    ranked: tuple[Judged, ...]
    missing: tuple[Missing, ...] = ()

    @property
    def best(self) -> Judged:
        """The first of the ranked."""
        return self.ranked[0]

    @property
    def bytes_not_downloaded(self) -> int:
        """Bytes of the layers of what does not run here, as far as they were read: what the answer saved."""
        return sum(judged.candidate.size or 0 for judged in self.ranked if judged.match.verdict is Verdict.NO)

    def runs(self, *, allow_unknown: bool) -> bool:
        """Whether the best one may be used."""
        verdict = self.best.match.verdict
        return verdict in (Verdict.RUN, Verdict.DEGRADED) or (allow_unknown and verdict is Verdict.UNKNOWN)


def choose(texts: Iterable[str], reading: Reading) -> Choice:
    """Judge and rank every image that ``texts`` name; of equal ones the first stays first.

    The best one is never what a descriptor alone says: its manifest and configuration are read, and it is judged again.
    Of several texts one that names nothing is kept in ``missing``.

    Raises InputError where there is no image, and what reading raises.
    """
    matcher = Matcher(reading.host)
    texts = tuple(texts)
    found: list[Judged] = []
    missing: list[Missing] = []
    with one_client(texts, reading) as reading:
        for text in texts:
            try:
                found += [_judged(matcher, candidate) for candidate in candidates(text, reading)]
            except (StoreError, ImageError) as error:
                if len(texts) == 1:
                    raise
                missing.append((text, error))
        ranked = _settled(found, matcher, reading)
    if not ranked and missing:
        raise missing[0][1]
    if not ranked:
        raise InputError(f"{', '.join(texts)[:200]}: no image there to judge")
    return Choice(ranked, tuple(missing))


def ranked(found: Iterable[Candidate], reading: Reading) -> tuple[Judged, ...]:
    """These candidates, the best for ``reading.host`` first, and read. Raises what reading raises."""
    matcher = Matcher(reading.host)
    return _settled([_judged(matcher, candidate) for candidate in found], matcher, reading)


@contextlib.contextmanager
def one_client(texts: tuple[str, ...], reading: Reading) -> Iterator[Reading]:
    """What is read again of a registry needs no new connection and no new token."""
    names = ((tag_pattern(text) or (text,))[0] for text in texts if not is_records(text))
    if reading.client is not None or not any(parse(name).transport == DOCKER for name in names):
        yield reading
        return
    from hpc3build.stores.transport import Client

    with contextlib.closing(Client(reading.access)) as client:
        yield replace(reading, client=client)


def _judged(matcher: Matcher, candidate: Candidate) -> Judged:
    return Judged(candidate, matcher.match(candidate.pairs, candidate.platform))


def _settled(found: list[Judged], matcher: Matcher, reading: Reading) -> tuple[Judged, ...]:
    """Ranked, the best one read: while one that was read sinks below one that was not, that is read, too.

    Where ``MAX_READ`` images sank, those that were read come first: what a descriptor alone says is never the answer.
    """
    order = sorted(enumerate(found), key=lambda entry: (-entry[1].match.score, entry[0]))
    for _ in range(MAX_READ):
        if not order or order[0][1].candidate.read:
            break
        position, told = order.pop(0)
        if (known := _looked_into(told, matcher, reading)) is not None:
            order.append((position, known))
            order.sort(key=lambda entry: (-entry[1].match.score, entry[0]))
    else:
        order.sort(key=lambda entry: not entry[1].candidate.read)
    return tuple(judged for _, judged in order)


def _looked_into(told: Judged, matcher: Matcher, reading: Reading) -> Judged | None:
    try:
        candidate = whole(told.candidate, reading)
    except StoreError as error:
        if not is_absence(error):
            raise
        absent = Judgement((fails("index", None, "the index lists this image, and it is not there"),))
        match = replace(told.match, judged=(*told.match.judged, absent))
        return Judged(replace(told.candidate, read=True), match)
    return None if candidate is None else _judged(matcher, candidate)


def host_of(fingerprint: Fingerprint) -> str:
    """The host in a few words, for headings."""
    parts = [fingerprint.cpu.target or fingerprint.cpu.architecture or "an unknown CPU"]
    parts += sorted({gpu.architecture or gpu.name or gpu.vendor or "a GPU" for gpu in fingerprint.gpus or ()})
    parts += sorted({f"{mpi.implementation or mpi.family} {mpi.abi or ''}".strip() for mpi in fingerprint.mpi or ()})
    return ", ".join(parts)
