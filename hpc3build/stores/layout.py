"""OCI image layout directories (image-spec, image-layout.md): read verified, written so that a kill leaves no halves.

Every file is written beside its place and renamed into it; index.json is replaced last, under a lock on oci-layout.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from hpc3build import jsonedit
from hpc3build.errors import ImageError, StoreError
from hpc3build.oci import OCI_INDEX, Descriptor, check_digest, digest_of
from hpc3build.stores import Store
from hpc3build.stores.files import NEW, check_size, open_regular, replace_file, replacing, sync_folder, told, verified
from hpc3build.stores.indexed import IndexEdit, IndexedStore
from hpc3build.stores.tagged_index import REF_NAME, TaggedIndex

__all__ = ["EMPTY_INDEX", "REF_NAME", "VERSION", "Layout"]

VERSION = {"imageLayoutVersion": "1.0.0"}
EMPTY_INDEX = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
_BLOB_NAME = re.compile(r"[0-9a-f]{64}|[0-9a-f]{128}")


class Layout(IndexedStore):
    """A store in a directory. Raises StoreError when ``path`` is no layout."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not (self.path / "oci-layout").is_file():
            raise StoreError(f"{self.path} is not an OCI layout: it has no file oci-layout", hint=self._look_again())
        marker = jsonedit.load(self._file(self.path / "oci-layout", "oci-layout"), f"{self.path}/oci-layout")
        version = jsonedit.get(marker, ("imageLayoutVersion",))
        if not isinstance(version, str) or not version.startswith("1."):
            raise ImageError(f"{self.path}/oci-layout: imageLayoutVersion is {version!r}, not 1.0.0")

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Layout:
        """Make an empty layout, or open the one that is there. Raises StoreError where something else lies."""
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path} is a file, expected an OCI layout or a new name")
        with told(path):
            path.mkdir(parents=True, exist_ok=True)
            strangers = {entry.name for entry in path.iterdir()} - {"blobs", "oci-layout", "index.json"}
            if not (path / "oci-layout").exists():
                if any(not name.startswith(NEW) for name in strangers):
                    raise StoreError(f"{path} is not empty and not an OCI layout", hint="name another directory")
                replace_file(path / "oci-layout", json.dumps(VERSION, separators=(",", ":")).encode())
            (path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
            layout = cls(path)
            with layout._locked():
                if not (path / "index.json").exists():
                    replace_file(path / "index.json", json.dumps(EMPTY_INDEX, separators=(",", ":")).encode())
        return layout

    # ---- reading

    @contextlib.contextmanager
    def blob(self, digest: str) -> Iterator[BinaryIO]:
        """See Store."""
        path = self.blob_path(digest)
        with told(path):
            opened = open_regular(path, f"{self.path}: the blob {digest}")
        with opened as file:
            yield verified(file, digest)

    def blob_path(self, digest: str) -> Path:
        """Where a blob lies, or would. Raises ImageError for a text that is no digest: it never becomes a path."""
        algorithm, _, name = check_digest(digest, f"{self.path}").partition(":")
        return self.path / "blobs" / algorithm / name

    # ---- writing

    def put_blob(self, content: bytes, digest: str | None = None) -> str:
        """See Store; a blob that is there with these bytes is not written again."""
        digest = digest or digest_of(content)
        path = self.blob_path(digest)
        with told(path):
            if not (path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content):
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, content)
        return digest

    def copy_blob(self, blob: Descriptor, source: Store) -> None:
        """See Store."""
        path = self.blob_path(blob.digest)
        with told(path):
            if path.is_file() and path.stat().st_size == blob.size:
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            with source.blob(blob.digest) as stream, replacing(path) as file:
                shutil.copyfileobj(stream, file, 1 << 20)
                check_size(blob, file.tell())

    def put_stream(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Store a blob whose digest is known at its end; returns digest and size."""
        folder = self.path / "blobs" / "sha256"
        hasher, size = hashlib.sha256(), 0
        with told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            new = folder / f"{NEW}{secrets.token_hex(8)}"
            try:
                with new.open("xb") as file:
                    for piece in pieces:
                        hasher.update(piece)
                        size += file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                new.replace(folder / hasher.hexdigest())
            except BaseException:
                new.unlink(missing_ok=True)
                raise
        return f"sha256:{hasher.hexdigest()}", size

    def absorb(self, other: Layout) -> None:
        """Move the other layout's blobs here, by rename where the file system allows; index.json is not touched."""
        for folder in sorted((other.path / "blobs").iterdir()):
            if folder.name not in ("sha256", "sha512") or folder.is_symlink():
                continue
            target = self.path / "blobs" / folder.name
            with told(target):
                target.mkdir(parents=True, exist_ok=True)
                for blob in sorted(folder.iterdir()):
                    if _BLOB_NAME.fullmatch(blob.name) and stat.S_ISREG(blob.lstat().st_mode):
                        _move(blob, target / blob.name)
                sync_folder(target)

    # ---- index.json

    def _index(self) -> TaggedIndex:
        return TaggedIndex(f"oci:{self.path}", self._file(self.path / "index.json", "index.json"))

    def _publish(self, edit: IndexEdit) -> None:
        with told(self.path), self._locked():
            index = self._index()
            edited, blobs = edit(index)
            for blob in blobs:
                self.put_blob(blob)
            if edited != index.raw:
                replace_file(self.path / "index.json", edited)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # oci-layout is the lock file: it is in every layout and never replaced, so nothing foreign is left behind.
        with (self.path / "oci-layout").open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # ---- files

    def _content(self, digest: str) -> bytes:
        return self._file(self.blob_path(digest), f"the manifest {digest}")

    def _file(self, path: Path, what: str) -> bytes:
        with told(path), open_regular(path, f"{self.path}: {what}") as file:
            return file.read(jsonedit.MAX_BYTES + 1)

    def _look_again(self) -> str:
        if not self.path.exists():
            return "there is no such directory"
        return "name a directory that skopeo copy … oci:DIR:TAG or podman push … oci:DIR:TAG has written"


def _move(blob: Path, target: Path) -> None:
    if target.is_file() and target.stat().st_size == blob.stat().st_size:
        blob.unlink()
        return
    try:
        blob.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        new = target.with_name(f"{NEW}{secrets.token_hex(8)}")
        try:
            with blob.open("rb") as source, new.open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            new.replace(target)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        blob.unlink()
