"""ci/demo, the README's first command, in a copy of the checkout that has nothing but its files; and once more."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.support import ROOT, sh

pytestmark = [pytest.mark.engine, pytest.mark.long]

LAYOUT = "oci:out/mpi-hello:1.0"


@pytest.fixture
def clone(base: str, tmp_path: Path) -> Iterator[Path]:
    """The image that the demo pulls into podman's store goes with it, unless it was there before."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "out", "dist", "*.egg-info")
    folder = Path(shutil.copytree(ROOT, tmp_path / "clone", ignore=ignored, symlinks=True))
    before = image_ids()
    yield folder
    if (folder / "out/mpi-hello").exists():
        raw = sh("skopeo", "inspect", "--raw", LAYOUT, cwd=folder).stdout
        image = json.loads(raw)["config"]["digest"].removeprefix("sha256:")
        if image in image_ids() - before:
            sh("podman", "rmi", "--no-prune", image)


def image_ids() -> set[str]:
    listed = sh("podman", "images", "--quiet", "--no-trunc").stdout.split()
    return {line.removeprefix("sha256:") for line in listed}


def demo(clone: Path) -> subprocess.CompletedProcess[str]:
    done = sh(clone / "ci/demo", cwd=clone, timeout=1800)
    # Where each fact came from: a table of key, value, source and evidence.
    sources = dict(re.findall(r"^(org\.supercontainers\.\S+) +\S+ +(stack|files|user) +\S", done.stdout, re.MULTILINE))
    assert sources["org.supercontainers.mpi.version"] == "stack" and sources["org.supercontainers.glibc"] == "files"
    assert sources["org.supercontainers.hardware.cpu.optimized.version"] == "stack"
    # What it says of itself, as written: run as a user that no passwd file knows, and checked.
    assert "org.supercontainers.mpi.implementation" in done.stdout.partition(f"{LAYOUT} sha256:")[2]
    assert re.search(r"^MPI library: Open MPI v4\.1\.4", done.stdout, re.MULTILINE)
    assert "CONFORMS" in done.stdout.splitlines()[-1]
    assert "12345:54321" in done.stderr and "Done in" in done.stderr
    return done


def test_the_demo_twice(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [demo(clone), demo(clone)]
    with capsys.disabled():  # told, never judged: it depends on the machine
        print("\nci/demo:", ", then ".join(re.findall(r"Done in (\d+ s)", done.stderr)[0] for done in runs))
    first, second = runs
    assert "installing hpc3build" in first.stderr
    assert "installing" not in second.stderr, "the second run is quick since it sets up nothing"
    # ... and what it builds is the image that is there.
    digests = [re.findall(rf"^{re.escape(LAYOUT)} (sha256:\S+)$", done.stdout, re.MULTILINE) for done in runs]
    assert digests[0] == digests[1] and len(digests[0]) == 1
