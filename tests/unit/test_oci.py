from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc3build import oci
from hpc3build.errors import ImageError
from hpc3build.oci import Manifest, digest_of

D1, D2 = "sha256:" + "1" * 64, "sha256:" + "2" * 64
LAYER = {"mediaType": oci.OCI_LAYER + "+gzip", "digest": D2, "size": 5}
IMAGE: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": oci.OCI_MANIFEST,
    "config": {"mediaType": oci.OCI_CONFIG, "digest": D1, "size": 3},
    "layers": [LAYER],
    "annotations": {"k": "v"},
}
INDEX: dict[str, Any] = {
    "schemaVersion": 2,
    "manifests": [
        {"mediaType": oci.OCI_MANIFEST, "digest": D1, "size": 1, "platform": {"os": "linux", "os.features": ["x"]}}
    ],
}


def raw(document: Any) -> bytes:
    return json.dumps(document).encode()


def docker() -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": oci.DOCKER_MANIFEST,
        "config": {"mediaType": oci.DOCKER_CONFIG, "digest": D1, "size": 3},
        "layers": [{**LAYER, "mediaType": f"{oci.DOCKER_LAYER}.gzip"}, {**LAYER, "mediaType": oci.DOCKER_LAYER}],
    }


def test_an_image_manifest() -> None:
    manifest = Manifest.parse(raw(IMAGE), oci.OCI_MANIFEST, digest_of(raw(IMAGE)))
    assert (manifest.config.digest, [layer.size for layer in manifest.layers]) == (D1, [5])
    assert manifest.annotations == {"k": "v"} and not manifest.is_index
    assert (manifest.digest, manifest.size) == (digest_of(raw(IMAGE)), len(raw(IMAGE)))
    assert len(manifest.descriptors) == 2


def test_an_index_without_media_type() -> None:
    index = Manifest.parse(raw(INDEX))
    assert index.is_index and index.media_type == oci.OCI_INDEX
    assert index.descriptors[0].platform == {"os": "linux"}
    with pytest.raises(ImageError, match="index"):
        _ = index.config


def test_digest_is_verified() -> None:
    with pytest.raises(ImageError, match=D1):
        Manifest.parse(raw(IMAGE), None, D1)


def _without(document: Any, key: str) -> Any:
    return {name: value for name, value in document.items() if name != key}


@pytest.mark.parametrize(
    "document",
    [
        [], 7, None, {}, _without(IMAGE, "schemaVersion"), _without(IMAGE, "config"), _without(IMAGE, "layers"),
        {**IMAGE, "schemaVersion": 1}, {**IMAGE, "schemaVersion": True}, {**IMAGE, "schemaVersion": "2"},
        {**IMAGE, "mediaType": "text/plain"}, {**IMAGE, "mediaType": 3}, {**IMAGE, "manifests": []},
        {**IMAGE, "layers": {}}, {**IMAGE, "layers": ["x"]},
        {**IMAGE, "annotations": []},
        {**IMAGE, "annotations": {"a": 1}}, {**IMAGE, "config": None}, {**IMAGE, "config": []},
        {**IMAGE, "layers": [{**LAYER, "size": -1}]}, {**IMAGE, "layers": [{**LAYER, "size": 1.5}]},
        {**IMAGE, "layers": [{**LAYER, "size": True}]}, {**IMAGE, "layers": [_without(LAYER, "size")]},
        {**IMAGE, "layers": [{**LAYER, "digest": "sha256:12"}]}, {**IMAGE, "layers": [{**LAYER, "digest": 5}]},
        {**IMAGE, "layers": [{**LAYER, "digest": "../../etc/passwd"}]},
        {**IMAGE, "layers": [{**LAYER, "mediaType": ""}]},
        {**IMAGE, "layers": [{**LAYER, "digest": "sha256:" + "G" * 64}]},
        {"schemaVersion": 2, "manifests": [None]},
    ],
)  # fmt: skip
def test_malformed_manifests(document: Any) -> None:
    with pytest.raises(ImageError):
        Manifest.parse(raw(document))


