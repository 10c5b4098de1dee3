"""Docker's own images (docker-daemon), through the docker SDK: read out of what ``save`` streams, written by ``load``.

With the graph driver that store knows configurations and unpacked layers, but no manifests: the one read here is made
up of what is there, its layers uncompressed, and annotations cannot be kept (oci.md §5). Labels can: ``load`` of a new
configuration whose layers the daemon has already reads none of them. Where the daemon keeps images in containerd's
store, annotations might be kept; that was not tested, and is refused.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import posixpath
import tarfile
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

from hpc3build.errors import ImageError, StoreError, TagMoved
from hpc3build.imageconfig import ImageConfig
from hpc3build.jsonedit import MAX_BYTES
from hpc3build.jsonread import parsed
from hpc3build.oci import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest, digest_of
from hpc3build.reference import Reference
from hpc3build.stores import Store
from hpc3build.stores.files import Slice, verified
from hpc3build.stores.tarmap import header_block, padded

_SECONDS = 3600  # docker packs a large image for minutes before the first byte comes
_PIECE = 1 << 20
_HINT = "is dockerd running, and may you use its socket? DOCKER_HOST names another one"
DEFAULT_HOST = "unix:///var/run/docker.sock"
_CONTAINERD = "io.containerd.snapshotter"


@contextlib.contextmanager
def docker_told(what: str) -> Iterator[None]:
    """What the daemon refuses, told as a StoreError."""
    from docker.errors import APIError, DockerException, NotFound

    try:
        yield
    except NotFound as error:
        raise StoreError(f"{what}: no such image in docker's store", hint="docker images lists them") from error
    except APIError as error:
        raise StoreError(f"{what}: docker: {error.explanation or error}") from error
    except (DockerException, OSError) as error:  # what requests raises is an OSError, too
        raise StoreError(
            f"{what}: docker is not reached: {str(error)[:300]}",
            hint=_HINT,
        ) from error


def connect(what: str) -> Any:
    """The daemon that the environment names ($DOCKER_HOST). Raises StoreError."""
    import docker

    host = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    if host.startswith("unix://") and not Path(host.removeprefix("unix://")).exists():
        raise StoreError(f"{what}: docker is not reached: there is no {host.removeprefix('unix://')}", hint=_HINT)
    with docker_told(what):
        return docker.from_env(timeout=_SECONDS)


class DaemonStore:
    """One image of the daemon."""

    def __init__(self, reference: Reference, client: Any = None) -> None:
        self.reference = reference
        self._own = client is None
        self._client = client or connect(str(reference))
        try:
            self._check_driver()
        except BaseException:
            self.close()
            raise
        self.notes: list[str] = []
        self._pending: dict[str, bytes] = {}
        self._incoming: dict[str, tuple[Descriptor, Store]] = {}
        self._read: dict[str, tuple[Manifest, bytes]] = {}  # by image ID
        self._lock = threading.Lock()
        self._spool: BinaryIO | None = None
        self._layers: dict[str, tuple[int, int]] = {}  # where they lie in the spool

    # ---- reading

    def manifest(self, reference: str | None = None) -> Manifest:
        """See Store. Raises StoreError for a digest: docker has no manifests that have any."""
        if reference is not None and reference.startswith(("sha256:", "sha512:")):
            for manifest, _ in self._read.values():
                if manifest.digest == reference:
                    return manifest
            raise StoreError(f"{self.reference}: docker keeps no manifests, so none is found by its digest")
        image = self._image_id(reference)
        if image is None:
            raise StoreError(
                f"{self._name(reference)}: no such image in docker's store", hint="docker images lists them"
            )
        return self._described(image)[0]

    @contextlib.contextmanager
    def blob(self, digest: str) -> Iterator[BinaryIO]:
        """See Store; of layers a copy is made on the first request."""
        if digest in self._pending:
            yield io.BytesIO(self._pending[digest])
            return
        manifest, config = self._described(self._required())
        if digest == manifest.config.digest:
            yield io.BytesIO(config)
            return
        with self._lock:  # layers are read by several threads
            if self._spool is None:
                self._fetch_layers(manifest)
        if digest not in self._layers or self._spool is None:
            raise StoreError(f"{self.reference}: the image has no blob {digest}")
        yield verified(cast(BinaryIO, Slice(self._spool, *self._layers[digest])), digest)

    def tags(self) -> tuple[str, ...]:
        """The tag that the store was opened for, when there is such an image."""
        tag = self.reference.tag
        return (tag,) if tag and self._image_id(tag) else ()

    # ---- writing

    def put_blob(self, content: bytes, digest: str | None = None) -> str:
        """See Store; it is kept in memory until the manifest that names it is put."""
        digest = digest or digest_of(content)
        self._pending[digest] = content
        return digest

    def copy_blob(self, blob: Descriptor, source: Store) -> None:
        """See Store; it is read when the manifest that names it is put."""
        self._incoming[blob.digest] = (blob, source)

    def put_manifest(self, manifest: Manifest, tag: str | None, *, expect: str | None = None) -> None:
        """See Store; annotations are left out, as ``notes`` tells. Raises StoreError for an index and without a tag."""
        if tag is None or manifest.is_index:
            raise StoreError(f"{self.reference}: docker keeps single images, each under a name")
        if manifest.annotations:
            count = len(manifest.annotations)
            self.notes.append(f"{self.reference}: docker's own store keeps no annotations: {count} left out")
        config = self._config_of(manifest)
        name = self._name(tag)
        if expect is not None:
            known = {read.digest: image for image, (read, _) in self._read.items()}
            if (now := self._image_id(tag)) != known.get(expect):
                raise TagMoved(f"{name} is the image {now or 'gone'} now, it was {known.get(expect)}")
        with docker_told(name):
            for line in self._client.api.load_image(self._archive(manifest, config, name)):
                if "error" in line:
                    raise StoreError(f"{name}: docker load: {line['error']}")
        if self._image_id(tag) != digest_of(config):
            raise StoreError(f"{name}: docker stored another image than the one given")

    def close(self) -> None:
        """Remove what was put aside."""
        if getattr(self, "_spool", None) is not None:
            cast(BinaryIO, self._spool).close()
            self._spool = None
        if self._own:
            self._client.close()

    def __enter__(self) -> DaemonStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- the daemon

    def _check_driver(self) -> None:
        with docker_told(str(self.reference)):
            status = self._client.api.info().get("DriverStatus") or []
        if any(_CONTAINERD in str(value) for row in status for value in row):
            raise StoreError(
                f"{self.reference}: this docker keeps images in containerd's store. That may keep annotations, too, "
                "but hpc3build was not tested with it",
                hint="push the image and annotate it in the registry, or skopeo copy it to oci:DIR:TAG",
            )

    def _name(self, tag: str | None) -> str:
        if self.reference.image_id:
            return f"sha256:{self.reference.image_id}"
        return f"{self.reference.repository}:{tag or self.reference.tag or 'latest'}"

    def _image_id(self, tag: str | None) -> str | None:
        from docker.errors import NotFound

        name = self._name(tag)
        with docker_told(name):
            try:
                return str(self._client.api.inspect_image(name)["Id"])
            except NotFound:
                return None

    def _required(self) -> str:
        image = self._image_id(None)
        if image is None:
            raise StoreError(f"{self.reference}: no such image in docker's store", hint="docker images lists them")
        return image

    def _described(self, image: str) -> tuple[Manifest, bytes]:
        """Manifest and configuration, out of the headers and small files of what ``save`` streams."""
        if image not in self._read:
            small: dict[str, bytes] = {}
            sizes: dict[str, int] = {}
            with docker_told(str(self.reference)), self._saved(image) as tar:
                for member in tar:
                    sizes[member.name] = member.size
                    if member.issym():
                        small[member.name] = member.linkname.encode()
                    elif member.isreg() and (member.name.endswith(".json") or member.size <= MAX_BYTES // 16):
                        file = tar.extractfile(member)
                        small[member.name] = file.read(MAX_BYTES) if file else b""
            self._read[image] = _made_up(image, small, sizes)
        return self._read[image]

    @contextlib.contextmanager
    def _saved(self, image: str) -> Iterator[tarfile.TarFile]:
        chunks = self._client.api.get_image(image, chunk_size=_PIECE)
        stream = io.BufferedReader(_Chunks(chunks), _PIECE)
        try:
            with tarfile.open(fileobj=cast(Any, stream), mode="r|") as tar:
                yield tar
        except tarfile.TarError as error:
            raise ImageError(f"{self.reference}: what docker save gave is no tar: {error}") from error

    def _fetch_layers(self, manifest: Manifest) -> None:
        layers: dict[str, tuple[int, int]] = {}
        with contextlib.ExitStack() as unfinished:
            spool = cast(BinaryIO, tempfile.TemporaryFile(prefix="hpc3build-"))  # noqa: SIM115 - closed by close
            unfinished.callback(spool.close)
            with docker_told(str(self.reference)):
                for chunk in self._client.api.get_image(manifest.config.digest, chunk_size=_PIECE):
                    spool.write(chunk)
            spool.flush()
            spool.seek(0)
            with tarfile.open(fileobj=spool, mode="r:") as tar:
                members = {member.name: member for member in tar}
                listed = json.loads(tar.extractfile(members["manifest.json"]).read())[0]["Layers"]  # type: ignore[union-attr]
                for layer, name in zip(manifest.layers, listed, strict=True):
                    member = members[_target(name, members[name].linkname) if members[name].issym() else name]
                    layers[layer.digest] = (member.offset_data, member.size)
            unfinished.pop_all()
        self._layers, self._spool = layers, spool  # whole only: the other threads look for theirs in it

    def _config_of(self, manifest: Manifest) -> bytes:
        digest = manifest.config.digest
        if digest in self._pending:
            return self._pending[digest]
        if digest in self._incoming:
            with self._incoming[digest][1].blob(digest) as stream:
                return stream.read()
        return self._described(digest)[1]

    def _archive(self, manifest: Manifest, config: bytes, name: str) -> Iterator[bytes]:
        """What ``load`` reads: layers that are not given are in the daemon, which then looks for no file."""
        digest = digest_of(config).partition(":")[2]
        paths = [f"{position}/layer.tar" for position in range(len(manifest.layers))]
        listed = json.dumps([{"Config": f"{digest}.json", "RepoTags": [name], "Layers": paths}]).encode()
        for path, content in ((f"{digest}.json", config), ("manifest.json", listed)):
            yield header_block(path, len(content)) + padded(content)
        for path, layer in zip(paths, manifest.layers, strict=True):
            if layer.digest in self._incoming:
                yield header_block(path, layer.size)
                with self._incoming[layer.digest][1].blob(layer.digest) as stream:
                    while piece := stream.read(_PIECE):
                        yield piece
                yield bytes(-layer.size % 512)
        yield bytes(1024)


class _Chunks(io.RawIOBase):
    """An iterator of bytes as a stream."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _target(name: str, link: str) -> str:
    """Where a layer's link leads: docker writes ``../ID/layer.tar`` for a layer that it wrote before."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))


def _made_up(image: str, small: dict[str, bytes], sizes: dict[str, int]) -> tuple[Manifest, bytes]:
    try:
        listed = parsed(small["manifest.json"])[0]
        config = ImageConfig.parse(small[listed["Config"]], image)
        names = [
            _target(name, small[name].decode()) if sizes[name] == 0 and name in small else name
            for name in listed["Layers"]
        ]
        if len(names) != len(config.diff_ids):
            raise ValueError
        layers = [
            {"mediaType": OCI_LAYER, "digest": digest, "size": sizes[name]}
            for digest, name in zip(config.diff_ids, names, strict=True)
        ]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ImageError(f"docker save {image}: it is no archive of docker's that hpc3build knows") from error
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": image, "size": len(config.raw)},
        "layers": layers,
    }
    return Manifest.parse(json.dumps(document, separators=(",", ":")).encode()), config.raw
