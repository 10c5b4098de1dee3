"""The same recipe gives the same bytes and modes, whatever the locale, the time zone, the hash seed and the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import ROOT, hpc3build

HERE = {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "1", "PYTHONUTF8": "0", "SOURCE_DATE_EPOCH": None}
THERE = {
    "LC_ALL": "tr_TR.UTF-8",
    "LANG": "tr_TR.UTF-8",
    "TZ": "Pacific/Apia",
    "PYTHONHASHSEED": "2",
    "SOURCE_DATE_EPOCH": "86400",
}


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): (file.stat().st_mode, file.read_bytes()) for file in files}


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("recipes/hello-spack", []),
        ("tests/data/spack/envs/matrix", ["--concretize", "builder", "--format", "apptainer"]),
        ("tests/data/spack/envs/v0.20.3-seed-gromacs-cuda", ["--base", "debian:12", "--spack-ref", "v0.20.3"]),
    ],
)
def test_same_bytes(recipe: str, options: list[str], tmp_path: Path) -> None:
    trees = []
    for name, env in (("one", HERE), ("two", THERE)):
        (tmp_path / name).mkdir()
        done = hpc3build("render", ROOT / recipe, *options, "--context", "context", cwd=tmp_path / name, env=env)
        assert done.status == 0, done.err
        trees.append(tree(tmp_path / name / "context"))
    assert trees[0] == trees[1] and len(trees[0]) > 5
