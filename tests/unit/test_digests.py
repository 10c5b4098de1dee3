"""Images whose parts have digests of several algorithms: whatever is written, everything is found again by its name."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc3build.cli import main
from hpc3build.errors import TagMoved
from hpc3build.oci import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Manifest
from hpc3build.reference import parse
from hpc3build.rewrite import Target
from hpc3build.run import run
from hpc3build.stores import Store, open_store, read_blob
from hpc3build.stores.layout import Layout
from hpc3build.stores.referrers import Referrers
from hpc3build.workflows.annotate import Wish, annotate
from hpc3build.workflows.index import create
from tests.fake_registry import NAME, FakeRegistry
from tests.images import add_entry, layer_tar, put

ALGORITHM = st.sampled_from(["sha256", "sha512"])
IMAGE = st.fixed_dictionaries(
    {"content": st.sampled_from("ab"), "config": ALGORITHM, "layer": ALGORITHM, "manifest": ALGORITHM}
)
LONG = {"content": "a", "config": "sha512", "layer": "sha512", "manifest": "sha512"}


def image(path: Path, shape: Mapping[str, str]) -> dict[str, Any]:
    """An image in a layout, its parts under digests of the algorithms that ``shape`` names; its descriptor."""
    layer = put(path, OCI_LAYER, layer_tar({shape["content"]: b"1"}), shape["layer"])
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": put(path, OCI_CONFIG, json.dumps(config).encode(), shape["config"]),
        "layers": [layer],
    }
    return put(path, OCI_MANIFEST, json.dumps(document).encode(), shape["manifest"])


def index(path: Path, shapes: list[Mapping[str, str]], algorithm: str) -> dict[str, Any]:
    platform = {"os": "linux", "architecture": "amd64"}
    entries = [{**image(path, shape), "platform": platform} for shape in shapes]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return put(path, OCI_INDEX, json.dumps(document).encode(), algorithm)


def whole(store: Store, manifest: Manifest) -> Iterator[Manifest]:
    """A manifest and all below it, every descriptor followed by its digest and verified."""
    yield manifest
    for entry in manifest.descriptors:
        if manifest.is_index:
            yield from whole(store, store.manifest(entry.digest))
        else:
            assert len(read_blob(store, entry.digest)) == entry.size


WISHES = st.sampled_from(
    [
        Wish(),
        Wish(pairs={"foo.bar": "x"}),
        Wish(pairs={"foo.bar": "x"}, target=Target(all_children=True)),
        Wish(pairs={"foo.bar": "x"}, target=Target(all_children=True), labels=True),
        Wish(target=Target(all_children=True)),
    ]
)


@settings(max_examples=80)
@given(
    shapes=st.lists(IMAGE, min_size=1, max_size=3),
    algorithm=ALGORITHM,
    wish=WISHES,
    place=st.sampled_from(["", "oci:{}/to:1", "oci-archive:{}/to.tar:1"]),
)
def test_everything_is_found_again(shapes: list[dict[str, str]], algorithm: str, wish: Wish, place: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "from"
        path.mkdir()
        add_entry(path, index(path, shapes, algorithm), "1")
        add_entry(path, image(path, shapes[0]), "image")
        for tag in ("1", "image"):
            if tag == "image" and wish.target.all_children:
                wish = Wish(pairs=wish.pairs, labels=wish.labels)
            reference = parse(f"oci:{path}:{tag}")
            to = parse(place.format(folder)) if place else reference
            old = Layout(path).manifest(tag)
            result = annotate(reference, Wish(**{**vars(wish), "to": to if place else None}), run)
            with open_store(to, run) as store:
                new = store.manifest(to.tag)
                found = list(whole(store, new))
            if not wish.pairs:
                assert new.raw == old.raw and new.digest == old.digest
                assert result.changed == bool(place)
            else:
                assert new.annotations["foo.bar"] == "x" and new.digest.startswith("sha256:")
            if wish.labels or wish.target.all_children:
                assert all(one.annotations.get("foo.bar") == wish.pairs.get("foo.bar") for one in found)


@settings(max_examples=40)
@given(shapes=st.lists(IMAGE, min_size=1, max_size=3), place=st.sampled_from(["oci:{}/to:all", "oci-archive:{}/t:all"]))
def test_indexes_of_such_images(shapes: list[dict[str, str]], place: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "from"
        path.mkdir()
        for number, shape in enumerate(shapes):
            add_entry(path, image(path, shape), str(number))
        images = [parse(f"oci:{path}:{number}") for number in range(len(shapes))]
        to = parse(place.format(folder))
        create(to, images, run, first_as_default=True)
        with open_store(to, run) as store:
            names = {one.digest for one in whole(store, store.manifest("all")) if not one.is_index}
        assert names == {Layout(path).manifest(image.tag).digest for image in images}


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    path = tmp_path / "l"
    path.mkdir()
    add_entry(path, index(path, [LONG, {**LONG, "content": "b"}], "sha512"), "1")
    add_entry(path, image(path, LONG), "image")
    return path


@pytest.mark.parametrize("tag", ["1", "image"])
def test_such_an_image_comes_back_from_a_receipt(tmp_path: Path, layout: Path, tag: str) -> None:
    """Also where a garbage collector took what no tag named."""
    old = Layout(layout).manifest(tag)
    before = [one.digest for one in whole(Layout(layout), old)]
    receipt = str(tmp_path / "r.json")
    children = ["--all-children"] if tag == "1" else []
    assert main(["annotate", f"oci:{layout}:{tag}", "-a", "k=v", "--labels", *children, "--receipt", receipt]) == 0
    kept = Layout(layout)
    for one in list(whole(kept, old)):
        kept.blob_path(one.digest).unlink(missing_ok=True)
        if not one.is_index:
            kept.blob_path(one.config.digest).unlink(missing_ok=True)
    assert main(["annotate", "--undo", receipt]) == 0
    assert [one.digest for one in whole(kept, kept.manifest(tag))] == before


def test_a_digest_of_another_algorithm_is_the_same_image(layout: Path) -> None:
    old = Layout(layout).manifest("image")
    reference = parse(f"oci:{layout}:image")
    short = Manifest.parse(old.raw).digest
    assert old.digest.startswith("sha512:") and short.startswith("sha256:")
    with pytest.raises(TagMoved):
        annotate(reference, Wish(pairs={"k": "v"}, expect_digest=short[:-4] + "0000"), run)
    assert annotate(reference, Wish(pairs={"k": "v"}, expect_digest=short), run).changed


def test_a_registry_names_by_its_own_algorithm(layout: Path, tmp_path: Path) -> None:
    """What is put by a tag has the registry's digest; what is put by its digest keeps it."""
    with FakeRegistry() as fake:
        for source in ("1", "image"):
            for pairs in ({}, {"k": "v"}):
                to = parse(f"{fake.host}/{NAME}:{source}{len(pairs)}")
                annotate(parse(f"oci:{layout}:{source}"), Wish(pairs=pairs, to=to, verify=True), run)
                again = annotate(parse(f"oci:{layout}:{source}"), Wish(pairs=pairs, to=to), run)
                assert not again.changed
                with open_store(to, run) as store:
                    found = list(whole(store, store.manifest(to.tag)))
                assert found[0].digest.startswith("sha256:")
                assert all(one.digest.startswith("sha512:") for one in found[1:])
        fake.add(layout)
        tag = f"{fake.host}/{NAME}:image"
        digest = fake.tags[NAME]["image"]
        assert digest.startswith("sha512:")
        assert annotate(parse(f"{tag}@{digest}"), Wish(pairs={"k": "w"}), run).changed
        with open_store(parse(tag), run) as store:
            assert store.manifest("image").annotations == {"k": "w"}


@pytest.mark.parametrize("archive", [False, True])
def test_what_refers_to_such_an_image_follows_it(tmp_path: Path, layout: Path, archive: bool) -> None:
    reference = parse(f"oci:{layout}:image")
    if archive:
        to = parse(f"oci-archive:{tmp_path}/a.tar:image")
        annotate(reference, Wish(to=to), run)
        reference = to
    attached = annotate(reference, Wish(pairs={"about": "x"}, attach=True), run)
    assert not annotate(reference, Wish(pairs={"about": "x"}, attach=True), run).changed
    assert attached.old_digest.startswith("sha512:")
    done = annotate(reference, Wish(pairs={"k": "v"}, referrers="move"), run)
    with open_store(reference, run) as store:
        assert isinstance(store, Referrers)
        for digest in (attached.old_digest, done.new_digest):
            (found,) = store.referrers(digest)
            assert found.annotations == {"about": "x"}
            assert [one.subject and one.subject.digest for one in whole(store, store.manifest(found.digest))] == [
                digest
            ]
