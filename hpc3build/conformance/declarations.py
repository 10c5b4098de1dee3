"""What the image says of itself: labels and annotations, and what they owe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpc3build.conformance.rule import Check, Image, Remark
from hpc3build.errors import InputError
from hpc3build.facts import Key, Need
from hpc3build.facts import vocabulary as voc
from hpc3build.findings import Outcome
from hpc3build.reference import parse

#: Superseded by the OCI keys (github.com/opencontainers/image-spec, annotations.md): a base image's, as a rule.
_OLD_SCHEMA = "org.label-schema."
_SAY = "hpc3build annotate --detect --labels, or --labels -a KEY=VALUE"


def same_words(image: Image) -> Iterator[Remark]:
    labels, annotations = image.config.labels, image.manifest.annotations
    ours = sorted(
        name for name in {*labels, *annotations} if name in voc.BY_NAME and name != "org.opencontainers.image.ref.name"
    )
    if not ours:
        yield Remark("the image says nothing of itself", hint=_SAY)
    for name in ours:
        label, annotation = labels.get(name), annotations.get(name)
        if label != annotation:
            yield Remark(f"the label says {_said(label)}, the annotation {_said(annotation)}", name)


def _said(value: str | None) -> str:
    return "nothing" if value is None else repr(value)


def mandatory(image: Image) -> Iterator[Remark]:
    """One that is honestly unknown is no fault."""
    pairs = image.declared
    for key in voc.KEYS:
        if _is_due(key, pairs) and key.name not in pairs:
            yield Remark("not known of this image", key.name, _SAY, outcome=Outcome.UNKNOWN)


def _is_due(key: Key, pairs: Mapping[str, str]) -> bool:
    """Whether the image owes ``key``: a mandatory one, or one of the GPU that it says it needs."""
    if key.need is Need.MANDATORY:
        return True
    gpus = pairs.get(voc.GPU.name, "none").split(",")
    return key.condition in gpus or (key is voc.GPU_ARCHITECTURE and gpus != ["none"])


def well_formed(image: Image) -> Iterator[Remark]:
    # Each place on its own: where the two differ, both may be wrong.
    for name, value in sorted({*image.manifest.annotations.items(), *image.config.labels.items()}):
        if (key := voc.BY_NAME.get(name)) is not None:
            try:
                key.check(value)
            except InputError as error:
                yield Remark(error.message, name, error.hint or "")


def forbidden(image: Image) -> Iterator[Remark]:
    for name in sorted(image.declared):
        if name.startswith(voc.FORBIDDEN_PREFIXES):
            yield Remark("privileged runtimes act on this key", name)


def base_pinned(image: Image) -> Iterator[Remark]:
    pairs = image.declared
    missing = [key.name for key in (voc.BASE_NAME, voc.BASE_DIGEST) if key.name not in pairs]
    if missing:
        yield Remark(f"the image does not say what it was built on: {', '.join(missing)}", missing[0])


def stale_labels(image: Image) -> Iterator[Remark]:
    """Labels of the base come along with its configuration and then tell of the wrong image."""
    labels = image.config.labels
    for name in sorted(labels):
        if name.startswith(_OLD_SCHEMA):
            yield Remark("a label of the superseded schema, as base images carry them", name)
    base = image.declared.get(voc.BASE_NAME.name, "")
    name, tag = _name_and_tag(base)
    for key, of_base in ((voc.TITLE, name), (voc.IMAGE_VERSION, tag)):
        if of_base and labels.get(key.name) == of_base:
            yield Remark(f"{of_base!r} is the base's, {base}", key.name)


def _name_and_tag(base: str) -> tuple[str, str]:
    try:
        reference = parse(f"docker://{base}")
    except InputError:
        return "", ""  # nothing to compare with; well-formed looks at the value
    return reference.name.rpartition("/")[2], reference.tag or ""


def says(*names: str) -> Check:
    """A check that one of the keys has a value, as label or annotation."""

    def check(image: Image) -> Iterator[Remark]:
        pairs = image.declared
        if not any(pairs.get(name) for name in names):
            yield Remark(f"the image says nothing under {' or '.join(names)}", names[0])

    return check
