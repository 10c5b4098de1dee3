"""Order, variants and annotations of indexes, as every runtime's rule needs them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hpc3build.errors import InputError
from hpc3build.facts import vocabulary as voc
from hpc3build.index import Flavour, arrange
from hpc3build.oci import Manifest
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.stores import open_store
from hpc3build.stores.layout import Layout
from hpc3build.workflows.index import Indexed, annotate, create
from tests.fake_registry import NAME, FakeRegistry
from tests.images import descriptor_of, make_document, make_index, make_layout

CPU, GPU, MPI = voc.CPU_VERSION.name, voc.GPU.name, voc.MPI.name
INDEX = "application/vnd.oci.image.index.v1+json"
FLAVOURS = {
    "zen3-cuda": {CPU: "zen3", GPU: "cuda", MPI: "openmpi"},
    "v3-cuda": {CPU: "x86_64_v3", GPU: "cuda", MPI: "openmpi"},
    "v4": {CPU: "x86_64_v4", GPU: "none", MPI: "openmpi"},
    "generic": {CPU: "x86_64", GPU: "none", MPI: "openmpi"},
    "v3": {CPU: "x86_64_v3", GPU: "none", MPI: "openmpi"},
    "zen3": {CPU: "zen3", GPU: "none", MPI: "openmpi"},
    "v2-mpich": {CPU: "x86_64_v2", GPU: "none", MPI: "mpich"},
    "generic-mpich": {CPU: "x86_64", GPU: "none", MPI: "mpich"},
    "haswell": {CPU: "haswell", GPU: "none", MPI: "openmpi"},
}


def images(folder: Path, names: list[str], **options: Any) -> dict[str, Manifest]:
    return {
        name: make_layout(folder, [{name: b"1"}], labels=FLAVOURS.get(name, {}), tag=name, **options) for name in names
    }


def made(folder: Path, names: list[str], **options: Any) -> tuple[Indexed, dict[str, Manifest]]:
    found = images(folder, names)
    return create(parse(f"oci:{folder}:all"), [parse(f"oci:{folder}:{name}") for name in names], run, **options), found


def entries(done: Indexed, there: dict[str, Manifest]) -> list[tuple[str, str | None]]:
    names = {manifest.digest: name for name, manifest in there.items()}
    return [(names[e.digest], (e.platform or {}).get("variant")) for e in done.manifest.descriptors]


def said(annotations: Mapping[str, str]) -> dict[str, str]:
    """Without what is said of each image alone, which tests/unit/test_seal.py looks at."""
    return {name: value for name, value in annotations.items() if name not in (voc.SIZE.name, voc.SEAL.name)}


def test_order_and_variants(tmp_path: Path) -> None:
    done, there = made(tmp_path, list(FLAVOURS))
    assert entries(done, there) == [
        ("generic", None),
        ("v2-mpich", "v2"),
        ("v3", "v3"),
        ("v4", "v4"),
        ("generic-mpich", None),
        ("v3-cuda", "v3"),
        ("zen3", "v3"),
        ("zen3-cuda", "v3"),
        ("haswell", "v3"),
    ]
    assert done.warnings == () and not done.manifest.annotations
    with Layout(str(tmp_path)) as store:
        assert store.manifest("all").raw == done.manifest.raw
    zen3 = done.manifest.descriptors[-2]
    assert said(zen3.annotations) == {**FLAVOURS["zen3-cuda"], voc.VOCABULARY.name: "0"}
    assert b"features" not in done.manifest.raw


def test_a_flavour_without_its_plain_level_has_no_variant(tmp_path: Path) -> None:
    """Docker takes the best variant: zen3 as v3 would be run on every v3 host."""
    done, there = made(tmp_path, ["zen3", "v3-cuda", "generic"])
    assert entries(done, there) == [("generic", None), ("v3-cuda", None), ("zen3", None)]


def test_without_a_baseline_it_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image of amd64 runs on all hosts") as caught:
        made(tmp_path, ["zen3", "v3"])
    assert "--first-as-default" in caught.value.hint
    done, there = made(tmp_path / "again", ["zen3", "v3"], first_as_default=True)
    assert entries(done, there) == [("zen3", None), ("v3", "v3")]


def test_architectures_side_by_side(tmp_path: Path) -> None:
    there = images(tmp_path, ["generic", "v3"])
    arm = make_layout(
        tmp_path, [{"arm": b"1"}], labels={CPU: "aarch64", GPU: "none", MPI: "none"}, architecture="arm64", tag="arm"
    )
    names = ("v3", "arm", "generic")
    done = create(parse(f"oci:{tmp_path}:all"), [parse(f"oci:{tmp_path}:{name}") for name in names], run)
    assert entries(done, {**there, "arm": arm}) == [("generic", None), ("v3", "v3"), ("arm", None)]


def flavour(name: str, system: str, pairs: Mapping[str, str]) -> Flavour:
    descriptor = {"mediaType": "x", "digest": name, "size": 1}
    return Flavour(descriptor, {"os": system, "architecture": "amd64"}, pairs)


def test_systems_side_by_side() -> None:
    """Windows' image is no baseline for Linux, and never before Linux's own."""
    windows = flavour("w", "windows", FLAVOURS["generic"])
    linux = [flavour(name, "linux", FLAVOURS[name]) for name in ("v3", "generic-mpich")]
    entries = arrange([windows, *linux])
    assert [(entry["digest"], entry["platform"].get("variant")) for entry in entries] == [
        ("generic-mpich", None),
        ("v3", "v3"),
        ("w", None),
    ]
    with pytest.raises(InputError, match=r"no image of amd64 runs on all hosts"):
        arrange([windows, linux[0]])
    with pytest.raises(InputError, match=r"no image of windows/amd64 runs on all hosts"):
        arrange([flavour("w", "windows", {}), *linux])


def test_twins_are_told(tmp_path: Path) -> None:
    done, _ = made(tmp_path, ["generic", "unlabelled", "same"])
    assert len(done.warnings) == 1 and "nothing picks it" in done.warnings[0]


def test_what_is_named_twice_is_told(tmp_path: Path) -> None:
    there = images(tmp_path / "x", ["generic", "v3"])
    place = f"oci:{tmp_path / 'x'}"
    references = [parse(f"{place}:{name}") for name in ("generic", "v3", "generic", "generic")]
    done = create(parse(f"{place}:all"), references, run)
    assert len(done.manifest.descriptors) == 2
    assert done.warnings == (f"{there['generic'].digest}: named 3 times, listed once",)
    again = create(parse(f"{place}:more"), [parse(f"{place}:all"), parse(f"{place}:v3")], run)
    assert again.warnings == (f"{there['v3'].digest}: named 2 times, listed once",)


def old_index(folder: Path, **more: Any) -> dict[str, Manifest]:
    there = images(folder, ["zen3", "v3", "generic"])
    platform = {"os": "linux", "architecture": "amd64", "os.features": ["sse4"], "features": ["x"]}
    children: list[dict[str, Any]] = [
        descriptor_of(image, platform=platform, annotations={"kept": name}, artifactType="application/x")
        for name, image in there.items()
    ]
    about = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": children[2]["digest"]}
    unknown = {"os": "unknown", "architecture": "unknown"}
    children.insert(1, descriptor_of(there["generic"], platform=unknown, annotations=about))
    document = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": children,
        "annotations": {"a": "b"},
        "x-unknown": [1],
    }
    make_document(folder, {**document, **more}, tag="all")
    return there


def test_annotate_keeps_what_is_there(tmp_path: Path) -> None:
    there = old_index(tmp_path)
    done = annotate(parse(f"oci:{tmp_path}:all"), run)
    document = json.loads(done.manifest.raw)
    assert [name for name, _ in entries(done, there)] == ["generic", "v3", "zen3", "generic"]
    first, last = document["manifests"][0], document["manifests"][-1]
    assert first["platform"] == {"os": "linux", "architecture": "amd64"} and first["artifactType"] == "application/x"
    assert said(first["annotations"]) == {"kept": "generic", **FLAVOURS["generic"], voc.VOCABULARY.name: "0"}
    assert last["annotations"]["vnd.docker.reference.digest"] == first["digest"]
    assert document["annotations"] == {"a": "b"} and document["x-unknown"] == [1]
    again = annotate(parse(f"oci:{tmp_path}:all"), run)
    assert not again.changed and again.manifest.raw == done.manifest.raw


def test_values_that_are_none_do_not_reach_descriptors(tmp_path: Path) -> None:
    make_layout(tmp_path, [{"a": b"1"}], labels={**FLAVOURS["generic"], MPI: "lam\nforged"}, tag="1")
    done = create(parse(f"oci:{tmp_path}:all"), [parse(f"oci:{tmp_path}:1")], run)
    assert MPI not in done.manifest.descriptors[0].annotations


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    old_index(tmp_path)
    with Layout(str(tmp_path)) as store:
        before = store.manifest("all").digest
        assert annotate(parse(f"oci:{tmp_path}:all"), run, dry_run=True).changed
        assert store.manifest("all").digest == before


def test_a_dry_run_makes_no_layout(tmp_path: Path) -> None:
    images(tmp_path / "there", ["generic"])
    done = create(parse(f"oci:{tmp_path / 'new'}:all"), [parse(f"oci:{tmp_path / 'there'}:generic")], run, dry_run=True)
    assert len(done.manifest.descriptors) == 1 and not (tmp_path / "new").exists()


def test_what_cannot_be_indexed(tmp_path: Path) -> None:
    images(tmp_path, ["generic"])
    with pytest.raises(InputError, match="is one image, no index"):
        annotate(parse(f"oci:{tmp_path}:generic"), run)


def test_from_another_layout(tmp_path: Path) -> None:
    images(tmp_path, ["generic"])
    other = images(tmp_path / "other", ["v3"])
    sources = [parse(f"oci:{tmp_path}:generic"), parse(f"oci:{tmp_path / 'other'}:v3")]
    create(parse(f"oci:{tmp_path}:all"), sources, run)
    with Layout(str(tmp_path)) as store:
        copied = store.manifest(other["v3"].digest)
        assert copied.raw == other["v3"].raw
        for blob in copied.descriptors:
            with store.blob(blob.digest) as stream:
                assert stream.read()


def test_into_a_registry(tmp_path: Path) -> None:
    """From a layout, and from another repository of the registry, where blobs are mounted."""
    images(tmp_path, ["generic", "v3"])
    with FakeRegistry() as registry:
        registry.add(tmp_path, "hpc/other")
        reference = parse(f"{registry.host}/{NAME}:all")
        sources = [parse(f"oci:{tmp_path}:generic"), parse(f"{registry.host}/hpc/other:v3")]
        done = create(reference, sources, run)
        assert registry.raw("all") == done.manifest.raw
        assert {e.digest for e in done.manifest.descriptors} <= set(registry.manifests[NAME])
        assert len(registry.blobs[NAME]) == 4


@pytest.mark.parametrize("place", ["oci:{}/new", "oci-archive:{}/new.tar"])
def test_a_place_without_a_tag_gets_one(tmp_path: Path, place: str) -> None:
    images(tmp_path / "a", ["generic", "v3"])
    to = parse(place.format(tmp_path))
    done = create(to, [parse(f"oci:{tmp_path}/a:generic"), parse(f"oci:{tmp_path}/a:v3")], run)
    with open_store(to, run) as store:
        assert store.tags() == ("latest",) and store.manifest().raw == done.manifest.raw


@pytest.mark.parametrize("tag", ["1", None])
@pytest.mark.parametrize("archive", [False, True])
def test_the_only_index_is_annotated_in_its_place(tmp_path: Path, tag: str | None, archive: bool) -> None:
    there = images(tmp_path, ["zen3", "v3", "generic"])
    (tmp_path / "index.json").unlink()
    old = make_index(tmp_path, list(there.values()), tag=tag)
    reference = parse(f"oci:{tmp_path}")
    if archive:
        reference = parse(f"oci-archive:{tmp_path}/a.tar")
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for name in ("oci-layout", "index.json", "blobs"):
                tar.add(tmp_path / name, name)
    done = annotate(reference, run)
    assert done.changed and done.old_digest == old.digest
    with open_store(reference, run) as store:
        assert store.tags() == ((tag,) if tag else ()) and store.manifest().raw == done.manifest.raw
