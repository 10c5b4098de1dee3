"""``--sourcepath``: of folders with downloaded sources exactly the files that a closure names, with their checksums."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hpc3build.errors import InputError

#: Checksums that EasyBuild 5.4.1 knows and that are checked here; it checks the others itself, in the builder.
_HASHES = ("md5", "sha1", "sha256", "sha512")
_BLOCK = 1 << 20
_URL = re.compile(r"(?:https?|ftp)://")


@dataclass(frozen=True)
class Given:
    """A file that travels: what the resolver says of it (easybuild_files.py), whose it is, and where it lies here."""

    module: str
    name: str
    software: str
    extension: bool
    checksum: Any
    path: Path
    url: bool = False

    @property
    def place(self) -> str:
        """Where EasyBuild looks for it below a folder of sources.

        A source that is a URL is sought only among what EasyBuild itself has fetched: install.sh puts it there.
        """
        folder = f"{'fetched/' if self.url else ''}{_letter(self.software)}/{self.software}"
        return f"{folder}/extensions/{self.name}" if self.extension else f"{folder}/{self.name}"


@dataclass(frozen=True)
class Found:
    """What travels, and the names of what the builder has to fetch."""

    given: tuple[Given, ...] = ()
    missing: tuple[str, ...] = ()

    def note(self, folders: Sequence[Path]) -> str:
        """What a person is told of it."""
        where = ":".join(map(str, folders))
        if not self.missing:
            return f"--sourcepath {where}: all sources are there"
        count = len(self.missing)
        first = ", ".join(self.missing[:8]) + (", …" if count > 8 else "")
        files, them = ("file is", "it") if count == 1 else ("files are", "them")
        return f"--sourcepath {where}: {count} {files} not there, and the builder fetches {them}: {first}"


def find(modules: Iterable[Mapping[str, Any]], robot_paths: Sequence[Path], folders: Sequence[Path]) -> Found:
    """The files of ``folders`` that the modules' ``files`` name, and those of ``robot_paths`` that travel no other way.

    The order of the search is that of EasyBlock.obtain_file in EasyBuild 5.4.1. Raises InputError for a name that
    leads out of the folders.
    """
    given: list[Given] = []
    missing: list[str] = []
    for module in modules:
        beside = Path(module.get("path") or "/").parent
        travels = {*(module.get("sources") or ()), *(module.get("patches") or ())}
        for file in module.get("files") or ():
            known = Path(file["path"]) if file["path"] else None
            if known and (
                not _below(known, robot_paths) or (known.parent.resolve() == beside and known.name in travels)
            ):
                continue  # the builder's EasyBuild has it, or it travels with its easyconfig
            url = bool(_URL.match(file["name"]))
            name = file["name"].rpartition("/")[2] if url else file["name"]
            _check_name(name, file["software"], module)
            path = known or _search(folders, name, file)
            if path is None:
                missing.append(name)
                continue
            given.append(
                Given(module["module"], name, file["software"], file["extension"], file["checksum"], path, url)
            )
    return Found(tuple(given), tuple(dict.fromkeys(missing)))


def _below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _check_name(name: str, software: str, module: Mapping[str, Any]) -> None:
    parts = PurePosixPath(name).parts
    odd = name.startswith("/") or ".." in parts or not parts or re.search(r"[\x00-\x1f\x7f]", f"{name}{software}")
    if odd or "/" in software or software in ("", ".", ".."):
        raise InputError(f"{module['easyconfig']}: {name!r} of {software!r} is not the name of a source or a patch")


def _search(folders: Iterable[Path], name: str, file: Mapping[str, Any]) -> Path | None:
    software = file["software"]
    for folder in folders:
        for place in (folder / _letter(software) / software, folder / software, folder):
            # "packages" is what EasyBuild once called it.
            inner = [place / "extensions" / name, place / "packages" / name] if file["extension"] else []
            for path in (*inner, place / name):
                if path.is_file():
                    return path
    return None


def _letter(software: str) -> str:
    """The folder of all software of one letter: EasyBuild's letter_dir_for."""
    letter = software[0].lower()
    return letter if "a" <= letter <= "z" else "0"


def listed(given: Iterable[Given]) -> dict[str, str]:
    """SHA256 by place, as ``sha256sum`` would list them. Raises InputError for a wrong checksum, and an unread file."""
    found: dict[str, str] = {}
    origin: dict[str, Path] = {}
    for file in given:
        digests = _digests(file)
        if problem := _wrong(file.checksum, digests):
            raise InputError(
                f"{file.path}: {problem}, which {file.module} asks for",
                hint="the file is another one, or damaged: fetch it again",
            )
        if found.setdefault(file.place, digests["sha256"]) != digests["sha256"]:
            raise InputError(f"{file.path} and {origin[file.place]}: EasyBuild would look for both at {file.place}")
        origin.setdefault(file.place, file.path)
    return dict(sorted(found.items()))


def _digests(file: Given) -> dict[str, str]:
    """SHA256 of a file, and what else its checksum is of; the size in bytes as text."""
    hashes = {
        name: hashlib.new(name, usedforsecurity=False) for name in {"sha256", *_kinds(file.checksum)} & {*_HASHES}
    }
    try:
        with file.path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                for each in hashes.values():
                    each.update(block)
            size = stream.tell()
    except OSError as error:
        raise InputError(f"{file.path}: {error.strerror or error}") from error
    return {**{name: each.hexdigest() for name, each in hashes.items()}, "size": str(size)}


def _kinds(checksum: Any) -> Iterator[str]:
    for kind, value in (checksum or {}).items():
        if kind in ("all", "any"):
            for each in value:
                yield from _kinds(each)
        else:
            yield kind


def _wrong(checksum: Any, digests: Mapping[str, str]) -> str:
    """What does not hold of the checksum, in words; empty where it holds, or nothing is asked."""
    if not checksum:
        return ""
    ((kind, value),) = checksum.items()
    if kind == "wrong":
        return str(value)
    if kind == "all":
        return next((problem for each in value if (problem := _wrong(each, digests))), "")
    if kind == "any":
        problems = [_wrong(each, digests) for each in value]
        return "" if "" in problems else "; ".join(problems)
    if kind not in digests or digests[kind] == str(value):
        return ""
    return f"its {kind} is {digests[kind]}, not {value}"
