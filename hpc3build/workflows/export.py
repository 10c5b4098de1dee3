"""``export`` and ``docs``: what an image says of itself, read without layers, for other tools and for people."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from dataclasses import dataclass, replace

from hpc3build.errors import ImageError, InputError, StoreError
from hpc3build.exports import FORMATS, Export, Format, Subject
from hpc3build.facts import vocabulary as voc
from hpc3build.host.fingerprint import Fingerprint
from hpc3build.jsonread import EMPTY
from hpc3build.match import Verdict
from hpc3build.oci import Manifest
from hpc3build.reference import Reference, parse
from hpc3build.rewrite.plan import platform_name
from hpc3build.rewrite.target import Platform
from hpc3build.stores import Store, is_absence, named
from hpc3build.stores.access import Access
from hpc3build.stores.referrers import Referrers
from hpc3build.workflows.candidates import Candidate, Reading, attached, of_manifest, whole
from hpc3build.workflows.engine_names import Place, name_for
from hpc3build.workflows.match import Judged, host_of, one_client, ranked
from hpc3build.workflows.run import is_insecure


@dataclass(frozen=True)
class Wanted:
    """Which image of an index, by ``platform`` and then for ``host``, which is asked for only where that decides.

    ``image`` is the name by which the consumer finds it, where it is not the reference.
    """

    host: Callable[[], Fingerprint]
    platform: Platform | None = None
    image: str = ""


class _NoneFits(Exception):
    """No image of the index runs on the host; the reason is for people."""


def export(name: str, reference: Reference, wanted: Wanted, reading: Reading) -> Export:
    """The text of a format of ``FORMATS``, and notes; without text where there is nothing to write, with the reason.

    Raises InputError, and what reading a store raises.
    """
    form = FORMATS[name]
    if wanted.image and not form.named:
        told = ", ".join(other for other in FORMATS if FORMATS[other].named)
        raise InputError(f"--image is for {told}: {name} names no image")
    if wanted.image:
        _check_image(name, wanted.image)
    reading = replace(reading, configs=True)
    with one_client((str(reference),), reading) as reading, reading.open(reference) as store:
        manifest = named(store, reference)
        found = _fitting(store, reference, manifest, wanted, reading)
        try:
            chosen, notes = _chosen(found, reference, form, wanted, reading)
        except _NoneFits as reason:
            return Export("", (str(reason),))
    subjects = [_subject(candidate, reference, manifest, form, wanted, reading) for candidate in chosen]
    made = form.write(subjects)
    return Export(made.text, (*notes, *made.notes))


def _check_image(name: str, image: str) -> None:
    """Raise InputError for what the consumer cannot take for an image's name; in an EDF it may be a squashfs file."""
    if name != "edf":
        try:
            parse(image)
        except InputError as error:
            raise InputError(f"--image: {error.message}", hint=error.hint) from error
    elif not image.isprintable() or " " in image:
        hint = "HOST#NAME:TAG as the engine has it, or the path of a squashfs file"
        raise InputError(f"--image {image!r}: blanks and control characters are in no image's name", hint=hint)


def docs(reference: Reference, wanted: Wanted, reading: Reading) -> tuple[str, tuple[str, ...]]:
    """The documentation, empty where there is none, and notes.

    That of an index itself comes first, then its image's; what is attached to an image comes last.

    Raises ImageError for a value that is no base64 of UTF-8, InputError, and what reading a store raises.
    """
    reading = replace(reading, configs=True)
    with one_client((str(reference),), reading) as reading, reading.open(reference) as store:
        manifest = named(store, reference)
        if manifest.is_index and (value := voc.DOCUMENTATION.value_in(manifest.annotations)):
            return _decoded(value, reference, manifest.digest), ()
        found = _fitting(store, reference, manifest, wanted, reading)
        try:
            (candidate,), notes = _chosen(found, reference, None, wanted, reading)
        except _NoneFits as reason:
            return "", (str(reason),)
        value = voc.DOCUMENTATION.value_in(candidate.pairs)
        if value is None and isinstance(store, Referrers):
            value = voc.DOCUMENTATION.value_in(attached(store, candidate.digest))
    if not value:
        return "", (*notes, f"{reference}: the image has no documentation ({voc.DOCUMENTATION.name})")
    return _decoded(value, reference, candidate.digest), notes


