"""Taking back what a receipt says was written: each tag goes to its old image, if it is still where it was put."""

from __future__ import annotations

import contextlib

from hpc3build import rewrite
from hpc3build.errors import StoreError, TagMoved
from hpc3build.rewrite.receipt import Entry
from hpc3build.run import Runner
from hpc3build.stores import Store, open_store
from hpc3build.stores.access import Access


def undo(
    entry: Entry, runner: Runner, access: Access | None = None, *, dry_run: bool = False, verify: bool = False
) -> rewrite.Result:
    """Put the old image back. Raises TagMoved where the tag names a third one, StoreError for a tag that was new."""
    with open_store(entry.reference, runner, access, read_back=verify) as store:
        now = store.manifest(entry.reference.digest if entry.tag is None else entry.tag)
        if now.is_named(entry.before):
            return rewrite.Result(entry.reference, now.digest, now.digest, False, (), False, ())
        if not now.is_named(entry.after):
            raise TagMoved(
                f"{entry.reference} is {now.digest} now, neither {entry.after} that was written nor {entry.before} "
                "before it",
                hint="it was written again since: undo that first, if it has a receipt, or look who wrote it",
            )
        if entry.before is None:
            raise StoreError(
                f"{entry.reference}: there was no such tag before, and hpc3build deletes none",
                hint="registries delete a manifest with all its tags; do it by hand if it is safe",
            )
        written = [] if dry_run else _put_back(store, entry, now.digest)
        return rewrite.Result(entry.reference, entry.after, entry.before, True, tuple(written), False, ())


def _put_back(store: Store, entry: Entry, now: str) -> list[str]:
    written = [store.put_blob(config.raw, config.digest) for config in entry.configs]
    *children, image = entry.manifests
    for child in children:
        with contextlib.suppress(StoreError):  # mostly it lies there still
            store.manifest(child.digest)
            continue
        store.put_manifest(child, None)
        written.append(child.digest)
    store.put_manifest(image, entry.tag, expect=now)
    return [*written, image.digest]
