"""containers-storage for real: a store of its own in tmp_path, so the machine's images are never touched."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc3build.errors import BadReference, Contradiction, StoreError, TagMoved, ToolMissing
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import Manifest, digest_of
from hpc3build.reference import Reference, parse
from hpc3build.rewrite import Result, apply, plan
from hpc3build.run import run
from hpc3build.stores import open_store, read_blob
from hpc3build.stores.local import LocalStore
from tests.images import make_layout

MISSING = [tool for tool in ("skopeo", "buildah") if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
NAME = "containers-storage:localhost/base:1"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "storage"
    folder.mkdir()
    conf = folder / "storage.conf"
    conf.write_text(f'[storage]\ndriver = "vfs"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/root"\n')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(conf))
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")
    yield folder


@pytest.fixture
def base(storage: Path, tmp_path: Path) -> Manifest:
    """Built and committed by buildah: its layer lies unpacked in the store."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "hello").write_text("hello\n")
    container = run(["buildah", "from", "scratch"]).stdout.strip()
    run(["buildah", "copy", container, str(tmp_path / "etc"), "/etc"])
    run(["buildah", "config", "--label", "given=1", "--env", "A=1", container])
    run(["buildah", "commit", "-q", "--rm", container, "localhost/base:1"])
    return Manifest.parse(skopeo("inspect", "--raw", NAME))


def skopeo(*arguments: str) -> bytes:
    return run(["skopeo", *arguments]).stdout.encode()


def image_id(name: str) -> str:
    done = run(["buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", name])
    return f"sha256:{done.stdout.strip()}"


def annotate(name: str, **what: object) -> Result:
    reference = parse(name)
    with open_store(reference, run) as store:
        return apply(store, plan(store, reference, **what))  # type: ignore[arg-type]


