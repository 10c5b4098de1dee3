"""What is known of a host, as values with where each was read, and as JSON (schemas/fingerprint.json).

None is unknown; an empty tuple is "looked, and there is none". ``sources`` maps a field to where its value was read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from hpc3build.errors import InputError
from hpc3build.jsonread import parsed

SCHEMA = 1
_EMPTY: Mapping[str, str] = MappingProxyType({})


def _sources() -> Any:
    return field(default_factory=lambda: _EMPTY)


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """``architecture`` as uname -m, ``target`` by archspec, ``features`` the kernel's flags."""

    architecture: str | None = None
    target: str | None = None
    vendor: str | None = None
    model: str | None = None
    features: tuple[str, ...] | None = None
    sources: Mapping[str, str] = _sources()


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """``vendor`` nvidia, amd or intel; ``architecture`` sm_90 or gfx90a:xnack-; ``driver`` whether one is loaded."""

    vendor: str | None = None
    name: str | None = None
    architecture: str | None = None
    driver: bool | None = None
    pci: str | None = None
    sources: Mapping[str, str] = _sources()


@dataclass(frozen=True, kw_only=True)
class Driver:
    """Versions of kernel drivers; ``cuda`` is the highest CUDA that the NVIDIA driver serves, ``rocm`` the host's."""

    nvidia: str | None = None
    cuda: str | None = None
    amdgpu: str | None = None
    rocm: str | None = None
    sources: Mapping[str, str] = _sources()


@dataclass(frozen=True, kw_only=True)
class Mpi:
    """An MPI library: ``abi`` is its file's version, ``glibc`` the newest glibc symbol version that it needs."""

    family: str | None = None
    implementation: str | None = None
    version: str | None = None
    abi: str | None = None
    glibc: str | None = None
    path: str | None = None
    sources: Mapping[str, str] = _sources()


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """Slurm's version and PMI flavours (``srun --mpi``), and the MPI that mpirun on PATH belongs to."""

    slurm: str | None = None
    pmi: tuple[str, ...] | None = None
    mpirun: str | None = None
    mpirun_version: str | None = None
    sources: Mapping[str, str] = _sources()


@dataclass(frozen=True, kw_only=True)
class Fabric:
    """``libfabric`` is its ABI (1.6), ``libfabric_glibc`` the glibc that it needs; ``devices`` as cxi0, mlx5_0."""

    libfabric: str | None = None
    libfabric_glibc: str | None = None
    libfabric_path: str | None = None
    ucx: str | None = None
    providers: tuple[str, ...] | None = None
    devices: tuple[str, ...] | None = None
    sources: Mapping[str, str] = _sources()


@dataclass(frozen=True, kw_only=True)
class Libc:
    """The host's C library."""

    provider: str | None = None
    version: str | None = None
    sources: Mapping[str, str] = _sources()


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """``modules`` are loaded or built in; ``modules_complete`` says whether one that is not listed is not there."""

    version: str | None = None
    modules: tuple[str, ...] | None = None
    modules_complete: bool | None = None
    cgroup: str | None = None
    user_namespaces: bool | None = None
    subuid: bool | None = None
    sources: Mapping[str, str] = _sources()


