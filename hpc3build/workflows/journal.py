"""What of a long run is done, kept so that a run that was cut off goes on where it stopped.

JSON lines: the first says what was wished, each other one names an image that is done. A line is written when its image
is, so that ``kill -9`` loses none; it is on the disk at the latest when SYNC more are. What a failing machine takes of
the file is done again, which changes nothing in a registry. A torn last line is cut off.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from hpc3build.errors import InputError
from hpc3build.jsonread import parsed
from hpc3build.rewrite import Result
from hpc3build.workflows.annotate import Wish

SYNC = 32
KIND = "hpc3build annotate journal"
MAX_LINE = 1 << 20


def wish_said(wish: Wish) -> dict[str, Any]:
    """What decides about the result, as JSON; how carefully it is written does not."""
    return {
        "pairs": dict(sorted(wish.pairs.items())),
        "remove": sorted(wish.remove),
        "detect": str(wish.depth) if wish.detect else None,
        "labels": wish.labels,
        "attach": wish.attach,
        "referrers": wish.referrers,
        "backup_tag": wish.backup_tag,
        "target": repr(wish.target),
    }


class Journal:
    """The file at ``path``, made where there is none; of one run at a time. Raises InputError.

    ``wish`` was prepared. A journal of another wish is refused. A context manager.
    """

    def __init__(self, path: str, wish: Wish) -> None:
        self._path = path
        self._done: set[bytes] = set()
        self.undecided = False  # whether one of what is done left a key as it was
        self._unsynced = 0
        try:
            self._file = open(path, "ab+", buffering=0)  # noqa: SIM115, PTH123 (closed by close)
        except OSError as error:
            raise InputError(f"--journal {path}: {error.strerror or error}") from error
        try:
            self._begin({"kind": KIND, "version": 1, "wish": wish_said(wish)})
        except BaseException:
            self._file.close()
            raise

    def has(self, reference: str) -> bool:
        """Whether an image is done."""
        return _key(reference) in self._done

    def add(self, result: Result) -> None:
        """Note an image as done."""
        reference = str(result.reference)
        line: dict[str, Any] = {"done": reference, "old": result.old_digest, "new": result.new_digest}
        if result.undecided:
            line["undecided"] = list(result.undecided)
        self._write(line)
        self._done.add(_key(reference))

    def close(self) -> None:
        """Everything is on the disk then."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, head: Mapping[str, Any]) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"--journal {self._path}: another run writes it", hint="one journal a run") from error
        except OSError:  # a file system without locks
            pass
        if not self._read(json.loads(json.dumps(head))):
            self._write(head)
            os.fsync(self._file.fileno())
            self._sync_name()

    def _read(self, head: Mapping[str, Any]) -> bool:
        """Take up what is there. False where nothing is, but perhaps a torn first line."""
        self._file.seek(0)
        whole = 0
        with open(self._file.fileno(), "rb", closefd=False) as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE + 1), b""), start=1):
                if not line.endswith(b"\n"):
                    if number == 1 and not _begins(line):
                        raise self._strange(number)
                    break
                self._take(number, line, head)
                whole += len(line)
        self._file.truncate(whole)
        return whole > 0

    def _take(self, number: int, line: bytes, head: Mapping[str, Any]) -> None:
        try:
            said = parsed(line)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise self._strange(number)
        if number > 1:
            if not isinstance(said.get("done"), str):
                raise self._strange(number)
            self._done.add(_key(said["done"]))
            self.undecided |= bool(said.get("undecided"))
        elif said.get("kind") != KIND:
            raise self._strange(number)
        elif said != head:
            raise InputError(
                f"--journal {self._path} is of another wish: {_difference(said, head)}",
                hint="a journal goes with the options that it was begun with; name a new file for others",
            )

    def _strange(self, number: int) -> InputError:
        return InputError(f"{self._path}:{number}: no line of a journal", hint="name a new file, or what began it")

    def _write(self, line: Mapping[str, Any]) -> None:
        content = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            while content:
                content = content[os.write(self._file.fileno(), content) :]
            self._unsynced += 1
            if self._unsynced >= SYNC:
                os.fsync(self._file.fileno())
                self._unsynced = 0
        except OSError as error:
            raise InputError(f"--journal {self._path}: {error.strerror or error}") from error

    def _sync_name(self) -> None:
        """The name of a new file is on the disk when its folder is."""
        with contextlib.suppress(OSError):
            folder = os.open(Path(self._path).absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _key(reference: str) -> bytes:
    """16 bytes for each of a million names."""
    return hashlib.sha256(reference.encode(errors="surrogatepass")).digest()[:16]


def _begins(line: bytes) -> bool:
    """Whether it may be the beginning of a journal's first line."""
    start = json.dumps({"kind": KIND}, separators=(",", ":")).encode()[:-1]
    return line.startswith(start[: len(line)])


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    if there.get("version") != here["version"]:
        return f"it is of version {there.get('version')}"
    old, new = there.get("wish"), here["wish"]
    if not isinstance(old, dict):
        return "it does not say of which"
    for part in new:
        if old.get(part) != new[part]:
            return f"{part} {str(old.get(part))[:120]} there, {str(new[part])[:120]} here"
    return "it says more"
