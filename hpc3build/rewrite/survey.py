"""What refers to digests that are about to change: counted, and taken along where it is no signature."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from hpc3build.oci import Descriptor, Manifest, repointed
from hpc3build.stores import Store
from hpc3build.stores.beside import Later
from hpc3build.stores.referrers import About, Referrers

#: What speaks of one digest in its own content, so that another subject would make it a lie.
_STATEMENT = re.compile(r"sign|sigstore|cosign|notary|(?<!an)notation|in-toto|attest|dsse|intoto")


@dataclass(frozen=True)
class Moved:
    """Referrers that follow, as (old, new) with the new subject, and a sentence for each digest that has any."""

    referrers: tuple[tuple[Manifest, Manifest], ...] = ()
    told: tuple[str, ...] = ()


def start(store: Store, digests: Iterable[str]) -> Callable[[], tuple[About, ...]]:
    """Begin to look, beside what else is asked of the store where it can do two things at once."""
    digests = tuple(dict.fromkeys(digests))
    if not isinstance(store, Referrers):
        return tuple
    beside: Callable[[], contextlib.AbstractContextManager[Referrers]] | None = getattr(store, "beside", None)
    if beside is None:
        return lambda: store.survey(digests)

    def look() -> tuple[About, ...]:
        with beside() as other:
            return other.survey(digests)

    return Later(look).result


def is_statement(referrer: Descriptor) -> bool:
    """Whether a referrer is a signature or an attestation."""
    return _STATEMENT.search(referrer.artifact_type.lower()) is not None


def follow(store: Store, found: Iterable[About], successors: Mapping[str, Manifest], *, move: bool) -> Moved:
    """What becomes of what refers to the old digests; with ``move`` all but signatures get the new one as subject."""
    moved: list[tuple[Manifest, Manifest]] = []
    told = []
    for about in found:
        mine = [referrer for referrer in about.referrers if move and not is_statement(referrer)]
        for referrer in mine:
            old = store.manifest(referrer.digest)
            raw = repointed(old.raw, ("subject",), successors[about.digest])
            moved.append((old, Manifest.parse(raw, old.media_type)))
        told.append(_sentence(about, tuple(one for one in about.referrers if one not in mine), len(mine)))
    return Moved(tuple(moved), tuple(told))


def _sentence(about: About, staying: tuple[Descriptor, ...], moving: int) -> str:
    parts = []
    if staying:
        kinds = Counter(descriptor.artifact_type or "of no type" for descriptor in staying)
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        parts.append(f"{_count(len(staying), 'referrer')} ({counts})")
    if about.tags:
        parts.append(f"{_count(len(about.tags), 'tag')} of cosign's ({', '.join(about.tags)})")
    stay = "they stay with the old digest, the new one has none"
    if moving:
        told = f"{about.digest} has {_count(moving, 'referrer')} that follow to the new digest"
        return f"{told}; {' and '.join(parts)} stay with the old one" if parts else told
    return f"{about.digest} has {' and '.join(parts)}: {stay}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s'[: number != 1]}"
