"""Rewriting what an image says of itself: annotations, and labels where asked."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from hpc3build import rewrite
from hpc3build.errors import InputError, TagMoved
from hpc3build.facts import given
from hpc3build.facts import vocabulary as voc
from hpc3build.pairs import check_pair
from hpc3build.reference import DAEMON, Reference, is_digest, parse
from hpc3build.run import Runner
from hpc3build.stores import Store, open_store
from hpc3build.stores.access import Access
from hpc3build.workflows.detected import Asked, Detected, detect
from hpc3build.workflows.given_pairs import parse_pair
from hpc3build.workflows.placing import Placing, keeps_annotations, leaves_storage, pack, place

if TYPE_CHECKING:
    from hpc3build.stores.transport import Client
    from hpc3build.workflows.describe import Depth

#: How often what a moved tag names is read and annotated anew.
TRIES = 5
MAX_FACTS = 4 << 20
#: They look at config.Labels, never at a manifest's annotations.
LABEL_READERS = "Sarus, Apptainer and Shifter"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What an image is to say: ``pairs`` and ``remove`` of the user, a recipe or lock, evidence from inside.

    ``target`` is what of an index is meant. With ``attach`` a referrer says it, and the image stays as it is. ``to`` is
    where the result goes, if elsewhere. ``backup_tag`` goes on naming the old image; empty stands for a name of ours.
    ``coordinate`` is this writer's name among several of one tag, empty for any, and ``lease`` the seconds that the
    others wait for it.
    """

    pairs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    remove: tuple[str, ...] = ()
    source: str | None = None
    detect: bool = False
    depth: Depth | None = None
    labels: bool = False
    expect_digest: str | None = None
    dry_run: bool = False
    target: rewrite.Target = rewrite.DEFAULT
    attach: bool = False
    referrers: rewrite.Policy = "keep"
    to: Reference | None = None
    verify: bool = False
    backup_tag: str | None = None
    coordinate: str | None = None
    lease: float = 180.0

    def __post_init__(self) -> None:
        if self.coordinate is not None and self.target != rewrite.DEFAULT:
            raise InputError("--coordinate is about what a tag names itself: it cannot go with parts of an index")
        if self.coordinate is not None and (
            self.labels or self.attach or self.to or self.expect_digest or self.backup_tag is not None
        ):
            raise InputError(
                "--coordinate writes what several mean into one tag: it cannot go with --labels, --attach, --to, "
                "--expect-digest and --backup-tag"
            )
        if self.attach and (self.to or self.backup_tag is not None):
            raise InputError("--attach leaves the image as it is: it cannot go with --to and --backup-tag")
        if self.attach and (self.labels or self.remove):
            raise InputError("--attach leaves the image as it is: it cannot go with --labels and --remove")


def prepare(wish: Wish, runner: Runner) -> Wish:
    """The wish with what ``source`` says, read once for all references. Raises InputError."""
    if wish.expect_digest is not None and not is_digest(wish.expect_digest):
        raise InputError(
            f"--expect-digest {wish.expect_digest}: not a digest", hint="sha256: and 64 hexadecimal digits"
        )
    for key in wish.remove:
        check_pair(key, "")
        if key in wish.pairs:
            raise InputError(f"--remove {key}: -a gives it a value")
    if wish.source is None:
        return wish
    said = facts_document(Path(wish.source))
    if said is None:
        from hpc3build.recipe import Settings
        from hpc3build.workflows.describe import facts_of, is_file

        if not is_file(wish.source) and ":" not in wish.source and parse(wish.source).registry == "docker.io":
            hint = f"a recipe, a lock, or what hpc3build facts --json wrote; an image is docker://{wish.source}"
            raise InputError(f"--from {wish.source}: no such file", hint=hint)
        said = facts_of(wish.source, Settings(), runner)[1].annotations()
    # What was seen of the image that the facts were of.
    said = {key: value for key, value in said.items() if key not in (voc.CONFORMANCE.name, voc.CREATED.name)}
    return replace(wish, pairs=MappingProxyType({**said, **wish.pairs}), source=None)


