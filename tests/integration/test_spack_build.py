"""recipes/hello-spack built by real Spack in a container, without internet: concretized there, then from that lock.

HPC3BUILD_TEST_SPACK names a folder with git clones `spack` (with the tag v1.1.0) and `spack-packages` (v2025.11.0).
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc3build.engines import ENTRY_POINT, How, launcher
from hpc3build.imageconfig import ImageConfig
from hpc3build.reference import DAEMON
from hpc3build.run import run
from tests.files_alone import contradictions, files_alone, records_alone
from tests.integration.conftest import loaded
from tests.integration.docker_daemon import daemon
from tests.integration.support import DEBIAN_OPENMPI, ROOT, Built, hpc3build, missing, sh

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


SECRET = "a-password-of-the-mirror"


def build(recipe: Path, layout: Path, base: str) -> str:
    """Build with a mirror that does not answer; what its file holds must be in no blob and in no log."""
    mirrors = layout.with_suffix(".yaml")
    mirrors.write_text(f"mirrors:\n  site: http://user:{SECRET}@127.0.0.1:9/mirror\n")
    sources = ["--spack-source", CLONES / "spack", "--packages-source", CLONES / "spack-packages"]
    # What is looked for in the log is said by steps that ran, not by an earlier run's layers.
    options = ["--engine", "buildah", "--no-cache", "--base", base, *sources, "--spack-mirrors", mirrors]
    done = hpc3build("build", recipe, "-t", f"oci:{layout}:1", *options, timeout=3000)
    for blob in (layout / "blobs/sha256").iterdir():
        data = blob.read_bytes()
        assert SECRET.encode() not in (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)
    assert SECRET not in done.stdout + done.stderr
    return done.stderr


def facts_are_right(built: Built) -> None:
    pairs = built.annotations
    assert {key: pairs.get(key) for key in EXPECTED} == EXPECTED
    done = built.podman("hello-mpi", options=("--user", "12345:54321"))
    assert "MPI library: Open MPI v4.1.4" in done.stdout and "ranks 1 sum 1" in done.stdout
    assert "CONFORMS" in hpc3build("check", built.reference, "--run", "podman").stdout
    assert f"{P}mpi.version" in hpc3build("facts", built.reference).stdout


@pytest.fixture(scope="module")
def concretized(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The recipe without a lock, built once: minutes."""
    layout = tmp_path_factory.mktemp("spack") / "one"
    log = build(ROOT / "recipes" / "hello-spack", layout, base)
    with loaded(layout, "1") as name:
        yield Built(layout, "1", name, base, "", log)


@pytest.mark.usefixtures("engine_env")
def test_concretized_in_the_builder_then_from_its_lock(concretized: Built, base: str, tmp_path: Path) -> None:
    first = concretized
    assert "==> Concretized 1 spec" in first.stderr
    facts_are_right(first)
    lock = sh("podman", "run", "--rm", "--pull=never", "--entrypoint", "", first.name, "cat", LOCK).stdout
    recipe = tmp_path / "hello-spack"
    shutil.copytree(ROOT / "recipes" / "hello-spack", recipe)
    (recipe / "spack.lock").write_text(lock)
    log = build(recipe, tmp_path / "two", base)
    assert "==> Concretized" not in log and "pip install" not in log
    assert re.search(r"Extracting hello-mpi-\S+ from binary cache", log), "signed, kept by the first build"
    with loaded(tmp_path / "two", "1") as name:
        second = Built(tmp_path / "two", "1", name, base, "", log)
        facts_are_right(second)
        assert sh("podman", "run", "--rm", "--pull=never", "--entrypoint", "", name, "cat", LOCK).stdout == lock
        assert second.annotations["io.github.hpc3build.lock"] == first.annotations["io.github.hpc3build.lock"]


def test_files_alone_never_contradict_the_lock(concretized: Built) -> None:
    """R9: equal, a bound that holds, or among the keys that docs/evidence.md says files cannot prove."""
    alone, records = files_alone(concretized.reference), records_alone(concretized.reference)
    assert contradictions(alone, records.annotations(), concretized.annotations) == []
    assert alone.annotations() == DEBIAN_OPENMPI


#: A batch job: nothing in it says how the image was made, nor which engine runs it.
JOB = """
set -eu
hello-mpi
mpirun --allow-run-as-root -n 2 --oversubscribe hello-mpi | sort
"""
ENGINES = {
    "podman": "podman",
    "buildah": "buildah",
    "charliecloud": "ch-run",
    "apptainer": "podman",
    "enroot": "podman",
}


@pytest.mark.parametrize("engine", [*ENGINES, "docker"])
def test_swapped_for_the_same_program_made_by_easybuild(
    engine: str, concretized: Built, base: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The job script stays; only the image's name changes, and the job says the same."""
    with contextlib.ExitStack() as stack:
        if engine == "docker":
            stack.enter_context(daemon(tmp_path_factory.mktemp("docker")))
        elif reason := missing(ENGINES[engine]):
            pytest.skip(reason)
        easybuild = stack.enter_context(same_by_easybuild(base, tmp_path))
        told = [job(engine, image) for image in (concretized, easybuild)]
    assert told[0] == told[1] and "ranks 2 sum 3" in told[0] and told[0].count("MPI library: Open MPI v4.1.4") == 3


def job(engine: str, image: Built) -> str:
    config = ImageConfig.parse(image.blob(image.manifest["config"]["digest"]))
    chosen = launcher(engine, run, config)
    name = image.name
    if chosen.store == DAEMON:
        hpc3build(
            "annotate", image.reference, "--to", f"docker-daemon:{name}", "--labels", "-a", "org.example.copied=1"
        )
    with chosen.prepared(name) as prepared:
        # What round an entry point is all that some engines know.
        how = How(user="65534:65534", stdin=JOB, entrypoint=ENTRY_POINT not in chosen.lacks, timeout=300)
        done = chosen.run(prepared, ["bash", "-s"], how)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def same_by_easybuild(base: str, folder: Path) -> Iterator[Built]:
    """The program of recipes/hello-spack, made by EasyBuild from the recipe of mpi-hello."""
    source, recipe = ROOT / "recipes" / "mpi-hello", folder / "hello-mpi"
    shutil.copytree(source, recipe)
    easyconfig = recipe / "mpi-hello-1.0-gompi-system.eb"
    (recipe / "hello-mpi-1.0-gompi-system.eb").write_text(easyconfig.read_text().replace("mpi-hello", "hello-mpi"))
    easyconfig.unlink()
    make = (recipe / "mpi-hello.mk").read_text().replace("mpi-hello", "hello-mpi")
    (recipe / "hello-mpi.mk").write_text(make)
    program = next((ROOT / "recipes" / "hello-spack").rglob("hello-mpi.c"))
    shutil.copy(program, recipe / "hello-mpi.c")
    settings = (recipe / "hpc3build.yaml").read_text().replace("mpi-hello", "hello-mpi")
    (recipe / "hpc3build.yaml").write_text(settings)
    layout = folder / "easybuild"
    hpc3build("build", recipe, "-t", f"oci:{layout}:1", "--engine", "buildah", "--base", base)
    with loaded(layout, "1") as name:
        yield Built(layout, "1", name, base, "", "")
