"""Variables: those that NVIDIA's toolkit reads of an image, and the image's own for Charliecloud.

Sources: NVIDIA/nvidia-container-toolkit cmd/nvidia-container-runtime/README.md ("Environment variables (OCI spec)") and
internal/config/image/cuda_image.go; docs.nvidia.com/deploy/cuda-compatibility (minor versions). hpc/charliecloud
doc/ch-run.rst ("Setting variables with --set-env") and bin/ch_misc.c (env_file_read, env_var_parse, env_set).
"""

from __future__ import annotations

import re

from hpc3build.exports.edf import NVIDIA
from hpc3build.exports.quoted import variables
from hpc3build.exports.subject import Export, Subject
from hpc3build.facts import vocabulary as voc
from hpc3build.host.fingerprint import numbers

_READ = (voc.GPU, voc.CUDA_VERSION, voc.GPU_ARCHITECTURE)
REQUIRE = "NVIDIA_REQUIRE_CUDA"


def oci_env(subject: Subject) -> Export:
    """Lines for Config.Env that follow from what the image says, and that it does not set already."""
    notes = list(subject.unbelieved(*_READ))
    if "cuda" not in subject.items(voc.GPU):
        told = subject.value(voc.GPU) or "nothing of it"
        return Export("", (*notes, f"only for CUDA do variables follow, and the image says {told} ({voc.GPU.name})"))
    wanted = {**NVIDIA, **_required(subject, notes)}
    for name in [name for name in wanted if name in subject.env]:
        if subject.env[name] != wanted.pop(name):
            notes.append(f"the image sets {name} otherwise, which stays")
    if not wanted:
        return Export("", (*notes, "the image sets all that follows already"))
    notes.append("they count in the image's configuration: env of hpc3build.yaml, ENV, or crane mutate --env")
    return Export("".join(f"{name}={value}\n" for name, value in wanted.items()), tuple(notes))


def _required(subject: Subject, notes: list[str]) -> dict[str, str]:
    """The host that the toolkit asks for, where it asks (not where it hands devices over by CDI)."""
    version = subject.value(voc.CUDA_VERSION)
    major, minor, *_ = (*numbers(version or ""), None, None)
    codes = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", code) for code in subject.items(voc.GPU_ARCHITECTURE)]
    known = [(found[1], (int(found[2]), int(found[3]))) for found in codes if found is not None]
    if major is None:
        notes.append(f"the image does not say its CUDA: there is no {REQUIRE}")
        return {}
    if major >= 11 and any(kind == "sm" for kind, _ in known):
        minor = 0  # minor-version compatibility; code that is to be compiled needs the toolkit's own driver
    elif minor is None:
        notes.append(f"CUDA {version} has no minor number: there is no {REQUIRE}")
        return {}
    least = min((capability for _, capability in known), default=None)
    arch = f",arch>={least[0]}.{least[1]}" if least is not None else ""
    return {REQUIRE: f"cuda>={major}.{minor}{arch}"}


def charliecloud(subject: Subject) -> Export:
    """Lines as /ch/environment has them, for ch-run --set-env=FILE: Charliecloud runs no entry point."""
    lines, left_out = variables({name: _as_ch_run_reads(value) for name, value in subject.env.items()})
    notes = [f"{name}: a value with control characters or line ends, which the file cannot hold" for name in left_out]
    if not lines:
        return Export("", (*notes, "the image's configuration sets no variables"))
    expands = any(part.startswith("$") and len(part) > 1 for line in lines for part in _parts(line))
    option = "--env-no-expand " if expands else ""
    notes.append(f"ch-run {option}--set-env=FILE IMAGE -- COMMAND")
    if "cuda" in subject.items(voc.GPU):
        notes.append("ch-fromhost --nvidia IMAGE brings the driver's libraries into the image")
    return Export("\n".join(lines) + "\n", tuple(notes))


def _parts(line: str) -> list[str]:
    return line.partition("=")[2].split(":")


def _as_ch_run_reads(value: str) -> str:
    """ch-run takes a pair of single quotes off a value: one that has such a pair gets another."""
    return f"'{value}'" if len(value) > 1 and value[0] == value[-1] == "'" else value
