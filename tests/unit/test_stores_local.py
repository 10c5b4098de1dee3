"""containers-storage behind a skopeo in this process: what is put aside, and that it goes."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hpc3build.errors import ToolError
from hpc3build.evidence.layers import read_layers
from hpc3build.reference import parse
from hpc3build.run import Completed
from hpc3build.stores.local import LocalStore
from hpc3build.workflows.describe import image_layers
from tests.images import make_layout

NAME = "containers-storage:localhost/base:1"


class Skopeo:
    """An image of ``layers`` layers; its exports wait for each other for a moment, should there be two."""

    def __init__(self, folder: Path, layers: int) -> None:
        self.image = make_layout(folder, [{f"file{number}": b"x"} for number in range(layers)], tag="image")
        self._folder = folder
        self._both = threading.Barrier(2)
        self.exports = 0
        self.fails = 0

    def __call__(self, argv: Sequence[str], **_: Any) -> Completed:
        if argv[1] == "inspect":
            return Completed(tuple(argv), 0, self.image.raw.decode(), "")
        self.exports += 1
        if self.fails:
            self.fails -= 1
            return Completed(tuple(argv), 1, "", "no space left on device")
        with suppress(threading.BrokenBarrierError):
            self._both.wait(0.5)
        shutil.copytree(self._folder, argv[-1].split(":")[1], dirs_exist_ok=True)
        return Completed(tuple(argv), 0, "", "")


@pytest.fixture
def skopeo(tmp_path: Path) -> Skopeo:
    (tmp_path / "scratch").mkdir()
    return Skopeo(tmp_path / "image", 4)


def test_threads_share_one_export_and_it_goes(skopeo: Skopeo, tmp_path: Path) -> None:
    with LocalStore(parse(NAME), skopeo, tmp_path / "scratch") as store:
        found = read_layers(image_layers(store, store.manifest()), lambda path: 10, workers=4)
        assert sorted(found) == [f"/file{number}" for number in range(4)]
        assert len(list((tmp_path / "scratch").iterdir())) == 1
    assert skopeo.exports == 1 and list((tmp_path / "scratch").iterdir()) == []


def test_an_export_that_fails_leaves_nothing(skopeo: Skopeo, tmp_path: Path) -> None:
    skopeo.fails = 9
    with LocalStore(parse(NAME), skopeo, tmp_path / "scratch") as store:
        with pytest.raises(ToolError, match="no space left"):
            read_layers(image_layers(store, store.manifest()), lambda path: 10, workers=4)
        assert list((tmp_path / "scratch").iterdir()) == []
