"""Resolved closures on disk: reading 87 easyconfigs costs a second, hashing them a few milliseconds.

An entry is found by what was asked (names, options, EasyBuild's release, the names of the files that EasyBuild may
choose from), and holds only while every easyconfig that was read has the bytes that it had.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

FORMAT = 1
KEPT = 100
#: A folder of more files is not listed to save a second.
MOST_FILES = 20_000


class TooManyFiles(Exception):
    """A folder that is too large to be worth listing."""


def key_of(question: Mapping[str, Any], folders: Iterable[Path], files: Iterable[Path]) -> str | None:
    """The name of the entry for ``question``: with the file names in ``folders`` and the bytes of ``files``.

    None where it is not worth it.
    """
    try:
        asked = {
            "format": FORMAT,
            "question": question,
            "listed": {str(folder): list(_listing(folder)) for folder in folders},
            "files": {str(file): digest(file) for file in files},
        }
    except (TooManyFiles, OSError):
        return None
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _listing(folder: Path) -> Iterator[str]:
    count = 0
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        count += len(files)
        if count > MOST_FILES:
            raise TooManyFiles
        yield from sorted(os.path.relpath(f"{top}/{name}", folder) for name in files)


def read(folder: Path, key: str) -> Mapping[str, Any] | None:
    """The closure of the entry ``key``; None where there is none, or it is damaged, or an easyconfig has changed."""
    try:
        first, _, body = (folder / key).read_bytes().partition(b"\n")
        if first.decode("ascii", "replace") != hashlib.sha256(body).hexdigest():
            return None
        entry = json.loads(body)
        if any(digest(Path(path)) != known for path, known in entry["read"].items()):
            return None
        closure: Mapping[str, Any] = entry["closure"]
        return closure
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def write(folder: Path, key: str, closure: Mapping[str, Any]) -> None:
    """Keep ``closure``, whole or not at all: readers and other writers may be at work. Failing to is no error."""
    try:
        known = {module["path"]: digest(Path(module["path"])) for module in closure["modules"]}
        body = json.dumps({"read": known, "closure": dict(closure)}, sort_keys=True).encode()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, prefix=".new-", delete=False) as file:
            try:
                file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
                file.close()
                Path(file.name).replace(folder / key)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        _forget(folder)
    except (OSError, KeyError, TypeError):
        return


def _forget(folder: Path) -> None:
    """Remove all but the newest entries."""
    entries = [entry for entry in os.scandir(folder) if entry.is_file()]
    if len(entries) > KEPT:
        entries.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        for entry in entries[KEPT:]:
            Path(entry.path).unlink(missing_ok=True)
