"""``export``: what an image says of itself, read without layers, for other tools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hpc3build.errors import InputError
from hpc3build.exports import FORMATS, Export, Format, Subject
from hpc3build.host.fingerprint import Fingerprint
from hpc3build.jsonread import EMPTY
from hpc3build.match import Verdict
from hpc3build.oci import Manifest
from hpc3build.reference import Reference
from hpc3build.rewrite.plan import platform_name
from hpc3build.rewrite.target import Platform
from hpc3build.stores import Store, named
from hpc3build.stores.access import Access
from hpc3build.workflows.candidates import Candidate, Reading, of_manifest, whole
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
    found: list[Candidate], reference: Reference, form: Format, wanted: Wanted, reading: Reading
) -> tuple[list[Candidate], tuple[str, ...]]:
    """What is written about: all, or the best for the host, which a note names."""
    if form.every:
        read = [candidate if candidate.read else whole(candidate, reading) for candidate in found]
        return [candidate for candidate in read if candidate is not None], ()
    notes: tuple[str, ...] = ()
    best: Candidate | None = found[0]
    if len(found) > 1:
        host = wanted.host()
        judged = ranked(found, replace(reading, host=host))[0]
        best, notes = judged.candidate, (_choice(judged, len(found), host),)
        if judged.match.verdict is Verdict.NO:
            hint = "--platform, --host FILE or NAME@DIGEST choose another"
            raise _NoneFits(f"{reference}: none of its {len(found)} images runs on {host_of(host)}; {hint}")
    if best is not None and best.config is None:
        best = whole(best, reading)
    if best is None:
        raise InputError(f"{reference}: no image there")
    return [best], notes


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
