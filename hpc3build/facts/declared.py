"""What an image's configuration says of itself, beside the vocabulary's own labels: the weakest kind of evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hpc3build.evidence.history import History
from hpc3build.facts import Fact, Facts, Key, Note, Source, Statement
from hpc3build.facts import vocabulary as voc

_REQUIRED = re.compile(r"(?:^|\s)cuda>=(\d+\.\d+)")
#: NVIDIA's CUDA images of old, and what AI Workbench asks of its base images (docs.nvidia.com/ai-workbench, "Custom
#: Container Base Image Labels").
_CUDA_LABELS = ("com.nvidia.cuda.version", "com.nvidia.workbench.cuda-version")
#: HPCCM's blocks that set ``annotations={'version': …}`` (hpccm/building_blocks); others have no such label.
_MPI_LABELS = {
    "hpccm.openmpi.version": "openmpi",
    "hpccm.mpich.version": "mpich",
    "hpccm.mvapich2.version": "mvapich2",
}
#: Labels of E4S images, where they have any (github.com/UO-OACISS/e4s, docker-recipes/archived/*/Dockerfile and
#: build.sh: base-img is what FROM names, repo and repo-ref are remote and commit of the Dockerfile's repository).
_E4S_LABELS = {
    "io.e4s.base-img": voc.BASE_NAME,
    "io.e4s.base.base-img": voc.BASE_NAME,
    "io.e4s.repo": voc.SOURCE_URL,
    "io.e4s.base.repo": voc.SOURCE_URL,
    "io.e4s.repo-ref": voc.REVISION,
    "io.e4s.base.repo-ref": voc.REVISION,
}
_WITH_PASSWORD = re.compile(r"[a-z+]+://[^/]*@")  # a remote may hold one: it is not to be repeated
_E4S_LAST = re.compile(r"(?:/bin/sh -c #\(nop\) +)?LABEL io\.e4s\.")


def statements(env: Mapping[str, str], labels: Mapping[str, str]) -> Iterator[Statement]:
    """Env of NVIDIA's and AMD's base images, and labels of NVIDIA and HPCCM."""
    if required := _REQUIRED.search(env.get("NVIDIA_REQUIRE_CUDA", "")):
        # NVIDIA's runtime refuses to start such an image on a host without: it asks for a GPU, used or not.
        yield Fact(voc.GPU, "cuda", Source.LABEL, f"Env NVIDIA_REQUIRE_CUDA={required[0].strip()}")
    cuda = env.get("CUDA_VERSION", "")
    if voc.is_version(cuda):
        yield Fact(voc.CUDA_VERSION, cuda, Source.LABEL, f"Env CUDA_VERSION={cuda}")
    elif required:
        yield Fact(voc.CUDA_VERSION, required[1], Source.LABEL, f"Env NVIDIA_REQUIRE_CUDA={required[0].strip()}")
    rocm = env.get("ROCM_VERSION", "")
    if voc.is_version(rocm):
        yield Fact(voc.ROCM_VERSION, rocm, Source.LABEL, f"Env ROCM_VERSION={rocm}")
    for name in _CUDA_LABELS:
        if voc.is_version(label := labels.get(name)):
            yield Fact(voc.CUDA_VERSION, label, Source.LABEL, f"label {name}")


def of_builder(history: History, labels: Mapping[str, str]) -> Iterator[Statement]:
    """Base and source of an image by its builder's words; the vocabulary's own labels come before them."""
    found: dict[Key, Fact] = {}
    if history.base is not None and voc.BASE_NAME.holds(history.base):
        told = f"history: the builder's comment FROM {history.base}"
        found[voc.BASE_NAME] = Fact(voc.BASE_NAME, history.base, Source.LABEL, told)
    # Images that are built on E4S's inherit its labels, and are told by what their own builder did after it.
    if _E4S_LAST.match(history.last):
        for name, key in _E4S_LABELS.items():
            if key.holds(labels.get(name, "")) and not _WITH_PASSWORD.match(labels[name]):
                found.setdefault(key, Fact(key, labels[name], Source.LABEL, f"label {name}"))
    for key, fact in found.items():
        said = labels.get(key.name)
        if said is None:
            yield fact
        elif said != fact.value:
            yield Note(
                key, f"the label says {said!r}, which may be of the base; it seems to be {fact.value!r}", fact.evidence
            )


def of_mpi(labels: Mapping[str, str], known: Facts) -> Iterator[Statement]:
    """HPCCM's labels on the MPI that it installed, where that is known to be in use."""
    for name, implementation in _MPI_LABELS.items():
        version = labels.get(name)
        if voc.is_version(version) and known.value(voc.MPI_IMPLEMENTATION) == implementation:
            yield Fact(voc.MPI_VERSION, version, Source.LABEL, f"label {name}")
