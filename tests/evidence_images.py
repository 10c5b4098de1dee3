"""The images of tests/data/evidence as OCI layouts, and what they are worked out to say."""

from __future__ import annotations

import json
import lzma
import tarfile
from collections.abc import Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from hpc3build.oci import Manifest
from tests.images import Entry, File, Symlink, make_layout

DATA = Path(__file__).parent / "data" / "evidence"
IMAGES: Mapping[str, Any] = json.loads((DATA / "images.json").read_text())
EXPECTED: Mapping[str, Any] = json.loads((DATA / "expected.json").read_text())


@cache
def blobs() -> Mapping[str, bytes]:
    """The files by the name that images.json uses."""
    with tarfile.open(fileobj=BytesIO(lzma.decompress((DATA / "blobs.tar.xz").read_bytes()))) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def _entry(entry: Mapping[str, str]) -> Entry:
    if "link" in entry:
        return Symlink(entry["link"])
    return File(blobs()[entry["blob"]]) if "blob" in entry else entry["text"].encode()


def make(name: str, path: Path, *, instead: Mapping[str, Mapping[str, bytes]] | None = None, **more: Any) -> Manifest:
    """The image ``name`` as the layout ``path``; ``instead`` of some of its files other ones."""
    image, put = IMAGES[name], instead or {}
    layers: list[dict[str, Entry]] = []
    for layer in image["layers"]:
        entries = {place: _entry(entry) for place, entry in layer.items() if place not in put}
        layers.append(entries | {new: data for place in layer if place in put for new, data in put[place].items()})
    given = {"config": image["config"], "labels": image["labels"], **more}
    return make_layout(path, layers, **given)
