"""check --run where an engine starts nothing: what was found without it is told, and that it was not tried."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpc3build.reference import parse
from hpc3build.run import Completed
from hpc3build.stores.layout import Layout
from hpc3build.workflows.check import check
from tests.commands import hpc3build
from tests.images import make_layout

#: containers-storage as skopeo sees it: what is copied there is there.
SKOPEO = """\
if [ "$1" = copy ]; then for to; do :; done; echo "$*" >> copies; : > "${to##*:}"; exit; fi
for image; do :; done
[ -e "${image##*:}" ] && exec cat manifest
echo 'image not known' >&2; exit 1"""
BROKEN = {
    "docker": "",
    "podman": "echo 'crun: setrlimit `RLIMIT_NOFILE`: Operation not permitted' >&2; exit 126",
    "charliecloud": "echo 'no space left on device' >&2; exit 125",
}


def tools(folder: Path, podman: str) -> str:
    """A PATH with stand-ins for podman, buildah and skopeo, which has the layout ``l`` to bring."""
    layout = Layout(folder / "l")
    (folder / "manifest").write_bytes(layout.manifest("1").raw)
    (folder / "bin").mkdir()
    for tool, does in {"podman": podman, "skopeo": SKOPEO, "buildah": ""}.items():
        (folder / "bin" / tool).write_text(f"#!/bin/sh\ncd {folder}\n{does}\n")
        (folder / "bin" / tool).chmod(0o755)
    return f"{folder}/bin:/usr/bin:/bin"


@pytest.mark.parametrize("engine", BROKEN)
def test_an_engine_that_starts_nothing(engine: str, tmp_path: Path) -> None:
    make_layout(tmp_path / "l", [{"a": b""}], tag="1")
    env = {"PATH": tools(tmp_path, BROKEN[engine]), "DOCKER_HOST": f"unix://{tmp_path}/none"}
    argv = ("check", f"oci:{tmp_path}/l:1", "--run", engine)
    static = json.loads(hpc3build(*argv[:2], "--json").out)["findings"]
    done = hpc3build(*argv, "--json", env=env)
    assert done.status == 3 and "Traceback" not in done.err, done.err
    assert f"--run: the image was not tried: {engine} starts nothing here" in done.err
    (told,) = [finding for finding in json.loads(done.out)["findings"] if finding not in static]
    assert told["rule"] == "engine" and told["outcome"] == "UNKNOWN"
    text = hpc3build(*argv, env=env)
    assert text.status == 3 and "n/a" in text.out


@pytest.mark.parametrize("form", ["oci:{}/l", "oci-archive:{}/a"])
def test_an_image_that_a_digest_names_is_run(form: str, tmp_path: Path) -> None:
    """As the hint for an index says; skopeo takes no such name."""
    make_layout(tmp_path / "l", [{"a": b"1"}], tag="1")
    place = form.format(tmp_path)
    if place.startswith("oci-archive:"):
        with tarfile.open(tmp_path / "a", "w") as archive:
            archive.add(tmp_path / "l", "")
    env = {"PATH": tools(tmp_path, "exit 0")}
    digest = Layout(tmp_path / "l").manifest("1").digest
    done = hpc3build("check", f"{place}@{digest}", "--run", "podman", "--json", env=env)
    assert done.status == 1 and "Traceback" not in done.err, done.err
    assert "engine" not in {finding["rule"] for finding in json.loads(done.out)["findings"]}
    assert digest not in (tmp_path / "copies").read_text()


def test_an_interrupted_copy_leaves_no_image(tmp_path: Path) -> None:
    """skopeo may have finished when the interrupt is heard of."""
    make_layout(tmp_path / "l", [{"a": b""}], tag="1")
    asked: list[list[str]] = []

    def runner(argv: Sequence[str], **_: Any) -> Completed:
        asked.append([*argv])
        if argv[:2] == ["skopeo", "copy"]:
            raise KeyboardInterrupt
        return Completed(argv, 1, "", "image not known")

    with pytest.raises(KeyboardInterrupt):
        check(parse(f"oci:{tmp_path}/l:1"), ("podman",), runner)
    _, copy, removal = asked
    assert removal[:2] == ["buildah", "rmi"] and copy[-1] == f"containers-storage:{removal[2]}"
