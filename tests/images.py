"""OCI layouts for tests, made of {path: content} per layer: the same input gives the same bytes.

Written without the product's own writer, so that a defect there cannot hide in the fixtures.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc3build.oci import Manifest

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
SUFFIX = {"gzip": "+gzip", "tar": "", "zstd": "+zstd"}


@dataclass(frozen=True)
class File:
    """A file with a mode of its own."""

    content: bytes
    mode: int = 0o755


@dataclass(frozen=True)
class Symlink:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Hardlink:
    """A hard link to another path of the same layer."""

    target: str


Entry = bytes | File | Symlink | Hardlink | None
Layer = Mapping[str, Entry]
OPAQUE = ".wh..wh..opq"  # as the name of an empty file: hides what lower layers have in that folder


def layer_tar(layer: Layer) -> bytes:
    """A tar of the layer: ``None`` is a whiteout of that path, a path that ends in / an empty folder."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, entry in layer.items():
            info = tarfile.TarInfo(path.strip("/"))
            content = b""
            if entry is None:
                folder, _, name = info.name.rpartition("/")
                info.name = f"{folder}/.wh.{name}".lstrip("/")
            elif path.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(entry, Symlink):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.target, 0o777
            elif isinstance(entry, Hardlink):
                info.type, info.linkname = tarfile.LNKTYPE, entry.target.strip("/")
            else:
                content = entry.content if isinstance(entry, File) else entry
                info.mode = entry.mode if isinstance(entry, File) else 0o644
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def compress(content: bytes, compression: str) -> bytes:
    """``gzip``, ``zstd`` or ``tar`` (none)."""
    if compression == "gzip":
        return gzip.compress(content, 6, mtime=0)
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor().compress(content)
    return content


def make_layout(
    path: Path,
    layers: Sequence[Layer],
    *,
    config: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    tag: str | None = "latest",
    compression: str = "gzip",
    architecture: str = "amd64",
    docker: bool = False,
    indent: int | None = None,
    history: Sequence[Mapping[str, Any]] | None = None,
) -> Manifest:
    """Add an image to the layout at ``path`` (made when missing) and return its manifest.

    ``config`` holds members of the runtime configuration (Env, Entrypoint, User …), ``docker`` uses schema 2 types.
    ``history`` is one entry a layer when it is left out.
    """
    tars = [layer_tar(layer) for layer in layers]
    run = dict(config or {}) | ({"Labels": dict(labels)} if labels is not None else {})
    image = {
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture,
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [_digest(tar) for tar in tars]},
        "history": [{"created_by": "tests/images.py"} for _ in tars] if history is None else list(history),
    }
    if docker:
        types = [f"{DOCKER}.distribution.manifest.v2+json", f"{DOCKER}.container.image.v1+json"]
        layer_type = f"{DOCKER}.image.rootfs.diff.tar" + {"gzip": ".gzip", "tar": "", "zstd": ".zstd"}[compression]
    else:
        types = [f"{OCI}.manifest.v1+json", f"{OCI}.config.v1+json"]
        layer_type = f"{OCI}.layer.v1.tar{SUFFIX[compression]}"
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": types[0],
        "config": put(path, types[1], json.dumps(image, indent=indent).encode()),
        "layers": [put(path, layer_type, compress(tar, compression)) for tar in tars],
    }
    if annotations is not None:
        document["annotations"] = dict(annotations)
    raw = json.dumps(document, indent=indent).encode()
    add_entry(path, put(path, types[0], raw), tag)
    return Manifest.parse(raw)


def make_index(path: Path, manifests: Sequence[Manifest], *, tag: str | None = "latest", **members: Any) -> Manifest:
    """Add an index of these manifests, which are in the layout already, and return it."""
    children = [{"mediaType": m.media_type, "digest": m.digest, "size": m.size} for m in manifests]
    kind = f"{OCI}.index.v1+json"
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": children, **members}).encode()
    add_entry(path, put(path, kind, raw), tag)
    return Manifest.parse(raw)


def make_document(path: Path, document: Mapping[str, Any], *, tag: str | None = None, **style: Any) -> Manifest:
    """Add a manifest or index that is given as a document; with a tag, or as a blob alone."""
    raw = json.dumps(document, **style).encode()
    descriptor = put(path, str(document["mediaType"]), raw)
    if tag is not None:
        add_entry(path, descriptor, tag)
    return Manifest.parse(raw)


def descriptor_of(manifest: Manifest, **members: Any) -> dict[str, Any]:
    """A descriptor of a manifest, with more members."""
    return {"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size, **members}


def add_entry(path: Path, descriptor: Mapping[str, Any], tag: str | None) -> None:
    """Append a descriptor to index.json."""
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    file = path / "index.json"
    index = json.loads(file.read_text()) if file.exists() else {"schemaVersion": 2, "manifests": []}
    names = {"annotations": {"org.opencontainers.image.ref.name": tag}} if tag is not None else {}
    index["manifests"].append({**descriptor, **names})
    file.write_text(json.dumps(index))


def put(path: Path, media_type: str, content: bytes, algorithm: str = "sha256") -> dict[str, Any]:
    """Add a blob under its digest, and return its descriptor."""
    digest = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    file = path / "blobs" / digest.replace(":", "/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
