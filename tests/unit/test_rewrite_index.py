from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc3build import oci
from hpc3build.errors import Contradiction, ImageError, InputError, StoreError, TagMoved
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import Manifest
from hpc3build.reference import Reference, parse
from hpc3build.rewrite import ImageWish, Platform, Result, Target, apply, plan
from hpc3build.stores import read_blob
from hpc3build.stores.layout import Layout
from tests.images import descriptor_of, make_document, make_index, make_layout

GPU, MPI, TITLE, RANK = (
    "org.supercontainers.gpu",
    "org.supercontainers.mpi",
    "org.opencontainers.image.title",
    "io.github.hpc3build.rank",
)
AMD64, V3, ARM64 = (
    {"architecture": "amd64", "os": "linux"},
    {"architecture": "amd64", "os": "linux", "variant": "v3"},
    {"architecture": "arm64", "os": "linux"},
)
UNKNOWN = {"architecture": "unknown", "os": "unknown"}
REFERENCE, TYPE = "vnd.docker.reference.digest", "vnd.docker.reference.type"


def image(path: Path, name: str, **options: Any) -> Manifest:
    return make_layout(path, [{name: name.encode()}], tag=None, **options)


def index(
    path: Path, entries: list[dict[str, Any]], *, docker: bool = False, tag: str | None = "latest", **more: Any
) -> Manifest:
    (path / "index.json").unlink(missing_ok=True)
    kind = oci.DOCKER_LIST if docker else oci.OCI_INDEX
    document = {"schemaVersion": 2, "mediaType": kind, "manifests": entries, "x": 1e3, **more}
    return make_document(path, document, tag=tag, indent=2)


def attestation(path: Path, of: Manifest) -> dict[str, Any]:
    """As buildx writes it: a manifest of one in-toto layer, listed as unknown/unknown."""
    manifest = image(path, f"attests-{of.digest}")
    return descriptor_of(manifest, annotations={REFERENCE: of.digest, TYPE: "attestation-manifest"}, platform=UNKNOWN)


def three(path: Path, *, docker: bool = False, attested: bool = False) -> tuple[Manifest, list[Manifest]]:
    images = [image(path, name, docker=docker) for name in ("amd64", "v3", "arm64")]
    entries = [
        descriptor_of(made, platform=platform, **({"urls": ["https://x"], "data": "eA=="} if attested else {}))
        for made, platform in zip(images, (AMD64, V3, ARM64), strict=True)
    ]
    if attested:
        entries += [attestation(path, made) for made in images]
    return index(path, entries, docker=docker, annotations={"vendor": "x"}), images


def at(path: Path) -> tuple[Layout, Reference]:
    return Layout(path), parse(f"oci:{path}:latest")


def annotate(path: Path, annotations: dict[str, str], target: Target, **options: Any) -> tuple[Manifest, Result]:
    store, reference = at(path)
    result = apply(store, plan(store, reference, annotations=annotations, target=target, **options))
    again = plan(store, reference, annotations=annotations, target=target, **options)
    assert again.is_empty
    return store.manifest("latest"), result


def platform(*texts: str, **options: bool) -> Target:
    return Target(platforms=tuple(map(Platform.parse, texts)), **options)


def test_by_default_no_child_changes(tmp_path: Path) -> None:
    old, images = three(tmp_path, attested=True)
    new, result = annotate(tmp_path, {GPU: "cuda", TITLE: "t", "k": "v", RANK: "1"}, Target())
    assert new.annotations == {"vendor": "x", GPU: "cuda", TITLE: "t", "k": "v"}
    assert [entry.digest for entry in new.descriptors] == [entry.digest for entry in old.descriptors]
    assert [dict(entry.annotations) for entry in new.descriptors[:3]] == [{GPU: "cuda", RANK: "1"}] * 3
    assert new.descriptors[3:] == old.descriptors[3:]
    assert result.written == (new.digest,) and not result.converted and result.warnings == ()
    assert b'"x": 1000.0' in new.raw and new.json["manifests"][0]["data"] == "eA=="
    entry = json.loads((tmp_path / "index.json").read_bytes())["manifests"][0]
    assert (entry["digest"], entry["size"]) == (new.digest, new.size)
    assert images


def test_the_index_alone(tmp_path: Path) -> None:
    old, _ = three(tmp_path)
    new, _ = annotate(tmp_path, {GPU: "cuda"}, Target(index_only=True))
    assert new.raw == old.raw.replace(b'"vendor"', b'"org.supercontainers.gpu": "cuda",\n    "vendor"')


