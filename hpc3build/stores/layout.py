"""OCI image layout directories (image-spec, image-layout.md): read verified, written so that a kill leaves no halves.

Every file is written beside its place and renamed into it; index.json is replaced last, under a lock on oci-layout.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

from hpc3build import jsonedit
from hpc3build.errors import BadReference, ImageError, StoreError, TagMoved
from hpc3build.oci import OCI_INDEX, Descriptor, Manifest, check_digest, digest_of
from hpc3build.reference import is_digest

REF_NAME = "org.opencontainers.image.ref.name"
VERSION = {"imageLayoutVersion": "1.0.0"}
EMPTY_INDEX = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
_BLOB_NAME = re.compile(r"[0-9a-f]{64}|[0-9a-f]{128}")


class Layout:
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
        with _told(path):
            path.mkdir(parents=True, exist_ok=True)
            strangers = {entry.name for entry in path.iterdir()} - {"blobs", "oci-layout", "index.json"}
            if not (path / "oci-layout").exists():
                if any(not name.startswith(".new-") for name in strangers):
                    raise StoreError(f"{path} is not empty and not an OCI layout", hint="name another directory")
                _write(path / "oci-layout", json.dumps(VERSION, separators=(",", ":")).encode())
            (path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
            layout = cls(path)
            with layout._locked():
                if not (path / "index.json").exists():
                    _write(path / "index.json", json.dumps(EMPTY_INDEX, separators=(",", ":")).encode())
        return layout

    # ---- reading

    def manifest(self, reference: str | None = None) -> Manifest:
        """See Store; None is the layout's only image."""
        entries = self._entries(self._index())
        if reference is None:
            return self._read(self._only(entries))
        if is_digest(reference):
            listed = next((entry for entry in entries if entry.digest == reference), None)
            return self._read(listed) if listed else Manifest.parse(self._content(reference), None, reference)
        return self._read(entries[self._position(entries, reference)])

    @contextlib.contextmanager
    def blob(self, digest: str) -> Iterator[BinaryIO]:
        """See Store."""
        path = self.blob_path(digest)
        with _told(path):
            opened = _open_regular(path, f"{self.path}: the blob {digest}")
        with opened as file:
            reader = io.BufferedReader(_Verifying(file, digest), 1 << 18)
            yield cast(BinaryIO, reader)

    def blob_path(self, digest: str) -> Path:
        """Where a blob lies, or would. Raises ImageError for a text that is no digest: it never becomes a path."""
        algorithm, _, name = check_digest(digest, f"{self.path}").partition(":")
        return self.path / "blobs" / algorithm / name

    def tags(self) -> tuple[str, ...]:
        """See Store."""
        names = {entry.annotations.get(REF_NAME) for entry in self._entries(self._index())}
        return tuple(sorted(name for name in names if name))

    # ---- writing

    def put_blob(self, content: bytes) -> str:
        """See Store; a blob that is there with these bytes is not written again."""
        digest = digest_of(content)
        path = self.blob_path(digest)
        with _told(path):
            if not (path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content):
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, content)
        return digest

    def put_manifest(self, manifest: Manifest, tag: str | None, *, expect: str | None = None) -> None:
        """See Store. The other entries of index.json keep their bytes."""
        if tag is not None and (not tag or is_digest(tag) or any(not character.isprintable() for character in tag)):
            raise BadReference(f"{tag!r} is not a tag", hint="letters, digits and . _ - : / between them")
        self.put_blob(manifest.raw)
        if tag is None and expect is None:
            return
        with _told(self.path), self._locked():
            raw = self._index()
            edited = self._tagged(raw, manifest, tag, expect)
            if edited != raw:
                _write(self.path / "index.json", edited)

    def absorb(self, other: Layout) -> None:
        """Move the other layout's blobs here, by rename where the file system allows; index.json is not touched."""
        for folder in sorted((other.path / "blobs").iterdir()):
            if folder.name not in ("sha256", "sha512") or folder.is_symlink():
                continue
            target = self.path / "blobs" / folder.name
            with _told(target):
                target.mkdir(parents=True, exist_ok=True)
                for blob in sorted(folder.iterdir()):
                    if _BLOB_NAME.fullmatch(blob.name) and stat.S_ISREG(blob.lstat().st_mode):
                        _move(blob, target / blob.name)
                _sync_folder(target)

    def close(self) -> None:
        """Nothing is put aside."""

    def __enter__(self) -> Layout:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- index.json

    def _index(self) -> bytes:
        return self._file(self.path / "index.json", "index.json")

    def _entries(self, raw: bytes) -> tuple[Descriptor, ...]:
        try:
            index = Manifest.parse(raw, OCI_INDEX)
        except ImageError as error:
            raise ImageError(f"{self.path}/index.json: {error.message}", hint=error.hint) from error
        return index.descriptors

    def _only(self, entries: tuple[Descriptor, ...]) -> Descriptor:
        if len(entries) == 1:
            return entries[0]
        if not entries:
            raise StoreError(f"{self.path} holds no image")
        forms = [
            f"oci:{self.path}:{entry.annotations[REF_NAME]}"
            if entry.annotations.get(REF_NAME)
            else f"oci:{self.path}@{entry.digest}"
            for entry in entries
        ]
        raise BadReference(
            f"oci:{self.path} holds {len(entries)} images, and none was named", hint=f"name one of {', '.join(forms)}"
        )

    def _position(self, entries: tuple[Descriptor, ...], tag: str) -> int:
        found = [position for position, entry in enumerate(entries) if entry.annotations.get(REF_NAME) == tag]
        if not found:
            tags = ", ".join(sorted({entry.annotations.get(REF_NAME, "") for entry in entries} - {""}))
            raise StoreError(f"oci:{self.path}:{tag}: no such tag", hint=f"tags there: {tags or 'none'}")
        if len(found) > 1:
            digests = ", ".join(entries[position].digest for position in found)
            raise ImageError(f"oci:{self.path}:{tag}: {len(found)} images have this tag", hint=f"name one: {digests}")
        return found[0]

    def _tagged(self, raw: bytes, manifest: Manifest, tag: str | None, expect: str | None) -> bytes:
        """index.json with ``tag`` (or the untagged entry of ``expect``) at ``manifest``."""
        entries = self._entries(raw)
        known = {entry.annotations.get(REF_NAME) for entry in entries}
        if tag is None:
            untagged = [p for p, e in enumerate(entries) if REF_NAME not in e.annotations and e.digest == expect]
            position = untagged[0] if untagged else None
        else:
            position = self._position(entries, tag) if tag in known else None
            current = entries[position].digest if position is not None else None
            if expect is not None and current != expect:
                raise TagMoved(
                    f"oci:{self.path}:{tag} is {current or 'gone'} now, it was {expect}",
                    hint="somebody else wrote it meanwhile; look at it, then do this again",
                )
        if position is not None:
            return _moved(raw, ("manifests", position), manifest)
        entry: dict[str, Any] = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size}
        if tag is not None:
            entry["annotations"] = {REF_NAME: tag}
        elif any(e.digest == manifest.digest for e in entries):
            return raw
        return jsonedit.set_member(raw, ("manifests", len(entries)), entry)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # oci-layout is the lock file: it is in every layout and never replaced, so nothing foreign is left behind.
        with (self.path / "oci-layout").open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # ---- files

    def _read(self, entry: Descriptor) -> Manifest:
        content = self._content(entry.digest)
        if len(content) != entry.size:
            raise ImageError(f"{self.path}: {entry.digest} has {len(content)} bytes, index.json says {entry.size}")
        return Manifest.parse(content, entry.media_type, entry.digest)

    def _content(self, digest: str) -> bytes:
        return self._file(self.blob_path(digest), f"the manifest {digest}")

    def _file(self, path: Path, what: str) -> bytes:
        with _told(path), _open_regular(path, f"{self.path}: {what}") as file:
            return file.read(jsonedit.MAX_BYTES + 1)

    def _look_again(self) -> str:
        if not self.path.exists():
            return "there is no such directory"
        return "name a directory that skopeo copy … oci:DIR:TAG or podman push … oci:DIR:TAG has written"


