"""Alpine's apk: its installed database (APKINDEX fields)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpc3build.evidence.layers import ImageFiles
from hpc3build.evidence.packages.record import MAX_BYTES, Installed

INSTALLED = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")
_FIELD = re.compile(r"^([PV]):(.*)$", re.MULTILINE)


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``."""
    return MAX_BYTES if path in INSTALLED else None


def read(files: ImageFiles) -> Iterator[Installed]:
    """What is installed."""
    for path in INSTALLED:
        file = files.get(path)
        text = file.data.decode("utf-8", "replace") if file else ""
        for paragraph in re.split(r"\n\s*\n", text):
            fields = dict(_FIELD.findall(paragraph))
            if fields.get("P") and fields.get("V"):
                version = fields["V"]
                yield Installed("apk", fields["P"], version, re.sub(r"-r\d+$", "", version), path)
