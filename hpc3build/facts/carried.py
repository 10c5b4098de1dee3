"""What an image carries over from its base: pairs of the vocabulary that are no longer true of what it holds now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpc3build.facts import Fact, Facts, Key, Source
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.agreement import agree

#: Keys that mean something only where another key's list names one of these values.
_DEPEND: tuple[tuple[Key, frozenset[str], tuple[Key, ...]], ...] = (
    (voc.GPU, frozenset({"cuda"}), (voc.CUDA_VERSION,)),
    (voc.GPU, frozenset({"rocm"}), (voc.ROCM_VERSION,)),
    (voc.GPU, frozenset({"cuda", "rocm", "sycl", "opencl"}), (voc.GPU_ARCHITECTURE, voc.GPU_DRIVER)),
    (
        voc.MPI,
        frozenset({"mpich", "openmpi", "mpi-abi"}),
        (
            voc.MPI_VERSION,
            voc.MPI_ABI,
            voc.MPI_MODE,
            voc.MPI_OPTIMIZATION,
            voc.FRAMEWORK,
            voc.LIBFABRIC_ABI,
            voc.PMI,
        ),
    ),
    (voc.LIBC_PROVIDER, frozenset({"glibc"}), (voc.GLIBC,)),
)


def stale(said: Mapping[str, str], facts: Facts) -> Mapping[str, str]:
    """The keys of ``said`` (labels or annotations) that ``facts`` prove untrue, each with why.

    Only better evidence than a label counts: what nothing in the image speaks of may still be true, and stays.
    """
    proven: dict[Key, Fact] = {key: fact for key, fact in facts.items() if fact.source is not Source.LABEL}
    found: dict[str, str] = {}
    for name, value in sorted(said.items()):
        key = voc.BY_NAME.get(name)
        if key is None or not name.startswith(voc.PREFIXES):
            continue
        if key in proven and not agree(key, proven[key].value, value):
            found[name] = f"{value!r}, and it is {proven[key].value!r} ({proven[key].evidence})"
        elif reason := next(_without_meaning(key, proven), None):
            found[name] = f"{value!r}, and {reason}"
    return found


def _without_meaning(key: Key, proven: Mapping[Key, Fact]) -> Iterator[str]:
    for condition, values, dependent in _DEPEND:
        fact = proven.get(condition)
        if key in dependent and fact is not None and not values & set(fact.value.split(",")):
            yield f"{condition.name} is {fact.value!r} ({fact.evidence})"
