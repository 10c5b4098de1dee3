"""Images to choose from, wherever they are named: an index, one image, a repository's tags, a file of records.

An index whose descriptors say what tells images apart costs one request to rank. What lacks that is read further:
manifest, configuration (labels come before annotations, rule R10), then what was attached to it. So is, by ``whole``,
what a descriptor without a seal told: it holds the discriminating keys, and other keys decide, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hpc3build.errors import InputError, StoreError
from hpc3build.facts import cpu
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.labels import declared, over
from hpc3build.host.fingerprint import Fingerprint
from hpc3build.imageconfig import ImageConfig
from hpc3build.jsonread import EMPTY, parsed
from hpc3build.match import DISCRIMINATING
from hpc3build.match.seal import sealed_size
from hpc3build.oci import IMAGE_CONFIGS, INDEXES, Descriptor, Manifest
from hpc3build.reference import Reference, has_transport, parse
from hpc3build.run import Runner
from hpc3build.stores import Store, is_absence, named, open_store, read_blob
from hpc3build.stores.access import Access
from hpc3build.stores.referrers import ANNOTATIONS, Referrers
from hpc3build.workflows.names import fitting, listing, tag_pattern

if TYPE_CHECKING:
    from hpc3build.stores.transport import Client

MAX_READ = 64  # images of one index that are looked into, where its descriptors do not say enough
MAX_DEPTH = 3
MAX_LINE = 1 << 20


@dataclass(frozen=True)
class Candidate:
    """``reference`` as given, ``pairs`` what it says, ``size`` the bytes of its layers (None where not read).

    ``read`` is False where an index's descriptor told it that no seal vouches for: the image may say more, and
    otherwise. ``config`` is the image's configuration, where it was read and ``Reading.configs`` keeps it.
    """

    reference: str
    digest: str
    platform: Mapping[str, str]
    pairs: Mapping[str, str]
    size: int | None = None
    read: bool = True
    config: ImageConfig | None = None


@dataclass(frozen=True)
class Reading:
    """How images are read: ``host`` spares what cannot fit its architecture.

    ``whole`` reads each image of an index, also where its descriptor says enough to rank it; ``configs`` keeps the
    configurations, of thousands of images too many. A ``client`` shares connections and tokens between all that is
    read.
    """

    runner: Runner
    access: Access | None = None
    host: Fingerprint = field(default_factory=Fingerprint)
    whole: bool = False
    configs: bool = False
    client: Client | None = None

    def open(self, reference: Reference) -> Store:
        """The store that ``reference`` names. Raises what ``open_store`` raises."""
        return open_store(reference, self.runner, self.access, self.client)


def candidates(text: str, reading: Reading) -> Iterator[Candidate]:
    """All images that ``text`` names. Raises InputError, and what reading a store raises."""
    if is_records(text):
        yield from records(text)
        return
    if (wild := tag_pattern(text)) is not None:
        yield from _tags(*wild, reading)
        return
    reference = parse(text)
    with reading.open(reference) as store:
        yield from of_manifest(store, reference, named(store, reference), reading)


def whole(candidate: Candidate, reading: Reading) -> Candidate | None:
    """A candidate that a descriptor told, with what its image says; None for what is no image.

    Raises what reading a store raises.
    """
    reference = parse(candidate.reference)
    with reading.open(reference) as store:
        manifest = store.manifest(candidate.digest)
        return _image(store, reference, manifest, candidate.pairs, candidate.platform, reading)


def is_records(text: str) -> bool:
    """Whether ``text`` names a file of image records, ``-`` standard input."""
    return text == "-" or (not has_transport(text) and os.path.isfile(text))  # noqa: PTH113 (False for names that no system takes)


def _tags(repository: str, pattern: str, reading: Reading) -> Iterator[Candidate]:
    reference = parse(repository)
    with reading.open(listing(reference, pattern)) as store:
        for tag in fitting(store, repository, pattern):
            yield from of_manifest(store, reference.with_tag(tag), store.manifest(tag), reading)


def of_manifest(store: Store, reference: Reference, manifest: Manifest, reading: Reading) -> Iterator[Candidate]:
    """The image, or the images of an index, whose manifest was read. Raises what reading the store raises."""
    if not manifest.is_index:
        if (found := _image(store, reference, manifest, EMPTY, EMPTY, reading)) is not None:
            yield found
        return
    budget = max(MAX_READ, len(manifest.descriptors)) if reading.whole else MAX_READ
    yield from _index(store, reference, manifest, reading, [budget], MAX_DEPTH)


def _index(
    store: Store, reference: Reference, index: Manifest, reading: Reading, budget: list[int], depth: int
) -> Iterator[Candidate]:
    """Descriptors first; ``budget`` counts what may still be read of this index."""
    for child in index.descriptors:
        if child.is_attestation:
            continue
        platform = child.platform or EMPTY
        size = sealed_size(child)
        known = Candidate(str(reference), child.digest, platform, child.annotations, size, read=size is not None)
        enough = not reading.whole and (known.read or says_enough(child))
        if child.media_type in INDEXES:
            if not depth:
                continue
            if (inner := _listed(store, child)) is None:
                yield known
            else:
                yield from _index(store, reference, inner, reading, budget, depth - 1)
        elif enough or not _may_fit(platform, reading.host) or budget[0] <= 0:
            yield known
        else:
            budget[0] -= 1
            if (manifest := _listed(store, child)) is None:
                yield known
            elif (found := _image(store, reference, manifest, child.annotations, platform, reading)) is not None:
                yield found


def _listed(store: Store, child: Descriptor) -> Manifest | None:
    """What an index lists, None where it is not there. Raises what reading raises: a refusal is no absence."""
    try:
        return store.manifest(child.digest)
    except StoreError as error:
        if is_absence(error):
            return None
        raise


def says_enough(descriptor: Descriptor) -> bool:
    """Whether nothing more has to be read to rank what this descriptor stands for.

    A broken seal says that something is no longer as it was.
    """
    return voc.SEAL.name not in descriptor.annotations and all(
        key.value_in(descriptor.annotations) is not None for key in DISCRIMINATING
    )


def _may_fit(platform: Mapping[str, str], host: Fingerprint) -> bool:
    architecture = platform.get("architecture")
    own = host.cpu.architecture
    return architecture is None or own is None or cpu.MACHINES.get(architecture, architecture) in (own, "i686")


def _image(
    store: Store,
    reference: Reference,
    manifest: Manifest,
    told: Mapping[str, str],
    platform: Mapping[str, str],
    reading: Reading,
) -> Candidate | None:
    """An image with its labels over its annotations over what its descriptor told; None for what is no image."""
    if manifest.is_index or manifest.config.media_type not in IMAGE_CONFIGS:
        return None
    digest = manifest.config.digest
    config = ImageConfig.parse(read_blob(store, digest), digest)
    pairs = declared(manifest.annotations, config.labels, told)
    if not any(key.name in pairs for key in DISCRIMINATING):
        pairs = over(attached(store, manifest.digest), pairs)
    found = {**config.platform, **platform}
    kept = config if reading.configs else None
    return Candidate(str(reference), manifest.digest, found, pairs, manifest.layers_size, config=kept)


def attached(store: Store, digest: str) -> Mapping[str, str]:
    """What ``annotate --attach`` says of an image; the newest last, where a store keeps that order."""
    if not isinstance(store, Referrers):
        return EMPTY
    found: dict[str, str] = {}
    for referrer in store.referrers(digest)[:8]:
        if referrer.artifact_type == ANNOTATIONS:
            found |= store.manifest(referrer.digest).annotations
    return {name: value for name, value in found.items() if name in voc.BY_NAME}


def records(path: str) -> Iterator[Candidate]:
    """JSON lines of image records (docs/match.md). Raises InputError with the line."""
    where = "standard input" if path == "-" else path
    if path == "-" and sys.stdin is None:  # its number may be another file's by now
        raise InputError("standard input is closed", hint="one image record a line")
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE + 1), b""), start=1):
                if len(line) > MAX_LINE:
                    raise InputError(f"{where}:{number}: a line of more than {MAX_LINE >> 20} MiB")
                if not line.isspace():
                    yield _record(line, where, number)
    except OSError as error:
        raise InputError(f"{where}: {error.strerror or error}") from error


def _record(line: bytes, where: str, number: int) -> Candidate:
    try:
        fields: Any = parsed(line)
    except ValueError as error:
        raise InputError(f"{where}:{number}: not JSON: {str(error)[:120]}", hint="one image record a line") from error
    if not isinstance(fields, dict):
        raise InputError(f"{where}:{number}: no image record, which is a JSON object", hint="docs/match.md shows one")
    reference, digest = fields.get("reference"), fields.get("digest")
    platform, pairs, size = fields.get("platform") or {}, fields.get("annotations") or {}, fields.get("size")
    if not (isinstance(reference, str) and isinstance(digest, str)):
        raise InputError(f"{where}:{number}: reference and digest must be texts", hint="docs/match.md shows a record")
    if not (isinstance(platform, dict) and isinstance(pairs, dict)):
        raise InputError(f"{where}:{number}: platform and annotations must be objects")
    for value in (*platform.values(), *pairs.values()):
        if type(value) is not str:
            platform = {key: value for key, value in platform.items() if isinstance(value, str)}
            if any(not isinstance(value, str) for value in pairs.values()):
                raise InputError(f"{where}:{number}: annotations: a value that is no text")
            break
    known = size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None
    return Candidate(reference, digest, platform, pairs, known)