def test_descriptors_alone(tmp_path: Path) -> None:
    old, _ = three(tmp_path)
    new, result = annotate(tmp_path, {GPU: "cuda", TITLE: "t", "k": "v"}, Target(descriptors=True))
    assert new.annotations == old.annotations
    assert [dict(entry.annotations) for entry in new.descriptors] == [{GPU: "cuda", "k": "v"}] * 3
    assert TITLE in result.warnings[0]
    new, _ = annotate(tmp_path, {MPI: "mpich"}, platform("linux/arm64", descriptors=True))
    assert [MPI in entry.annotations for entry in new.descriptors] == [False, False, True]
    with pytest.raises(InputError, match=TITLE):
        annotate(tmp_path, {TITLE: "u"}, Target(descriptors=True))


@pytest.mark.parametrize(
    ("wishes", "chosen"),
    [
        (["linux/amd64/v3"], [1]),
        (["linux/amd64"], [0, 1]),
        (["linux/arm64", "linux/amd64/v3"], [1, 2]),
        (["linux"], [0, 1, 2]),
    ],
)
def test_platforms(tmp_path: Path, wishes: list[str], chosen: list[int]) -> None:
    old, images = three(tmp_path)
    new, result = annotate(tmp_path, {GPU: "cuda", TITLE: "t"}, platform(*wishes))
    store = Layout(tmp_path)
    assert new.annotations == old.annotations
    for position, (entry, was) in enumerate(zip(new.descriptors, images, strict=True)):
        child = store.manifest(entry.digest)
        assert entry.size == child.size and child.descriptors == was.descriptors
        assert dict(child.annotations) == ({GPU: "cuda", TITLE: "t"} if position in chosen else {})
        assert dict(entry.annotations) == ({GPU: "cuda"} if position in chosen else {})
    assert result.written[-1] == new.digest and len(result.written) == len(chosen) + 1


def test_a_platform_that_is_not_there(tmp_path: Path) -> None:
    three(tmp_path)
    with pytest.raises(InputError, match="linux/ppc64le") as caught:
        annotate(tmp_path, {"a": "b"}, platform("linux/ppc64le"))
    assert "linux/amd64, linux/amd64/v3, linux/arm64" in caught.value.hint


def test_without_a_platform_the_configuration_tells(tmp_path: Path) -> None:
    images = [image(tmp_path, name, architecture=name) for name in ("amd64", "arm64")]
    index(tmp_path, [descriptor_of(made) for made in images])
    new, _ = annotate(tmp_path, {"a": "b"}, platform("linux/arm64"))
    assert [entry.digest == was.digest for entry, was in zip(new.descriptors, images, strict=True)] == [True, False]


def test_attestations_follow_their_images(tmp_path: Path) -> None:
    old, images = three(tmp_path, attested=True)
    new, result = annotate(tmp_path, {"a": "b"}, platform("linux/amd64"))
    entries = new.descriptors
    assert [entry.digest for entry in entries[3:]] == [entry.digest for entry in old.descriptors[3:]]
    assert [entry.annotations[REFERENCE] for entry in entries[3:]] == [entry.digest for entry in entries[:3]]
    assert [entry.digest == was.digest for entry, was in zip(entries, images, strict=False)] == [False, False, True]
    assert any("2 attestations" in warning for warning in result.warnings)
    assert "data" not in new.json["manifests"][0] and "data" in new.json["manifests"][2]


def test_all_children_of_nested_indexes(tmp_path: Path) -> None:
    one, two = image(tmp_path, "one"), image(tmp_path, "two")
    inner = index(tmp_path, [descriptor_of(two, platform=V3), attestation(tmp_path, two)], tag=None)
    stranger = {"mediaType": "application/x.thing", "digest": "sha256:" + "1" * 64, "size": 5}
    old = index(tmp_path, [descriptor_of(one, platform=AMD64), descriptor_of(inner), stranger])
    new, result = annotate(tmp_path, {GPU: "none"}, Target(all_children=True))
    store = Layout(tmp_path)
    nested = store.manifest(new.descriptors[1].digest)
    assert new.annotations == nested.annotations == {GPU: "none"}
    assert new.descriptors[1].size == nested.size and new.json["manifests"][2] == stranger
    assert store.manifest(nested.descriptors[0].digest).annotations == {GPU: "none"}
    assert nested.descriptors[1].annotations[REFERENCE] == nested.descriptors[0].digest
    assert GPU not in nested.descriptors[1].annotations and len(result.written) == 4
    assert result.written[-2:] == (nested.digest, new.digest) and new.digest != old.digest


