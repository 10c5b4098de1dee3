from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc3build import oci
from hpc3build.errors import Contradiction, InputError, StoreError, TagMoved
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import digest_of
from hpc3build.reference import Reference, parse
from hpc3build.rewrite import ImageWish, Rewrite, apply, plan
from hpc3build.stores import read_blob
from hpc3build.stores.layout import Layout
from tests.images import make_index, make_layout

LAYERS = [{"a": b"1"}]


def snapshot(path: Path) -> dict[Path, tuple[int, bytes]]:
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.rglob("*") if file.is_file()}


def at(path: Path, tail: str = ":latest") -> tuple[Layout, Reference]:
    return Layout(path), parse(f"oci:{path}{tail}")


@pytest.mark.parametrize("tail", ["", ":latest"])
def test_annotations_alone(tmp_path: Path, tail: str) -> None:
    old = make_layout(tmp_path, LAYERS, annotations={"z": "1"}, labels={"l": "x"})
    store, reference = at(tmp_path, tail)
    before = snapshot(tmp_path)
    rewrite = plan(store, reference, annotations={"a": "b"}, remove=["z"])
    assert snapshot(tmp_path) == before
    assert (rewrite.blobs, rewrite.tag, rewrite.old_digest) == ((), "latest", old.digest)
    result = apply(store, rewrite)
    new = store.manifest("latest")
    assert new.annotations == {"a": "b"} and new.descriptors == old.descriptors
    assert new.raw == old.raw.replace(b'"z": "1"', b'"a": "b"')
    assert (result.old_digest, result.new_digest, result.changed) == (old.digest, new.digest, True)
    assert (result.written, result.converted, result.warnings) == ((new.digest,), False, ())
    assert {file for file, what in snapshot(tmp_path).items() if before.get(file) != what} == {
        store.blob_path(new.digest),
        tmp_path / "index.json",
    }


@pytest.mark.parametrize("key", ["com.hooks.cxi.enabled", "run.oci.handler", "io.kubernetes.cri-o.x"])
@pytest.mark.parametrize("where", ["annotations", "labels", "of_images"])
def test_keys_that_runtimes_act_on_are_never_planned(key: str, where: str, tmp_path: Path) -> None:
    """Rule N6, whoever asks; taking such a key away is allowed."""
    old = make_layout(tmp_path, LAYERS, annotations={key: "true"}, labels={key: "true"})
    store, reference = at(tmp_path)
    wish: Any = {old.digest: ImageWish({key: "x"})} if where == "of_images" else {key: "x"}
    with pytest.raises(InputError, match=f"{key}: privileged runtimes"):
        plan(store, reference, **{"annotations": {}, where: wish})
    gone = plan(store, reference, annotations={}, remove=[key], remove_labels=[key])
    assert key not in gone.new.annotations and key not in gone.configs[-1][1].labels


def test_twice_is_no_write(tmp_path: Path) -> None:
    make_layout(tmp_path, LAYERS)
    store, reference = at(tmp_path)
    what = {"annotations": {"a": "b"}, "labels": {"a": "b"}, "env": {"V": "1"}}
    assert apply(store, plan(store, reference, **what)).changed
    before = snapshot(tmp_path)
    again = plan(store, reference, **what)
    result = apply(store, again)
    assert again.is_empty and not result.changed and result.written == ()
    assert result.old_digest == result.new_digest and snapshot(tmp_path) == before


def test_labels_and_variables_make_a_new_config(tmp_path: Path) -> None:
    old = make_layout(tmp_path, LAYERS, config={"Env": ["A=1"]}, labels={"gone": "x", "kept": "y"}, indent=3)
    store, reference = at(tmp_path)
    rewrite = plan(
        store, reference, annotations={"k": "v"}, labels={"k": "v"}, remove_labels=["gone"], env={"A": "2", "B": "3"}
    )
    result = apply(store, rewrite)
    new = store.manifest("latest")
    config = ImageConfig.parse(read_blob(store, new.config.digest), new.config.digest)
    assert config.labels == {"k": "v", "kept": "y"} and config.env == {"A": "2", "B": "3"}
    assert new.layers == old.layers and new.config.size == len(config.raw)
    assert result.written == (new.config.digest, new.digest)
    before = ImageConfig.parse(read_blob(store, old.config.digest)).raw
    edited = before.replace(b'"gone": "x",\n         "kept"', b'"k": "v",\n         "kept"')
    assert config.raw == edited.replace(b'"A=1"', b'"A=2",\n         "B=3"')


@pytest.mark.parametrize(
    ("labels", "remove", "refused"),
    [(None, [], True), ({}, [], True), ({"other": "1"}, [], True), ({"k": "v"}, [], False), (None, ["k"], False)],
)
def test_r10(tmp_path: Path, labels: dict[str, str] | None, remove: list[str], refused: bool) -> None:
    make_layout(tmp_path, LAYERS, labels={"k": "old", "same": "s"})
    store, reference = at(tmp_path)
    before = snapshot(tmp_path)
    if not refused:
        rewrite = plan(store, reference, annotations={"k": "v", "same": "s"}, labels=labels, remove_labels=remove)
        assert not rewrite.is_empty
        return
    with pytest.raises(Contradiction, match="k: the label says 'old', not 'v'") as caught:
        plan(store, reference, annotations={"k": "v", "same": "s"}, labels=labels, remove_labels=remove)
    assert "--labels" in caught.value.hint and "same" not in caught.value.message
    assert snapshot(tmp_path) == before


