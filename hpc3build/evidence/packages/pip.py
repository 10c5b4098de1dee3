"""Python packages: the METADATA of every ``*.dist-info``, PKG-INFO of eggs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpc3build.evidence.layers import ImageFiles
from hpc3build.evidence.packages.record import MATTER, Installed

_RECORD = re.compile(
    r"^(?P<folder>.*)/(?P<name>[^/]+?)-(?P<version>[^/-]+)\.(?:dist-info/METADATA|egg-info(?:/PKG-INFO)?)$"
)
_FIELD = re.compile(r"^(Name|Version): *(.*)$", re.MULTILINE)


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``: the fields stand at the top."""
    if not path.endswith(("/METADATA", "-info", "/PKG-INFO")):
        return None
    match = _RECORD.match(path)
    return 16 << 10 if match and MATTER.fullmatch(match["name"].lower()) else None


def read(files: ImageFiles) -> Iterator[Installed]:
    """What is installed; ``upstream`` has no local version (2.3.0+cu121 → 2.3.0)."""
    for path in sorted(files):
        if (match := _RECORD.match(path)) is None or not files[path].data:
            continue
        fields = dict(reversed(_FIELD.findall(files[path].data.decode("utf-8", "replace").partition("\n\n")[0])))
        name, version = (fields.get(field, str(match[field.lower()])).strip() for field in ("Name", "Version"))
        yield Installed("pip", name.lower().replace("_", "-"), version, version.partition("+")[0], path)