def test_by_default_nested_indexes_are_not_read(tmp_path: Path) -> None:
    inner = index(tmp_path, [], tag=None)
    index(tmp_path, [descriptor_of(inner)])
    Layout(tmp_path).blob_path(inner.digest).unlink()
    new, _ = annotate(tmp_path, {GPU: "none"}, Target())
    assert new.descriptors[0].annotations == {GPU: "none"}


def test_one_image_listed_twice(tmp_path: Path) -> None:
    made = image(tmp_path, "one")
    index(tmp_path, [descriptor_of(made, platform=AMD64), descriptor_of(made, platform=ARM64)])
    new, _ = annotate(tmp_path, {"a": "b"}, platform("linux/arm64"))
    assert new.descriptors[0].digest == made.digest != new.descriptors[1].digest


@pytest.mark.parametrize(
    ("target", "children"),
    [(Target(), 0), (Target(index_only=True), 0), (platform("linux/amd64/v3"), 1), (Target(all_children=True), 3)],
)
def test_a_docker_list(tmp_path: Path, target: Target, children: int) -> None:
    _, images = three(tmp_path, docker=True)
    new, result = annotate(tmp_path, {GPU: "none"}, target)
    assert new.media_type == oci.OCI_INDEX and result.converted and "OCI" in result.warnings[0]
    store, types = Layout(tmp_path), []
    for entry, was in zip(new.descriptors, images, strict=True):
        child = store.manifest(entry.digest)
        assert child.media_type == entry.media_type
        assert [d.digest for d in child.descriptors] == [d.digest for d in was.descriptors]
        types.append(child.media_type)
    assert types.count(oci.OCI_MANIFEST) == children and types.count(oci.DOCKER_MANIFEST) == 3 - children


def test_relabelled_docker_images_stay_in_their_list(tmp_path: Path) -> None:
    three(tmp_path, docker=True)
    new, result = annotate(tmp_path, {}, Target(all_children=True), labels={"l": "1"})
    assert new.media_type == oci.DOCKER_LIST and not result.converted
    store = Layout(tmp_path)
    for entry in new.descriptors:
        child = store.manifest(entry.digest)
        assert child.is_docker and ImageConfig.parse(read_blob(store, child.config.digest)).labels == {"l": "1"}


def test_labels_need_images(tmp_path: Path) -> None:
    three(tmp_path)
    for target in (Target(), Target(index_only=True), Target(descriptors=True)):
        with pytest.raises(InputError, match="no labels"):
            annotate(tmp_path, {"a": "b"}, target, labels={"a": "b"})


@pytest.mark.parametrize("target", [Target(), Target(descriptors=True), platform("linux"), Target(all_children=True)])
def test_r10_holds_for_every_image_that_is_told_of(tmp_path: Path, target: Target) -> None:
    made = image(tmp_path, "one", labels={GPU: "none"})
    index(tmp_path, [descriptor_of(made, platform=AMD64)])
    before = (tmp_path / "index.json").read_bytes()
    with pytest.raises(Contradiction, match=made.digest):
        annotate(tmp_path, {GPU: "cuda"}, target)
    assert (tmp_path / "index.json").read_bytes() == before
    annotate(tmp_path, {GPU: "cuda"}, Target(index_only=True))


def test_an_index_without_all_of_its_images(tmp_path: Path) -> None:
    _, images = three(tmp_path)
    store = Layout(tmp_path)
    store.blob_path(images[1].digest).unlink()
    store.blob_path(images[2].config.digest).unlink()
    new, result = annotate(tmp_path, {GPU: "none"}, Target())
    assert all(entry.annotations == {GPU: "none"} for entry in new.descriptors)
    assert len(result.warnings) == 2 and images[1].digest in result.warnings[0]
    with pytest.raises(StoreError):
        annotate(tmp_path, {"a": "c"}, Target(all_children=True))


def test_remove(tmp_path: Path) -> None:
    three(tmp_path)
    annotate(tmp_path, {GPU: "none", "k": "v"}, Target(all_children=True))
    new, _ = annotate(tmp_path, {}, Target(all_children=True), remove=[GPU, "k", "vendor"])
    assert b'"org.supercontainers.gpu"' not in new.raw and new.annotations == {}
    assert all(not Layout(tmp_path).manifest(entry.digest).annotations for entry in new.descriptors)


