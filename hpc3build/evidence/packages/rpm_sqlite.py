"""rpm's database since 4.16 (Fedora 33, RHEL 9): SQLite, a table of headers. Source: rpm's lib/backend/sqlite.c."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from threading import Lock
from typing import Any

from hpc3build.evidence.packages.record import Installed
from hpc3build.evidence.packages.rpm_header import HEAD, MAX_PACKAGES, UnreadableError, package

#: SQLite reads no stream: the file is held, twice while it is opened, one at a time. Those of large images have 60 MiB.
MAX_BYTES = 96 << 20
_MAX_STEPS = 50_000_000  # of its virtual machine: the database may be made to do harm
_QUERY = "SELECT substr(blob, 1, ?) FROM Packages LIMIT ?"
_ONE_AT_A_TIME = Lock()


def packages(pieces: Iterator[bytes], path: str, size: int) -> Iterator[Installed]:
    """The packages that matter, of ``size`` bytes of a database at ``path``. No file is made.

    Raises UnreadableError.
    """
    deserialize: Any = getattr(sqlite3.Connection, "deserialize", None)
    if deserialize is None:
        raise UnreadableError("SQLite databases are read with Python 3.11 or newer")
    if size > MAX_BYTES:
        raise UnreadableError(f"{size >> 20} MiB, and SQLite databases are read up to {MAX_BYTES >> 20} MiB")
    with _ONE_AT_A_TIME:
        data = bytearray()
        for piece in pieces:
            data += piece
        # In write-ahead mode SQLite would look for a second file beside the first: this copy has none.
        data[18:20] = b"\1\1"
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            deserialize(connection, data)
            del data
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.set_progress_handler(lambda: 1, _MAX_STEPS)
            for (head,) in connection.execute(_QUERY, (HEAD, MAX_PACKAGES)):
                if isinstance(head, bytes) and (found := package(head, path)) is not None:
                    yield found
        except (sqlite3.Error, OverflowError, UnicodeError) as error:  # the last of words about a damaged schema
            raise UnreadableError("a damaged SQLite database") from error
        finally:
            connection.close()
