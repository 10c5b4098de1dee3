"""What refers to digests that are about to change: signatures, attestations, SBOMs and other referrers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hpc3build.stores import Store
from hpc3build.stores.referrers import Referrers


def survey(store: Store, digests: Iterable[str]) -> list[str]:
    """One sentence a digest that something refers to; none where the store cannot tell."""
    if not isinstance(store, Referrers):
        return []
    told = []
    for digest in dict.fromkeys(digests):
        found = store.referrers(digest)
        tags = store.signature_tags(digest)
        parts = []
        if found:
            kinds = Counter(descriptor.artifact_type or "of no type" for descriptor in found)
            counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            parts.append(f"{len(found)} referrer{'s'[: len(found) != 1]} ({counts})")
        if tags:
            parts.append(f"{len(tags)} tag{'s'[: len(tags) != 1]} of cosign's ({', '.join(tags)})")
        if parts:
            told.append(f"{digest} has {' and '.join(parts)}: they stay with the old digest, the new one has none")
    return told
