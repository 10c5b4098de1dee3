"""Writing a plan: what is content-addressed first, children before parents, the tag last."""

from __future__ import annotations

from dataclasses import dataclass

from hpc3build.errors import StoreError, TagMoved
from hpc3build.oci import Manifest, digest_of
from hpc3build.reference import Reference
from hpc3build.rewrite.diff import changes
from hpc3build.rewrite.plan import Rewrite
from hpc3build.rewrite.receipt import Entry
from hpc3build.stores import Store, is_absence
from hpc3build.stores.referrers import Referrers


@dataclass(frozen=True)
class Result:
    """What ``apply`` did; ``written`` are digests in the order of writing, ``changes`` the lines that show it.

    ``undo`` is what takes it back, None where nothing was written or the old image cannot be named again.
    ``undecided`` are keys that were left as they are, because what is known of them does not agree.
    ``attached`` are the digests of referrers, which leave the image as it is.
    """

    reference: Reference
    old_digest: str
    new_digest: str
    changed: bool
    written: tuple[str, ...]
    converted: bool
    warnings: tuple[str, ...]
    changes: tuple[str, ...] = ()
    undo: Entry | None = None
    undecided: tuple[str, ...] = ()
    attached: tuple[str, ...] = ()


def apply(store: Store, rewrite: Rewrite, *, backup_tag: str | None = None, verify: bool = False) -> Result:
    """Write a plan: blobs, then manifests, the tag last and only if it still names what was read (TagMoved).

    What is cut off before the tag leaves the tag as it was, and can simply be done again. ``backup_tag`` goes on naming
    the old image; StoreError where it names another one. ``verify`` reads back what the tag names.
    """
    written = [store.put_blob(blob) for blob in rewrite.blobs]
    for old, child in rewrite.manifests[:-1]:
        if child.digest not in written:  # of several that become one
            store.put_manifest(child, None)
            written.append(child.digest)
        written += put_in_list(store, child, old.digest)
    for _, referrer in rewrite.referrers:
        store.put_manifest(referrer, None)
        written += [referrer.digest, *put_in_list(store, referrer)]
    if backup_tag is not None and not rewrite.is_empty:
        keep(store, rewrite.old, rewrite.reference.with_tag(backup_tag), backup_tag)
    for old, manifest in rewrite.manifests[-1:]:
        listed = _list_root(store, rewrite, manifest, old.digest)
        store.put_manifest(manifest, rewrite.tag, expect=old.digest)
        written += [*listed, manifest.digest]
        if verify:
            read_back(store, rewrite.reference, rewrite.tag, manifest)
    return Result(
        rewrite.reference,
        rewrite.old_digest,
        rewrite.new_digest,
        not rewrite.is_empty,
        tuple(written),
        rewrite.converted,
        (*rewrite.warnings, *notes_of(store)),
        tuple(changes(rewrite)),
        undo_of(rewrite, backup_tag),
    )


def undo_of(rewrite: Rewrite, backup_tag: str | None) -> Entry | None:
    """What takes a plan back that was written in its place."""
    if rewrite.is_empty:
        return None
    return Entry(
        rewrite.reference,
        rewrite.tag,
        rewrite.old_digest,
        rewrite.new_digest,
        backup_tag,
        tuple(old for old, _ in rewrite.manifests),
        tuple({old.digest: old for old, _ in rewrite.configs}.values()),
    )


def would(rewrite: Rewrite) -> tuple[str, ...]:
    """The digests that ``apply`` would write, lists of referrers apart."""
    manifests = (*rewrite.manifests[:-1], *rewrite.referrers, *rewrite.manifests[-1:])
    return tuple(dict.fromkeys((*map(digest_of, rewrite.blobs), *(new.digest for _, new in manifests))))


def keep(store: Store, manifest: Manifest, named: Reference, tag: str) -> None:
    """Give a manifest that is in the store one more tag. Raises StoreError where the tag names another."""
    try:
        there: Manifest | None = store.manifest(tag)
    except StoreError as error:
        if not is_absence(error):
            raise
        there = None
    if there is not None and there.raw != manifest.raw:
        told = f"{named} is {there.digest} already, so it cannot keep {manifest.digest}"
        raise StoreError(told, hint="name another tag")
    if there is None:
        store.put_manifest(manifest, tag)


def read_back(store: Store, reference: Reference, tag: str | None, manifest: Manifest) -> None:
    """Raise TagMoved where the tag does not name what was just written."""
    now = store.manifest(tag or manifest.digest)
    if now.raw != manifest.raw:
        raise TagMoved(f"{reference} is {now.digest} now, it was {manifest.digest}")


def notes_of(store: Store) -> tuple[str, ...]:
    """What a store has to say of its writing: an archive that had to be copied, say."""
    return tuple(getattr(store, "notes", ()))


def put_in_list(store: Store, manifest: Manifest, replaces: str | None = None) -> list[str]:
    """Make a referrer findable from its subject; the digest of the list, where there is one."""
    if manifest.subject is None or not isinstance(store, Referrers):
        return []
    listed = store.list_referrer(manifest, replaces=replaces)
    return [listed] if listed else []


def _list_root(store: Store, rewrite: Rewrite, manifest: Manifest, old_digest: str) -> list[str]:
    """A referrer is listed before its tag moves: cut off in between, the next run finds the tag unmoved."""
    if manifest.subject is None or not isinstance(store, Referrers):
        return []
    if rewrite.tag is not None and (now := store.manifest(rewrite.tag)).raw != rewrite.old.raw:
        raise TagMoved(f"{rewrite.reference} is {now.digest} now, it was {rewrite.old_digest}")
    store.put_manifest(manifest, None)
    return put_in_list(store, manifest, old_digest)
