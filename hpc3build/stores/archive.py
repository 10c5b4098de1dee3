"""OCI archives (a layout in a plain tar file), annotated in place: the tar is not rewritten where that is safe.

New blobs are appended, and then the 512-byte block of index.json that changes is overwritten: one sector, so that at
every moment the file holds the old image or the new one. Never a second index.json: skopeo takes the last, regctl the
first (oci.md §5). Where index.json does not fit its place, or more than one block of it changes, a copy takes the
archive's place by rename, and ``notes`` says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
from collections.abc import Iterator
from itertools import starmap
from pathlib import Path
from typing import BinaryIO, cast

from hpc3build import jsonedit
from hpc3build.errors import ImageError, StoreError
from hpc3build.evidence.tarheader import BLOCK
from hpc3build.oci import Descriptor, check_digest, digest_of, verify
from hpc3build.stores import Store
from hpc3build.stores.files import Slice, check_size, open_regular, replacing, told, verified
from hpc3build.stores.indexed import IndexEdit, IndexedStore
from hpc3build.stores.tagged_index import TaggedIndex
from hpc3build.stores.tarmap import Member, TarMap, header_block, padded, read_map, resized

_INDEX, _MARKER = "index.json", "oci-layout"
_END = bytes(2 * BLOCK)


class Archive(IndexedStore):
    """A store in a tar file. Raises StoreError for what is no OCI archive, ImageError for a broken one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        self._place = f"oci-archive:{self.path}"
        self._pending: dict[str, bytes] = {}
        with told(self.path):
            self._file = open_regular(self.path, str(self.path))
        try:
            self._map = self._read_map(self._file)
            version = jsonedit.get(jsonedit.load(self._member(_MARKER), f"{self.path}: {_MARKER}"), (_VERSION,))
            if not isinstance(version, str) or not version.startswith("1."):
                raise ImageError(f"{self.path}: {_MARKER}: {_VERSION} is {version!r}, not 1.0.0")
        except BaseException:
            self._file.close()
            raise

    # ---- reading

    @contextlib.contextmanager
    def blob(self, digest: str) -> Iterator[BinaryIO]:
        """See Store; read from where it lies in the archive."""
        if digest in self._pending:
            yield io.BytesIO(self._pending[digest])
            return
        member = self._find(digest)
        # A descriptor of its own: a rewrite by rename must not pull the file from under a reader.
        with os.fdopen(os.dup(self._file.fileno()), "rb") as file:
            yield verified(cast(BinaryIO, Slice(file, member.offset, member.size)), digest)

    def close(self) -> None:
        """Blobs that no manifest was put for are forgotten."""
        self._pending.clear()
        self._file.close()

    # ---- writing

    def put_blob(self, content: bytes, digest: str | None = None) -> str:
        """See Store; kept in memory until index.json is written, so that the archive grows once."""
        digest = digest or digest_of(content)
        self._pending[digest] = content
        return digest

    def copy_blob(self, blob: Descriptor, source: Store) -> None:
        """See Store; appended at once, and found again only where a manifest names it."""
        if _blob_name(blob.digest) in self._map.files:
            return
        with told(self.path), source.blob(blob.digest) as stream, self._locked() as file:
            tar = self._read_map(file)
            if _blob_name(blob.digest) not in tar.files:
                _append_stream(file, tar.end, blob, stream)
        self._reopen()

    def _publish(self, edit: IndexEdit) -> None:
        with told(self.path), self._locked() as file:
            tar = self._read_map(file)
            index = TaggedIndex(self._place, _read(file, tar.files[_INDEX]))
            edited, blobs = edit(index)
            for blob in blobs:
                self.put_blob(blob)
            added = {digest: blob for digest, blob in self._pending.items() if not _holds(file, tar, digest, blob)}
            if added or edited != index.raw:
                if _fits(tar, index.raw, edited):
                    self._write_in_place(file, tar, added, edited)
                else:
                    self._write_anew(file, tar, added, edited)
            self._pending.clear()
        self._reopen()

    def _write_in_place(self, file: BinaryIO, tar: TarMap, added: dict[str, bytes], edited: bytes) -> None:
        for digest, blob in list(added.items()):
            # Left over where an earlier writer was cut off: it has the name and the size already, but not the bytes.
            if (member := tar.files.get(_blob_name(digest))) and member.size == len(blob):
                _write(file, member.offset, blob)
                del added[digest]
        if added:
            _append(file, tar.end, b"".join(starmap(_as_member, added.items())) + _END)
        member = tar.files[_INDEX]
        old = _read(file, member)
        if len(edited) > len(old):
            # Blanks behind the JSON first, beyond its size; then the size; each state is the old index.
            last = len(old) // BLOCK * BLOCK
            _write(file, member.offset + last, old[last:] + b" " * (member.capacity - len(old)))
            _write(file, member.header, resized(os.pread(file.fileno(), BLOCK, member.header), len(edited)))
            old += b" " * (len(edited) - len(old))
        edited += b" " * (len(old) - len(edited))
        for at in range(0, len(old), BLOCK):
            if edited[at : at + BLOCK] != old[at : at + BLOCK]:
                _write(file, member.offset + at, edited[at : at + BLOCK])

    def _write_anew(self, file: BinaryIO, tar: TarMap, added: dict[str, bytes], edited: bytes) -> None:
        stale = [tar.files[name] for digest in added if (name := _blob_name(digest)) in tar.files]
        dropped = sorted((member.start, member.offset + member.capacity) for member in (tar.files[_INDEX], *stale))
        with replacing(self.path.resolve()) as new:
            at = 0
            for start, end in (*dropped, (tar.end, tar.end)):
                _copy(file, at, start, new)
                at = end
            new.write(b"".join(starmap(_as_member, added.items())))
            new.write(header_block(_INDEX, len(edited)) + padded(edited) + _END)
        self.notes.append(f"{self._place}: {_INDEX} did not fit its place in the archive, so the whole file was copied")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        while True:
            with open_regular(self.path, str(self.path), write=True) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Another writer may have put a copy in its place while we waited.
                if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    yield file
                    return

    # ---- the tar

    def _reopen(self) -> None:
        with told(self.path):
            file = open_regular(self.path, str(self.path))
        self._file.close()
        self._file = file
        self._map = self._read_map(file)

    def _read_map(self, file: BinaryIO) -> TarMap:
        tar = self._walk(file)
        for name in (_MARKER, _INDEX):
            if name in tar.twice or (name in tar.files and name in tar.others):
                raise ImageError(
                    f"{self.path}: it holds {name} twice, and tools differ in which one counts",
                    hint=f"write it anew: skopeo copy --all oci-archive:{self.path} oci-archive:NEW.tar",
                )
            if name not in tar.files:
                hint = "name a file that skopeo copy … oci-archive:FILE:TAG has written"
                if "manifest.json" in tar.files:
                    hint = f"it is a docker-archive: skopeo copy docker-archive:{self.path} oci-archive:NEW.tar:TAG"
                raise StoreError(f"{self.path} is not an OCI archive: it has no file {name}", hint=hint)
        return tar

    def _walk(self, file: BinaryIO) -> TarMap:
        """The map of the archive as it is; a writer beside us may make it grow while we walk, and we walk again."""
        while True:
            size = os.fstat(file.fileno()).st_size
            try:
                return read_map(file, str(self.path))
            except ImageError:
                if os.fstat(file.fileno()).st_size == size:
                    raise

    def _index(self) -> TaggedIndex:
        return TaggedIndex(self._place, self._member(_INDEX))

    def _member(self, name: str) -> bytes:
        return _read(self._file, self._map.files[name])

    def _content(self, digest: str) -> bytes:
        if digest in self._pending:
            return self._pending[digest]
        return _read(self._file, self._find(digest))

    def _find(self, digest: str) -> Member:
        member = self._map.files.get(_blob_name(check_digest(digest, str(self.path))))
        if member is None:
            raise StoreError(f"{self.path}: the blob {digest} is not there")
        return member