def _decoded(value: str, reference: Reference, digest: str) -> str:
    where = f"{reference.at(digest)}: {voc.DOCUMENTATION.name}"
    try:
        return voc.markdown(value)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ImageError(f"{where}: not base64", hint="annotate -a writes it anew: base64 of markdown") from error
    except UnicodeDecodeError as error:
        raise ImageError(f"{where}: not UTF-8 at byte {error.start}", hint="markdown in UTF-8 is expected") from error


def _fitting(
    store: Store, reference: Reference, manifest: Manifest, wanted: Wanted, reading: Reading
) -> list[Candidate]:
    """The images behind the reference that are of the platform wished."""
    found = list(of_manifest(store, reference, manifest, reading))
    if not found:
        raise InputError(f"{reference}: no image there")
    if wanted.platform is None:
        return found
    fitting = [candidate for candidate in found if wanted.platform.fits(candidate.platform)]
    if not fitting:
        there = ", ".join(dict.fromkeys(platform_name(candidate.platform) for candidate in found))
        raise InputError(f"{reference} has no image for {wanted.platform}", hint=f"there is {there}")
    return fitting


def _chosen(
    found: list[Candidate], reference: Reference, form: Format | None, wanted: Wanted, reading: Reading
) -> tuple[list[Candidate], tuple[str, ...]]:
    """What is written about: all, or the best for the host, which a note names; to be read about it need not run."""
    if form is not None and form.every:
        return _all(found, reading)
    notes: tuple[str, ...] = ()
    best: Candidate | None = found[0]
    if len(found) > 1:
        host = wanted.host()
        judged = ranked(found, replace(reading, host=host))[0]
        best, notes = judged.candidate, (_choice(judged, len(found), host),)
        if form is not None and judged.match.verdict is Verdict.NO:
            hint = "--platform, --host FILE or NAME@DIGEST choose another"
            raise _NoneFits(f"{reference}: none of its {len(found)} images runs on {host_of(host)}; {hint}")
    if best is not None and best.config is None:
        best = whole(best, reading)
    if best is None:
        raise InputError(f"{reference}: no image there")
    return [best], notes


def _all(found: list[Candidate], reading: Reading) -> tuple[list[Candidate], tuple[str, ...]]:
    """All of these, read; an index may list what is not there. Raises StoreError where none is."""
    read, notes = [], []
    for candidate in found:
        try:
            if (image := candidate if candidate.read else whole(candidate, reading)) is not None:
                read.append(image)
        except StoreError as error:
            if not is_absence(error) or len(found) == 1:
                raise
            notes.append(f"{candidate.digest}: the index lists this image, and it is not there: left out")
    if not read:
        raise StoreError(f"{found[0].reference}: the index lists {len(found)} images, and none is there")
    return read, tuple(notes)


def _choice(judged: Judged, count: int, host: Fingerprint) -> str:
    candidate, deciding = judged.candidate, judged.match.deciding
    verdict = judged.match.verdict
    why = f", {deciding.message}" if deciding is not None and verdict is not Verdict.RUN else ""
    chosen = f"{candidate.digest} ({platform_name(candidate.platform)})"
    return f"of {count} images {chosen} is the best for {host_of(host)}: {verdict.value}{why}"


def _subject(
    candidate: Candidate, reference: Reference, manifest: Manifest, form: Format, wanted: Wanted, reading: Reading
) -> Subject:
    image = wanted.image
    access = reading.access or Access()
    if form.engine and not image:
        image = name_for(form.engine, candidate, Place(reading.runner))
    config = candidate.config
    return Subject(
        reference,
        candidate.digest,
        candidate.platform,
        candidate.pairs,
        labels=config.labels if config is not None else EMPTY,
        env=config.env if config is not None else EMPTY,
        index=manifest.digest if manifest.is_index else "",
        image=image,
        insecure=is_insecure(reference, access),
        host=wanted.host() if form.for_host else Fingerprint(),
    )
