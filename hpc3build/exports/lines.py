"""Command lines for podman and apptainer: what ``run`` would start, for a host with the GPUs that the image is for.

Sources: podman-run(1) and cmd/podman/common/create.go of containers/podman; it hands labels to no hook
(pkg/specgen/generate/container.go, since 4.5.1), so hooks see what --annotation gives. apptainer/apptainer-userdocs
gpu.rst and mpi.rst.
"""

from __future__ import annotations

import dataclasses
import shlex

from hpc3build.engines import launch
from hpc3build.exports.subject import Export, Subject
from hpc3build.facts import Key
from hpc3build.facts import vocabulary as voc
from hpc3build.host.fingerprint import Fingerprint
from hpc3build.match.gpu import VENDORS

#: What hooks of a site may go by: oci-hooks(5), "when.annotations".
FOR_HOOKS: tuple[Key, ...] = (
    *(voc.GPU, voc.GPU_ARCHITECTURE, voc.CUDA_VERSION, voc.ROCM_VERSION, voc.MPI, voc.MPI_ABI, voc.MPI_MODE),
    *(voc.FRAMEWORK, voc.LIBFABRIC_ABI, voc.LIBC_PROVIDER, voc.GLIBC),
)


def podman(subject: Subject) -> Export:
    """``podman run`` with --annotation for each key that a site's hook may ask for."""
    notes = [*subject.unbelieved(*FOR_HOOKS), *_gpus(subject)]
    wanted = _launch(subject)
    if any("," in value for value in wanted.pairs.values()):
        version = _version(subject.host)
        wanted = dataclasses.replace(wanted, splits=version is not None and launch.splits(version))
        known = f"podman {version}" if version is not None else "podman 5, as no version is known"
        notes.append(f"written for {known}: before 5.0 it splits --annotation at commas that no double quotes enclose")
    return Export(shlex.join(launch.line("podman", wanted)) + "\n", tuple(notes))


def _version(host: Fingerprint) -> str | None:
    return next((engine.version for engine in host.engines or () if engine.name == "podman"), None)


def apptainer(subject: Subject) -> Export:
    """``apptainer run`` with --nv and --rocm. Labels go into the SIF by themselves, annotations nowhere."""
    notes = [*subject.unbelieved(voc.GPU, voc.MPI), *_gpus(subject)]
    if subject.items(voc.MPI):
        notes.append("under MPI the host's launcher stands before it: srun --mpi=… or mpirun -n N (the hybrid model)")
    text = shlex.join(launch.line("apptainer", _launch(subject))) + "\n"
    return Export(text, tuple(notes))


def _launch(subject: Subject) -> launch.Launch:
    said = {key.name: value for key in FOR_HOOKS if (value := subject.value(key)) is not None}
    gpus = frozenset(_vendor(subject))
    return launch.Launch(subject.image, (), said, gpus, insecure=subject.insecure, annotations=tuple(said))


def _vendor(subject: Subject) -> tuple[str, ...]:
    """The vendor of the GPUs that the image is for, where it is one: several run times are alternatives."""
    vendors = {vendor for runtime in subject.items(voc.GPU) for vendor in VENDORS.get(runtime, ())}
    return tuple(vendors) if len(vendors) == 1 else ()


def _gpus(subject: Subject) -> tuple[str, ...]:
    if voc.GPU.value_in(subject.pairs) is None:
        return ("the image does not say whether it uses a GPU: no option makes one visible",)
    if subject.items(voc.GPU) and not _vendor(subject):
        told = ",".join(subject.items(voc.GPU))
        return (f"{told} runs on GPUs of several vendors: add the option for the host's",)
    return ()
