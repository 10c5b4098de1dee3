"""Finds containerfiles/, plugins/, ci/ and recipes/, in a checkout and in an installed wheel alike."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """The folder of that name. Raises FileNotFoundError for a broken installation."""
    for place in (_PACKAGE / "_shared" / name, _PACKAGE.parent / name):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"hpc3build is not completely installed: its folder {name} is missing")


def spack_extension() -> str:
    """The folder for Spack's ``config:extensions``. Spack calls it too, where hpc3build is in its own Python."""
    return str(folder("plugins") / "spack-hpc3")


def easybuild_hooks() -> Path:
    """The file for ``eb --hooks``."""
    return folder("plugins") / "easybuild" / "hooks.py"
