"""conda, mamba, micromamba: one JSON file a package in ``conda-meta``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from hpc3build.evidence.layers import ImageFiles
from hpc3build.evidence.packages.record import MATTER, Installed

_RECORD = re.compile(r"^(?P<prefix>.*)/conda-meta/(?P<name>.+)-(?P<version>[^-/]+)-(?P<build>[^-/]+)\.json$")


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``; names tell which packages matter, and the files list all of a package's files."""
    match = _RECORD.match(path)
    return 4 << 20 if match and MATTER.fullmatch(match["name"].lower()) else None


def read(files: ImageFiles) -> Iterator[Installed]:
    """What is installed: name and version as the record says, of the file's name where it is broken off."""
    for path in sorted(files):
        match = _RECORD.match(path)
        if match is None:
            continue
        name, version = match["name"], match["version"]
        try:
            document = json.loads(files[path].data)
            name, version = str(document["name"]), str(document["version"])
        except (ValueError, KeyError, TypeError, RecursionError):
            if not files[path].data:
                continue
        yield Installed("conda", name, version, version, path)
