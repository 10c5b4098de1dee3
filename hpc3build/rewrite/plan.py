"""What must be written so that an image or an index says what is wished; nothing is written here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from hpc3build.errors import Contradiction, InputError, StoreError, TagMoved
from hpc3build.facts import Place
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.given import refuse_forbidden
from hpc3build.facts.labels import contradicting
from hpc3build.imageconfig import ImageConfig
from hpc3build.jsonread import EMPTY
from hpc3build.oci import Descriptor, Manifest
from hpc3build.reference import Reference
from hpc3build.rewrite import survey
from hpc3build.rewrite.target import DEFAULT, Target, for_descriptors
from hpc3build.rewrite.tree import Fold, Node, PairsEdit, Reader, touches
from hpc3build.stores import Store, is_absence, named, tag_to_write
from hpc3build.stores.referrers import About

Policy = Literal["keep", "move", "refuse", "ignore"]


@dataclass(frozen=True)
class Rewrite:
    """A plan. ``manifests`` are pairs of an old and a new manifest, children first; the last one is tagged. Several
    old ones may become one new one.

    ``tag`` is None where an untagged image is rewritten: its successor is untagged too. ``old`` is what the reference
    names. ``configs`` are pairs of an image's old configuration and its new one. ``referrers`` follow the images that
    they are about. ``unlabelled`` are keys that images say in annotations, and in no label.
    """

    reference: Reference
    tag: str | None
    old: Manifest
    manifests: tuple[tuple[Manifest, Manifest], ...] = ()
    configs: tuple[tuple[ImageConfig, ImageConfig], ...] = ()
    referrers: tuple[tuple[Manifest, Manifest], ...] = ()
    unlabelled: tuple[str, ...] = ()
    converted: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.manifests

    @property
    def old_digest(self) -> str:
        """What the reference names now."""
        return self.old.digest

    @property
    def new_digest(self) -> str:
        """What the tag names afterwards."""
        return self.new.digest

    @property
    def new(self) -> Manifest:
        """What the tag names afterwards."""
        return self.manifests[-1][1] if self.manifests else self.old

    @property
    def blobs(self) -> tuple[bytes, ...]:
        """New configurations, each once."""
        return tuple(dict.fromkeys(new.raw for _, new in self.configs))


def plan(
    store: Store,
    reference: Reference,
    *,
    annotations: Mapping[str, str],
    remove: Iterable[str] = (),
    labels: Mapping[str, str] | None = None,
    remove_labels: Iterable[str] = (),
    env: Mapping[str, str] | None = None,
    configure: Callable[[ImageConfig], ImageConfig] | None = None,
    of_images: Mapping[str, ImageWish] | None = None,
    expect_digest: str | None = None,
    target: Target = DEFAULT,
    referrers: Policy = "keep",
) -> Rewrite:
    """Work out what must be written so that the image has these annotations, and labels and variables where given.

    ``configure`` makes the last changes to an image's configuration. ``target`` says what of an index is meant, and
    ``of_images`` what is wished instead of single images in it, by their digests.
    ``referrers``: what refers to a digest that changes is left where it is
    with a warning ("keep"), follows unless it is a signature ("move"), makes the plan fail ("refuse", StoreError) or is
    not looked for ("ignore").

    Raises TagMoved when the image is not ``expect_digest``, Contradiction when a label of an image says otherwise than
    an annotation (rule R10), InputError where ``target`` does not fit the image or a key is never written (N6), and
    what reading the store raises.
    """
    wish = ImageWish(annotations, tuple(remove), labels or EMPTY, tuple(remove_labels), env or EMPTY, configure)
    for each in (wish, *(of_images or {}).values()):
        refuse_forbidden((*each.annotations, *each.labels))
    old = read(store, reference, expect_digest)
    work = (_Index if old.is_index else _Image)(store, reference, old, wish, target)
    work.of_images = of_images or {}
    work.looks = referrers != "ignore"
    work.run()
    tag = tag_to_write(reference, store)
    if not work.manifests:
        return Rewrite(reference, tag, old, warnings=tuple(work.notes))
    successors = {before.digest: after for before, after in work.manifests}
    found = work.surveyed(successors) if work.looks else ()
    moved = survey.follow(store, found, successors, move=referrers == "move")
    if found and referrers == "refuse":
        raise StoreError(f"{reference}: {'; '.join(moved.told)}", hint="leave the image as it is: --attach")
    return Rewrite(
        reference,
        tag,
        old,
        tuple(work.manifests),
        tuple(work.configs.values()),
        moved.referrers,
        tuple(sorted(work.unlabelled)),
        work.converted,
        (*work.notes, *work.warnings, *moved.told),
    )


def read(store: Store, reference: Reference, expect_digest: str | None) -> Manifest:
    """What the reference names, checked against the digest that the user expects (TagMoved)."""
    old = named(store, reference)
    if expect_digest is not None and not old.is_named(expect_digest):
        raise TagMoved(f"{reference} is {old.digest}, not {expect_digest}", hint="look at it, then name its new digest")
    return old


def check_labels(where: str, annotations: Mapping[str, str], labels: Mapping[str, str]) -> None:
    """Rule R10: runtimes see the label, under whatever name, so an annotation that says otherwise would mislead."""
    wrong = [(key, name) for key in sorted(annotations) for name in contradicting(key, annotations[key], labels)]
    if wrong:
        told = "; ".join(
            f"{key}: the label {'' if name == key else f'{name} '}says {labels[name][:100]!r}, "
            f"not {annotations[key][:100]!r}"
            for key, name in wrong
        )
        raise Contradiction(
            f"{where}: labels of the image contradict the annotations: {told}",
            hint="write both with --labels (the image ID changes), or leave the key out",
        )


@dataclass(frozen=True)
class ImageWish:
    """What is to be said."""

    annotations: Mapping[str, str]
    remove: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    remove_labels: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    configure: Callable[[ImageConfig], ImageConfig] | None = None

    @property
    def of_config(self) -> bool:
        """Whether the configuration is meant, too."""
        return bool(self.labels or self.remove_labels or self.env or self.configure)


class _Work:
    """A plan in the making; ``notes`` are told even when nothing is written."""

    def __init__(self, store: Store, reference: Reference, old: Manifest, wish: ImageWish, target: Target) -> None:
        self.reference, self.old, self.wish, self.target = reference, old, wish, target
        self.store = store
        self.reader = Reader(store, target)
        self.of_images: Mapping[str, ImageWish] = {}
        self.manifests: list[tuple[Manifest, Manifest]] = []
        self.configs: dict[tuple[str, str], tuple[ImageConfig, ImageConfig]] = {}
        self.unlabelled: set[str] = set()
        self.converted = False
        self.looks = False
        self._survey: Callable[[], tuple[About, ...]] | None = None
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def run(self) -> None:
        raise NotImplementedError

    def look(self, digest: str) -> None:
        """Begin to look for what refers to ``digest``, which will change, while the rest is read."""
        if self.looks:
            self._survey = survey.start(self.store, [digest])

    def surveyed(self, digests: Iterable[str]) -> tuple[About, ...]:
        """What refers to them."""
        return (self._survey or survey.start(self.store, digests))()

    def wish_of(self, digest: str) -> ImageWish:
        """What is wished of the image with this digest."""
        return self.of_images.get(digest, self.wish)

    def stays(self, image: Manifest) -> bool:
        """Whether an image says all that already, so that nothing more of it need be read."""
        wish = self.wish_of(image.digest)
        return not (wish.of_config or image.is_docker) and _says(image.annotations, (wish.annotations, wish.remove))

    def image(self, old: Manifest, where: str) -> Manifest:
        """An image's successor; itself when it says all that already."""
        if self.stays(old):
            return old
        wish, new = self.wish_of(old.digest), old
        if wish.of_config or wish.annotations:
            original = self.reader.config(old)
            config = self._configured(original, old, wish, where)
            check_labels(where, wish.annotations, config.labels if config else EMPTY)
            if config is not None:
                self.unlabelled |= wish.annotations.keys() - config.labels.keys()
                if config is not original:  # a descriptor that lies is not ours to mend
                    new = old.with_config(config.digest, len(config.raw))
        # Without annotations to touch, a Docker image stays one.
        if old.is_docker and touches((wish.annotations, wish.remove), old.annotations):
            new = new.to_oci()
            self.converted = True
        return new.with_annotations(wish.annotations, wish.remove)

    def _configured(
        self, config: ImageConfig | None, manifest: Manifest, wish: ImageWish, where: str
    ) -> ImageConfig | None:
        """The configuration's successor; itself when nothing in it changes."""
        if config is not None:
            older = {name for key, value in wish.labels.items() for name in contradicting(key, value, config.labels)}
            new = config.with_labels(wish.labels, (*wish.remove_labels, *sorted(older))).with_env(wish.env)
            if wish.configure is not None:
                new = wish.configure(new)
            if new == config:
                return config
            self.configs[config.digest, new.digest] = (config, new)
            return new
        if wish.labels or wish.env or wish.configure:
            raise StoreError(f"{where} is no container image ({manifest.config.media_type}): it has no labels")
        return None


