"""``--to``: from every place to every place, everything that the image needs, and nothing half-written."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import pytest

from hpc3build.errors import ImageError, StoreError
from hpc3build.oci import Descriptor, Manifest
from hpc3build.reference import parse
from hpc3build.rewrite import apply, plan, transfer
from hpc3build.run import run
from hpc3build.stores import Store, open_store, open_target, read_blob
from hpc3build.stores.archive import Archive
from hpc3build.stores.layout import Layout
from hpc3build.stores.new_archive import NewArchive
from hpc3build.stores.tarmap import header_block
from hpc3build.workflows.annotate import Wish, annotate
from tests.images import make_index, make_layout

FILES = {"bin/app": b"x" * 700_000, "small": b"1"}


def whole(store: Store, manifest: Manifest) -> list[bytes]:
    """Every blob below a manifest, verified by the store."""
    if manifest.is_index:
        return [blob for entry in manifest.descriptors for blob in whole(store, store.manifest(entry.digest))]
    return [read_blob(store, descriptor.digest) for descriptor in manifest.descriptors]


@pytest.mark.parametrize("kind", ["image", "index"])
def test_through_all_places_of_files(tmp_path: Path, kind: str) -> None:
    one = make_layout(tmp_path / "a", [FILES, {"b": b"2"}, {}], tag="1")
    if kind == "index":
        two = make_layout(tmp_path / "a", [{"c": b"3"}], tag=None, architecture="arm64")
        (tmp_path / "a" / "index.json").unlink()
        one = make_index(tmp_path / "a", [one, two], tag="1")
    blobs = whole(Layout(tmp_path / "a"), one)
    places = ["oci:a:1", "oci-archive:b.tar:1", "oci:c:1", "oci-archive:b.tar:2", "oci:a:copy"]
    places = [place.replace(":", f":{tmp_path}/", 1) for place in places]
    for source, target in pairwise(places):
        result = annotate(parse(source), Wish(pairs={"to": target}, to=parse(target)), run)
        with open_store(parse(target), run) as store:
            found = store.manifest(parse(target).tag)
            assert found.digest == result.new_digest and found.annotations == {"to": target}
            assert whole(store, found) == blobs
    assert Layout(tmp_path / "a").manifest("1").raw == one.raw
    with Archive(tmp_path / "b.tar") as archive:
        assert archive.tags() == ("1", "2")
    with tarfile.open(tmp_path / "b.tar") as tar:
        names = [member.name for member in tar]
    assert len(names) == len(set(names)), "each blob is there once"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b.tar", "c"]


class Broken(Layout):
    """A source whose large blob ends early or is altered."""

    def blob(self, digest: str) -> AbstractContextManager[BinaryIO]:
        good = read_blob(Layout(self.path), digest)
        return io.BytesIO(good[:-1] if self.cut else good) if len(good) > 400 else io.BytesIO(good)

    cut = True


@pytest.mark.parametrize("place", ["oci:p:1", "oci-archive:new.tar:1", "oci-archive:old.tar:2"])
def test_what_is_cut_leaves_the_place_as_it_was(tmp_path: Path, place: str) -> None:
    make_layout(tmp_path / "a", [FILES], tag="1")
    make_layout(tmp_path / "o", [{"o": b"1"}], tag="1")
    annotate(parse(f"oci:{tmp_path}/o:1"), Wish(to=parse(f"oci-archive:{tmp_path}/old.tar:1")), run)
    target = parse(place.replace(":", f":{tmp_path}/", 1))
    with Broken(tmp_path / "a") as source, pytest.raises(ImageError):
        done = plan(source, parse(f"oci:{tmp_path}/a:1"), annotations={"a": "b"})
        with open_target(target, run) as store:
            transfer(source, store, done, target)
    assert not (tmp_path / "new.tar").exists() and not list(tmp_path.glob(".new-*"))
    with Archive(tmp_path / "old.tar") as old:
        assert old.tags() == ("1",) and whole(old, old.manifest("1"))
    if target.transport == "oci":
        assert Layout(tmp_path / "p").tags() == ()
        assert list((tmp_path / "p").rglob(".new-*")) == []


def test_a_descriptor_that_lies_about_its_size(tmp_path: Path) -> None:
    image = make_layout(tmp_path / "a", [FILES], tag="1")
    layer = image.layers[0]
    lie = Descriptor(layer.media_type, layer.digest, layer.size + 1)
    with Layout(tmp_path / "a") as source, NewArchive(tmp_path / "n.tar") as store:
        with pytest.raises(ImageError, match="its descriptor says"):
            store.copy_blob(lie, source)
        with pytest.raises(ImageError, match="its descriptor says"):
            Layout.create(tmp_path / "l").copy_blob(lie, source)


def test_a_file_that_came_meanwhile_stays(tmp_path: Path) -> None:
    image = make_layout(tmp_path / "a", [{}], tag="1")
    with NewArchive(tmp_path / "n.tar") as store:
        (tmp_path / "n.tar").write_text("precious")
        with pytest.raises(StoreError, match="exists"):
            store.put_manifest(image, "1")
    assert (tmp_path / "n.tar").read_text() == "precious" and not list(tmp_path.glob(".new-*"))


@pytest.mark.parametrize("refusal", ["EPERM", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EACCES"])
def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str) -> None:
    """The archive takes its place all the same, and no other file's."""

    def link(*_: object, **__: object) -> None:
        raise OSError(getattr(errno, refusal), os.strerror(getattr(errno, refusal)))

    monkeypatch.setattr(os, "link", link)
    image = make_layout(tmp_path / "a", [{}], tag="1")
    with Layout(tmp_path / "a") as source, NewArchive(tmp_path / "n.tar") as store:
        for blob in image.descriptors:
            store.copy_blob(blob, source)
        store.put_manifest(image, "1")
    with Archive(tmp_path / "n.tar") as made:
        assert whole(made, made.manifest("1"))
    test_a_file_that_came_meanwhile_stays(tmp_path / "a")
    with monkeypatch.context() as patch, NewArchive(tmp_path / "m.tar") as store:
        patch.setattr(os, "rename", link)
        patch.setattr(os, "replace", link)
        with pytest.raises(StoreError, match=r"m\.tar"):
            store.put_manifest(image, "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "n.tar"]


def test_a_new_archive_knows_what_it_was_given(tmp_path: Path) -> None:
    image = make_layout(tmp_path / "a", [{}], tag="1")
    with NewArchive(tmp_path / "n.tar") as store:
        store.put_manifest(image, None)
        assert store.manifest(image.digest) == image and store.tags() == ()
        for absent in (None, "1"):
            with pytest.raises(StoreError):
                store.manifest(absent)
        with pytest.raises(StoreError), store.blob(image.config.digest):
            pass


def test_a_member_of_more_than_8_gib() -> None:
    size = 9 << 30
    assert tarfile.TarInfo.frombuf(header_block("blobs/x", size), "utf-8", "strict").size == size


def test_in_place_and_back_into_the_same_layout(tmp_path: Path) -> None:
    image = make_layout(tmp_path / "a", [{}], tag="1")
    reference = parse(f"oci:{tmp_path}/a:1")
    with Layout(tmp_path / "a") as store:
        done = plan(store, reference, annotations={"a": "b"})
        other = transfer(store, store, done, reference.with_tag("2"), backup_tag="kept", here=True)
        assert other.changed and store.tags() == ("1", "2") and store.manifest("1") == image
        assert apply(store, done, verify=True).changed
        again = transfer(
            store,
            store,
            plan(store, reference, annotations={"a": "c"}),
            reference.with_tag("2"),
            backup_tag="kept",
            verify=True,
            here=True,
        )
        assert store.manifest("kept").annotations == {"a": "b"} and again.undo is not None
        assert again.undo.before == done.new_digest


@pytest.mark.parametrize("place", ["containers-storage:localhost/a:1", "docker-daemon:localhost/a:1"])
def test_engines_stores_take_single_images(tmp_path: Path, place: str) -> None:
    children = [make_layout(tmp_path / "a", [{name: b"1"}], tag=None, architecture=name) for name in ("amd64", "arm64")]
    (tmp_path / "a" / "index.json").unlink()
    make_index(tmp_path / "a", children, tag="1")
    with pytest.raises(StoreError, match="an index in") as told:
        annotate(parse(f"oci:{tmp_path}/a:1"), Wish(to=parse(place)), run)
    assert "digest" in told.value.hint


def test_by_digest_writes_no_tag(tmp_path: Path) -> None:
    """What an index will name: ``build --push-by-digest``."""
    make_layout(tmp_path / "a", [FILES], tag="1")
    target = Layout.create(tmp_path / "b")
    with Layout(tmp_path / "a") as source:
        done = plan(source, parse(f"oci:{tmp_path}/a:1"), annotations={"a": "b"})
        to = parse(f"oci:{tmp_path}/b@{done.new_digest}")
        first, second = (transfer(source, target, done, to) for _ in range(2))
    assert first.changed and not second.changed and first.undo is None
    assert target.tags() == () and target.manifest(done.new_digest).raw == done.new.raw