def test_docker_is_converted(tmp_path: Path) -> None:
    old = make_layout(tmp_path, LAYERS, docker=True, labels={"l": "1"})
    store, reference = at(tmp_path)
    assert plan(store, reference, annotations={}).is_empty
    assert plan(store, reference, annotations={}, remove=["nope"]).is_empty
    relabelled = plan(store, reference, annotations={}, labels={"l": "2"})
    assert not relabelled.converted and relabelled.manifests[0][1].media_type == oci.DOCKER_MANIFEST
    result = apply(store, plan(store, reference, annotations={"a": "b"}))
    new = store.manifest("latest")
    assert result.converted and "OCI" in result.warnings[0]
    assert (new.media_type, new.config.media_type) == (oci.OCI_MANIFEST, oci.OCI_CONFIG)
    assert [d.digest for d in new.descriptors] == [d.digest for d in old.descriptors]
    assert json.loads((tmp_path / "index.json").read_bytes())["manifests"][0]["mediaType"] == oci.OCI_MANIFEST
    again = plan(store, reference, annotations={"a": "b"})
    assert again.is_empty and not again.converted and again.warnings == ()


def test_docker_with_annotations_is_mended(tmp_path: Path) -> None:
    old = make_layout(tmp_path, LAYERS, docker=True, annotations={"a": "b"})  # what crane mutate leaves
    store, reference = at(tmp_path)
    apply(store, plan(store, reference, annotations={"a": "b"}))
    new = store.manifest("latest")
    assert new.media_type == oci.OCI_MANIFEST and new.annotations == old.annotations


def test_a_child_of_an_index_by_its_digest(tmp_path: Path) -> None:
    child = make_layout(tmp_path, LAYERS, tag=None)
    make_index(tmp_path, [child], tag="multi")
    store, reference = at(tmp_path, f"@{child.digest}")
    apply(store, plan(store, reference, annotations={"a": "b"}))
    assert store.manifest("multi").is_index and store.tags() == ("multi",)


def test_a_digest_beside_the_tag_must_hold(tmp_path: Path) -> None:
    old = make_layout(tmp_path, LAYERS)
    store, reference = at(tmp_path)
    with pytest.raises(TagMoved, match=old.digest):
        plan(store, reference, annotations={"a": "b"}, expect_digest="sha256:" + "0" * 64)
    assert not plan(store, reference, annotations={"a": "b"}, expect_digest=old.digest).is_empty
    pinned = plan(*at(tmp_path, f":latest@{old.digest}"), annotations={"a": "b"})
    apply(store, plan(store, reference, annotations={"other": "writer"}))
    before = (tmp_path / "index.json").read_bytes()
    with pytest.raises(TagMoved):
        apply(store, pinned)
    assert (tmp_path / "index.json").read_bytes() == before


class Recorder(Layout):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.calls: list[tuple[str, str | None, str | None]] = []

    def put_blob(self, content: bytes, digest: str | None = None) -> str:
        self.calls.append(("blob", digest_of(content), None))
        return digest_of(content)

    def put_manifest(self, manifest: oci.Manifest, tag: str | None, *, expect: str | None = None) -> None:
        self.calls.append((manifest.digest, tag, expect))


def test_order_of_writing(tmp_path: Path) -> None:
    one = make_layout(tmp_path, LAYERS)
    two = one.with_annotations({"a": "b"})
    store = Recorder(tmp_path)
    config = ImageConfig.parse(read_blob(store, one.config.digest))
    new = config.with_labels({"a": "b"})
    rewrite = Rewrite(parse(f"oci:{tmp_path}"), "latest", one, ((two, one), (one, two)), ((config, new),))
    result = apply(store, rewrite)
    assert store.calls == [
        ("blob", new.digest, None),
        (one.digest, None, None),
        (two.digest, "latest", one.digest),
    ]
    assert result.written == (new.digest, one.digest, two.digest) and result.new_digest == two.digest


def test_artifacts_have_annotations_but_no_labels(tmp_path: Path) -> None:
    image = make_layout(tmp_path, LAYERS)
    artifact = oci.Manifest.parse(image.raw.replace(oci.OCI_CONFIG.encode(), b"application/x.thing"))
    store, reference = at(tmp_path)
    store.put_manifest(artifact, "latest")
    with pytest.raises(StoreError, match="no container image"):
        plan(store, reference, annotations={}, labels={"a": "b"})
    apply(store, plan(store, reference, annotations={"a": "b"}))
    assert store.manifest("latest").raw == artifact.with_annotations({"a": "b"}).raw
