"""Containerfiles of many recipes over many systems as other programs read them: hadolint and buildah.

buildah goes through every instruction of them, with its real context, mounts and stages, on one base that is there; in
place of running a command, /bin/sh -n reads it.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from hpc3build.recipe import Settings
from hpc3build.run import run
from hpc3build.workflows.render import render
from tests.integration.support import ROOT, sh

ENVS = ROOT / "tests/data/spack/envs"
#: Recipe and base; with a base, a lock that was made for another system is set aside.
RECIPES = {
    "recipes/gromacs-cuda": "amazonlinux:2",
    "recipes/hello-spack": "debian:12",
    "recipes/mpi-hello": "debian:12",
    "gromacs-openmpi-ucx": "ubuntu:24.04",
    "hdf5-mvapich2": "rockylinux:9",
    "gromacs-mpich": "centos:stream9",
    "matrix": "fedora:41",
    "no-mpi-plain": "opensuse/leap:15",
    "unify-false": "alpine:3",
    "osu-openmpi": "ubi9-minimal",
    "osu-openmpi-cuda": "nvidia/cuda:12.4.1-devel-ubi9",
    "lammps-rocm-gfx90a": "rocm/dev-ubuntu-24.04:6.2",
}
_BESIDE = Path(sys.executable).with_name("hadolint")
HADOLINT = _BESIDE if _BESIDE.exists() else shutil.which("hadolint")


def write(name: str, folder: Path) -> Path:
    """The build context of a recipe."""
    recipe = ROOT / name if "/" in name else ENVS / name
    if name == "recipes/mpi-hello":
        pytest.importorskip("easybuild")
    concretize = "builder" if (recipe / "spack.lock").exists() else None
    planned = render((str(recipe),), Settings(base=RECIPES[name], concretize=concretize), run)
    planned.context.write(folder)
    return folder / "Containerfile"


def test_these_are_enough() -> None:
    families = {re.split(r"[:/]", base)[0].rstrip("0123456789") for base in RECIPES.values()}
    assert len(RECIPES) >= 8 and len(families) >= 6


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint")
@pytest.mark.parametrize("name", RECIPES)
def test_hadolint(name: str, tmp_path: Path) -> None:
    done = sh(str(HADOLINT), "--config", ROOT / ".hadolint.yaml", "--no-color", write(name, tmp_path), check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint")
def test_hadolint_sees_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM debian\nRUN sudo x\nENTRYPONT a\n")
    assert sh(str(HADOLINT), "--config", ROOT / ".hadolint.yaml", tmp_path / "Containerfile", check=False).returncode


def read_only(text: str, base: str) -> str:
    """The Containerfile on one base, its commands read by a shell and not run."""
    copied = re.findall(r"^COPY --from=builder (?:--chown=\S+ )?(\S+)", text, re.MULTILINE)
    made = "".join(f"RUN mkdir -p {path}\n" for path in copied)

    def stage(found: re.Match[str]) -> str:
        before = made if found.group(1) == "builder" else ""
        return f'FROM {base} AS {found.group(1)}\n{before}SHELL ["/bin/sh", "-n", "-c"]'

    return re.sub(r"^FROM \S+ AS (\w+)", stage, text, flags=re.MULTILINE)


def buildah(context: Path, text: str) -> str:
    """What buildah says of it; format docker, as SHELL is not known to OCI images."""
    (context / "ReadOnly").write_text(text)
    argv = ["buildah", "bud", "--format", "docker", "--layers=false", "--pull-never", "--iidfile", context / "id"]
    done = sh(*argv, "--file", context / "ReadOnly", context, check=False)
    if (context / "id").exists():
        sh("buildah", "rmi", (context / "id").read_text().strip())
        (context / "id").unlink()
    return done.stderr if done.returncode else ""


#: Of one recipe always, of the others where time does not matter.
CHOSEN = ["recipes/gromacs-cuda"]


@pytest.mark.engine
@pytest.mark.usefixtures("engine_env")
@pytest.mark.parametrize(
    "name", [*CHOSEN, *(pytest.param(name, marks=pytest.mark.long) for name in RECIPES if name not in CHOSEN)]
)
def test_buildah(name: str, base: str, tmp_path: Path) -> None:
    text = write(name, tmp_path).read_text()
    assert buildah(tmp_path, read_only(text, base)) == ""


@pytest.mark.long
@pytest.mark.engine
@pytest.mark.usefixtures("engine_env")
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("ENTRYPOINT [", "ENTRYPONT [", "Unknown instruction"),
        ("install.sh concretize", "install.sh (concretize", "exit status"),
        ("COPY hpc3build/site.sh ", "COPY hpc3build/nowhere.sh ", "nowhere.sh"),
    ],
)
def test_buildah_sees_what_is_wrong(old: str, new: str, words: str, base: str, tmp_path: Path) -> None:
    text = write("recipes/gromacs-cuda", tmp_path).read_text()
    assert old in text
    assert words in buildah(tmp_path, read_only(text.replace(old, new), base))
