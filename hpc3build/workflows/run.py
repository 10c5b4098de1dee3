"""``run``: the best image for this host, started by an engine with the flags that image and host need."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpc3build.engines import launch
from hpc3build.errors import InputError, ToolError
from hpc3build.facts import vocabulary as voc
from hpc3build.host.fingerprint import Fingerprint
from hpc3build.match.gpu import VENDORS
from hpc3build.reference import DOCKER, Reference, parse
from hpc3build.run import Runner, missing
from hpc3build.stores.access import Access
from hpc3build.workflows.engine_names import Place, name_for
from hpc3build.workflows.match import Judged, host_of

_LOGGED = (voc.CPU_VERSION, voc.GPU, voc.GPU_ARCHITECTURE, voc.CUDA_VERSION, voc.MPI, voc.MPI_ABI, voc.GLIBC)

_SECONDS = 30.0


@dataclass(frozen=True)
class Plan:
    """What is to be started, and by which engine."""

    judged: Judged
    engine: str
    line: tuple[str, ...]


def plan(
    judged: Judged,
    argv: Sequence[str],
    host: Fingerprint,
    access: Access,
    place: Place,
    *,
    engine: str = "auto",
    terminal: bool = False,
) -> Plan:
    """The engine's line for an image that was chosen. Raises InputError, ToolMissing, and what stores raise."""
    candidate = judged.candidate
    reference = parse(candidate.reference)
    if engine == "auto":
        installed = [entry.name for entry in host.engines or () if entry.name]
        found = launch.first_installed(installed, reference.transport)
        if found is None:
            raise missing("podman")
        engine = found
    image = name_for(engine, candidate, place)
    runtimes = candidate.pairs.get(voc.GPU.name, "none").split(",")
    vendors = {vendor for runtime in runtimes for vendor in VENDORS.get(runtime, ())}
    gpus = vendors & {gpu.vendor for gpu in host.gpus or () if gpu.driver is not False}
    wanted = launch.Launch(
        image, tuple(argv), candidate.pairs, frozenset(gpus), terminal, is_insecure(reference, access)
    )
    if engine == "podman" and any("," in candidate.pairs.get(name, "") for name in wanted.annotations):
        wanted = replace(wanted, splits=_splits(host, place.runner))
    return Plan(judged, engine, launch.line(engine, wanted))


def _splits(host: Fingerprint, runner: Runner) -> bool:
    """Whether the podman of this machine takes --annotation for a CSV line; where there is none, the host's counts."""
    try:
        told = re.search(r"\d+\.\d+", runner(["podman", "--version"], check=False, timeout=_SECONDS).stdout)
    except ToolError:
        told = None
    known = (entry.version for entry in host.engines or () if entry.name == "podman")
    version = told.group() if told else next(known, None)
    return version is not None and launch.splits(version)


def is_insecure(reference: Reference, access: Access) -> bool:
    """Whether an engine has to be told that the registry has no TLS, or none to be trusted."""
    return reference.transport == DOCKER and not access.verifies(reference)


def append_log(path: str, plan: Plan, host: Fingerprint, time: str) -> None:
    """Append one JSON line: what was started where, and what was known of it. Raises InputError."""
    candidate, match = plan.judged.candidate, plan.judged.match
    entry = {
        "time": time,
        "reference": candidate.reference,
        "digest": candidate.digest,
        "verdict": match.verdict.value,
        "deciding": match.deciding.message if match.deciding else None,
        "engine": plan.engine,
        "host": host_of(host),
        "facts": {key.name: candidate.pairs[key.name] for key in _LOGGED if key.name in candidate.pairs},
    }
    data = (json.dumps(entry) + "\n").encode()
    try:
        # One write at the end of the file: lines of jobs that start together stay whole.
        handle = os.open(Path(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)
    except OSError as error:
        raise InputError(f"--log {path}: {error.strerror or error}") from error
