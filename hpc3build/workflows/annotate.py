"""Rewriting what an image says of itself: annotations, and labels where asked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from hpc3build import rewrite
from hpc3build.errors import InputError, StoreError
from hpc3build.facts import vocabulary as voc
from hpc3build.oci import digest_of
from hpc3build.pairs import check_pair
from hpc3build.recipe import Settings
from hpc3build.reference import Reference, is_digest
from hpc3build.run import Runner
from hpc3build.stores import Store, open_store
from hpc3build.stores.access import Access
from hpc3build.workflows.describe import describe, facts_of


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What an image is to say: ``pairs`` and ``remove`` of the user, a recipe or lock, evidence from inside.

    ``target`` is what of an index is meant. With ``attach`` a referrer says it, and the image stays as it is.
    """

    pairs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    remove: tuple[str, ...] = ()
    source: str | None = None
    detect: bool = False
    labels: bool = False
    expect_digest: str | None = None
    dry_run: bool = False
    target: rewrite.Target = rewrite.DEFAULT
    attach: bool = False

    def __post_init__(self) -> None:
        if self.attach and (self.labels or self.remove):
            raise InputError("--attach leaves the image as it is: it cannot go with --labels and --remove")


def parse_pairs(texts: Iterable[str]) -> dict[str, str]:
    """The pairs of several ``-a``. Raises InputError, also for two values of one key."""
    pairs: dict[str, str] = {}
    for key, value in map(parse_pair, texts):
        if pairs.setdefault(key, value) != value:
            raise InputError(f"-a {key}: given twice, as {pairs[key]!r} and {value!r}")
    return pairs


def parse_pair(text: str) -> tuple[str, str]:
    """``KEY=VALUE``, checked against the vocabulary where the key is of it. Raises InputError."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"-a {text}: expected KEY=VALUE")
    check_key(key)
    if (known := voc.BY_NAME.get(key)) is not None and known.name == key:
        known.check(value)
        value = known.normal(value)
    else:
        check_pair(key, value)
    return key, value


def check_key(key: str) -> None:
    """Raise InputError for keys that are never written (rule N6)."""
    if key.startswith(voc.FORBIDDEN_PREFIXES):
        raise InputError(f"{key}: privileged runtimes act on this key, so hpc3build never writes it")
    if key.startswith(voc.PREFIXES) and key not in voc.BY_NAME:
        near = difflib.get_close_matches(key, voc.BY_NAME, n=1, cutoff=0.93)
        if near:
            raise InputError(f"{key} is not a key of the vocabulary", hint=f"did you mean {near[0]}?")


def annotate(reference: Reference, wish: Wish, runner: Runner, access: Access | None = None) -> rewrite.Result:
    """Plan and, unless it is a dry run, write. Raises InputError, and what planning and the store raise."""
    if wish.expect_digest is not None and not is_digest(wish.expect_digest):
        raise InputError(
            f"--expect-digest {wish.expect_digest}: not a digest", hint="sha256: and 64 hexadecimal digits"
        )
    for key in wish.remove:
        check_pair(key, "")
    with open_store(reference, runner, access) as store:
        pairs: dict[str, str] = {}
        if wish.detect:
            pairs |= describe(store, reference, labels=False).facts.annotations()
        if wish.source:
            _, facts = facts_of(wish.source, Settings(), runner)
            pairs |= facts.annotations()
        pairs |= wish.pairs
        if pairs and any(key in voc.BY_NAME for key in pairs):
            pairs.setdefault(voc.VOCABULARY.name, voc.VERSION)
        if wish.attach:
            return _attach(store, reference, wish, pairs)
        plan = rewrite.plan(
            store,
            reference,
            annotations=pairs,
            remove=wish.remove,
            labels=pairs if wish.labels else None,
            remove_labels=wish.remove if wish.labels else (),
            expect_digest=wish.expect_digest,
            target=wish.target,
        )
        if reference.transport == "containers-storage" and any(new.is_index for _, new in plan.manifests):
            raise StoreError(
                f"{reference} is an index, and an index in containers-storage cannot be rewritten",
                hint="buildah manifest push --all NAME oci:DIR:TAG, and annotate it there",
            )
        if not wish.dry_run:
            return rewrite.apply(store, plan)
        would = (*map(digest_of, plan.blobs), *(manifest.digest for _, manifest in plan.manifests))
        return rewrite.Result(
            reference,
            plan.old_digest,
            plan.new_digest,
            not plan.is_empty,
            would,
            plan.converted,
            plan.warnings,
            tuple(_changes(store, plan)),
        )


def _changes(store: Store, plan: rewrite.Rewrite) -> Iterator[str]:
    """What a dry run would change, a line each."""
    for digest, new in plan.manifests:
        old = store.manifest(digest).annotations
        for key in sorted({*old, *new.annotations}):
            if old.get(key) != new.annotations.get(key):
                yield f"{digest[:19]}: {key}: {old.get(key)!r} would become {new.annotations.get(key)!r}"


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
