"""A tag in a registry with the intents of its coordinated writers (workflows.coordinate says how they go together)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from hpc3build import rewrite
from hpc3build.errors import ImageError, StoreError
from hpc3build.reference import DOCKER, Reference
from hpc3build.rewrite import intent as intents
from hpc3build.rewrite.attach import EMPTY_BLOB
from hpc3build.rewrite.intent import Edits, Intent
from hpc3build.run import Runner
from hpc3build.stores.access import Access, Limits
from hpc3build.stores.registry import Registry
from hpc3build.stores.removal import delete
from hpc3build.stores.transport import Client
from hpc3build.workflows.coordinate import Clocks, Posted, coordinate, deadline, edits_of


def limits(lease: float) -> Limits:
    """Of a coordinated writer's requests: none lands later than its deadline."""
    return Limits(connect=min(10, deadline(lease)), read=min(30, deadline(lease)), total=deadline(lease), strict=True)


class RegistryBoard:
    """``slot`` is the end of the tag that this writer leaves its intents under."""

    def __init__(self, registry: Registry, reference: Reference, policy: rewrite.Policy, slot: str) -> None:
        self._registry, self._reference, self._policy = registry, reference, policy
        self._tag = reference.tag or "latest"
        self._slot = slot
        self._mine: list[str] = []
        self._deletes = True

    def others(self) -> list[Posted]:
        """See Board; what is no intent under such a tag is passed over."""
        own, start = intents.place(self._tag, self._slot), intents.prefix(self._tag)
        found = (self._at(tag) for tag in self._registry.tags() if tag.startswith(start) and tag != own)
        return [posted for posted in found if posted is not None and not posted.intent.done]

    def post(self, intent: Intent) -> str:
        """See Board."""
        if not self._mine:
            self._registry.put_blob(EMPTY_BLOB)
        manifest = intent.manifest()
        self._registry.put_manifest(manifest, intent.place)
        self._mine.append(manifest.digest)
        return manifest.digest

    def remove(self, posted: Posted) -> None:
        """See Board; of this writer's own those before, too, which have no tag any more."""
        before = self._mine[:-1] if posted.digest in self._mine else []
        for digest in (posted.digest, *before):
            self._deletes = self._deletes and delete(self._registry, digest)
        if not self._deletes:
            nothing = replace(posted.intent, edits={}, seen=frozenset(), base="", done=True)
            self._registry.put_manifest(nothing.manifest(), nothing.place)

    def write(self, edits: Edits, ready: Callable[[], None]) -> rewrite.Result:
        """See Board."""
        plan = rewrite.plan(
            self._registry,
            self._reference,
            annotations={key: edit.value for key, edit in edits.items() if edit.value is not None},
            remove=[key for key, edit in edits.items() if edit.value is None],
            referrers=self._policy,
        )
        if plan.new.subject is not None:
            raise ImageError(
                f"{self._reference} refers to another manifest: such artifacts are not written by several",
                hint="leave --coordinate out",
            )
        if not plan.is_empty:
            ready()
        return rewrite.apply(self._registry, plan)

    def free_slot(self, name: str) -> str:
        """NAME, or NAME-1 and so on where the intent of a run that was killed is under it; random without a name."""
        if not name:
            return secrets.token_hex(8)
        intents.check_slot(name)
        for number in range(1000):
            slot = f"{name}-{number}" if number else name
            posted = self._at(intents.place(self._tag, slot))
            if posted is None or posted.intent.done:
                return slot
        raise StoreError(f"{self._reference}: 1000 intents of {name} are there", hint="remove their tags")

    def _at(self, tag: str) -> Posted | None:
        """None where nothing is, or nothing that can be an intent about this tag."""
        try:
            manifest = self._registry.manifest(tag)
            intent = intents.read(manifest)
        except StoreError as error:
            if error.status == 404:
                return None
            raise
        except ImageError:
            return None
        return Posted(manifest.digest, intent) if intent.tag == self._tag and intent.place == tag else None


def annotate_together(
    reference: Reference,
    pairs: Mapping[str, str],
    remove: tuple[str, ...],
    runner: Runner,
    access: Access | None,
    client: Client | None,
    *,
    name: str,
    lease: float,
    policy: rewrite.Policy,
) -> rewrite.Result:
    """Write pairs into a tag of a registry that others write, too; ``client`` has the limits of ``lease``.

    Raises StoreError for what is no tag of a registry, and what planning and writing raise.
    """
    if reference.transport != DOCKER or reference.digest is not None or reference.tag is None:
        raise StoreError(f"{reference}: only a tag of a registry has several writers", hint="leave --coordinate out")
    own = client or Client(access, limits(lease))
    try:
        with Registry(reference, runner=runner, client=own) as registry:
            plan = rewrite.plan(registry, reference, annotations=pairs, remove=remove, referrers="ignore")
            if plan.is_empty:  # what a tag says already is kept by those who wrote it
                return rewrite.apply(registry, plan)
            board = RegistryBoard(registry, reference, policy, "")
            slot = board.free_slot(name)
            board = RegistryBoard(registry, reference, policy, slot)
            writer = secrets.token_hex(8)
            edits = edits_of(pairs, remove, int(time.time() * 1000), writer)
            mine = Intent(reference.tag, writer, slot, lease, 0.0, plan.old_digest, edits)
            return coordinate(board, mine, Clocks(time.monotonic, time.time, own.sleep))
    finally:
        if client is None:
            own.close()
