"""From what the engine exported to the layout that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from hpc3build import rewrite
from hpc3build.engines import Engine
from hpc3build.errors import InputError
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.stores import read_blob
from hpc3build.stores.layout import Layout
from hpc3build.workflows.publish import check_place, publish, readable
from tests.images import make_layout

PAIRS = {"org.example.a": "1"}


@pytest.mark.parametrize("said", [{}, PAIRS], ids=["rewritten", "as the engine had it"])
def test_the_layout_is_whole(said: dict[str, str], tmp_path: Path) -> None:
    """Also where the engine gave an image of ours out of its cache: nothing of it is replaced, nothing goes."""
    made = make_layout(tmp_path / "engine", [{"a": b"1"}], annotations=said, labels=said, tag="built")
    with Layout(tmp_path / "engine") as store:
        plan = rewrite.plan(store, parse(f"oci:{tmp_path}/engine:built"), annotations=PAIRS, labels=PAIRS)
        digest = publish(store, plan, parse(f"oci:{tmp_path}/out:1"), run)
    with Layout(tmp_path / "out") as out:
        manifest = out.manifest("1")
        assert manifest.digest == digest and (digest == made.digest) == bool(said)
        for descriptor in (manifest.config, *manifest.layers):
            assert len(read_blob(out, descriptor.digest)) == descriptor.size
    left = {path.name for path in (tmp_path / "out" / "blobs" / "sha256").iterdir()}
    assert left == {one.digest[7:] for one in (manifest.config, *manifest.layers)} | {digest[7:]}


@pytest.mark.parametrize("place", ["docker://localhost:1/app@", "oci:{}/out@", "oci:{}/out:1@", "containers-storage:@"])
def test_nobody_chooses_a_digest(place: str, tmp_path: Path) -> None:
    digest = "a" * 64 if place.startswith("containers") else f"sha256:{'a' * 64}"
    with pytest.raises(InputError, match="a digest cannot be chosen"):
        check_place(parse(place.format(tmp_path) + digest), run)
    assert str(check_place(parse(f"oci:{tmp_path}/out"), run)) == f"oci:{tmp_path}/out:latest"


class Exporting:
    """The part of an engine that ``readable`` needs; it notes where it exported to and which files the layers are."""

    store = "containers-storage"
    folder: Path

    def export(self, image: str, layout: Path, tag: str) -> None:
        self.folder = layout
        made = make_layout(layout, [{"a": b"1"}, {"b": b"2"}], tag=tag)
        self.layers = {one.digest: inode(layout, one.digest) for one in made.layers}


def inode(layout: Path, digest: str) -> int:
    return (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).stat().st_ino


@pytest.mark.parametrize("there", [False, True], ids=["new", "beside another image"])
def test_a_layer_is_written_once(there: bool, tmp_path: Path) -> None:
    """The file that the engine exported, beside the layout so that it can be renamed, is the layout's in the end."""
    engine, target = Exporting(), parse(f"oci:{tmp_path}/place/out:1")
    if there:
        make_layout(tmp_path / "place" / "out", [{"c": b"3"}], tag="other")
    with readable(cast(Engine, engine), "image", target, run) as (store, built):
        plan = rewrite.plan(store, built, annotations=PAIRS, labels=PAIRS)
        publish(store, plan, target, run)
    assert engine.folder.parent == tmp_path / "place" and not engine.folder.exists()
    assert {digest: inode(tmp_path / "place" / "out", digest) for digest in engine.layers} == engine.layers
