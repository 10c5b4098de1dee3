"""Files that a person asked for: looked at before the work, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from hpc3build.errors import InputError


def check_writable(*paths: str | None) -> None:
    """Raise InputError for a file that cannot be written, before the work whose result it is to hold."""
    for path in filter(None, paths):
        try:
            _check_writable(path, Path(path))
        except OSError as error:  # a name of 5000 characters, say
            raise InputError(f"cannot write {path}: {error.strerror}") from error


def _check_writable(path: str, target: Path) -> None:
    if target.is_dir():
        raise InputError(f"cannot write {path}: it is a folder", hint="name a file in it")
    if target.exists() and not target.is_file():  # /dev/stdout, a pipe
        return
    if not target.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"cannot write {path}: nothing can be written into {target.parent}")


def write_atomically(path: str, text: str) -> None:
    """Write a file whole or not at all. Raises InputError."""
    from tempfile import NamedTemporaryFile

    check_writable(path)
    target = Path(path)
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")  # /dev/stdout, a pipe: nothing to replace
            return
        with NamedTemporaryFile(
            "w", dir=target.parent, prefix=f".{target.name}.", delete=False, encoding="utf-8"
        ) as file:
            try:
                file.write(text)
                file.flush()
                os.chmod(file.name, 0o644)  # noqa: PTH101 (the open file's name)
                Path(file.name).replace(target)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
