"""Names of an ELF file's sections: the table lies at the file's end, and so do its texts, as all linkers write them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hpc3build.evidence.elf import MAGIC

#: Bytes of a file's end that are kept: the table of 2,000 sections and their names.
TAIL = 256 << 10


def read_section_names(path: str, size: int, pieces: Iterator[bytes]) -> frozenset[str] | bool:
    """A scan of a file of a layer (evidence.layers.Scan): its section names, none for what is no ELF file.

    False where they cannot be told: the file contradicts itself, or keeps its texts far from its end.
    """
    head, tail = b"", b""
    for piece in pieces:
        if len(head) < 64:
            head = (head + piece)[:64]
            if len(head) >= len(MAGIC) and not head.startswith(MAGIC):
                return frozenset()
        tail = (tail + piece)[-TAIL:] if len(piece) < TAIL else piece[-TAIL:]
    if not head.startswith(MAGIC):
        return frozenset()
    names = section_names(head, tail, size)
    return False if names is None else names


def section_names(head: bytes, tail: bytes, size: int) -> frozenset[str] | None:
    """From a file's first 64 bytes and its last ones; empty where there is no table.

    None for what is no ELF file, cut short, or contradicts itself.
    """
    if len(head) < 52 or not head.startswith(MAGIC) or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    order = "<" if head[5] == 1 else ">"
    wide = head[4] == 2
    skipped = size - len(tail)
    try:
        (table,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 40 if wide else 32)
        entry, count, names = struct.unpack_from(order + "HHH", head, 58 if wide else 46)
        if table == 0 or count == 0:
            return frozenset()
        if table < skipped or table + entry * count > size or entry < (64 if wide else 40) or names >= count:
            return None
        table -= skipped
        place = table + entry * names + (24 if wide else 16)
        start, length = struct.unpack_from(order + ("QQ" if wide else "II"), tail, place)
        if start < skipped or start + length > size:
            return None
        texts = tail[start - skipped : start - skipped + length]
        found = set()
        for number in range(count):
            (at,) = struct.unpack_from(order + "I", tail, table + entry * number)
            if at >= length:
                return None
            found.add(texts[at:].split(b"\0", 1)[0].decode("latin-1"))
    except struct.error:
        return None
    return frozenset(found)
