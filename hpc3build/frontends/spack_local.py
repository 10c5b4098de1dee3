"""Files of this machine that a spack.yaml names: package repositories, included files, sources under development."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpc3build.errors import InputError
from hpc3build.yamlread import Section, kind, line_of

#: Where the builder has the sources of ``develop:``; they are no part of the image.
DEVELOP = "/opt/hpc3build/build/spack/develop"
MAX_BYTES = 64 << 20
# What tools left in a folder and nobody wrote.
_MADE = frozenset({".git", "__pycache__", ".spack-env"})


class Copied:
    """Files by their path in the environment's folder, and those of them with execute permission."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.executable: set[str] = set()

    def add(self, top: Path, new: str, where: str) -> None:
        """Take a file, or a folder's files, as ``new``. Raises InputError for links that lead out, and for size."""
        size = 0
        for file in sorted(top.rglob("*")) if top.is_dir() else (top,):
            if not file.is_file() or _MADE & set(file.relative_to(top.parent).parts):
                continue
            if not file.resolve().is_relative_to(top):
                raise InputError(f"{where}: {file.relative_to(top)} is a link that leads out of it")
            size += file.stat().st_size
            if size > MAX_BYTES:
                raise InputError(f"{where}: larger than {MAX_BYTES >> 20} MiB")
            name = f"{new}/{file.relative_to(top)}" if file != top else new
            self.files[name] = file.read_bytes()
            if os.access(file, os.X_OK):
                self.executable.add(name)


def copy_named(spack: Section, key: str, found: Any, copied: Copied, environment: str) -> None:
    """Take the local entries of ``repos`` or ``include``, and write their new paths into ``found``."""
    name = key.rstrip(":")
    entries, theirs = found[key], spack.data[key]
    if not isinstance(entries, dict | list) or (name == "include" and isinstance(entries, dict)):
        raise InputError(f"{spack.where(key)}: expected a list{' or a mapping' * (name == 'repos')}")
    for position, (at, entry) in enumerate(_items(entries)):
        where = f"{spack.path}:{line_of(theirs, at)}: {name}"
        given = entry.get("path") if isinstance(entry, dict) else entry
        if not isinstance(given, str) or (path := _here(spack.path, given, where)) is None:
            continue
        if not path.exists() and isinstance(entry, dict) and entry.get("optional"):
            continue
        folder = f"{name}/{at if re.fullmatch(r'[A-Za-z0-9_-]+', str(at)) else position}"
        where = f"{where}: {given}"
        if name == "repos" and not (path / "repo.yaml").is_file():
            raise InputError(f"{where}: no package repository there", hint="a folder with a repo.yaml")
        if not path.exists():
            raise InputError(f"{where}: no such file", hint="a path beside the spack.yaml")
        top = path.resolve()
        # Python finds the recipes of a repository below a folder of this name.
        parts = top.parts[top.parts.index("spack_repo") :] if "spack_repo" in top.parts else (top.name,)
        new = "/".join((folder, *parts))
        copied.add(top, new, where)
        if isinstance(entry, dict):
            entry["path"] = f"{environment}/{new}"
        else:
            entries[at] = f"{environment}/{new}"


def copy_develop(section: Section, found: Any, copied: Copied) -> None:
    """Take the sources of ``develop:``, and write their new paths into ``found``."""
    for name in section.data:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", str(name)):
            raise InputError(f"{section.where(name)}: not the name of a package")
        entry = section.section(name)
        given = entry.text("path") or str(name)
        path = _here(section.path, given, entry.where("path"))
        if path is None or not path.is_dir():
            raise InputError(f"{entry.where('path')}: {given}: no such folder", hint="a path beside the spack.yaml")
        if not isinstance(found[name], dict):
            raise InputError(f"{section.where(name)}: expected a mapping, found {kind(found[name])}")
        copied.add(path.resolve(), str(name), f"{entry.where('path')}: {given}")
        found[name]["path"] = f"{DEVELOP}/{name}"


def _here(recipe: Path, given: str, where: str) -> Path | None:
    """The path of an entry beside the recipe; None for URLs and for what Spack brings itself."""
    if re.match(r"[a-z][a-z0-9+.-]*://|[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:", given) or re.match(r"\$\{?spack\b", given):
        return None
    path = re.sub(r"^\$(?:env\b|\{env\})/*", "", given)
    if "$" in path or path.startswith("~"):
        raise InputError(f"{where}: {given}: what it stands for is not known in the builder", hint="a plain path")
    return recipe.resolve().parent / path


def _items(entries: Any) -> Iterator[tuple[Any, Any]]:
    yield from list(entries.items()) if isinstance(entries, dict) else enumerate(list(entries))
