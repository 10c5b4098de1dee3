"""The ways back that commands offer which rewrite images: a receipt, and a tag that keeps the old image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc3build.errors import InputError

if TYPE_CHECKING:
    from hpc3build.rewrite import Result


def add_way_back(group: Any) -> None:
    """Options for an argument group."""
    group.add_argument("--backup-tag", nargs="?", const="", metavar="NAME", help="a tag that keeps the old image")
    group.add_argument("--receipt", metavar="FILE", help="write what annotate --undo needs")


class Receipt:
    """The file that --undo reads; looked at before anything is written, written also when the run is cut short."""

    def __init__(self, path: str | None) -> None:
        from hpc3build.rewrite.receipt import Entry

        self._path = path
        self._entries: list[Entry] = []
        if path is not None:
            if Path(path).is_file() and Path(path).stat().st_size:
                raise InputError(f"--receipt {path} is there already", hint="name a new file; old receipts are kept")
            self.write()

    def add(self, result: Result | None) -> None:
        """Keep what takes a result back, where anything was written."""
        if self._path is not None and result is not None and result.undo is not None:
            self._entries.append(result.undo)

    def write(self) -> None:
        """Write what was added so far; nothing without a file."""
        from hpc3build.report import dumps
        from hpc3build.rewrite.receipt import document
        from hpc3build.workflows.outputs import write_atomically

        if self._path is not None:
            write_atomically(self._path, dumps(document(self._entries)))
