"""The manifest.yml of MetaHub's first version: what manifest-tool makes a list of, by platform features.

Sources: qnib/metahub README.md (the file, and ``cpu:skylake``), misc/config/bench.yaml (``nvcap:5.2``),
pkg/registry/filter/service.go (a machine gets the entries whose features are exactly its own); estesp/manifest-tool
v1.0.3 types/types.go and docker/createml.go (features are kept, entries may share a platform, an entry is no index).
manifest-tool 2 reads image-spec's platform, which has no features, and refuses two entries of one platform. The MetaHub
of today (metahub-registry.org) reads annotations and no such file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hpc3build.exports.quoted import flow, quoted
from hpc3build.exports.subject import Export, Subject
from hpc3build.facts import vocabulary as voc
from hpc3build.reference import DOCKER

_PLATFORM = ("architecture", "os")  # manifest-tool knows no variants of amd64 (docker/util.go)


def write(subjects: Sequence[Subject]) -> Export:
    """YAML: an entry for each image, and of an image with code for several NVIDIA GPUs for each of these.

    Raises InputError for images that lie in no registry and have no name.
    """
    first = subjects[0]
    name, repository = _names(first)
    entries: list[str] = []
    notes: list[str] = []
    for subject in subjects:
        notes += subject.unbelieved(voc.CPU_VERSION, voc.GPU_ARCHITECTURE)
        for features in _features(subject, notes):
            entries += _entry(f"{repository}@{subject.digest}", subject, features)
    notes.append("manifest-tool 1.0 pushes it (push from-spec); version 2 drops features. No image is copied")
    lines = [f"image: {quoted(name)}", "manifests:", *entries]
    return Export("\n".join(lines) + "\n", tuple(notes))


def _names(subject: Subject) -> tuple[str, str]:
    """The list's own name, a tag beside the one that is there; and the repository of its images."""
    if not subject.image:
        repository = subject.in_registry("manifest.yml")
        return f"{repository}:{subject.reference.tag or 'latest'}-metahub", repository
    head, slash, last = subject.image.rpartition("/")
    there = subject.reference.repository if subject.reference.transport == DOCKER else ""
    return subject.image, there or f"{head}{slash}{re.split('[:@]', last)[0]}"


def _entry(image: str, subject: Subject, features: Sequence[str]) -> list[str]:
    told = [f"{name}: {quoted(subject.platform[name])}" for name in _PLATFORM if name in subject.platform]
    told += [f"features: {flow(features)}"] if features else []
    platform = ["  platform:", *(f"    {line}" for line in told)] if told else []
    return [f"- image: {quoted(image)}", *platform]


def _features(subject: Subject, notes: list[str]) -> Iterator[tuple[str, ...]]:
    """The features of one machine type after the other."""
    target = subject.value(voc.CPU_VERSION)
    own = (f"cpu:{target}",) if target is not None else ()
    codes = [re.fullmatch(r"sm_(\d+)(\d)[af]?", code) for code in subject.items(voc.GPU_ARCHITECTURE)]
    capabilities = sorted({(int(code[1]), int(code[2])) for code in codes if code is not None})
    if set(subject.items(voc.GPU)) - {"cuda"}:
        notes.append(f"{subject.digest[:19]}: MetaHub's files name features of NVIDIA's GPUs alone")
    yield from ((*own, f"nvcap:{major}.{minor}") for major, minor in capabilities)
    if not capabilities:
        yield own
