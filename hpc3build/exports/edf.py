"""An environment definition file (EDF) for CSCS's Container Engine and for sarus-suite.

Sources: eth-cscs/cscs-docs docs/software/container-engine/{edf,resource-hook}.md and sarus-suite/user-guide.md. The
grammar of ``image`` there, [USER@][REGISTRY#]IMAGE[:TAG], has no digest; enroot takes one behind the image from 4.0
on (NVIDIA/enroot src/docker.sh, docker::_parse_uri).
"""

from __future__ import annotations

from collections.abc import Iterator

from hpc3build.exports.quoted import quoted
from hpc3build.exports.subject import Export, Subject
from hpc3build.facts import vocabulary as voc

#: enroot and the toolkit make no driver visible without the first, and enroot alone takes utility for the second
#: (NVIDIA/enroot conf/hooks/98-nvidia.sh).
NVIDIA = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
_READ = (voc.GPU, voc.FRAMEWORK, voc.MPI_MODE, voc.ROCM_VERSION)


def write(subject: Subject) -> Export:
    """TOML. Raises InputError for an image that the engine cannot name."""
    notes: list[str] = list(subject.unbelieved(*_READ))
    image = subject.image or _image(subject, notes)
    lines = [
        f"# {subject.digest}",
        f"image = {quoted(image)}",
        "# As the Container Engine has it: the image's entry point is not run. The default of sarus-suite is true.",
        "entrypoint = false",
    ]
    missing = {name: value for name, value in NVIDIA.items() if name not in subject.env}
    if "cuda" in subject.items(voc.GPU) and missing:
        lines += ["", "[env]", *(f"{name} = {quoted(value)}" for name, value in missing.items())]
    hooks = dict(_hooks(subject, notes))
    if hooks:
        lines += ["", "[annotations]", *(f"com.hooks.{name} = {quoted(value)}" for name, value in hooks.items())]
    return Export("\n".join(lines) + "\n", tuple(notes))


def _image(subject: Subject, notes: list[str]) -> str:
    """By tag where the tag names this image, as the documented grammar has it; an image of an index by its digest."""
    registry, _, name = subject.in_registry("an EDF").partition("/")
    tag = subject.reference.tag
    if not subject.index and tag is not None and subject.reference.digest is None:
        return f"{registry}#{name}:{tag}"
    notes.append(
        "the image is named by its digest: enroot 4.0 and newer take that, older ones do not; "
        "a tag of its own, with --image, serves all"
    )
    return f"{registry}#{name}@{subject.digest}"


def _hooks(subject: Subject, notes: list[str]) -> Iterator[tuple[str, str]]:
    """Hooks for the fabric, each with its value, by what the image's MPI and collectives speak."""
    frameworks = subject.items(voc.FRAMEWORK)
    collectives = [name for name in ("nccl", "rccl") if name in frameworks]
    if "libfabric" in frameworks or collectives:
        # The AWS hook implies it in the Container Engine, and does not in sarus-suite.
        yield "cxi.enabled", "true"
    modes = subject.items(voc.MPI_MODE)
    if "libfabric" in frameworks and modes and not {"libfabric_inject", "mpi_replace"} & set(modes):
        notes.append(
            f"the hook puts the host's libfabric in place of the image's, and {voc.MPI_MODE.name} "
            f"({','.join(modes)}) does not say that this works"
        )
    if not collectives:
        return
    variant = "cuda-dl" if "nccl" in collectives else _rocm_variant(subject)
    if variant is None:
        notes.append("AWS OFI NCCL's variant is rocm5 or rocm6, and the image does not say one of these releases")
        return
    yield "aws_ofi_nccl.enabled", "true"
    yield "aws_ofi_nccl.variant", variant


def _rocm_variant(subject: Subject) -> str | None:
    major = (subject.value(voc.ROCM_VERSION) or "").partition(".")[0]
    return f"rocm{major}" if major in ("5", "6") else None
