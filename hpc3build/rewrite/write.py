"""Writing a plan: what is content-addressed first, children before parents, the tag last."""

from __future__ import annotations

from dataclasses import dataclass

from hpc3build.errors import TagMoved
from hpc3build.oci import Manifest
from hpc3build.reference import Reference
from hpc3build.rewrite.plan import Rewrite
from hpc3build.stores import Store
from hpc3build.stores.referrers import Referrers


@dataclass(frozen=True)
class Result:
    """What ``apply`` did; ``written`` are digests in the order of writing, ``changes`` the lines of a dry run."""

    reference: Reference
    old_digest: str
    new_digest: str
    changed: bool
    written: tuple[str, ...]
    converted: bool
    warnings: tuple[str, ...]
    changes: tuple[str, ...] = ()


def apply(store: Store, rewrite: Rewrite) -> Result:
    """Write a plan: blobs, then manifests, the tag last and only if it still names what was read (TagMoved).

    What is cut off before the tag leaves the tag as it was, and can simply be done again.
    """
    written = [store.put_blob(blob) for blob in rewrite.blobs]
    for old_digest, child in rewrite.manifests[:-1]:
        store.put_manifest(child, None)
        written += [child.digest, *_list(store, child, old_digest)]
    for old_digest, manifest in rewrite.manifests[-1:]:
        listed = _list_root(store, rewrite, manifest, old_digest)
        store.put_manifest(manifest, rewrite.tag, expect=rewrite.old_digest)
        written += [*listed, manifest.digest]
    return Result(
        rewrite.reference,
        rewrite.old_digest,
        rewrite.new_digest,
        not rewrite.is_empty,
        tuple(written),
        rewrite.converted,
        (*rewrite.warnings, *notes_of(store)),
    )


def notes_of(store: Store) -> tuple[str, ...]:
    """What a store has to say of its writing: an archive that had to be copied, say."""
    return tuple(getattr(store, "notes", ()))


def _list_root(store: Store, rewrite: Rewrite, manifest: Manifest, old_digest: str) -> list[str]:
    """A referrer is listed before its tag moves: cut off in between, the next run finds the tag unmoved."""
    if manifest.subject is None or not isinstance(store, Referrers):
        return []
    if rewrite.tag is not None and (now := store.manifest(rewrite.tag).digest) != rewrite.old_digest:
        raise TagMoved(
            f"{rewrite.reference} is {now} now, it was {rewrite.old_digest}",
            hint="somebody else wrote it meanwhile; look at it, then do this again",
        )
    store.put_manifest(manifest, None)
    return _list(store, manifest, old_digest)


def _list(store: Store, manifest: Manifest, old_digest: str) -> list[str]:
    if manifest.subject is None or not isinstance(store, Referrers):
        return []
    listed = store.list_referrer(manifest, replaces=old_digest)
    return [listed] if listed else []
