"""The fingerprint of this host, of a recorded one, and what Kubernetes' node feature discovery is told of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from hpc3build.errors import InputError
from hpc3build.host.collect import collect
from hpc3build.host.fingerprint import Fingerprint, read
from hpc3build.host.interpret import interpret
from hpc3build.host.probe import HEAD, MAX_BYTES, Probe
from hpc3build.host.sources import MATCHING
from hpc3build.run import Runner

NFD_FILE = "hpc3build"
_NFD = "org.supercontainers.host."


def fingerprint(
    environ: Mapping[str, str],
    machine: str,
    user: str,
    runner: Runner | None,
    *,
    injects: tuple[str, ...] = (),
    root: Path = Path("/"),
) -> Fingerprint:
    """This host; ``runner`` None leaves commands out. Raises InputError for an injected library that is not there."""
    for path in injects:
        if not Path(path).is_file():
            raise InputError(
                f"--injects {path}: no such file", hint="a library that the site binds into every container"
            )
    return interpret(collect(root, environ, machine=machine, user=user, runner=runner, injects=injects))


def for_matching(environ: Mapping[str, str], machine: str, user: str, runner: Runner) -> Fingerprint:
    """This host, without the commands whose answers no rule of match reads."""
    probe = collect(Path("/"), environ, machine=machine, user=user, runner=runner, commands=MATCHING)
    return interpret(probe)


def recorded(path: str) -> Fingerprint:
    """A fingerprint's JSON, or a probe's text, of another host. Raises InputError."""
    from hpc3build.yamlread import read_text

    text = read_text(Path(path), MAX_BYTES, "a fingerprint")
    return interpret(Probe.parse(text, path)) if text.startswith(HEAD[:16]) else read(text, path)


def from_probe(path: str, text: str) -> Fingerprint:
    """What ``fingerprint --script`` collected, read from ``path``. Raises InputError."""
    return interpret(Probe.parse(text, "standard input" if path == "-" else path))


def write_nfd_features(folder: str, host: Fingerprint) -> Path:
    """Write a local feature file of NFD (features.d), whole or not at all. Raises InputError."""
    from hpc3build.workflows.outputs import write_atomically

    if not Path(folder).is_dir():
        raise InputError(
            f"--nfd-features {folder}: no such folder", hint="/etc/kubernetes/node-feature-discovery/features.d"
        )
    path = Path(folder) / NFD_FILE
    write_atomically(str(path), "".join(f"{name}={value}\n" for name, value in nfd_features(host)))
    return path


def nfd_features(host: Fingerprint) -> Iterator[tuple[str, str]]:
    """What NFD does not find itself: archspec's target, GPU code and driver, MPI, libfabric, glibc.

    Source: NFD's "local" feature source: lines NAME=VALUE; values are also labels: 63 of [A-Za-z0-9._-].
    """
    yield from _feature("cpu.target", host.cpu.target)
    for number, architecture in enumerate(sorted({gpu.architecture for gpu in host.gpus or () if gpu.architecture})):
        yield from _feature("gpu.architecture" if number == 0 else f"gpu.architecture.{number}", architecture)
    for name in ("nvidia", "cuda", "amdgpu", "rocm"):
        yield from _feature(f"driver.{name}", getattr(host.driver, name))
    for family in sorted({mpi.family for mpi in host.mpi or () if mpi.family}):
        versions = sorted(mpi.abi for mpi in host.mpi or () if mpi.family == family and mpi.abi)
        yield from _feature(f"mpi.{family}", versions[-1] if versions else "true")
    yield from _feature("libfabric.abi", host.fabric.libfabric)
    yield from _feature("glibc", host.libc.version)


def _feature(name: str, value: str | None) -> Iterator[tuple[str, str]]:
    kept = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "._-") else "_" for sign in value or "")
    kept = kept[:63].strip("._-")
    if kept:
        yield f"{_NFD}{name}", kept
