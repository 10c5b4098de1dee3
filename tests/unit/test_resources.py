"""Folders that ship with the package: each is found, and a broken installation says which is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc3build import resources


@pytest.mark.parametrize("name", ["containerfiles", "plugins", "ci", "recipes"])
def test_folders_of_the_checkout(name: str) -> None:
    assert resources.folder(name) == Path(__file__).resolve().parents[2] / name


def test_those_of_a_wheel_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside an installed package may lie another one's folder ``ci``."""
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "hpc3build")
    (tmp_path / "ci").mkdir()
    assert resources.folder("ci") == tmp_path / "ci"
    (tmp_path / "hpc3build/_shared/ci").mkdir(parents=True)
    assert resources.folder("ci") == tmp_path / "hpc3build/_shared/ci"
    with pytest.raises(FileNotFoundError, match="its folder plugins is missing"):
        resources.folder("plugins")


def test_what_other_programs_are_pointed_at_is_there() -> None:
    assert resources.easybuild_hooks().is_file() and Path(resources.spack_extension()).is_dir()