@pytest.mark.parametrize("change", [{"size": 7}, {"mediaType": oci.DOCKER_MANIFEST}])
def test_descriptors_that_lie(tmp_path: Path, change: dict[str, Any]) -> None:
    made = image(tmp_path, "one")
    index(tmp_path, [descriptor_of(made, platform=AMD64) | change])
    with pytest.raises(ImageError):
        annotate(tmp_path, {"a": "b"}, Target(all_children=True))


def test_bombs_are_refused(tmp_path: Path) -> None:
    inner = index(tmp_path, [], tag=None)
    for _ in range(6):
        inner = index(tmp_path, [descriptor_of(inner)] * 20, tag=None)
    index(tmp_path, [descriptor_of(inner)])
    with pytest.raises(ImageError, match="4096 manifests"):
        annotate(tmp_path, {"a": "b"}, Target(all_children=True))


def test_the_limit_of_registries_holds(tmp_path: Path) -> None:
    made = image(tmp_path, "one")
    index(tmp_path, [descriptor_of(made, annotations={"pad": "x" * ((4 << 20) - 700)})])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ImageError, match="registries take"):
        annotate(tmp_path, {"a": "b" * 700}, Target())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("more", ['"vendor": "y"', '"Annotations": {}', '"annotations": {}'])
def test_ambiguous_keys_are_refused(tmp_path: Path, more: str) -> None:
    old, _ = three(tmp_path)
    place = '"vendor": "x"' if "vendor" in more else '"x": 1000.0'
    raw = old.raw.replace(place.encode(), f"{place}, {more}".encode())
    store, reference = at(tmp_path)
    store.blob_path(digest := oci.digest_of(raw)).write_bytes(raw)
    file = tmp_path / "index.json"
    file.write_text(file.read_text().replace(old.digest, digest).replace(f": {old.size}", f": {len(raw)}"))
    before = file.read_bytes()
    with pytest.raises(ImageError, match=r"stands twice|only in case"):
        plan(store, reference, annotations={"a": "b"})
    assert file.read_bytes() == before


def test_options_for_one_image(tmp_path: Path) -> None:
    make_layout(tmp_path, [{"a": b"1"}], architecture="arm64")
    for target in (Target(index_only=True), Target(descriptors=True)):
        with pytest.raises(InputError, match="one image"):
            annotate(tmp_path, {"a": "b"}, target)
    with pytest.raises(InputError, match="linux/arm64"):
        annotate(tmp_path, {"a": "b"}, platform("linux/amd64"))
    assert annotate(tmp_path, {"a": "b"}, platform("linux/arm64"))[1].changed
    assert annotate(tmp_path, {"a": "c"}, Target(all_children=True))[1].changed


def test_cut_off_before_the_tag_and_done_again(tmp_path: Path) -> None:
    three(tmp_path)

    class Cut(Layout):
        left = 2

        def put_manifest(self, manifest: Manifest, tag: str | None, *, expect: str | None = None) -> None:
            if not self.left:
                raise StoreError("cut")
            self.left -= 1
            super().put_manifest(manifest, tag, expect=expect)

    store, reference = Cut(tmp_path), at(tmp_path)[1]
    before = (tmp_path / "index.json").read_bytes()
    wish = {"annotations": {"a": "b"}, "target": Target(all_children=True)}
    planned = plan(store, reference, **wish)
    with pytest.raises(StoreError, match="cut"):
        apply(store, planned)
    assert (tmp_path / "index.json").read_bytes() == before
    store, _ = at(tmp_path)
    assert plan(store, reference, **wish) == planned
    assert apply(store, planned).new_digest == planned.new_digest == store.manifest("latest").digest
    with pytest.raises(TagMoved):
        apply(store, planned)


def test_of_one_configuration_each_image_gets_its_own(tmp_path: Path) -> None:
    """Two images that differ in their layers' compression alone have one configuration."""
    pair = [make_layout(tmp_path, [{"a": b"1"}], tag=None, compression=kind) for kind in ("gzip", "tar")]
    assert len({one.config.digest for one in pair}) == 1
    (tmp_path / "index.json").unlink()
    make_index(tmp_path, pair, tag="1")
    store, reference = Layout(tmp_path), parse(f"oci:{tmp_path}:1")
    wishes = {one.digest: ImageWish({}, labels={"n": str(number)}) for number, one in enumerate(pair)}
    apply(store, plan(store, reference, annotations={}, of_images=wishes, target=Target(all_children=True)))
    found = [store.manifest(entry.digest).config.digest for entry in store.manifest("1").descriptors]
    assert [ImageConfig.parse(read_blob(store, digest)).labels for digest in found] == [{"n": "0"}, {"n": "1"}]
