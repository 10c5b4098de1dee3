"""A random tree of indexes: afterwards every digest and size in every parent is right, and nothing else differs."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc3build.errors import InputError
from hpc3build.oci import DOCKER_LIST, DOCKER_TO_OCI, INDEXES, OCI_INDEX, Manifest, digest_of
from hpc3build.reference import parse
from hpc3build.rewrite import Platform, Target, apply, plan
from hpc3build.stores.layout import Layout
from tests.images import descriptor_of, make_document, make_layout

GPU = "org.supercontainers.gpu"
PLATFORMS = [
    {"os": "linux", "architecture": "amd64"},
    {"os": "linux", "architecture": "amd64", "variant": "v3"},
    {"os": "linux", "architecture": "arm64", "os.features": ["x"]},
]
TARGETS = st.sampled_from(
    [
        Target(),
        Target(index_only=True),
        Target(descriptors=True),
        Target(all_children=True),
        Target(platforms=(Platform("linux"),)),
        Target(platforms=(Platform("linux", "amd64", "v3"),)),
        Target(platforms=(Platform("linux", "arm64"),), descriptors=True),
    ]
)
LEAF = st.fixed_dictionaries(
    {
        "image": st.sampled_from("abc"),
        "docker": st.booleans(),
        "platform": st.sampled_from(PLATFORMS),
        "attested": st.booleans(),
        "annotations": st.none() | st.dictionaries(st.sampled_from(["k", GPU, "z"]), st.sampled_from(["1", "é"])),
        "extra": st.booleans(),
    }
)
INDEX = st.recursive(
    st.lists(LEAF, min_size=1, max_size=3),
    lambda inner: st.lists(LEAF | inner, min_size=1, max_size=3),
    max_leaves=6,
)
STYLE = st.sampled_from([{}, {"indent": 3}, {"separators": (",", ":")}, {"indent": "\t", "ensure_ascii": False}])


def build(path: Path, shape: list[Any], docker: bool, style: dict[str, Any], tag: str | None) -> Manifest:
    entries: list[dict[str, Any]] = []
    for child in shape:
        if isinstance(child, list):
            entries.append(descriptor_of(build(path, child, False, style, None)))
            continue
        made = make_layout(path, [{child["image"]: b"1"}], tag=None, docker=child["docker"] or docker, annotations=None)
        extra = {"artifactType": "x/y", "data": "eA==", "odd": [1e2, None]} if child["extra"] else {}
        pairs = {} if child["annotations"] is None else {"annotations": child["annotations"]}
        entries.append(descriptor_of(made, platform=child["platform"], **pairs, **extra))
        if child["attested"]:
            about = {"vnd.docker.reference.digest": made.digest, "vnd.docker.reference.type": "attestation-manifest"}
            entries.append(
                descriptor_of(
                    make_layout(path, [{"in-toto": made.digest.encode()}], tag=None),
                    platform={"os": "unknown", "architecture": "unknown"},
                    annotations=about,
                )
            )
    (path / "index.json").unlink(missing_ok=True)
    kind = DOCKER_LIST if docker else OCI_INDEX
    document = {"schemaVersion": 2, "mediaType": kind, "manifests": entries, "vendor": {"n": 1e3, "é": "é"}}
    return make_document(path, document, tag=tag, **style)


def blob(path: Path, digest: str) -> dict[str, Any]:
    raw = (path / "blobs" / "sha256" / digest[7:]).read_bytes()
    assert digest_of(raw) == digest
    document: dict[str, Any] = json.loads(raw)
    return document


def same(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Documents are equal but for annotations that were asked for, Docker's types, and descriptors that follow."""
    old, new = dict(old), dict(new)
    was, now = dict(old.pop("annotations", {})), dict(new.pop("annotations", {}))
    assert {key: value for key, value in now.items() if key not in (GPU, "k")} == {
        key: value for key, value in was.items() if key not in (GPU, "k")
    }
    if "manifests" in old:
        digests = {entry["digest"] for entry in new["manifests"]}
        for one, other in itertools.zip_longest(old.pop("manifests"), new.pop("manifests")):
            one, other = dict(one), dict(other)
            child = blob(path, other["digest"])
            assert other["size"] == len((path / "blobs" / "sha256" / other["digest"][7:]).read_bytes())
            assert other["mediaType"] == child["mediaType"]
            same(path, blob(path, one["digest"]), child)
            about = one.get("annotations", {}).get("vnd.docker.reference.digest")
            if about:
                assert one["digest"] == other["digest"]
                assert (now := other["annotations"]["vnd.docker.reference.digest"]) in digests
                assert blob(path, now)["layers"][0]["digest"] == blob(path, about)["layers"][0]["digest"]
                one["annotations"] = other["annotations"]
            if one["digest"] != other["digest"]:
                one.pop("data", None)
            for pair in (one, other):
                for member in ("digest", "size", "mediaType"):
                    pair.pop(member)
                pair["annotations"] = {k: v for k, v in pair.get("annotations", {}).items() if k not in (GPU, "k")}
            assert one == other
    for document in (old, new):
        for place in (document, document.get("config", {}), *document.get("layers", [])):
            if isinstance(place, dict) and "mediaType" in place:
                place["mediaType"] = DOCKER_TO_OCI.get(place["mediaType"], place["mediaType"])
    assert old == new


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shape=INDEX, docker=st.booleans(), style=STYLE, target=TARGETS)
def test_random_trees(shape: list[Any], docker: bool, style: dict[str, Any], target: Target) -> None:
    docker = docker and not any(isinstance(child, list) for child in shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        old = build(path, shape, docker, style, "latest")
        store, reference = Layout(path), parse(f"oci:{path}:latest")
        try:
            planned = plan(store, reference, annotations={GPU: "none", "k": "v"}, target=target)
        except InputError as error:
            assert "has no image for" in error.message
            return
        result = apply(store, planned)
        assert plan(store, reference, annotations={GPU: "none", "k": "v"}, target=target).is_empty
        entry = json.loads((path / "index.json").read_bytes())["manifests"][0]
        assert entry["digest"] == result.new_digest and entry["mediaType"] == blob(path, entry["digest"])["mediaType"]
        assert entry["size"] == store.manifest("latest").size and entry["mediaType"] in INDEXES
        same(path, json.loads(old.raw), blob(path, result.new_digest))
        for digest in result.written:
            document = blob(path, digest)
            if "docker" in document["mediaType"]:
                assert "annotations" not in document
                assert all("annotations" not in entry for entry in document.get("manifests", []))