def layer_files(store: LocalStore, digest: str) -> dict[str, bytes]:
    with store.blob(digest) as stream, tarfile.open(fileobj=io.BytesIO(stream.read())) as tar:
        return {m.name.strip("/"): tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def layers_on_disk(storage: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (storage / "root" / "vfs" / "dir").iterdir()}


def test_annotations_keep_the_image_id_and_the_layers(base: Manifest, storage: Path) -> None:
    before, on_disk = image_id("localhost/base:1"), layers_on_disk(storage)
    result = annotate(NAME, annotations={"org.example.k": "v \u00e9"})
    read = Manifest.parse(skopeo("inspect", "--raw", NAME), None, result.new_digest)
    assert result.changed and result.written == (read.digest,)
    assert read.raw == base.with_annotations({"org.example.k": "v \u00e9"}).raw
    assert image_id("localhost/base:1") == before == base.config.digest
    assert layers_on_disk(storage) == on_disk
    assert not annotate(NAME, annotations={"org.example.k": "v \u00e9"}).changed


def test_labels_make_a_new_image_of_the_same_layers(base: Manifest, storage: Path) -> None:
    before, on_disk = image_id("localhost/base:1"), layers_on_disk(storage)
    with pytest.raises(Contradiction):
        annotate(NAME, annotations={"given": "2"})
    annotate(NAME, annotations={"given": "2"}, labels={"given": "2"}, env={"A": "2", "B": "x"})
    manifest = Manifest.parse(skopeo("inspect", "--raw", NAME))
    config = ImageConfig.parse(skopeo("inspect", "--config", "--raw", NAME), manifest.config.digest)
    assert config.labels["given"] == "2" == manifest.annotations["given"]
    assert (config.env["A"], config.env["B"]) == ("2", "x")
    assert manifest.layers == base.layers and layers_on_disk(storage) == on_disk
    assert image_id("localhost/base:1") == manifest.config.digest != before
    container = run(["buildah", "from", "localhost/base:1"]).stdout.strip()
    assert (Path(run(["buildah", "mount", container]).stdout.strip()) / "etc" / "hello").read_text() == "hello\n"


@pytest.mark.skipif(shutil.which("podman") is None, reason="not installed: podman")
def test_podman_shows_it(base: Manifest) -> None:
    annotate(NAME, annotations={"k": "v"}, labels={"k": "v"})
    shown = json.loads(run(["podman", "image", "inspect", "localhost/base:1"]).stdout)[0]
    assert shown["Labels"]["k"] == shown["Annotations"]["k"] == "v"
    assert shown["RootFS"]["Layers"] == [base.layers[0].digest]


def test_layers_are_exported_once(base: Manifest, tmp_path: Path) -> None:
    calls: list[tuple[str, ...]] = []

    def counting(argv, **options):  # type: ignore[no-untyped-def]
        calls.append(tuple(argv))
        return run(argv, **options)

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with LocalStore(parse(NAME), counting, scratch) as store:
        assert ImageConfig.parse(read_blob(store, base.config.digest)).labels["given"] == "1"
        assert not any("copy" in call for call in calls)
        for _ in range(2):
            assert layer_files(store, base.layers[0].digest) == {"etc/hello": b"hello\n"}
        with pytest.raises(StoreError, match="no blob"):
            read_blob(store, "sha256:" + "0" * 64)
        assert sum("copy" in call for call in calls) == 1 and len(list(scratch.iterdir())) == 1
    assert list(scratch.iterdir()) == []


def test_a_pulled_image_with_compressed_layers(storage: Path, tmp_path: Path) -> None:
    made = make_layout(tmp_path / "in", [{"a": b"1"}, {"b": b"2"}], indent=3, docker=False)
    skopeo("copy", "-q", f"oci:{tmp_path}/in:latest", "containers-storage:localhost/pulled:1")
    name = "containers-storage:localhost/pulled:1"
    with LocalStore(parse(name), run) as store:
        assert store.manifest() == made  # 3-space indent: the text has line ends
        assert [layer_files(store, layer.digest) for layer in made.layers] == [{"a": b"1"}, {"b": b"2"}]
    on_disk = layers_on_disk(storage)
    annotate(name, annotations={"k": "v"}, labels={"k": "v"})
    new = Manifest.parse(skopeo("inspect", "--raw", name))
    assert new.layers == made.layers and new.annotations == {"k": "v"} and layers_on_disk(storage) == on_disk


def test_bytes_that_text_mode_would_change(storage: Path, tmp_path: Path) -> None:
    made = make_layout(tmp_path / "in", [{"a": b"1"}])
    odd = Manifest.parse(made.raw.replace(b", ", b",\r\n\t"))
    layout = tmp_path / "in"
    (layout / "blobs" / "sha256" / odd.digest[7:]).write_bytes(odd.raw)
    index = (layout / "index.json").read_text().replace(made.digest, odd.digest)
    (layout / "index.json").write_text(index.replace(f'"size": {made.size}', f'"size": {odd.size}'))
    skopeo("copy", "-q", "--preserve-digests", f"oci:{layout}:latest", "containers-storage:localhost/odd:1")
    with open_store(parse("containers-storage:localhost/odd:1"), run) as store:
        assert store.manifest() == odd
    annotate("containers-storage:localhost/odd:1", annotations={"k": "v"})
    with open_store(parse("containers-storage:localhost/odd:1"), run) as store:
        assert store.manifest() == odd.with_annotations({"k": "v"})


def test_docker_schema_2(storage: Path, tmp_path: Path) -> None:
    made = make_layout(tmp_path / "in", [{"a": b"1"}], docker=True)
    folder = tmp_path / "dir"
    folder.mkdir()
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    (folder / "manifest.json").write_bytes(made.raw)
    for descriptor in made.descriptors:
        shutil.copy(tmp_path / "in" / "blobs" / "sha256" / descriptor.digest[7:], folder / descriptor.digest[7:])
    skopeo("copy", "-q", f"dir:{folder}", "containers-storage:localhost/docker:1")
    before = image_id("localhost/docker:1")
    result = annotate("containers-storage:localhost/docker:1", annotations={"k": "v"})
    assert result.converted and image_id("localhost/docker:1") == before == made.config.digest
    with LocalStore(parse("containers-storage:localhost/docker:1"), run) as store:
        assert store.manifest() == made.to_oci().with_annotations({"k": "v"})
        assert layer_files(store, made.layers[0].digest) == {"a": b"1"}


def test_short_names_are_looked_up_as_podman_does(base: Manifest) -> None:
    with open_store(parse("containers-storage:base:1"), run) as store:
        assert store.manifest() == base and store.tags() == ("1",)
    skopeo("copy", "-q", NAME, "containers-storage:docker.io/library/hub:1")
    with open_store(parse("containers-storage:hub:1"), run) as store:
        assert store.manifest() == base
    annotate("containers-storage:base:1", annotations={"k": "v"})
    assert b'"k":"v"' in skopeo("inspect", "--raw", NAME)


def test_by_digest_and_by_id(base: Manifest) -> None:
    by_digest = parse(NAME).at(base.digest)
    by_id = parse(f"containers-storage:{base.config.digest[7:]}")
    for reference in (by_digest, by_id):
        with open_store(reference, run) as store:
            assert store.manifest() == base
            rewrite = plan(store, reference, annotations={"k": "v"})
            with pytest.raises(StoreError, match="under a name"):
                apply(store, rewrite)
    assert Manifest.parse(skopeo("inspect", "--raw", NAME)) == base


def test_somebody_else_was_faster(base: Manifest) -> None:
    reference = parse(NAME)
    with open_store(reference, run) as store:
        mine = plan(store, reference, annotations={"by": "me"})
        theirs = annotate(NAME, annotations={"by": "another"})
        with pytest.raises(TagMoved, match=base.digest):
            apply(store, mine)
        assert store.manifest().digest == theirs.new_digest
        run(["buildah", "rmi", "localhost/base:1"])
        with pytest.raises(TagMoved, match="gone"):
            apply(store, mine)


def test_another_tag(base: Manifest) -> None:
    with LocalStore(parse(NAME), run) as store:
        store.put_manifest(base, "2")
    assert digest_of(skopeo("inspect", "--raw", "containers-storage:localhost/base:2")) == base.digest


def test_what_is_not_there(storage: Path) -> None:
    absent = "containers-storage:localhost/absent:1"
    with open_store(parse(absent), run) as store:
        with pytest.raises(StoreError, match=absent):
            store.manifest()
        assert store.tags() == ()
    with pytest.raises(StoreError, match="localhost/absent"), open_store(parse("containers-storage:absent"), run) as s:
        s.manifest()


def test_without_skopeo(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(storage))
    with open_store(parse(NAME), run) as store, pytest.raises(ToolMissing, match="skopeo"):
        store.manifest()


def test_layerless_copies_leave_nothing_behind(base: Manifest, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    reference: Reference = parse(NAME)
    with LocalStore(reference, run, scratch) as store:
        apply(store, plan(store, reference, annotations={"k": "v"}))
        with pytest.raises(BadReference):
            store.put_manifest(base, "no tag")
    assert list(scratch.iterdir()) == []
