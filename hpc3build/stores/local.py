"""podman's and buildah's local images (containers-storage), reached through skopeo.

An annotation is written by copying an OCI layout that holds the manifest and the configuration alone: skopeo finds the
layers in the store and moves none (measured, oci.md §5: 0.03 s, same image ID). Names of one image ID share one
manifest there, so annotating one name shows on the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from hpc3build.errors import ImageError, StoreError, TagMoved, ToolError
from hpc3build.oci import Descriptor, Manifest, digest_of, verify
from hpc3build.reference import Reference, is_digest, parse
from hpc3build.run import Runner, failure, missing
from hpc3build.stores import Store
from hpc3build.stores.layout import Layout

_ABSENT = ("does not resolve to an image ID", "identifier is not an image", "image not known", "no such image")
_TAG = "image"  # inside our own temporary layouts


class LocalStore:
    """One local image. ``scratch`` is where layers are exported to (default: the system's temporary folder)."""

    def __init__(self, reference: Reference, runner: Runner, scratch: Path | None = None) -> None:
        self.reference = reference
        self._run = runner
        self._scratch = scratch
        self._pending: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._export: Path | None = None
        self._exported: dict[str, str] = {}
        self.notes: list[str] = []
        self._own: Manifest | None = None  # of the image that the store was opened for, as last read
        self._configs: dict[str, bytes] = {}
        self._incoming: Layout | None = None  # of an image that is copied here
        self._packed: Layout | None = None
        self._name: Reference | None = None

    # ---- reading

    def manifest(self, reference: str | None = None) -> Manifest:
        """See Store; None is the image that the store was opened for."""
        if self._packed is not None and reference in (None, self.reference.tag, self.reference.digest):
            return self._packed.manifest(_TAG)
        image = self._image(reference)
        manifest = Manifest.parse(self._inspect(image), None, image.digest)
        if reference in (None, self.reference.tag, self.reference.digest):
            self._own = manifest
        return manifest

    def pack(self) -> None:
        """From here on be the image as ``podman push`` would give it.

        The store keeps layers unpacked, and what its manifest says of packed ones cannot be brought back to the byte.
        """
        if self._packed is None:
            before = self.manifest()
            layout = Layout.create(tempfile.mkdtemp(prefix="hpc3build-", dir=self._scratch))
            self._packed = layout
            self._skopeo(self._image(None), "copy", "-q", str(self._image(None)), f"oci:{layout.path}:{_TAG}")
            if (now := layout.manifest(_TAG).digest) != before.digest:
                self.notes.append(f"{self.reference}: its layers were packed anew: {before.digest} is {now} elsewhere")

    @contextlib.contextmanager
    def blob(self, digest: str) -> Iterator[BinaryIO]:
        """See Store. Layers are exported once, on the first request.

        The store keeps layers unpacked, so a layer's stream may be compressed otherwise than its media type says, or
        not at all; it is verified against the digest that the export gave it.
        """
        if digest in self._pending:
            yield io.BytesIO(self._pending[digest])
            return
        if self._packed is not None:
            with self._packed.blob(digest) as stream:
                yield stream
            return
        if digest not in self._exported:
            manifest = self._own or self.manifest()
            if not manifest.is_index and digest == manifest.config.digest:
                yield io.BytesIO(self._config(self._image(None), manifest))
                return
            with self._lock:  # layers are read by several threads
                if self._export is None:
                    self._export_layers(manifest)
        if digest not in self._exported or self._export is None:
            raise StoreError(f"{self.reference}: the image has no blob {digest}")
        with Layout(self._export).blob(self._exported[digest]) as stream:
            yield stream

    def tags(self) -> tuple[str, ...]:
        """The tag that the store was opened for, when there is such an image."""
        try:
            self.manifest()
        except StoreError:
            return ()
        return (self.reference.tag,) if self.reference.tag else ()

    # ---- writing

    def put_blob(self, content: bytes, digest: str | None = None) -> str:
        """See Store; it is kept in memory until the manifest that names it is put."""
        digest = digest or digest_of(content)
        self._pending[digest] = content
        return digest

    def copy_blob(self, blob: Descriptor, source: Store) -> None:
        """See Store; put aside until the manifest that names it is put. skopeo leaves out what the store has."""
        if self._incoming is None:
            self._incoming = Layout.create(tempfile.mkdtemp(prefix="hpc3build-", dir=self._scratch))
        self._incoming.copy_blob(blob, source)

    def put_manifest(self, manifest: Manifest, tag: str | None, *, expect: str | None = None) -> None:
        """See Store; without a tag it raises StoreError, as images are kept under names there."""
        if tag is None:
            raise StoreError(
                f"{self.reference}: containers-storage keeps an image under a name", hint="name the image by its tag"
            )
        if manifest.is_index:
            raise StoreError(
                f"{self.reference}: an index in containers-storage cannot be written or rewritten",
                hint="buildah manifest push --all NAME oci:DIR:TAG, and annotate it there",
            )
        image = self._image(tag)
        if expect is not None:
            self._check_unmoved(image, expect)
        with self._folder() as folder:
            layout = self._incoming or Layout.create(folder)
            if self._incoming is None or manifest.config.digest in self._pending:
                config = self._pending.get(manifest.config.digest)
                layout.put_blob(
                    self._config(self._image(None), manifest) if config is None else config, manifest.config.digest
                )
            layout.put_manifest(manifest, _TAG)
            self._skopeo(image, "copy", "-q", "--preserve-digests", f"oci:{layout.path}:{_TAG}", str(image))
        if self.manifest(tag).raw != manifest.raw:
            raise StoreError(f"{image}: skopeo stored another manifest than the one given")
        self._pending.pop(manifest.config.digest, None)

    def close(self) -> None:
        """Remove the exported layers, and what came for an image."""
        for layout in (self._incoming, self._packed):
            if layout is not None:
                shutil.rmtree(layout.path, ignore_errors=True)
        self._incoming = self._packed = None
        if self._export is not None:
            shutil.rmtree(self._export, ignore_errors=True)
        self._export = None
        self._exported = {}

    def __enter__(self) -> LocalStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- skopeo

    def _image(self, reference: str | None) -> Reference:
        image = self._full_name()
        if reference is None:
            return dataclasses.replace(image, tag=None) if image.digest else image
        return image.at(reference) if is_digest(reference) else image.with_tag(reference)

    def _full_name(self) -> Reference:
        """A short name's full one: podman looks under localhost first, then on docker.io (skopeo: docker.io alone)."""
        given = self.reference
        if given.registry or given.image_id:
            return given
        if self._name is None:
            local = dataclasses.replace(given, registry="localhost")
            hub = parse(f"docker://docker.io/{given.name}")
            remote = dataclasses.replace(given, registry="docker.io", name=hub.name)
            self._name = next((name for name in (local, remote) if self._exists(name)), local)
        return self._name

    def _exists(self, image: Reference) -> bool:
        if image.digest:
            image = dataclasses.replace(image, tag=None)
        try:
            self._inspect(image)
        except StoreError:
            return False
        return True

    def _inspect(self, image: Reference, *options: str) -> bytes:
        text = self._skopeo(image, "inspect", *options, "--raw", str(image))
        if "\n" not in text and "\ufffd" not in text:
            return text.encode()
        # A Runner gives text: line ends may have been translated and bad bytes replaced. A file has the bytes.
        with self._folder() as folder:
            script = 'out=$1; shift; exec skopeo inspect "$@" > "$out"'
            file = folder / "raw"
            self._run(["sh", "-c", script, "sh", str(file), *options, "--raw", str(image)])
            return file.read_bytes()

    def _config(self, image: Reference, manifest: Manifest) -> bytes:
        digest = manifest.config.digest
        if digest not in self._configs:
            content = self._inspect(image, "--config")
            verify(content, digest, f"{image}: config")
            self._configs[digest] = content
        return self._configs[digest]

    def _check_unmoved(self, image: Reference, expect: str) -> None:
        try:
            now = Manifest.parse(self._inspect(image))
            moved, current = not now.is_named(expect), now.digest
        except StoreError:
            moved, current = True, "gone"
        if moved:
            raise TagMoved(f"{image} is {current} now, it was {expect}")

    def _export_layers(self, manifest: Manifest) -> None:
        folder = Path(tempfile.mkdtemp(prefix="hpc3build-", dir=self._scratch))
        try:
            image = self._image(None)
            options = ("-q", "--dest-oci-accept-uncompressed-layers")
            self._skopeo(image, "copy", *options, str(image), f"oci:{folder}:{_TAG}")
            exported = Layout(folder).manifest(_TAG)
            if len(exported.layers) != len(manifest.layers):
                raise ImageError(f"{image}: the export has {len(exported.layers)} layers, not {len(manifest.layers)}")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # Compression may differ, the order does not.
        pairs = zip(manifest.descriptors[1:], exported.descriptors[1:], strict=True)
        self._export = folder  # first: another thread looks for it where it finds a name below
        self._exported = {ours.digest: theirs.digest for ours, theirs in pairs}

    def _skopeo(self, image: Reference, *arguments: str) -> str:
        done = self._run(["skopeo", *arguments], check=False)
        if done.returncode == 0:
            return done.stdout
        if any(sign in done.stderr for sign in _ABSENT):
            raise StoreError(f"{image}: no such image in containers-storage", hint="podman images --digests lists them")
        if done.returncode == 127:
            raise missing("skopeo")
        raise ToolError(f"{image}: {failure(done)}")

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="hpc3build-", dir=self._scratch) as folder:
            yield Path(folder)
