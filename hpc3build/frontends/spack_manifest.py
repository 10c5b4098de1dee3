"""The spack.yaml that Spack itself gets in the builder, and the files of this machine that it names."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpc3build.errors import InputError
from hpc3build.recipe import Section, Settings, kind, line_of

#: Where the image keeps the environment, as ``spack containerize`` does; evidence is looked for there.
ENVIRONMENT = "/opt/spack-environment"
MAX_BYTES = 64 << 20
# Keys of a requirement that hold lists of specs.
_GROUPS = ("one_of", "any_of")
# What tools left in a folder and nobody wrote.
_MADE = frozenset({".git", "__pycache__", ".spack-env"})


def manifest(spack: Section, settings: Settings, folder: str = ENVIRONMENT) -> tuple[Any, Mapping[str, bytes]]:
    """The document for Spack, and files by their path in the environment's ``folder``.

    It has no container section, its install tree and view are where the image has them, and the ``repos:`` and
    ``include:`` that lie here are copied and named by their new paths. Raises InputError with file:line.
    """
    specs = spack.data.get("specs", [])
    if not isinstance(specs, list) or not all(isinstance(spec, str | Mapping) for spec in specs):
        raise InputError(f"{spack.where('specs')}: expected a list of specs, found {kind(specs)}")
    found: Any = copy.deepcopy(spack.data)
    found.pop("container", None)
    config = found.setdefault("config", {})
    if not isinstance(config, dict):
        raise InputError(f"{spack.where('config')}: expected a mapping")
    config["install_tree"] = {"root": "/opt/software"}
    found["view"] = "/opt/views/view"
    packages = found.setdefault("packages", {})
    if not isinstance(packages, dict) or not all(isinstance(value, dict) for value in packages.values()):
        raise InputError(f"{spack.where('packages')}: expected a mapping of mappings")
    target = settings.target or (None if _names_a_target(found) else "x86_64")
    if target is not None:
        _require(spack.section("packages"), packages, target)
    files: dict[str, bytes] = {}
    for key in ("repos", "repos:", "include", "include:"):
        if key in found:
            files.update(_Local(spack, key, folder).copied(found))
    return found, files


def _names_a_target(found: Mapping[str, Any]) -> bool:
    everything = found.get("packages", {}).get("all", {})
    # Specs may take their targets from definitions, as $targets of a matrix.
    said = (everything.get("target", ""), everything.get("require", ""), found.get("specs", ""))
    text = " ".join(map(str, (*said, found.get("definitions", ""))))
    return bool(everything.get("target")) or "target=" in text or "arch=" in text


def _require(section: Section, packages: Any, target: str) -> None:
    """Require the target of all packages: also of those whose own requirements would put that of ``all`` aside."""
    packages.setdefault("all", {})
    for name, settings in packages.items():
        require = settings.get("require") or []
        require = [require] if isinstance(require, str) else require
        if not isinstance(require, list):
            raise InputError(f"{section.where(name)}: require: expected text or a list, found {kind(require)}")
        lists = [item[key] for item in require if isinstance(item, Mapping) for key in _GROUPS if key in item]
        for specs in lists:
            if not isinstance(specs, list):
                raise InputError(f"{section.where(name)}: require: expected a list of specs, found {kind(specs)}")
        if name == "all" or (require and all(_is_about(name, item) for item in require)):
            settings["require"] = [*require, f"target={target}"]


def _is_about(name: str, item: Any) -> bool:
    """Whether a requirement is of the package itself; one of a virtual package names its provider."""
    if isinstance(item, Mapping):
        specs = [spec for key in _GROUPS for spec in item.get(key, ())]
        return all(_is_about(name, spec) for spec in (item.get("spec", ""), *specs))
    found = re.match(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?![A-Za-z0-9_.-]*=)", str(item))
    return found is None or found.group() == name


class _Local:
    """The entries of one key that are paths on this machine."""

    def __init__(self, spack: Section, key: str, environment: str) -> None:
        self.spack, self.key, self.environment = spack, key, environment
        self.name = key.rstrip(":")

    def copied(self, found: Any) -> Mapping[str, bytes]:
        """The files, after their new paths were written into ``found``."""
        files: dict[str, bytes] = {}
        entries, theirs = found[self.key], self.spack.data[self.key]
        if not isinstance(entries, dict | list) or (self.name == "include" and isinstance(entries, dict)):
            raise InputError(f"{self.spack.where(self.key)}: expected a list{' or a mapping' * (self.name == 'repos')}")
        for position, (at, entry) in enumerate(_items(entries)):
            where = f"{self.spack.path}:{line_of(theirs, at)}: {self.name}"
            given = entry.get("path") if isinstance(entry, dict) else entry
            if not isinstance(given, str) or (path := self._here(given, where)) is None:
                continue
            if not path.exists() and isinstance(entry, dict) and entry.get("optional"):
                continue
            folder = f"{self.name}/{at if re.fullmatch(r'[A-Za-z0-9_-]+', str(at)) else position}"
            new, more = self._files(path, f"{where}: {given}", folder)
            files.update(more)
            if isinstance(entry, dict):
                entry["path"] = f"{self.environment}/{new}"
            else:
                entries[at] = f"{self.environment}/{new}"
        return files

    def _here(self, given: str, where: str) -> Path | None:
        """The path of an entry beside the recipe; None for URLs and for what Spack brings itself."""
        if re.match(r"[a-z][a-z0-9+.-]*://|[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:", given) or re.match(r"\$\{?spack\b", given):
            return None
        path = re.sub(r"^\$(?:env\b|\{env\})/*", "", given)
        if "$" in path or path.startswith("~"):
            raise InputError(f"{where}: {given}: what it stands for is not known in the builder", hint="a plain path")
        return self.spack.path.resolve().parent / path

    def _files(self, path: Path, where: str, folder: str) -> tuple[str, Mapping[str, bytes]]:
        """The new path of a file or folder, below the environment's, and its files."""
        if self.name == "repos" and not (path / "repo.yaml").is_file():
            raise InputError(f"{where}: no package repository there", hint="a folder with a repo.yaml")
        if not path.exists():
            raise InputError(f"{where}: no such file", hint="a path beside the spack.yaml")
        top = path.resolve()
        # Python finds the recipes of a repository below a folder of this name.
        parts = top.parts[top.parts.index("spack_repo") :] if "spack_repo" in top.parts else (top.name,)
        new = "/".join((folder, *parts))
        files: dict[str, bytes] = {}
        size = 0
        for file in sorted(top.rglob("*")) if top.is_dir() else (top,):
            if not file.is_file() or _MADE & set(file.relative_to(top.parent).parts):
                continue
            if not file.resolve().is_relative_to(top):
                raise InputError(f"{where}: {file.relative_to(top)} is a link that leads out of it")
            size += file.stat().st_size
            if size > MAX_BYTES:
                raise InputError(f"{where}: larger than {MAX_BYTES >> 20} MiB")
            files[f"{new}/{file.relative_to(top)}" if file != top else new] = file.read_bytes()
        return new, files


def _items(entries: Any) -> Iterator[tuple[Any, Any]]:
    yield from list(entries.items()) if isinstance(entries, dict) else enumerate(list(entries))
