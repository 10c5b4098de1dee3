"""An OCI archive in the making: written from front to back under another name, index.json last, then renamed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from hpc3build.errors import StoreError
from hpc3build.evidence.tarheader import BLOCK
from hpc3build.oci import Descriptor, Manifest, digest_of
from hpc3build.stores import Store
from hpc3build.stores.files import NEW, check_size, sync_folder, told
from hpc3build.stores.layout import EMPTY_INDEX, VERSION
from hpc3build.stores.tagged_index import TaggedIndex, check_tag
from hpc3build.stores.tarmap import header_block, padded


class NewArchive:
    """A store that can only be written: at ``path`` nothing is there until a tag is put."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._blobs: dict[str, bytes | None] = {}  # small ones are kept, to be read again
        self._new = self.path.with_name(f"{NEW}{secrets.token_hex(8)}")
        if not self.path.parent.is_dir():
            raise StoreError(f"oci-archive:{self.path}: there is no folder {self.path.parent}")
        with told(self.path):
            self._file: BinaryIO | None = self._new.open("xb")
        self._add("oci-layout", json.dumps(VERSION, separators=(",", ":")).encode())

    def manifest(self, reference: str | None = None) -> Manifest:
        """See Store: nothing has a tag yet, and manifests are known by their digests."""
        content = self._blobs.get(reference or "")
        if content is None:
            raise StoreError(f"oci-archive:{self.path}: there is no {reference or 'image'}")
        return Manifest.parse(content, None, reference)

    @contextlib.contextmanager
    def blob(self, digest: str) -> Iterator[BinaryIO]:
        """See Store; small ones alone."""
        content = self._blobs.get(digest)
        if content is None:
            raise StoreError(f"oci-archive:{self.path}: the blob {digest} cannot be read yet")
        yield io.BytesIO(content)

    def put_blob(self, content: bytes, digest: str | None = None) -> str:
        """See Store."""
        digest = digest or digest_of(content)
        if digest not in self._blobs:
            self._blobs[digest] = content
            self._add(f"blobs/{digest.replace(':', '/', 1)}", content)
        return digest

    def copy_blob(self, blob: Descriptor, source: Store) -> None:
        """See Store."""
        if blob.digest in self._blobs:
            return
        file = self._open()
        with told(self._new), source.blob(blob.digest) as stream:
            file.write(header_block(f"blobs/{blob.digest.replace(':', '/', 1)}", blob.size))
            begin = file.tell()
            shutil.copyfileobj(stream, file, 1 << 20)
            check_size(blob, file.tell() - begin)
            file.write(bytes(-blob.size % BLOCK))
        self._blobs[blob.digest] = None

    def put_manifest(self, manifest: Manifest, tag: str | None, *, expect: str | None = None) -> None:
        """See Store; with a tag the archive is finished and takes its place."""
        check_tag(tag)
        self.put_blob(manifest.raw, manifest.digest)
        if tag is None:
            return
        index = TaggedIndex(f"oci-archive:{self.path}", json.dumps(EMPTY_INDEX, separators=(",", ":")).encode())
        self._add("index.json", index.with_manifest(manifest, tag, None))
        file = self._open()
        with told(self.path):
            file.write(bytes(2 * BLOCK))
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self._file = None
            self._take_place()
            sync_folder(self.path.parent)

    def tags(self) -> tuple[str, ...]:
        """See Store."""
        return ()

    def close(self) -> None:
        """What was not finished goes."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._new.unlink(missing_ok=True)

    def __enter__(self) -> NewArchive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> BinaryIO:
        if self._file is None:
            raise StoreError(f"oci-archive:{self.path} is finished")
        return self._file

    def _take_place(self) -> None:
        """Never over a file that came meanwhile."""
        try:
            os.link(self._new, self.path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links; there the name is taken first, by an empty file
            self.path.open("xb").close()
            try:
                self._new.replace(self.path)
            except BaseException:
                self.path.unlink()
                raise
        else:
            self._new.unlink()

    def _add(self, name: str, content: bytes) -> None:
        with told(self._new):
            self._open().write(header_block(name, len(content)) + padded(content))
