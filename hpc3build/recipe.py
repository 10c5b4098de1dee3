"""A recipe and its settings: what hpc3build.yaml, the recipe itself and the command line ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hpc3build.errors import InputError

ENTRYPOINTS = ("hpc3", "hpc3-exec")
#: How the final image of an EasyBuild recipe gets its environment (docs/easybuild.md).
MODULES = ("flat", "lmod")
_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys of hpc3build.yaml (docs/recipes.md), overridden by options of the same names.

    ``base`` is the image of both stages, ``target`` an archspec name, ``mpi_provider`` a package of Spack's,
    ``final_packages`` and ``build_packages`` are the base's package names, ``docs`` is markdown, ``pins`` the releases
    of the tools in the builder, ``secrets`` the ids of build secrets, ``caches`` absolute paths kept between builds.
    ``spack_mirrors`` and ``spack_keys`` are files, here or beside the recipe. ``concretize`` is lock, builder or host;
    for host, ``spack`` and ``spack_config`` are folders, ``environment`` the variables that Spack may see. ``cache`` is
    the folder of what need not be worked out again. ``origins`` has file, line and key of what a file states.
    """

    title: str | None = None
    base: str | None = None
    target: str | None = None
    entrypoint: str | None = None
    final_packages: tuple[str, ...] = ()
    build_packages: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    user: str | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    mpi_mode: str | None = None
    mpi_provider: str | None = None
    docs: str | None = None
    rank: int | None = None
    smoke: str | None = None
    secrets: tuple[str, ...] = ()
    caches: tuple[str, ...] = ()
    pins: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    cuda_compute_capabilities: str | None = None
    spack_ref: str | None = None
    spack_source: str | None = None
    packages_source: str | None = None
    concretize: str | None = None
    format: str | None = None
    pin: bool = False
    spack_mirrors: str | None = None
    spack_keys: str | None = None
    binary_cache: bool = True
    host_provided: tuple[str, ...] = ()
    spack: str | None = None
    spack_config: str | None = None
    concretize_seconds: int | None = None
    save_lock: str | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    robot_paths: tuple[str, ...] = ()
    include_easyblocks: tuple[str, ...] = ()
    hooks: str | None = None
    accept_eula_for: tuple[str, ...] = ()
    sourcepath: tuple[str, ...] = ()
    modules: str | None = None
    keep_compilers: bool | None = None
    cache: Path | None = None
    origins: Mapping[str, str] = field(default_factory=lambda: _EMPTY, compare=False)

    def overridden(self, **options: Any) -> Settings:
        """These settings with every option that is given (not None, not empty, not the default) in its place."""
        defaults = {field.name: field.default for field in fields(self)}
        given = {
            name: value
            for name, value in options.items()
            if value not in (None, (), {}) and not (isinstance(value, bool) and value is defaults[name])
        }
        origins = {name: place for name, place in self.origins.items() if name not in given}
        return replace(self, **{"origins": MappingProxyType(origins), **given})

    def where(self, name: str) -> str:
        """Where ``name`` was stated: file, line and key, or the option."""
        return self.origins.get(name) or option_of(name)

    def stated(self, name: str, value: object) -> str:
        """``value`` of ``name`` with where it was stated: FILE:LINE: KEY: VALUE, or --OPTION VALUE."""
        return f"{self.where(name)}{':' if name in self.origins else ''} {value}"

    def over(self, beside: Settings) -> Settings:
        """``beside`` with everything that these settings, the command line's, state in its place."""
        return beside.overridden(**vars(self))

    @property
    def given(self) -> tuple[str, ...]:
        """The names of what these settings, the command line's, state."""
        defaults = Settings()
        own = (field.name for field in fields(self) if field.name not in ("environment", "cache", "origins"))
        return tuple(name for name in own if getattr(self, name) != getattr(defaults, name))

    @property
    def entry(self) -> str:
        """The name of the entry point: HPC3's own where nobody chose."""
        return self.entrypoint or ENTRYPOINTS[0]


#: Settings that one package manager alone has a meaning for; of a pin as ``pins:NAME``.
OF_SPACK = frozenset(
    {
        "binary_cache", "concretize", "concretize_seconds", "host_provided", "packages_source", "pins:clingo",
        "pins:spack", "pins:spack-packages", "save_lock", "spack", "spack_config", "spack_keys", "spack_mirrors",
        "spack_ref", "spack_source",
    }
)  # fmt: skip
OF_EASYBUILD = frozenset(
    {
        "accept_eula_for", "cuda_compute_capabilities", "hooks", "include_easyblocks", "keep_compilers", "modules",
        "pins:archspec", "pins:easybuild", "robot_paths", "sourcepath",
    }
)  # fmt: skip


# Options that are called otherwise than what they set.
_SPELLED = {
    "mpi_provider": "--mpi", "pairs": "-a", "platforms": "--platform", "roots": "--root", "source": "--from",
}  # fmt: skip


def option_of(name: str) -> str:
    """How the option is spelled that sets ``name``."""
    return _SPELLED.get(name, f"--{name.replace('_', '-')}")


def refuse_options(names: Iterable[str], why: str) -> None:
    """Raise InputError for settings that are given, and mean nothing: an option without effect looks heeded."""
    if options := [option_of(name) for name in names]:
        raise InputError(f"{', '.join(options)}: {why}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a frontend loaded. ``origin`` is the file, ``folder`` where its neighbours lie.

    ``lock`` is the text of the lock that counts, None where there is none; ``notes`` tell what is set aside.
    """

    origin: Path
    folder: Path
    settings: Settings = field(default_factory=Settings)
    lock: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.settings.title or self.folder.name
