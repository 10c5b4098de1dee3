"""Rewriting what an image says of itself: annotations, and labels where asked."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from hpc3build import rewrite
from hpc3build.errors import InputError, StoreError, TagMoved
from hpc3build.facts import Conflict, Source
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.carried import stale
from hpc3build.pairs import check_pair
from hpc3build.reference import DAEMON, DOCKER, STORAGE, Reference, is_digest
from hpc3build.run import Runner
from hpc3build.stores import Store, open_store, open_target
from hpc3build.stores.access import Access
from hpc3build.workflows.given_pairs import parse_pair

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
        from hpc3build.workflows.describe import facts_of

        said = facts_of(wish.source, Settings(), runner)[1].annotations()
    # What was seen of the image that the facts were of.
    said = {key: value for key, value in said.items() if key not in (voc.CONFORMANCE.name, voc.CREATED.name)}
    return replace(wish, pairs=MappingProxyType({**said, **wish.pairs}), source=None)


def facts_document(path: Path) -> dict[str, str] | None:
    """The annotations of what ``facts --json`` wrote, checked pair by pair; None for any other file."""
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
            return _annotate(reference, wish, runner, access, client, begin)
    return _annotate(reference, wish, runner, access, client, begin)


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
        pairs = {**found.pairs, **wish.pairs}
        if not wish.attach:
            wish = replace(wish, remove=tuple(dict.fromkeys((*wish.remove, *found.dropped))))
        if pairs and any(key in voc.BY_NAME for key in pairs):
            pairs.setdefault(voc.VOCABULARY.name, voc.VERSION)
        if wish.coordinate is not None and not wish.dry_run:
            begin()
            return found.told(_together(reference, wish, pairs, runner, access, client))
        if wish.attach:
            begin()
            return found.told(_attach(store, reference, wish, pairs))
        place = wish.to or reference
        if reference.transport == STORAGE != place.transport:
            wish = _pack(store, reference, wish)
        kept = pairs if not pairs or keeps_annotations(place, wish) else {}
        plan = rewrite.plan(
            store,
            reference,
            annotations=kept,
            remove=wish.remove if kept or not pairs else (),
            labels=pairs if wish.labels else None,
            remove_labels=wish.remove if wish.labels else (),
            expect_digest=wish.expect_digest,
            target=wish.target,
            referrers=wish.referrers,
        )
        plan = replace(plan, warnings=(*plan.warnings, *_about_labels(plan, place, wish)))
        _check_place(plan, place)
        backup = _backup_tag(plan, wish, place)
        if wish.dry_run:
            return found.told(preview(plan, place))
        verify = wish.verify and place.transport not in (DOCKER, DAEMON)  # whose stores look themselves
        if wish.to is None:
            begin()
            return found.told(rewrite.apply(store, plan, backup_tag=backup, verify=verify))
        transfer = partial(rewrite.transfer, backup_tag=backup, verify=verify, begin=begin)
        if _same_place(reference, wish.to):
            return found.told(transfer(store, store, plan, wish.to, here=True))
        here = reference.transport == STORAGE == place.transport and reference.storage == place.storage
        with open_target(wish.to, runner, access, client, read_back=wish.verify) as target:
            return found.told(transfer(store, target, plan, wish.to, here=here))


def _together(
    reference: Reference,
    wish: Wish,
    pairs: Mapping[str, str],
    runner: Runner,
    access: Access | None,
    client: Client | None,
) -> rewrite.Result:
    from hpc3build.workflows.board import annotate_together

    return annotate_together(
        reference,
        pairs,
        wish.remove,
        runner,
        access,
        client,
        name=wish.coordinate or "",
        lease=wish.lease,
        policy=wish.referrers,
    )


@dataclass(frozen=True)
class _Detected:
    """What the evidence inside an image says: the pairs to write, and where it does not agree.

    ``stale`` are pairs that it proves untrue, each with why, and ``dropped`` those of them that nothing replaces.
    """

    pairs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    conflicts: tuple[Conflict, ...] = ()
    stale: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    dropped: tuple[str, ...] = ()

    def told(self, result: rewrite.Result) -> rewrite.Result:
        """``result`` with the conflicts and what was stale as warnings."""
        warnings = [f"{name} is no longer true: it said {why}" for name, why in self.stale.items()]
        warnings += [
            f"{conflict.key.name} is left as it is: {conflict.message} (-a {conflict.key.name}=VALUE decides)"
            for conflict in self.conflicts
        ]
        undecided = tuple(conflict.key.name for conflict in self.conflicts)
        return replace(result, warnings=(*result.warnings, *warnings), undecided=undecided)


def _detected(store: Store, reference: Reference, wish: Wish) -> _Detected:
    """With ``detect``. What only a label says stays a label; a key that the wish decides is no conflict."""
    if not wish.detect:
        return _Detected()
    from hpc3build.workflows.describe import DEFAULT, describe

    described = describe(store, reference, depth=wish.depth or DEFAULT)
    facts = described.facts
    pairs = {
        key.name: fact.value
        for key, fact in facts.items()
        if fact.source is not Source.LABEL or not fact.evidence.startswith("label ")
    }
    decided = {*wish.pairs, *wish.remove}
    conflicts = tuple(conflict for conflict in facts.conflicts if conflict.key.name not in decided)
    labels = {key: value for key, value in described.config.labels.items() if wish.labels}
    untrue = stale({**described.manifest.annotations, **labels}, facts)
    untrue = {key: why for key, why in untrue.items() if key not in decided}
    dropped = tuple(key for key in untrue if pairs.get(key) is None)
    return _Detected(pairs, conflicts, untrue, dropped)


def _pack(store: Store, reference: Reference, wish: Wish) -> Wish:
    """Make what leaves containers-storage fit to travel; its digest is compared before that changes it."""
    from hpc3build.stores.local import LocalStore

    rewrite.read(store, reference, wish.expect_digest)
    if isinstance(store, LocalStore):
        store.pack()
    return replace(wish, expect_digest=None)


def keeps_annotations(place: Reference, wish: Wish) -> bool:
    """Whether annotations can be kept there. Raises StoreError where they cannot and no labels are wished."""
    if place.transport != DAEMON:
        return True
    if not wish.labels:
        raise StoreError(
            f"{place}: docker's own store keeps no annotations",
            hint="push it and annotate it in the registry, or write labels instead: --labels (the image ID changes)",
        )
    return False


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


def _check_place(plan: rewrite.Rewrite, place: Reference) -> None:
    if place.transport in (STORAGE, DAEMON) and plan.new.is_index:
        hint = "buildah manifest push --all NAME oci:DIR:TAG, and annotate it there"
        if place != plan.reference:
            hint = "copy one of its images, named by its digest (hpc3build inspect lists them)"
        raise StoreError(f"{place}: an index in {place.transport} cannot be written or rewritten", hint=hint)
    if place.digest is not None and place.tag is None and place != plan.reference:
        raise InputError(f"--to {place}: a digest cannot be chosen", hint="name a tag")


def _backup_tag(plan: rewrite.Rewrite, wish: Wish, place: Reference) -> str | None:
    if wish.backup_tag is None:
        return None
    if place.transport == STORAGE and not plan.configs and plan.manifests:
        raise StoreError(
            f"{place}: names of one image share its manifest in containers-storage, so no tag could keep the old one",
            hint="--receipt FILE keeps it, and annotate --undo FILE brings it back",
        )
    return wish.backup_tag or f"{(place.tag or 'untagged')[:100]}-before-{plan.old_digest.partition(':')[2][:12]}"


def preview(plan: rewrite.Rewrite, place: Reference) -> rewrite.Result:
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


def _attach(store: Store, reference: Reference, wish: Wish, pairs: Mapping[str, str]) -> rewrite.Result:
    plan = rewrite.plan_attachment(
        store, reference, annotations=pairs, expect_digest=wish.expect_digest, target=wish.target
    )
    if not wish.dry_run:
        return rewrite.attach(store, plan)
    return rewrite.Result(
        reference,
        plan.digest,
        plan.digest,
        bool(plan.manifests),
        tuple(manifest.digest for manifest in plan.manifests),
        False,
        plan.warnings,
    )
