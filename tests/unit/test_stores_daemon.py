"""docker's own store behind a client in this process, which saves and loads as docker 20.10 does."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc3build.errors import ImageError, StoreError, TagMoved
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import digest_of
from hpc3build.reference import parse
from hpc3build.rewrite import Rewrite, apply, plan, transfer
from hpc3build.stores import read_blob
from hpc3build.stores.daemon import DaemonStore
from hpc3build.stores.layout import Layout
from tests.images import make_layout

NAME = "docker-daemon:quay.io/a/b:1"


class FakeDocker:
    """Images by ID: configuration, and the tars of their layers by diff ID."""

    def __init__(self) -> None:
        self.configs: dict[str, bytes] = {}
        self.layers: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.driver = [["Backing Filesystem", "extfs"]]
        self.loaded: list[int] = []
        self.saved = 0
        self.api = self

    def info(self) -> dict[str, Any]:
        return {"DriverStatus": self.driver}

    def close(self) -> None:
        pass

    def inspect_image(self, name: str) -> dict[str, str]:
        from docker.errors import ImageNotFound

        image = self.names.get(name, name)
        if image not in self.configs:
            raise ImageNotFound("no such image")
        return {"Id": image}

    def get_image(self, image: str, chunk_size: int) -> Iterator[bytes]:
        self.saved += 1
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            paths: list[str] = []
            first: dict[str, str] = {}
            for place, digest in enumerate(ImageConfig.parse(self.configs[image]).diff_ids):
                path = f"{place:064x}/layer.tar"
                paths.append(path)
                info = tarfile.TarInfo(path)
                if digest in first:
                    info.type, info.linkname = tarfile.SYMTYPE, f"../{first[digest]}"
                    tar.addfile(info)
                    continue
                first[digest] = path
                info.size = len(self.layers[digest])
                tar.addfile(info, io.BytesIO(self.layers[digest]))
            listed = [{"Config": f"{image[7:]}.json", "RepoTags": None, "Layers": paths}]
            files = {f"{image[7:]}.json": self.configs[image], "manifest.json": json.dumps(listed).encode()}
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        raw = stream.getvalue()
        yield from (raw[at : at + 1000] for at in range(0, len(raw), 1000))

    def load_image(self, pieces: Iterable[bytes]) -> Iterator[dict[str, str]]:
        raw = b"".join(pieces)
        self.loaded.append(len(raw))
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        listed = json.loads(files["manifest.json"])[0]
        config = files[listed["Config"]]
        for path, digest in zip(listed["Layers"], ImageConfig.parse(config).diff_ids, strict=True):
            if digest not in self.layers:
                if path not in files:
                    yield {"error": f"open {path}: no such file or directory"}
                    return
                layer = files[path]
                self.layers[digest] = gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer
                assert digest_of(self.layers[digest]) == digest
        self.configs[digest_of(config)] = config
        for name in listed["RepoTags"]:
            self.names[name] = digest_of(config)
        yield {"stream": "Loaded"}


@pytest.fixture
def docker(tmp_path: Path) -> FakeDocker:
    """With one image, of three layers of which two are equal."""
    fake = FakeDocker()
    layers = [{"a": b"1" * 5000}, {"b": b"2"}, {"a": b"1" * 5000}]
    image = make_layout(tmp_path / "l", layers, labels={"x": "y"}, tag="1")
    with Layout(tmp_path / "l") as source, DaemonStore(parse(NAME), fake) as target:
        transfer(source, target, Rewrite(parse(f"oci:{tmp_path}/l:1"), "1", image), parse(NAME))
    return fake


def test_an_image_is_read_out_of_what_save_streams(docker: FakeDocker, tmp_path: Path) -> None:
    with DaemonStore(parse(NAME), docker) as store:
        manifest = store.manifest()
        assert docker.saved == 1 and manifest.annotations == {}
        config = ImageConfig.parse(read_blob(store, manifest.config.digest), manifest.config.digest)
        assert config.labels == {"x": "y"} and docker.saved == 1, "no layer was asked for"
        assert [layer.digest for layer in manifest.layers] == list(config.diff_ids)
        for layer in manifest.layers:
            assert len(read_blob(store, layer.digest)) == layer.size
        assert docker.saved == 2 and store.tags() == ("1",) and store.manifest(manifest.digest) == manifest
        for absent in ("2", "sha256:" + "0" * 64):
            with pytest.raises(StoreError):
                store.manifest(absent)
        with pytest.raises(StoreError, match="no blob"), store.blob("sha256:" + "0" * 64):
            pass
    with DaemonStore(parse(f"docker-daemon:{manifest.config.digest}"), docker) as by_id:
        assert by_id.manifest() == manifest
    with DaemonStore(parse("docker-daemon:nothing"), docker) as store, pytest.raises(StoreError, match="no such image"):
        store.manifest()


def test_labels_move_no_layer(docker: FakeDocker) -> None:
    with DaemonStore(parse(NAME), docker) as store:
        old = store.manifest()
        done = plan(store, parse(NAME), annotations={}, labels={"k": "v"})
        result = apply(store, done, backup_tag="old")
        assert result.changed and max(docker.loaded[-2:]) < 10_000 and docker.saved == 1
        assert store.manifest("1").digest == result.new_digest and store.manifest("old") == old
        assert ImageConfig.parse(docker.configs[docker.names["quay.io/a/b:1"]]).labels == {"k": "v", "x": "y"}


def test_an_image_that_moved_is_left(docker: FakeDocker) -> None:
    with DaemonStore(parse(NAME), docker) as store:
        done = plan(store, parse(NAME), annotations={}, labels={"k": "v"})
        docker.configs["sha256:" + "1" * 64] = b"{}"
        docker.names["quay.io/a/b:1"] = "sha256:" + "1" * 64
        with pytest.raises(TagMoved):
            apply(store, done)


def test_annotations_are_left_out_and_that_is_told(docker: FakeDocker, tmp_path: Path) -> None:
    image = make_layout(tmp_path / "n", [{"n": b"1"}], annotations={"a": "b"}, tag="1")
    to = parse("docker-daemon:quay.io/a/n:1")
    with Layout(tmp_path / "n") as source, DaemonStore(to, docker) as target:
        result = transfer(source, target, Rewrite(parse(f"oci:{tmp_path}/n:1"), "1", image), to)
    assert "1 left out" in " ".join(result.warnings) and result.undo is None


def test_what_docker_cannot_hold(docker: FakeDocker, tmp_path: Path) -> None:
    image = make_layout(tmp_path / "n", [{"n": b"1"}], tag="1")
    with DaemonStore(parse(NAME), docker) as store:
        with pytest.raises(StoreError, match="under a name"):
            store.put_manifest(image, None)
        with Layout(tmp_path / "n") as source:
            store.put_blob(read_blob(source, image.config.digest))
        with pytest.raises(StoreError, match="no such file"):
            store.put_manifest(image, "2")


def test_containerds_store_is_not_guessed_at(docker: FakeDocker) -> None:
    docker.driver = [["driver-type", "io.containerd.snapshotter.v1"]]
    with pytest.raises(StoreError, match=r"containerd's store.*not tested"):
        DaemonStore(parse(NAME), docker)


@pytest.mark.parametrize("junk", [b"", b"\0" * 2048, b"not a tar" * 200])
def test_what_is_no_archive(docker: FakeDocker, junk: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "get_image", lambda image, chunk_size: iter([junk]))
    with DaemonStore(parse(NAME), docker) as store, pytest.raises(ImageError):
        store.manifest()


def test_layers_that_come_in_part_are_asked_for_again(docker: FakeDocker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread that reads a layer tells what docker said, not that a layer is missing in what came before."""
    with DaemonStore(parse(NAME), docker) as store:
        layer = store.manifest().layers[0]
        real = docker.get_image

        def cut(image: str, chunk_size: int) -> Iterator[bytes]:
            yield next(real(image, chunk_size))
            raise OSError("connection reset")

        with monkeypatch.context() as patch:
            patch.setattr(docker, "get_image", cut)
            for _ in range(2):
                with pytest.raises(StoreError, match="connection reset"):
                    read_blob(store, layer.digest)
        assert len(read_blob(store, layer.digest)) == layer.size


@pytest.mark.parametrize("listed", [b"", b"[" * 100_000, b"[{}]", b"9" * 5000])
def test_what_save_cannot_have_written(docker: FakeDocker, listed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(listed)
        tar.addfile(info, io.BytesIO(listed))
    monkeypatch.setattr(docker, "get_image", lambda *_, **__: iter([stream.getvalue()]))
    with DaemonStore(parse(NAME), docker) as store, pytest.raises(ImageError, match="no archive of docker's"):
        store.manifest()