def facts_document(path: Path) -> dict[str, str] | None:
    """The annotations of what ``facts --json`` wrote, checked pair by pair; None for any other file.

    Raises InputError.
    """
    if path.suffix != ".json" or not path.is_file():
        return None
    try:
        from hpc3build.yamlread import read_text

        document = json.loads(read_text(path, MAX_FACTS, "a facts document"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not {"facts", "annotations"} <= set(document):
        return None
    pairs = document["annotations"]
    if not isinstance(pairs, dict) or not all(isinstance(value, str) for value in pairs.values()):
        raise InputError(f"{path}: annotations: expected pairs of texts", hint="hpc3build facts --json writes it")
    try:
        return dict(parse_pair(f"{key}={value}") for key, value in pairs.items())
    except InputError as error:
        raise InputError(f"{path}: {error.message.removeprefix('-a ')}", hint=error.hint) from error


def annotate(
    reference: Reference,
    wish: Wish,
    runner: Runner,
    access: Access | None = None,
    client: Client | None = None,
    *,
    begin: Callable[[], None] = lambda: None,
) -> rewrite.Result:
    """Plan and, unless it is a dry run, write. Raises InputError, and what planning and the store raise.

    Where the tag moved meanwhile, what it names now is read and annotated instead, a few times; then TagMoved is
    raised. With ``expect_digest`` it is raised at once. ``begin`` is called before a tag is written; what it raises
    ends this, with the tag as it was.
    """
    wish = prepare(wish, runner)
    for _ in range(TRIES - 1 if wish.expect_digest is None else 0):
        with contextlib.suppress(TagMoved):
            return _told(_annotate(reference, wish, runner, access, client, begin), wish)
    return _told(_annotate(reference, wish, runner, access, client, begin), wish)


def _told(result: rewrite.Result, wish: Wish) -> rewrite.Result:
    return replace(result, warnings=(*result.warnings, *given.unknown_keys(wish.pairs)))


def _annotate(
    reference: Reference,
    wish: Wish,
    runner: Runner,
    access: Access | None,
    client: Client | None,
    begin: Callable[[], None],
) -> rewrite.Result:
    with open_store(reference, runner, access, client, read_back=wish.verify) as store:
        found = _detected(store, reference, wish)
        wish = _with(wish, found)
        if wish.coordinate is not None and not wish.dry_run:
            begin()
            return found.told(_together(reference, wish, runner, access, client))
        if wish.attach:
            begin()
            return found.told(_attach(store, reference, wish, found))
        to = wish.to or reference
        if leaves_storage(reference, to):
            rewrite.read(store, reference, wish.expect_digest)  # packing changes the digest
            wish = replace(wish, expect_digest=None)
            pack(store)
        said = _said(wish, to)
        plan = rewrite.plan(
            store,
            reference,
            annotations=said.annotations,
            remove=said.remove,
            labels=said.labels,
            remove_labels=said.remove_labels,
            of_images={digest: _said(_with(wish, image), to) for digest, image in found.images.items()},
            expect_digest=wish.expect_digest,
            target=wish.target,
            referrers=wish.referrers,
        )
        plan = replace(plan, warnings=(*plan.warnings, *_about_labels(plan, to, wish)))
        how = Placing(to=wish.to, backup_tag=wish.backup_tag, verify=wish.verify, dry_run=wish.dry_run)
        return found.told(place(store, plan, how, runner, access, client, begin=begin))


def _detected(store: Store, reference: Reference, wish: Wish) -> Detected:
    if not wish.detect:
        return Detected()
    asked = Asked(
        depth=wish.depth, target=wish.target, given=wish.pairs, removed=frozenset(wish.remove), labels=wish.labels
    )
    return detect(store, reference, asked)


def _with(wish: Wish, found: Detected) -> Wish:
    """The wish with what was found in an image; what was looked at must be what is rewritten."""
    pairs = {**found.pairs, **wish.pairs}
    if any(key in voc.BY_NAME for key in pairs):
        pairs.setdefault(voc.VOCABULARY.name, voc.VERSION)
    # A referrer takes nothing away from the image.
    remove = wish.remove if wish.attach else tuple(dict.fromkeys((*wish.remove, *found.dropped)))
    expected = wish.expect_digest or (found.digest if wish.coordinate is None else None)
    return replace(wish, pairs=MappingProxyType(pairs), remove=remove, expect_digest=expected)


def _said(wish: Wish, to: Reference) -> rewrite.ImageWish:
    """What is written of one image, at a place of this kind. Raises StoreError where it keeps none of it."""
    pairs = wish.pairs
    kept = pairs if not pairs or keeps_annotations(to, labels=wish.labels) else {}
    return rewrite.ImageWish(
        kept,
        wish.remove if kept or not pairs else (),
        pairs if wish.labels else {},
        wish.remove if wish.labels else (),
    )


def _together(
    reference: Reference,
    wish: Wish,
    runner: Runner,
    access: Access | None,
    client: Client | None,
) -> rewrite.Result:
    from hpc3build.workflows.board import annotate_together

    return annotate_together(
        reference,
        wish.pairs,
        wish.remove,
        runner,
        access,
        client,
        name=wish.coordinate or "",
        lease=wish.lease,
        policy=wish.referrers,
    )


def _about_labels(plan: rewrite.Rewrite, place: Reference, wish: Wish) -> Iterator[str]:
    if plan.manifests:
        if gone := [key for key in wish.remove if key in voc.BY_NAME and not wish.labels]:
            yield f"{place}: where a label says {', '.join(gone)}, too, it stays; --labels removes both"
        if place.transport == DAEMON:
            yield f"{place}: docker's own store keeps no annotations: labels alone are written"
        elif plan.unlabelled:
            count = len(plan.unlabelled)
            told = ", ".join(plan.unlabelled[:3]) + (f" and {count - 3} more" if count > 3 else "")
            yield f"{place}: no label says {told}: {LABEL_READERS} read labels only; --labels writes them, too"


def _attach(store: Store, reference: Reference, wish: Wish, found: Detected) -> rewrite.Result:
    plan = rewrite.plan_attachment(
        store,
        reference,
        annotations=wish.pairs,
        of_images={digest: _with(wish, image).pairs for digest, image in found.images.items()},
        expect_digest=wish.expect_digest,
        target=wish.target,
    )
    if not wish.dry_run:
        return rewrite.attach(store, plan)
    attached = tuple(manifest.digest for manifest in plan.manifests)
    return rewrite.Result(
        reference, plan.digest, plan.digest, bool(attached), attached, False, plan.warnings, attached=attached
    )
