"""Of an index in a layout podman takes the image that was picked, not the first entry."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from hpc3build.facts import vocabulary as voc
from tests.images import make_index, make_layout
from tests.integration.support import ROOT, hpc3build, missing, sh

pytestmark = [pytest.mark.engine, pytest.mark.skipif(bool(missing("podman")), reason=missing("podman"))]

PLAIN = {voc.GPU.name: "none", voc.MPI.name: "none"}


#: podman makes names of paths, and in names no part begins with a dot: so ~/.cache will not do.
FOLDERS = {
    "the cache": {"XDG_CACHE_HOME": "cache", "XDG_RUNTIME_DIR": "none", "TMPDIR": "none"},
    "the runtime folder": {"XDG_CACHE_HOME": ".cache", "XDG_RUNTIME_DIR": "runtime", "TMPDIR": "none"},
    "the temporary folder": {"XDG_CACHE_HOME": ".cache", "XDG_RUNTIME_DIR": "Run", "TMPDIR": ""},
}


@pytest.mark.parametrize("env", FOLDERS.values(), ids=FOLDERS)
@pytest.mark.parametrize("layout", ["layout", ".lab", "Lab"])
def test_podman_takes_the_picked_image(layout: str, env: dict[str, str], tmp_path: Path) -> None:
    images = [
        make_layout(tmp_path / layout, [{target: b"1"}], labels={**PLAIN, voc.CPU_VERSION.name: target}, tag=None)
        for target in ("zen4", "zen2")
    ]
    make_index(tmp_path / layout, images, tag="1")
    host = ROOT / "tests/data/hosts/zen2-slurm.probe"
    argv = ("run", f"oci:{tmp_path / layout}:1", "--host", host, "--engine", "podman", "--print", "--", "app")
    line = shlex.split(hpc3build(*argv, env={name: str(tmp_path / path) for name, path in env.items()}).stdout)
    taken = sh("podman", "pull", "--quiet", line[-2]).stdout.strip()
    try:
        found = json.loads(sh("podman", "image", "inspect", taken).stdout)[0]
        assert found["Digest"] == images[1].digest and found["Labels"][voc.CPU_VERSION.name] == "zen2"
    finally:
        sh("podman", "rmi", "--force", taken, check=False)


@pytest.mark.parametrize("layout", [".lab", "Lab"])
def test_podman_takes_one_image_whatever_its_folder_is_called(layout: str, tmp_path: Path) -> None:
    image = make_layout(tmp_path / layout, [{"a": b"1"}], labels={**PLAIN, voc.CPU_VERSION.name: "zen2"}, tag="1")
    argv = ("run", f"oci:{tmp_path / layout}:1", "--force", "--engine", "podman", "--print", "--", "app")
    line = shlex.split(hpc3build(*argv, env={"XDG_CACHE_HOME": str(tmp_path / "cache")}).stdout)
    taken = sh("podman", "pull", "--quiet", line[-2]).stdout.strip()
    try:
        assert json.loads(sh("podman", "image", "inspect", taken).stdout)[0]["Digest"] == image.digest
    finally:
        sh("podman", "rmi", "--force", taken, check=False)
