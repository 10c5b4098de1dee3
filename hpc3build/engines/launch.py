"""The command line with which an engine starts an image for a person: GPUs, host network and hooks by what it says.

Sources: podman-run(1) and crun (annotations reach hooks only by --annotation), NVIDIA's container toolkit (CDI names),
ROCm's "running ROCm containers", apptainer's GPU page, Sarus's user guide. MPI needs the host's network and its shared
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from hpc3build.errors import InputError
from hpc3build.facts import vocabulary as voc
from hpc3build.host.fingerprint import numbers
from hpc3build.reference import ARCHIVE, DAEMON, DOCKER, OCI, STORAGE, Reference

#: What site hooks of Podman and Sarus ask for (oci-hooks(5), "when.annotations").
_FOR_HOOKS = (voc.MPI.name, voc.GPU.name, voc.GLIBC.name)


@dataclass(frozen=True)
class Launch:
    """``gpus`` are vendors whose GPUs the image uses and the host has; ``insecure`` a registry without TLS.

    ``annotations`` are the keys that podman's hooks are told of; ``splits`` is whether it takes --annotation for a CSV
    line, as before 5.0 (containers/podman cmd/podman/common/create.go).
    """

    image: str
    argv: tuple[str, ...]
    pairs: Mapping[str, str]
    gpus: frozenset[str] = frozenset()
    terminal: bool = False
    insecure: bool = False
    annotations: tuple[str, ...] = _FOR_HOOKS
    splits: bool = False

    @property
    def uses_mpi(self) -> bool:
        """Whether its processes talk to others."""
        return self.pairs.get(voc.MPI.name, "none") != "none"


def _podman(launch: Launch) -> list[str]:
    line = ["podman", "run", "--rm", *_terminal(launch)]
    line += ["--tls-verify=false"] if launch.insecure else []
    line += ["--device", "nvidia.com/gpu=all"] if "nvidia" in launch.gpus else []
    line += ["--device", "/dev/kfd"] if "amd" in launch.gpus else []
    line += ["--device", "/dev/dri"] if launch.gpus & {"amd", "intel"} else []
    line += ["--group-add", "keep-groups"] if launch.gpus & {"amd", "intel"} or launch.uses_mpi else []
    line += ["--network", "host", "--ipc", "host"] if launch.uses_mpi else []
    for name in launch.annotations:
        if name in launch.pairs:
            pair = f"{name}={launch.pairs[name]}"
            line += ["--annotation", f'"{pair}"' if launch.splits and "," in pair else pair]
    return [*line, launch.image, *launch.argv]


def _docker(launch: Launch) -> list[str]:
    line = ["docker", "run", "--rm", *_terminal(launch)]
    line += ["--gpus", "all"] if "nvidia" in launch.gpus else []
    line += ["--device", "/dev/kfd"] if "amd" in launch.gpus else []
    line += ["--device", "/dev/dri", "--group-add", "video"] if launch.gpus & {"amd", "intel"} else []
    line += ["--network", "host", "--ipc", "host"] if launch.uses_mpi else []
    return [*line, launch.image, *launch.argv]


def _terminal(launch: Launch) -> list[str]:
    return ["--interactive", "--tty"] if launch.terminal else []


def _apptainer(launch: Launch, command: str = "apptainer") -> list[str]:
    line = [command, "run"]
    line += ["--nv"] if "nvidia" in launch.gpus else []
    line += ["--rocm"] if "amd" in launch.gpus else []
    line += ["--no-https"] if launch.insecure else []
    image = (
        launch.image
        if launch.image.startswith(tuple(f"{name}:" for name in (OCI, ARCHIVE, DAEMON)))
        else f"docker://{launch.image}"
    )
    return [*line, image, *launch.argv]


def _singularity(launch: Launch) -> list[str]:
    return _apptainer(launch, "singularity")


def _sarus(launch: Launch) -> list[str]:
    line = ["sarus", "run", *(["--tty"] if launch.terminal else [])]
    line += ["--mpi"] if "mpi_replace" in launch.pairs.get(voc.MPI_MODE.name, "") else []
    return [*line, launch.image, *launch.argv]


LAUNCHERS: Mapping[str, Callable[[Launch], list[str]]] = MappingProxyType(
    {"podman": _podman, "docker": _docker, "apptainer": _apptainer, "singularity": _singularity, "sarus": _sarus}
)


#: The transports that each takes (containers-transports(5); apptainer's and Sarus's user guides).
TAKES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "podman": (DOCKER, OCI, ARCHIVE, STORAGE, DAEMON),
        "docker": (DOCKER, DAEMON),
        "apptainer": (DOCKER, OCI, ARCHIVE, DAEMON),
        "singularity": (DOCKER, OCI, ARCHIVE, DAEMON),
        "sarus": (DOCKER,),
    }
)
_INSTEAD = MappingProxyType(
    {
        "docker": "docker-daemon:NAME:TAG",
        "apptainer": "oci:DIR:TAG",
        "singularity": "oci:DIR:TAG",
        "sarus": "docker://HOST/NAME:TAG",
    }
)


def splits(version: str) -> bool:
    """Whether podman of that version takes --annotation for a CSV line."""
    return numbers(version) < (5,)


def check_transport(engine: str, reference: Reference) -> None:
    """Raise InputError for an engine that is not known, or takes no image from there."""
    if engine not in LAUNCHERS:
        raise InputError(f"--engine {engine}: no such engine", hint=f"engines are auto, {', '.join(LAUNCHERS)}")
    if reference.transport not in TAKES[engine]:
        raise InputError(
            f"{reference}: {engine} takes no image of {reference.transport}",
            hint=f"hpc3build annotate {reference} --to {_INSTEAD[engine]} brings it where {engine} finds it",
        )


def line(engine: str, launch: Launch) -> tuple[str, ...]:
    """The whole command of an engine of ``LAUNCHERS``."""
    return tuple(LAUNCHERS[engine](launch))


def first_installed(installed: Sequence[str], transport: str) -> str | None:
    """The engine that ``auto`` means: the first of ours that the host has, and that takes the transport if one does."""
    there = [name for name in LAUNCHERS if name in installed]
    return next((name for name in there if transport in TAKES[name]), next(iter(there), None))
