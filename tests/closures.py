"""The recorded EasyBuild closures: what real EasyBuild resolved each easyconfig to."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data" / "easybuild" / "closures"
SUFFIXES = (".json", ".json.gz")
#: The easyconfigs' names, without .eb.
NAMES = sorted(path.name.removesuffix(suffix) for suffix in SUFFIXES for path in FOLDER.glob(f"*{suffix}"))


def read(name: str) -> dict[str, Any]:
    """The closure of one easyconfig; the larger records are compressed."""
    plain, packed = (FOLDER / f"{name}{suffix}" for suffix in SUFFIXES)
    document: dict[str, Any] = json.loads(
        plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    )
    return document
