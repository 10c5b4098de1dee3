"""Images that are another one with one thing changed: a layer on top, other members of the configuration."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

from tests.images import Layer, layer_tar


def variant(layout: Path, target: Path, *, layer: Layer | None = None, annotations: Any = None, **members: Any) -> str:
    """A copy of the layout's one image with ``layer`` on top and ``members`` of its config set, None removed."""
    shutil.copytree(layout, target)
    blobs = target / "blobs" / "sha256"

    def put(data: bytes) -> dict[str, Any]:
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"digest": f"sha256:{name}", "size": len(data)}

    def get(digest: str) -> Any:
        return json.loads((blobs / digest.removeprefix("sha256:")).read_bytes())

    index = json.loads((target / "index.json").read_text())
    manifest = get(index["manifests"][0]["digest"])
    config = get(manifest["config"]["digest"])
    given = {**config["config"], **members}
    config["config"] = {name: value for name, value in given.items() if value is not None}
    if layer is not None:
        tar = layer_tar(layer)
        config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(tar).hexdigest()}")
        if "history" in config:
            config["history"].append({"created_by": "tests/variants.py"})
        media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
        manifest["layers"].append({"mediaType": media_type, **put(gzip.compress(tar, 1, mtime=0))})
    if annotations is not None:
        manifest["annotations"] = annotations
    manifest["config"] |= put(json.dumps(config).encode())
    index["manifests"][0] |= put(json.dumps(manifest).encode())
    (target / "index.json").write_text(json.dumps(index))
    return f"oci:{target}"


def elf_with_sections(*names: str) -> bytes:
    """A little-endian 64-bit ELF file that is nothing but these empty sections."""
    texts = b"\0" + b"".join(name.encode() + b"\0" for name in (*names, ".shstrtab"))
    table = 64 + len(texts)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    count = len(names) + 2
    head += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, count, count - 1)
    rows = bytes(64)
    for name in names:
        rows += struct.pack("<IIQQQQIIQQ", texts.index(b"\0" + name.encode() + b"\0") + 1, 1, *[0] * 8)
    rows += struct.pack("<IIQQQQIIQQ", texts.index(b"\0.shstrtab\0") + 1, 3, 0, 0, 64, len(texts), 0, 0, 1, 0)
    return head + texts + rows
