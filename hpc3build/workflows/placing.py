"""Where the result of a rewrite goes: in its place or elsewhere, and the tag that goes on naming the old image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hpc3build import rewrite
from hpc3build.errors import InputError, StoreError
from hpc3build.reference import DAEMON, DOCKER, STORAGE, Reference
from hpc3build.run import Runner
from hpc3build.stores import Store, open_target, tag_to_write
from hpc3build.stores.access import Access
from hpc3build.stores.local import LocalStore

if TYPE_CHECKING:
    from hpc3build.stores.transport import Client


@dataclass(frozen=True, kw_only=True)
class Placing:
    """``to`` is the place, None for where the image is. ``backup_tag`` goes on naming what was there; empty stands for
    a name of ours. ``verify`` reads back what was written, ``dry_run`` writes nothing.
    """

    to: Reference | None = None
    backup_tag: str | None = None
    verify: bool = False
    dry_run: bool = False


IN_PLACE = Placing()


def leaves_storage(reference: Reference, to: Reference | None) -> bool:
    """Whether an image goes from containers-storage to another kind of place."""
    return to is not None and reference.transport == STORAGE != to.transport


def pack(store: Store) -> None:
    """Make what leaves containers-storage fit to travel: from here on the store gives the image as it will be there."""
    if isinstance(store, LocalStore):
        store.pack()


def keeps_annotations(place: Reference, *, labels: bool) -> bool:
    """Whether annotations can be kept there. Raises StoreError where they cannot and no ``labels`` are written."""
    if place.transport != DAEMON:
        return True
    if not labels:
        raise StoreError(
            f"{place}: docker's own store keeps no annotations",
            hint="push it and annotate it in the registry, or write labels instead: --labels (the image ID changes)",
        )
    return False


def place(
    store: Store,
    plan: rewrite.Rewrite,
    how: Placing,
    runner: Runner,
    access: Access | None = None,
    client: Client | None = None,
    *,
    begin: Callable[[], None] = lambda: None,
) -> rewrite.Result:
    """Write a plan of an image in ``store``; ``begin`` is called before a tag is written.

    Raises InputError and StoreError for a place that cannot be, and what writing the stores raises.
    """
    there = how.to or plan.reference
    _check(plan, there)
    backup = _backup_tag(plan, how, there)
    if how.to is None:
        plan = replace(plan, warnings=(*plan.warnings, *_unnamed(plan)))
    if how.dry_run:
        return _preview(plan, there)
    verify = how.verify and there.transport not in (DOCKER, DAEMON)  # whose stores look themselves
    if how.to is None:
        begin()
        return rewrite.apply(store, plan, backup_tag=backup, verify=verify)
    transfer = partial(rewrite.transfer, backup_tag=backup, verify=verify, begin=begin)
    if _same_place(plan.reference, there):
        return transfer(store, store, plan, there, here=True)
    here = plan.reference.transport == STORAGE == there.transport and plan.reference.storage == there.storage
    with open_target(there, runner, access, client, read_back=how.verify) as target:
        return transfer(store, target, plan, there, here=here)


def _check(plan: rewrite.Rewrite, place: Reference) -> None:
    if place.transport in (STORAGE, DAEMON) and plan.new.is_index:
        hint = "buildah manifest push --all NAME oci:DIR:TAG, and annotate it there"
        if place != plan.reference:
            hint = "copy one of its images, named by its digest (hpc3build inspect lists them)"
        raise StoreError(f"{place}: an index in {place.transport} cannot be written or rewritten", hint=hint)
    if place.digest is not None and place.tag is None and place != plan.reference:
        raise InputError(f"--to {place}: a digest cannot be chosen", hint="name a tag")


def _unnamed(plan: rewrite.Rewrite) -> Iterator[str]:
    """Of a registry's image that was named by its digest: a new one is pulled by nobody who does not know its own."""
    if plan.reference.transport == DOCKER and plan.tag is None and not plan.is_empty:
        yield (
            f"{plan.reference}: no tag names the result, {plan.new_digest}, and registries may delete what none names; "
            f"the same with --to docker://{plan.reference.repository}:TAG gives it one"
        )


def _backup_tag(plan: rewrite.Rewrite, how: Placing, place: Reference) -> str | None:
    asked = how.backup_tag
    if asked is None:
        return None
    own = plan.tag if how.to is None else tag_to_write(place)
    if asked and asked == own:
        raise InputError(
            f"{place}: --backup-tag {asked} is the image's own tag, which names the new one",
            hint="another name, or none: --backup-tag= makes one",
        )
    if place.transport == STORAGE and not plan.configs and plan.manifests:
        raise StoreError(
            f"{place}: names of one image share its manifest in containers-storage, so no tag could keep the old one",
            hint="--receipt FILE keeps it, and annotate --undo FILE brings it back",
        )
    return asked or f"{(own or 'untagged')[:100]}-before-{plan.old_digest.partition(':')[2][:12]}"


def _preview(plan: rewrite.Rewrite, place: Reference) -> rewrite.Result:
    """What writing the plan at ``place`` would do."""
    written = rewrite.would(plan)
    changed = bool(written) or place != plan.reference
    return rewrite.Result(
        place,
        plan.old_digest,
        plan.new_digest,
        changed,
        written,
        plan.converted,
        plan.warnings,
        tuple(rewrite.changes(plan)),
    )


def _same_place(one: Reference, other: Reference) -> bool:
    """Whether both are in one repository or layout."""
    if one.is_path and other.transport == one.transport:
        return Path(one.name).resolve() == Path(other.name).resolve()
    return (one.transport, one.registry, one.name) == (other.transport, other.registry, other.name) and not one.image_id