@dataclass(frozen=True, kw_only=True)
class OperatingSystem:
    """os-release."""

    id: str | None = None
    version: str | None = None
    name: str | None = None
    sources: Mapping[str, str] = _sources()


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A container engine; its version is unknown where commands were left out."""

    name: str | None = None
    version: str | None = None
    path: str | None = None
    sources: Mapping[str, str] = _sources()


@dataclass(frozen=True, kw_only=True)
class Injected:
    """A library that the site binds into every container, and the glibc that it needs."""

    path: str | None = None
    glibc: str | None = None
    sources: Mapping[str, str] = _sources()


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """One host."""

    cpu: Cpu = Cpu()
    gpus: tuple[Gpu, ...] | None = None
    driver: Driver = Driver()
    mpi: tuple[Mpi, ...] | None = None
    launcher: Launcher = Launcher()
    fabric: Fabric = Fabric()
    libc: Libc = Libc()
    kernel: Kernel = Kernel()
    os: OperatingSystem = OperatingSystem()
    engines: tuple[Engine, ...] | None = None
    injected: tuple[Injected, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document, with its schema's number."""
        return {"schema": SCHEMA, **{name: _plain(getattr(self, name)) for name in _names(Fingerprint)}}

    @classmethod
    def from_json(cls, document: Any, where: str) -> Fingerprint:
        """Read a document; members that are not known are passed over. Raises InputError with the member's name."""
        fields = _object(document, where)
        version = fields.get("schema")
        if isinstance(version, int) and not isinstance(version, bool) and version > SCHEMA:
            raise InputError(
                f"{where}: a fingerprint of schema {version}, and this hpc3build reads schema {SCHEMA}",
                hint="use the newer hpc3build, or make the fingerprint with this one",
            )
        if version != SCHEMA or isinstance(version, bool):
            raise InputError(
                f"{where}: no fingerprint: schema is {version!r:.40}", hint="hpc3build fingerprint -o FILE"
            )
        single = {"cpu": Cpu, "driver": Driver, "launcher": Launcher, "fabric": Fabric, "libc": Libc, "kernel": Kernel,
                  "os": OperatingSystem}  # fmt: skip
        several = {"gpus": Gpu, "mpi": Mpi, "engines": Engine, "injected": Injected}
        found: dict[str, Any] = {}
        for name, kind in single.items():
            if fields.get(name) is not None:
                found[name] = _read(kind, fields[name], f"{where}: {name}")
        for name, kind in several.items():
            if fields.get(name) is not None:
                entries = _list(fields[name], f"{where}: {name}")
                found[name] = tuple(_read(kind, item, f"{where}: {name}[{at}]") for at, item in enumerate(entries))
        return cls(**found)


def read(text: str, where: str) -> Fingerprint:
    """A fingerprint's JSON text. Raises InputError."""
    try:
        document = parsed(text)
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}", hint="hpc3build fingerprint -o FILE writes one") from error
    return Fingerprint.from_json(document, where)


def newest(versions: Iterable[str]) -> str | None:
    """The highest of version numbers, None of none."""
    return max(versions, key=numbers, default=None)


def numbers(version: str) -> tuple[int, ...]:
    """``6.5.0-21-generic`` as (6, 5, 0): the leading numbers between dots."""
    found = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits or len(digits) > 9:
            break
        found.append(int(digits))
        if digits != part:
            break
    return tuple(found)


_T = TypeVar("_T")


def _names(kind: Any) -> list[str]:
    return [member.name for member in dataclasses.fields(kind)]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {name: _plain(getattr(value, name)) for name in _names(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _read(kind: type[_T], value: Any, where: str) -> _T:
    """An instance of a dataclass of this module, each member checked by its own annotation."""
    fields = _object(value, where)
    found: dict[str, Any] = {}
    for member in dataclasses.fields(kind):  # type: ignore[arg-type]
        given = fields.get(member.name)
        if given is not None:
            found[member.name] = _checked(str(member.type), given, f"{where}.{member.name}")
    return kind(**found)


def _checked(kind: str, value: Any, where: str) -> Any:
    if kind.startswith("tuple"):
        items = _list(value, where)
        return tuple(_checked("str", item, f"{where}[{at}]") for at, item in enumerate(items))
    if kind.startswith("Mapping"):
        pairs = _object(value, where)
        return MappingProxyType({name: _checked("str", text, f"{where}.{name}") for name, text in pairs.items()})
    expected = bool if kind.startswith("bool") else str
    if not isinstance(value, expected):
        raise InputError(f"{where}: {value!r:.60} where a {'truth value' if expected is bool else 'text'} belongs")
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: {value!r:.60} where an object belongs", hint="hpc3build fingerprint -o FILE")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where}: {value!r:.60} where a list belongs")
    return value