class _Image(_Work):
    def run(self) -> None:
        if self.target.index_only or self.target.descriptors:
            option = "--index-only" if self.target.index_only else "--descriptors"
            raise InputError(f"{self.reference} is one image, no index: {option} means nothing there")
        if self.target.platforms and not self.target.chooses(platform := self.reader.platform(self.old)):
            raise InputError(f"{self.reference} is one image, for {platform_name(platform)}: not the platform wished")
        if not self.stays(self.old):
            self.look(self.old.digest)
        new = self.image(self.old, str(self.reference))
        if new.raw == self.old.raw:
            return
        self.manifests.append((self.old, new))
        if self.converted:
            self.warnings.append(
                f"{self.reference}: Docker's manifest has no place for annotations, so its media types become OCI's; "
                "configuration and layers keep their digests"
            )
        if new.subject is not None:
            self.warnings.append(
                f"{self.reference} refers to {new.subject.digest}: its successor takes its place in lists of "
                f"referrers, but a registry that lists by itself goes on listing the old one, {self.old.digest}, too"
            )


class _Index(_Work):
    def run(self) -> None:
        if any(wish.of_config for wish in (self.wish, *self.of_images.values())) and not self.target.on_images:
            raise InputError(
                f"{self.reference} is an index, which has no labels: they are in its images' configurations",
                hint="name the images with --platform or --all-children",
            )
        self._check_descriptor_keys(self._edit(self.wish)[0])
        tree = self.reader.tree(self.old, compare=lambda one: not _says(one.annotations, self._edit_of(one)))
        chosen = [node for node in tree.walk() if node.chosen]
        if self.target.platforms and not chosen:
            there = sorted(
                {platform_name(node.platform) for node in tree.walk() if node.descriptor and not node.is_index}
            )
            raise InputError(
                f"{self.reference} has no image for {', '.join(map(str, self.target.platforms))}",
                hint=f"platforms there: {', '.join(there) or 'none'}",
            )
        descriptors = {node.path: self._edit_of(node.descriptor) for node in chosen if node.descriptor is not None}
        fold = Fold(self._images(chosen), descriptors if self.target.on_descriptors else {}, self._indexes(tree))
        fold.apply(tree)
        self.manifests = list(fold.changed.values())
        self._tell(fold)

    def _edit(self, wish: ImageWish) -> PairsEdit:
        """What of a wish a descriptor gets."""
        return (for_descriptors(wish.annotations, self.target) if self.target.on_descriptors else EMPTY, wish.remove)

    def _edit_of(self, entry: Descriptor) -> PairsEdit:
        return self._edit(self.wish_of(entry.digest))

    def _images(self, chosen: list[Node]) -> dict[tuple[int, ...], Manifest]:
        """New images by their paths; where only descriptors are edited, the labels of what can be read are compared."""
        images: dict[tuple[int, ...], Manifest] = {}
        done: dict[str, Manifest] = {}
        for node in chosen:
            if node.is_index or node.descriptor is None:
                continue
            where = str(self.reference.at(node.descriptor.digest))
            edit = self._edit_of(node.descriptor)
            if node.manifest is None:
                if not _says(node.descriptor.annotations, edit):
                    self.notes.append(f"{where} is not there: its labels could not be compared")
            elif self.target.on_images:
                if node.manifest.digest not in done:
                    done[node.manifest.digest] = self.image(node.manifest, where)
                images[node.path] = done[node.manifest.digest]
            elif edit[0] and (config := self._config_there(node.manifest, where)) is not None:
                check_labels(where, edit[0], config.labels)
        return images

    def _config_there(self, manifest: Manifest, where: str) -> ImageConfig | None:
        try:
            return self.reader.config(manifest)
        except StoreError as error:
            if not is_absence(error):
                raise
            self.notes.append(f"{where}: its configuration is not there: its labels could not be compared")
            return None

    def _indexes(self, tree: Node) -> dict[tuple[int, ...], PairsEdit]:
        if not self.target.on_index:
            return {}
        own = {
            key: value
            for key, value in self.wish.annotations.items()
            if key not in voc.BY_NAME or voc.BY_NAME[key].place != Place.DESCRIPTOR
        }
        nodes = tree.walk() if self.target.all_children else (tree,)
        return {node.path: (own, self.wish.remove) for node in nodes if node.is_index}

    def _check_descriptor_keys(self, pairs: Mapping[str, str]) -> None:
        left = sorted(set(self.wish.annotations) - set(pairs)) if self.target.descriptors else []
        if left and not (pairs or self.wish.remove or self.of_images):
            raise InputError(
                f"--descriptors: {', '.join(left)}: only what tells images apart stands on descriptors (N4)",
                hint="without --descriptors the index itself says it",
            )
        if left:
            self.notes.append(f"{self.reference}: not on descriptors, as they tell no images apart: {', '.join(left)}")

    def _tell(self, fold: Fold) -> None:
        lists = [new for _, new in fold.changed.values() if new.is_index and new.media_type != self.old.media_type]
        if self.old.is_docker and lists:
            self.converted = True
        if self.converted:
            self.warnings.append(
                f"{self.reference}: Docker's types have no place for annotations, so what gets them becomes of OCI's "
                "type; configurations and layers keep their digests, images that are not rewritten their types"
            )
        if fold.relinked:
            self.warnings.append(
                f"{self.reference}: {fold.relinked} attestation{'s'[: fold.relinked != 1]} of BuildKit re-linked to "
                "the images' new digests, but the statements inside go on naming the old ones"
            )


def _says(annotations: Mapping[str, str], edit: PairsEdit) -> bool:
    """Whether nothing is left to do: no configuration is read to compare labels with what is there already."""
    pairs, remove = edit
    return not touches((MappingProxyType(dict(pairs.items() - annotations.items())), remove), annotations)


def platform_name(platform: Mapping[str, str]) -> str:
    """``linux/amd64/v3``."""
    return "/".join(platform[part] for part in ("os", "architecture", "variant") if platform.get(part)) or "no platform"