class _Verifying(io.RawIOBase):
    """Hashes what passes; the end of the stream is refused when the digest differs."""

    def __init__(self, file: BinaryIO, digest: str) -> None:
        self._file = file
        self._digest = digest
        self._hash = hashlib.new(digest.partition(":")[0])

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = cast(io.BufferedReader, self._file).readinto(buffer)
        if count:
            self._hash.update(memoryview(buffer)[:count])
        elif len(buffer) and self._hash.hexdigest() != self._digest.partition(":")[2]:
            raise ImageError(f"the blob {self._digest} is damaged: its content has another digest")
        return count


def _moved(raw: bytes, path: jsonedit.Path, manifest: Manifest) -> bytes:
    """A descriptor's new target, its other members as they are."""
    fields: Mapping[str, Any] = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.size,
    }
    for member, value in fields.items():
        raw = jsonedit.set_member(raw, (*path, member), value)
    return jsonedit.remove_member(raw, (*path, "data"))  # the old manifest, embedded


def _open_regular(path: Path, what: str) -> BinaryIO:
    """Open for reading; a FIFO or device in a stranger's layout must not hang us."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise StoreError(f"{what} is not there", hint=f"looked for {path}") from error
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise StoreError(f"{what} is not a file: {path}")
    return file


def _write(path: Path, content: bytes) -> None:
    """Replace ``path`` at one instant; after a crash it holds the old or the new content."""
    new = path.with_name(f".new-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            if path.exists():
                os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _move(blob: Path, target: Path) -> None:
    if target.is_file() and target.stat().st_size == blob.stat().st_size:
        blob.unlink()
        return
    try:
        blob.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        new = target.with_name(f".new-{secrets.token_hex(8)}")
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


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the operating system refuses, told as a StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror or error}") from error
