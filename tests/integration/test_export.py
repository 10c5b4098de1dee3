"""The line of ``export podman`` and the hook file of ``export sarus``, under the real podman."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.exported import CUDA, MPICH, P
from tests.images import make_layout
from tests.integration.support import ROOT, hpc3build, missing, sh

pytestmark = [pytest.mark.engine, pytest.mark.skipif(bool(missing("podman")), reason=missing("podman"))]

HOST = ROOT / "tests/data/hosts/mpich-4.2.probe"


def written(*arguments: str | Path) -> str:
    """What ``export`` prints."""
    return hpc3build("export", *arguments, "-q").stdout


@pytest.mark.parametrize(("tag", "fires"), [("mpich", True), ("openmpi", False)])
def test_the_hook_fires_for_the_line(tag: str, fires: bool, base: str, tmp_path: Path) -> None:
    """Values with commas are in both: podman 4 splits them, podman 5 does not, and this is one of the two."""
    make_layout(tmp_path / "l", [{"a": b"1"}], labels=MPICH, tag="mpich")
    cpus = {name: value for name, value in CUDA.items() if "gpu" not in name}
    make_layout(tmp_path / "l", [{"a": b"1"}], labels={**cpus, f"{P}gpu": "none"}, tag="openmpi")
    ran = tmp_path / "ran"
    script = tmp_path / "hook"
    script.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(ran))}\n")
    script.chmod(0o755)
    document = json.loads(written("sarus", f"oci:{tmp_path / 'l'}:mpich", "--host", HOST))
    document["hook"]["path"] = str(script)
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "05-mpi.json").write_text(json.dumps(document))
    line = shlex.split(written("podman", f"oci:{tmp_path / 'l'}:{tag}", "--image", base))
    assert line[:2] == ["podman", "run"] and line[-1] == base
    sh("podman", "--hooks-dir", tmp_path / "hooks", *line[1:], "true")
    assert ran.exists() is fires
