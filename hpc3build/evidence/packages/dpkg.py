"""Debian's dpkg: its status file, and the status.d of images without one (distroless)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpc3build.evidence.layers import ImageFiles
from hpc3build.evidence.packages.record import MAX_BYTES, Installed

STATUS = "/var/lib/dpkg/status"
_PARTS = re.compile(r"^/var/lib/dpkg/status\.d/(?!.*\.md5sums$)[^/]+$")
_FIELD = re.compile(r"^(Package|Version|Status): *(.*)$", re.MULTILINE)


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``."""
    if path == STATUS:
        return MAX_BYTES
    return 64 << 10 if _PARTS.match(path) else None


def read(files: ImageFiles) -> Iterator[Installed]:
    """What is installed; packages that were removed and left their settings are not."""
    parts = [path for path in sorted(files) if _PARTS.match(path)]
    for path in (STATUS, *parts):
        file = files.resolve(path)
        text = file.data.decode("utf-8", "replace") if file else ""
        for paragraph in re.split(r"\n\s*\n", text):
            fields = dict(_FIELD.findall(paragraph))
            name, version = fields.get("Package", "").strip(), fields.get("Version", "").strip()
            # status.d has no Status: all in it is there.
            state = fields.get("Status", "install ok installed").split()
            if name and version and state[-1:] == ["installed"]:
                yield Installed("dpkg", name, version, upstream(version), path)


def upstream(version: str) -> str:
    """``1:4.1.4+dfsg-3+b1`` → ``4.1.4`` (deb-version(7))."""
    version = version.partition(":")[2] or version
    return re.split(r"[+~]", version.rpartition("-")[0] or version)[0]
