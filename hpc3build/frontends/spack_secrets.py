"""Spack's mirrors and keys: files of this machine that the builder gets as secrets, so that no layer holds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from hpc3build.errors import InputError
from hpc3build.recipe import Settings
from hpc3build.yamlread import Section, read_text, read_yaml

#: BuildKit refuses larger secrets.
MAX_BYTES = 500_000
MIRRORS, KEYS = "hpc3build_mirrors", "hpc3build_keys"
MOUNTS = "".join(f" --mount=type=secret,id={name},mode=0400" for name in (MIRRORS, KEYS))


def secret_files(settings: Settings, folder: Path) -> Mapping[str, Path]:
    """The files by their secret's id. ``folder`` is the recipe's. Raises InputError for what Spack would refuse."""
    found: dict[str, Path] = {}
    if settings.spack_mirrors:
        found[MIRRORS] = path = _file(settings, "spack_mirrors", folder)
        document = Section(path, read_yaml(path))
        document.only(("mirrors", "mirrors:"))
        for key in document.data:
            document.section(key)
    if settings.spack_keys:
        found[KEYS] = path = _file(settings, "spack_keys", folder)
        if "BEGIN PGP PUBLIC KEY BLOCK" not in read_text(path, MAX_BYTES, "public keys"):
            raise InputError(f"{path}: no public key", hint="gpg --armor --export, or spack gpg export, writes one")
    return MappingProxyType(found)


def _file(settings: Settings, name: str, folder: Path) -> Path:
    given = getattr(settings, name)
    path = next((path for path in (Path(given), folder / given) if path.is_file()), None)
    if path is None:
        raise InputError(f"{settings.stated(name, given)}: no such file", hint="a path here or beside the recipe")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES // 1000} kB")
    return path