_VERSION = "imageLayoutVersion"


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _as_member(digest: str, content: bytes) -> bytes:
    return header_block(_blob_name(digest), len(content)) + padded(content)


def _read(file: BinaryIO, member: Member) -> bytes:
    return os.pread(file.fileno(), min(member.size, jsonedit.MAX_BYTES + 1), member.offset)


def _holds(file: BinaryIO, tar: TarMap, digest: str, content: bytes) -> bool:
    member = tar.files.get(_blob_name(digest))
    if member is None or member.size != len(content):
        return False
    try:
        verify(os.pread(file.fileno(), member.size, member.offset), digest, "blob")
    except ImageError:
        return False
    return True


def _fits(tar: TarMap, old: bytes, new: bytes) -> bool:
    """Whether one block's write turns the old index into the new one."""
    member = tar.files[_INDEX]
    if len(new) > member.capacity or (len(new) > len(old) and member.sized_by_record):
        return False
    size = max(len(old), len(new))
    old, new = old.ljust(size), new.ljust(size)
    return sum(old[at : at + BLOCK] != new[at : at + BLOCK] for at in range(0, size, BLOCK)) <= 1


def _append(file: BinaryIO, end: int, members: bytes) -> None:
    """Write behind the last member so that every moment's file is a sound tar.

    The two zero blocks at ``end`` stay until everything behind them is there; then the first header, whose content's
    first block is still zero, and that block last. Nothing refers to the new blobs yet.
    """
    _write(file, end + 2 * BLOCK, members[2 * BLOCK :])
    _write(file, end, members[:BLOCK])
    _write(file, end + BLOCK, members[BLOCK : 2 * BLOCK])


def _append_stream(file: BinaryIO, end: int, blob: Descriptor, stream: BinaryIO) -> None:
    """As ``_append``, of one blob of any size: its header comes when the whole of it was verified."""
    header = header_block(_blob_name(blob.digest), blob.size)
    content = end + len(header)
    first = stream.read(BLOCK)
    size = len(first)
    while part := stream.read(1 << 20):
        _pwrite(file, content + size, part)
        size += len(part)
    check_size(blob, size)
    _write(file, content + max(size, BLOCK), bytes(-size % BLOCK) + _END)
    _append(file, end, header + (first.ljust(BLOCK, b"\0") if size else _END))


def _write(file: BinaryIO, offset: int, content: bytes) -> None:
    """Write and wait until it is on the disk, so that the order of writes is the order there."""
    _pwrite(file, offset, content)
    os.fsync(file.fileno())


def _pwrite(file: BinaryIO, offset: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        count = os.pwrite(file.fileno(), view, offset)
        view, offset = view[count:], offset + count


def _copy(file: BinaryIO, start: int, end: int, new: BinaryIO) -> None:
    new.flush()
    while start < end:
        try:
            count = os.copy_file_range(file.fileno(), new.fileno(), end - start, start)
        except OSError:  # another file system, or one that cannot
            count = 0
        if not count:
            new.seek(0, os.SEEK_END)
            shutil.copyfileobj(cast(BinaryIO, Slice(file, start, end - start)), new, 1 << 20)
            return
        start += count
    new.seek(0, os.SEEK_END)
