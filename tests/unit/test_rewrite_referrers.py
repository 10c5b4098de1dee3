"""What refers to an image: counted before its digest changes, kept up by the tag schema, and attached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc3build.errors import Contradiction, ImageError, InputError, StoreError, TagMoved
from hpc3build.oci import OCI_INDEX, OCI_MANIFEST, Manifest, digest_of
from hpc3build.reference import Reference, parse
from hpc3build.rewrite import Platform, Target, apply, attach, plan, plan_attachment
from hpc3build.stores import read_blob
from hpc3build.stores.archive import Archive
from hpc3build.stores.layout import Layout
from hpc3build.stores.referrers import ANNOTATIONS, Referrers, fallback_tag, names_no_image, with_referrer
from tests.images import add_entry, descriptor_of, make_document, make_layout
from tests.unit.test_stores_archive import pack

SBOM = "application/spdx+json"


def artifact(path: Path, subject: Manifest, *, kind: str = SBOM, tag: str | None = None, **pairs: str) -> Manifest:
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
    (path / "blobs" / "sha256" / empty["digest"][7:]).write_bytes(b"{}")  # type: ignore[index]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": empty,
        "layers": [empty],
        "subject": descriptor_of(subject),
        **({"annotations": pairs} if pairs else {}),
    }
    return make_document(path, document, tag=tag)


def listed(path: Path, subject: Manifest, *referrers: Manifest) -> Manifest:
    """The list of referrers under its tag, as a client without the API keeps it."""
    entries = [descriptor_of(one, artifactType=one.json["artifactType"], odd=1e2) for one in referrers]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return make_document(path, document, tag=fallback_tag(subject.digest))


def at(path: Path, tail: str = ":latest") -> tuple[Layout, Reference]:
    return Layout(path), parse(f"oci:{path}{tail}")


def test_they_are_counted_and_can_stop_a_plan(tmp_path: Path) -> None:
    old = make_layout(tmp_path, [{"a": b"1"}])
    sboms = [artifact(tmp_path, old, n=str(number)) for number in range(2)]
    bundle = artifact(tmp_path, old, kind="application/vnd.dev.sigstore.bundle.v0.3+json", tag="alone")
    listed(tmp_path, old, *sboms)
    add_entry(tmp_path, descriptor_of(sboms[0]), fallback_tag(old.digest) + ".sig")
    store, reference = at(tmp_path)
    assert isinstance(store, Referrers) and {one.digest for one in store.referrers(old.digest)} == {
        one.digest for one in (*sboms, bundle)
    }
    warning = " ".join(plan(store, reference, annotations={"a": "b"}).warnings)
    assert f"{old.digest} has 3 referrers (2 {SBOM}, 1 application/vnd.dev.sigstore.bundle.v0.3+json)" in warning
    assert "1 tag of cosign's" in warning and ".sig" in warning
    assert plan(store, reference, annotations={"a": "b"}, referrers="ignore").warnings == ()
    assert plan(store, reference, annotations={}).warnings == ()
    with pytest.raises(StoreError, match="3 referrers") as caught:
        plan(store, reference, annotations={"a": "b"}, referrers="refuse")
    assert "--attach" in caught.value.hint


def test_lists_are_no_images(tmp_path: Path) -> None:
    old = make_layout(tmp_path, [{"a": b"1"}], tag="v1")
    listed(tmp_path, old, artifact(tmp_path, old))
    store, reference = at(tmp_path, "")
    assert store.manifest() == old
    planned = plan(store, reference, annotations={"a": "b"})
    assert planned.tag == "v1" and apply(store, planned).changed


def test_the_images_of_an_index_are_looked_at_when_they_change(tmp_path: Path) -> None:
    old = make_layout(tmp_path, [{"a": b"1"}], tag=None)
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor_of(old)]}
    make_document(tmp_path, document, tag="latest")
    listed(tmp_path, old, artifact(tmp_path, old))
    store, reference = at(tmp_path)
    assert plan(store, reference, annotations={"a": "b"}).warnings == ()
    assert old.digest in plan(store, reference, annotations={"a": "b"}, target=Target(all_children=True)).warnings[0]


@pytest.mark.parametrize("archived", [False, True])
def test_an_artifact_keeps_its_subject_and_its_place(tmp_path: Path, archived: bool) -> None:
    layout = tmp_path / "layout"
    image = make_layout(layout, [{"a": b"1"}], tag="image")
    one, other = artifact(layout, image, n="1", tag="sbom"), artifact(layout, image, n="2")
    listed(layout, image, one, other)
    place = f"oci-archive:{pack(layout, tmp_path / 'a.tar')}" if archived else f"oci:{layout}"
    store: Any = Archive(tmp_path / "a.tar") if archived else Layout(layout)
    with store:
        reference = parse(f"{place}:sbom")
        planned = plan(store, reference, annotations={"a": "b"})
        result = apply(store, planned)
        new = store.manifest("sbom")
        assert new == one.with_annotations({"a": "b"}) and new.subject == one.subject
        found = store.manifest(fallback_tag(image.digest))
        assert [entry.digest for entry in found.descriptors] == [new.digest, other.digest]
        assert found.descriptors[0].artifact_type == SBOM and found.descriptors[0].annotations == new.annotations
        assert found.json["manifests"][1]["odd"] == 100.0
        assert result.written == (found.digest, new.digest) and any(one.digest in text for text in result.warnings)
        assert plan(store, reference, annotations={"a": "b"}).is_empty
        with pytest.raises(TagMoved):
            apply(store, planned)
        assert store.manifest("image") == image


def test_with_referrer(tmp_path: Path) -> None:
    image = make_layout(tmp_path, [{"a": b"1"}])
    one, two = artifact(tmp_path, image, n="1"), artifact(tmp_path, image, n="2")
    first = with_referrer(None, one, None)
    assert with_referrer(first, one, None) is first and with_referrer(first, one, one.digest) is first
    both = with_referrer(first, two, None)
    assert [entry.digest for entry in both.descriptors] == [one.digest, two.digest]
    assert [entry.digest for entry in with_referrer(both, two, one.digest).descriptors] == [two.digest]
    assert [entry.digest for entry in with_referrer(first, two, one.digest).descriptors] == [two.digest]
    with pytest.raises(ImageError, match="no index"):
        with_referrer(image, one, None)
    assert names_no_image(fallback_tag(image.digest)) and names_no_image(f"{fallback_tag(image.digest)}.att")
    assert not names_no_image("sha256-abc") and not names_no_image(None)
    assert fallback_tag("sha512:" + "a" * 128) == "sha512-" + "a" * 64


@pytest.mark.parametrize("archived", [False, True])
def test_attach(tmp_path: Path, archived: bool) -> None:
    layout = tmp_path / "layout"
    image = make_layout(layout, [{"a": b"1"}])
    place = f"oci-archive:{pack(layout, tmp_path / 'a.tar')}" if archived else f"oci:{layout}"
    store: Any = Archive(tmp_path / "a.tar") if archived else Layout(layout)
    with store:
        reference = parse(f"{place}:latest")
        result = attach(store, plan_attachment(store, reference, annotations={"k": "é", "a": "b"}))
        assert (result.old_digest, result.new_digest, result.changed) == (image.digest, image.digest, True)
        assert store.manifest("latest") == image
        (entry,) = store.referrers(image.digest)
        assert entry.artifact_type == ANNOTATIONS and entry.annotations == {"a": "b", "k": "é"}
        made = store.manifest(entry.digest)
        assert made.subject is not None and (made.subject.digest, made.subject.size) == (image.digest, image.size)
        assert read_blob(store, made.config.digest) == b"{}" == read_blob(store, made.layers[0].digest)
        assert result.written == (made.config.digest, made.digest, store.manifest(fallback_tag(image.digest)).digest)
        again = plan_attachment(store, reference, annotations={"k": "é", "a": "b"})
        assert again.manifests == () and not attach(store, again).changed
        more = plan_attachment(store, reference, annotations={"k": "2"})
        assert made.digest in more.warnings[0] and attach(store, more).changed
        assert len(store.referrers(image.digest)) == 2


def test_attach_to_images_of_an_index(tmp_path: Path) -> None:
    images = [make_layout(tmp_path, [{name: b"1"}], tag=None, architecture=name) for name in ("amd64", "arm64")]
    (tmp_path / "index.json").unlink()
    entries = [
        descriptor_of(one, platform={"os": "linux", "architecture": name})
        for one, name in zip(images, ("amd64", "arm64"), strict=True)
    ]
    index = make_document(tmp_path, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, tag="latest")
    store, reference = at(tmp_path)

    def subjects(**options: Any) -> list[str | None]:
        made = plan_attachment(store, reference, annotations={"a": "b"}, target=Target(**options)).manifests
        return [one.subject.digest if one.subject else None for one in made]

    assert subjects() == [index.digest]
    assert subjects(platforms=(Platform("linux", "arm64"),)) == [images[1].digest]
    assert subjects(all_children=True) == [one.digest for one in images]
    for options in ({"platforms": (Platform("plan9"),)}, {"index_only": True}, {"descriptors": True}):
        with pytest.raises(InputError):
            subjects(**options)


def test_attach_holds_the_rules(tmp_path: Path) -> None:
    image = make_layout(tmp_path, [{"a": b"1"}], labels={"k": "label"})
    store, reference = at(tmp_path)
    before = json.loads((tmp_path / "index.json").read_bytes())
    with pytest.raises(Contradiction, match="label"):
        plan_attachment(store, reference, annotations={"k": "v"})
    with pytest.raises(TagMoved):
        plan_attachment(store, reference, annotations={}, expect_digest="sha256:" + "0" * 64)
    with pytest.raises(InputError, match="linux/amd64"):
        plan_attachment(store, reference, annotations={}, target=Target(platforms=(Platform("plan9"),)))
    assert json.loads((tmp_path / "index.json").read_bytes()) == before and image


def test_a_store_without_referrers(tmp_path: Path) -> None:
    make_layout(tmp_path, [{"a": b"1"}])

    class Plain:
        def __init__(self, layout: Layout) -> None:
            self.manifest, self.blob, self.tags = layout.manifest, layout.blob, layout.tags
            self.put_manifest = layout.put_manifest

    store: Any = Plain(Layout(tmp_path))
    reference = parse(f"oci:{tmp_path}:latest")
    with pytest.raises(StoreError, match="attached"):
        plan_attachment(store, reference, annotations={"a": "b"})
    assert apply(store, plan(store, reference, annotations={"a": "b"})).changed
