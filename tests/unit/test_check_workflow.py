"""check --run where an engine starts nothing: what was found without it is told, and that it was not tried."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpc3build.reference import parse
from hpc3build.run import Completed
from hpc3build.workflows.check import check
from tests.commands import hpc3build
from tests.images import make_layout

BROKEN = {
    "docker": "",
    "podman": "echo 'crun: setrlimit `RLIMIT_NOFILE`: Operation not permitted' >&2; exit 126",
    "charliecloud": "echo 'no space left on device' >&2; exit 125",
}


@pytest.mark.parametrize("engine", BROKEN)
def test_an_engine_that_starts_nothing(engine: str, tmp_path: Path) -> None:
    make_layout(tmp_path / "l", [{"a": b""}], tag="1")
    (tmp_path / "bin").mkdir()
    for tool, does in {"podman": BROKEN[engine], "skopeo": "", "buildah": ""}.items():
        (tmp_path / "bin" / tool).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / tool).chmod(0o755)
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "DOCKER_HOST": f"unix://{tmp_path}/none"}
    argv = ("check", f"oci:{tmp_path}/l:1", "--run", engine)
    static = json.loads(hpc3build(*argv[:2], "--json").out)["findings"]
    done = hpc3build(*argv, "--json", env=env)
    assert done.status == 3 and "Traceback" not in done.err, done.err
    assert f"--run: the image was not tried: {engine} starts nothing here" in done.err
    (told,) = [finding for finding in json.loads(done.out)["findings"] if finding not in static]
    assert told["rule"] == "engine" and told["outcome"] == "UNKNOWN"
    text = hpc3build(*argv, env=env)
    assert text.status == 3 and "n/a" in text.out


def test_an_interrupted_copy_leaves_no_image(tmp_path: Path) -> None:
    """skopeo may have finished when the interrupt is heard of."""
    make_layout(tmp_path / "l", [{"a": b""}], tag="1")
    asked: list[list[str]] = []

    def runner(argv: Sequence[str], **_: Any) -> Completed:
        asked.append([*argv])
        if argv[0] == "skopeo":
            raise KeyboardInterrupt
        return Completed(argv, 0, "", "")

    with pytest.raises(KeyboardInterrupt):
        check(parse(f"oci:{tmp_path}/l:1"), ("podman",), runner)
    copy, removal = asked
    assert removal[:2] == ["buildah", "rmi"] and copy[-1] == f"containers-storage:{removal[2]}"
