"""recipes/hello-spack built by real Spack in a container, without internet: concretized there, then from that lock.

HPC3BUILD_TEST_SPACK names a folder with git clones `spack` (with the tag v1.1.0) and `spack-packages` (v2025.11.0).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.integration.conftest import loaded
from tests.integration.support import ROOT, Built, hpc3build, sh

CLONES = Path(os.environ.get("HPC3BUILD_TEST_SPACK") or "/nonexistent")
LOCK = "/opt/spack-environment/spack.lock"
P = "org.supercontainers."
EXPECTED = {
    f"{P}hardware.cpu.optimized.version": "x86_64_v2",
    f"{P}mpi": "openmpi",
    f"{P}mpi.version": "4.1.4",
    f"{P}communication.framework": "libfabric,ucx",
    f"{P}gpu": "none",
    "org.opencontainers.image.version": "1.0",
}

pytestmark = [
    pytest.mark.long,
    pytest.mark.engine,
    pytest.mark.skipif(
        not (CLONES / "spack").is_dir() or not (CLONES / "spack-packages").is_dir(),
        reason="HPC3BUILD_TEST_SPACK names no folder with the clones spack and spack-packages",
    ),
]


def build(recipe: Path, layout: Path, base: str) -> str:
    sources = ["--spack-source", CLONES / "spack", "--packages-source", CLONES / "spack-packages"]
    # What is looked for in the log is said by steps that ran, not by an earlier run's layers.
    options = ["--engine", "buildah", "--no-cache", "--base", base, *sources]
    return hpc3build("build", recipe, "-t", f"oci:{layout}:1", *options, timeout=1800).stderr


def facts_are_right(built: Built) -> None:
    pairs = built.annotations
    assert {key: pairs.get(key) for key in EXPECTED} == EXPECTED
    done = built.podman("hello-mpi", options=("--user", "12345:54321"))
    assert "MPI library: Open MPI v4.1.4" in done.stdout and "ranks 1 sum 1" in done.stdout
    assert "CONFORMS" in hpc3build("check", built.reference, "--run", "podman").stdout
    assert f"{P}mpi.version" in hpc3build("facts", built.reference).stdout


@pytest.mark.usefixtures("engine_env")
def test_concretized_in_the_builder_then_from_its_lock(base: str, tmp_path: Path) -> None:
    source = ROOT / "recipes" / "hello-spack"
    log = build(source, tmp_path / "one", base)
    assert "==> Concretized 1 spec" in log
    with loaded(tmp_path / "one", "1") as name:
        first = Built(tmp_path / "one", "1", name, base, "", log)
        facts_are_right(first)
        lock = sh("podman", "run", "--rm", "--pull=never", "--entrypoint", "", name, "cat", LOCK).stdout
    recipe = tmp_path / "hello-spack"
    shutil.copytree(source, recipe)
    (recipe / "spack.lock").write_text(lock)
    log = build(recipe, tmp_path / "two", base)
    assert "==> Concretized" not in log and "pip install" not in log
    with loaded(tmp_path / "two", "1") as name:
        second = Built(tmp_path / "two", "1", name, base, "", log)
        facts_are_right(second)
        assert sh("podman", "run", "--rm", "--pull=never", "--entrypoint", "", name, "cat", LOCK).stdout == lock
        assert second.annotations["io.github.hpc3build.lock"] == first.annotations["io.github.hpc3build.lock"]