def test_null_is_nothing() -> None:
    """As Go writes and reads it; the bytes stay all the same."""
    layer = {**LAYER, "annotations": None, "platform": None}
    manifest = Manifest.parse(raw({**IMAGE, "annotations": {"a": None, "b": "1"}, "layers": [layer], "subject": None}))
    assert manifest.annotations == {"b": "1"} and manifest.subject is None
    assert (manifest.layers[0].annotations, manifest.layers[0].platform) == ({}, None)
    new = manifest.with_annotations({"c": "2"})
    assert new.json == {**manifest.json, "annotations": {"a": None, "b": "1", "c": "2"}}
    assert new.with_annotations({"a": "3"}, ["b"]).json["annotations"] == {"a": "3", "c": "2"}
    bare = Manifest.parse(raw({**IMAGE, "annotations": None, "layers": None}))
    assert bare.layers == () and bare.with_annotations({}) is bare
    assert bare.with_annotations({"c": "2"}).json == {**bare.json, "annotations": {"c": "2"}}
    assert Manifest.parse(raw({"schemaVersion": 2, "manifests": None})).descriptors == ()


def test_the_store_and_the_body_must_agree() -> None:
    with pytest.raises(ImageError, match="says"):
        Manifest.parse(raw(IMAGE), oci.DOCKER_MANIFEST)


def test_annotations_are_spliced() -> None:
    manifest = Manifest.parse(raw(IMAGE))
    assert manifest.with_annotations({"k": "v"}, ["other"]) is manifest
    assert manifest.with_annotations({"a": "1"}).raw == raw(IMAGE).replace(b'{"k"', b'{"a": "1", "k"')
    assert manifest.with_annotations({"a": "1"}, ["k"]).annotations == {"a": "1"}
    bare = Manifest.parse(raw(_without(IMAGE, "annotations")))
    assert bare.with_annotations({"k": "v"}).raw == raw(IMAGE)
    for pairs in ({"": "x"}, {"a": "\udcff"}, {"a": 1}):
        with pytest.raises(ImageError):
            manifest.with_annotations(pairs)  # type: ignore[arg-type]


def test_with_config_drops_what_described_the_old_one() -> None:
    document = {**IMAGE, "config": {**IMAGE["config"], "data": "e30=", "x": 1}}
    manifest = Manifest.parse(raw(document)).with_config(D2, 9)
    assert manifest.json["config"] == {"mediaType": oci.OCI_CONFIG, "digest": D2, "size": 9, "x": 1}
    with pytest.raises(ImageError):
        manifest.with_config("nope", 1)


def test_docker_becomes_oci() -> None:
    manifest = Manifest.parse(raw(docker()))
    with pytest.raises(ImageError, match="Docker"):
        manifest.with_annotations({"a": "b"})
    converted = manifest.to_oci()
    expected = raw(docker()).replace(oci.DOCKER_MANIFEST.encode(), oci.OCI_MANIFEST.encode())
    expected = expected.replace(oci.DOCKER_CONFIG.encode(), oci.OCI_CONFIG.encode())
    expected = expected.replace(f"{oci.DOCKER_LAYER}.gzip".encode(), f"{oci.OCI_LAYER}+gzip".encode())
    assert converted.raw == expected.replace(oci.DOCKER_LAYER.encode(), oci.OCI_LAYER.encode())
    assert converted.to_oci() is converted
    listed = {**INDEX, "mediaType": oci.DOCKER_LIST}
    assert Manifest.parse(raw(listed)).to_oci().media_type == oci.OCI_INDEX
    told = Manifest.parse(raw(_without(docker(), "mediaType")), oci.DOCKER_MANIFEST).to_oci()
    assert told.json["mediaType"] == oci.OCI_MANIFEST
    plugin = docker()
    plugin["config"]["mediaType"] = "application/vnd.docker.plugin.v1+json"
    with pytest.raises(ImageError, match="plugin"):
        Manifest.parse(raw(plugin)).to_oci()


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([D1, "", "x", 1.5, oci.OCI_CONFIG]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["digest", "size", "mediaType"]), inner)
    ),
    max_leaves=4,
)


@settings(deadline=None)
@given(st.sampled_from([IMAGE, INDEX, docker()]), st.data())
def test_any_fault_is_an_image_error(document: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(document)))
    value = data.draw(JUNK)
    try:
        manifest = Manifest.parse(raw({**document, key: value}))
        edited = manifest.to_oci().with_annotations({"a": "b"})
    except ImageError:
        return
    assert edited.annotations["a"] == "b"
    assert {**edited.json, "annotations": None, "mediaType": None}.keys() >= {**document, key: value}.keys()
