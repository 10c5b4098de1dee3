"""Files of stores on disk: opened without surprises, replaced at one instant, read with their digest checked."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from hpc3build.errors import ImageError, StoreError
from hpc3build.oci import Descriptor

#: What files and folders are called while they are made.
NEW = ".new-"


class Verifying(io.RawIOBase):
    """Hashes what passes; the end of the stream is refused when the digest differs."""

    def __init__(self, file: BinaryIO, digest: str) -> None:
        self._file = file
        self._digest = digest
        self._hash = hashlib.new(digest.partition(":")[0])

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = cast(io.BufferedReader, self._file).readinto(buffer)
        if count:
            self._hash.update(memoryview(buffer)[:count])
        elif len(buffer) and self._hash.hexdigest() != self._digest.partition(":")[2]:
            raise ImageError(f"the blob {self._digest} is damaged: its content has another digest")
        return count


class Slice(io.RawIOBase):
    """A part of a file, with a position of its own."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file = file
        self._at = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer)[: max(self._end - self._at, 0)]
        count = os.preadv(self._file.fileno(), [wanted], self._at) if wanted else 0
        self._at += count
        return count


def verified(file: BinaryIO, digest: str) -> BinaryIO:
    """A buffered stream of ``file`` whose end is refused when its digest is another."""
    return cast(BinaryIO, io.BufferedReader(Verifying(file, digest), 1 << 18))


def check_size(blob: Descriptor, size: int) -> None:
    """Raise ImageError when a verified blob is not as long as its descriptor says."""
    if size != blob.size:
        raise ImageError(f"the blob {blob.digest} has {size} bytes, its descriptor says {blob.size}")


def open_regular(path: Path, what: str, *, write: bool = False) -> BinaryIO:
    """Open a file that is one; a FIFO or device in a stranger's folder must not hang us. Raises StoreError."""
    try:
        access = os.O_RDWR if write else os.O_RDONLY
        descriptor = os.open(path, access | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise StoreError(f"{what} is not there", hint=f"looked for {path}") from error
    # Before os.fdopen, which refuses folders with an error of its own.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        layout = f"oci:{path} is the layout there" if (Path(path) / "oci-layout").is_file() else ""
        raise StoreError(f"{what} is not a file" + ("" if what == str(path) else f": {path}"), hint=layout)
    return os.fdopen(descriptor, "r+b" if write else "rb")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` at one instant; after a crash the old or the new one is there."""
    new = path.with_name(f"{NEW}{secrets.token_hex(8)}")
    try:
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "w+b") as file:
            if path.exists():
                os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))
            yield file
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Give ``path`` this content at one instant."""
    with replacing(path) as file:
        file.write(content)


def sync_folder(path: Path) -> None:
    """Make renames in a folder last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """What the operating system refuses, told as a StoreError."""
    try:
        yield
    except OSError as error:
        place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else path
        if place.name.startswith(NEW):  # ours, and of no meaning to anybody: it is the folder that refuses
            place = place.parent
        raise StoreError(f"{place}: {error.strerror or error}") from error
