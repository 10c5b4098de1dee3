"""Writing a plan into another store: everything that the image needs, children before parents, the tag last."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hpc3build.errors import StoreError
from hpc3build.oci import INDEXES, MANIFESTS, Descriptor, Manifest
from hpc3build.reference import DAEMON, Reference
from hpc3build.rewrite.diff import changes
from hpc3build.rewrite.plan import Rewrite
from hpc3build.rewrite.receipt import Entry
from hpc3build.rewrite.write import Result, keep, notes_of, put_in_list, read_back
from hpc3build.stores import Store, is_absence, read_blob, tag_to_write


def transfer(
    source: Store,
    target: Store,
    rewrite: Rewrite,
    to: Reference,
    *,
    backup_tag: str | None = None,
    verify: bool = False,
    here: bool = False,
    begin: Callable[[], None] = lambda: None,
) -> Result:
    """Write a plan under ``to``, in the repository of ``target``; what is there already is not sent again.

    ``here`` says that both stores are one place, so that only what is new is written. ``begin`` is called when all is
    there but the tag.

    ``backup_tag`` is for what ``to`` named before. Where ``to`` has a digest and no tag, it is the new image's own, and
    no tag is written. Raises TagMoved when ``to`` is moved by somebody else meanwhile.
    """
    tag = tag_to_write(to)
    before = _there(target, tag or rewrite.new_digest)
    written: list[str] = []
    if before is None or before.raw != rewrite.new.raw:
        work = _Transfer(source, target, rewrite, written, here)
        work.bring(rewrite.new)
        for _, referrer in rewrite.referrers:
            work.bring(referrer)
            target.put_manifest(referrer, None)
            written += [referrer.digest, *put_in_list(target, referrer)]
        if backup_tag is not None and before is not None:
            keep(target, before, to.with_tag(backup_tag), backup_tag)
        begin()
        target.put_manifest(rewrite.new, tag, expect=before.digest if before else None)
        written.append(rewrite.new_digest)
        if verify:
            read_back(target, to, tag, rewrite.new)
    undo = None
    if written and tag is not None and to.transport != DAEMON:  # what docker makes of it has another digest
        old = before.digest if before else None
        kept = backup_tag if before else None
        undo = Entry(to.with_tag(tag), tag, old, rewrite.new_digest, kept, (before,) if before else ())
    return Result(
        to,
        rewrite.old_digest,
        rewrite.new_digest,
        bool(written),
        tuple(written),
        rewrite.converted,
        (*rewrite.warnings, *notes_of(source), *(notes_of(target) if target is not source else ())),
        tuple(changes(rewrite)),
        undo,
    )


def _there(target: Store, tag: str) -> Manifest | None:
    try:
        return target.manifest(tag)
    except StoreError as error:
        if is_absence(error):
            return None
        raise


class _Transfer:
    def __init__(self, source: Store, target: Store, rewrite: Rewrite, written: list[str], here: bool) -> None:
        self._source, self._target, self._written = source, target, written
        self._here = here
        self._new = {new.digest: new for _, new in rewrite.manifests}
        self._configs = {new.digest: new.raw for _, new in rewrite.configs}
        self._done: set[str] = set()

    def bring(self, manifest: Manifest) -> None:
        """All that a manifest points to."""
        beside = self._here and self._target is not self._source and not manifest.is_index
        if beside and (config := manifest.config.digest) not in self._configs:
            # Of the layers' place each image of containers-storage knows, of the configuration its own name alone.
            self._target.put_blob(read_blob(self._source, config), config)
        for child in _once(manifest.descriptors, self._done):
            if self._here and child.digest not in self._new and child.digest not in self._configs:
                continue
            if child.media_type in INDEXES | MANIFESTS:
                found = self._new.get(child.digest) or self._source.manifest(child.digest)
                self.bring(found)
                self._target.put_manifest(found, None)
                self._written.append(child.digest)
            elif child.digest in self._configs:
                self._target.put_blob(self._configs[child.digest])
                self._written.append(child.digest)
            elif not child.is_foreign:
                self._target.copy_blob(child, self._source)
                self._written.append(child.digest)


def _once(descriptors: tuple[Descriptor, ...], done: set[str]) -> Iterator[Descriptor]:
    for descriptor in descriptors:
        if descriptor.digest not in done:
            done.add(descriptor.digest)
            yield descriptor
