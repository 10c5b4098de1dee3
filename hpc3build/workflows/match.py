"""Will it run here, and which of several runs best: candidates judged against one host, and ranked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hpc3build.errors import InputError
from hpc3build.host.fingerprint import Fingerprint
from hpc3build.match import Match, Matcher, Verdict
from hpc3build.reference import parse
from hpc3build.stores import open_store
from hpc3build.workflows.candidates import Candidate, Reading, candidates, is_records


@dataclass(frozen=True)
class Judged:
    """A candidate, and what the rules say of it on the host."""

    candidate: Candidate
    match: Match


@dataclass(frozen=True)
class Choice:
    """All candidates, the best first."""

    ranked: tuple[Judged, ...]

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

    Raises InputError where there is no image, and what reading raises.
    """
    matcher = Matcher(reading.host)
    texts = tuple(texts)
    found = [
        Judged(candidate, matcher.match(candidate.pairs, candidate.platform))
        for text in texts
        for candidate in candidates(text, reading)
    ]
    if not found:
        raise InputError(f"{', '.join(texts)[:200]}: no image there to judge")
    return Choice(tuple(sorted(found, key=lambda judged: -judged.match.score)))


def measured(choice: Choice, text: str, reading: Reading) -> Choice:
    """The choice with the size of its best image, where that is a NO that an index alone told: one more manifest."""
    best = choice.best
    if best.candidate.size is not None or best.match.verdict is not Verdict.NO or is_records(text):
        return choice
    reference = parse(best.candidate.reference)
    with open_store(reference, reading.runner, reading.access) as store:
        manifest = store.manifest(best.candidate.digest)
    known = replace(best.candidate, size=sum(layer.size for layer in manifest.layers))
    return Choice((Judged(known, best.match), *choice.ranked[1:]))


def host_of(fingerprint: Fingerprint) -> str:
    """The host in a few words, for headings."""
    parts = [fingerprint.cpu.target or fingerprint.cpu.architecture or "an unknown CPU"]
    parts += sorted({gpu.architecture or gpu.name or gpu.vendor or "a GPU" for gpu in fingerprint.gpus or ()})
    parts += sorted({f"{mpi.implementation or mpi.family} {mpi.abi or ''}".strip() for mpi in fingerprint.mpi or ()})
    return ", ".join(parts)
