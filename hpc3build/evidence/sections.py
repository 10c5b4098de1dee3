"""Names of an ELF file's sections, of a file that was read whole: the table lies at its end."""

from __future__ import annotations

import struct

from hpc3build.evidence.elf import MAGIC

MAX_SECTIONS = 1 << 14


def section_names(data: bytes) -> frozenset[str] | None:
    """The names, empty where there is no table; None for what is no ELF file, cut short, or contradicts itself."""
    if len(data) < 52 or not data.startswith(MAGIC) or data[4] not in (1, 2) or data[5] not in (1, 2):
        return None
    order = "<" if data[5] == 1 else ">"
    wide = data[4] == 2
    try:
        if wide:
            (table,) = struct.unpack_from(order + "Q", data, 40)
            size, count, names = struct.unpack_from(order + "HHH", data, 58)
        else:
            (table,) = struct.unpack_from(order + "I", data, 32)
            size, count, names = struct.unpack_from(order + "HHH", data, 46)
        if table == 0 or count == 0:
            return frozenset()
        if count > MAX_SECTIONS or size < (64 if wide else 40) or table + size * count > len(data) or names >= count:
            return None
        layout = (order + "QQ", 24) if wide else (order + "II", 16)
        start, length = struct.unpack_from(layout[0], data, table + size * names + layout[1])
        if start + length > len(data):
            return None
        texts = data[start : start + length]
        found = set()
        for number in range(count):
            (at,) = struct.unpack_from(order + "I", data, table + size * number)
            if at >= length:
                return None
            found.add(texts[at : texts.find(b"\0", at)].decode("latin-1"))
    except (struct.error, OverflowError):
        return None
    return frozenset(found)
