"""The least NVIDIA driver by CUDA toolkit, each number with the page it stands on.

``confirmed`` is False for what no primary page says in these digits: such a number is warned about, never decides that
an image does not run, and is never written on one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType

GUIDE = "docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"
NOTES = "docs.nvidia.com/cuda/cuda-toolkit-release-notes, table of toolkit driver versions"
BRANCHES = "docs.nvidia.com/cuda/cuda-toolkit-release-notes of CUDA 13.4, which names the driver's branch alone"


@dataclass(frozen=True)
class Row:
    """A value with its source."""

    value: str
    source: str
    confirmed: bool = True


#: Least driver of a CUDA major release: within it, newer minor releases run on that driver too.
FAMILIES = MappingProxyType(
    {
        11: Row("450.80.02", f"{GUIDE}, its note on CUDA 11.0"),
        12: Row("525.60.13", f"release notes of CUDA 12.2; {GUIDE} says 525"),
        13: Row("580", GUIDE),
    }
)
#: Driver of a toolkit's first release: it compiles PTX of that toolkit; before CUDA 11 it is also the least driver.
TOOLKITS = MappingProxyType(
    {
        (10, 0): Row("410.48", NOTES),
        (10, 1): Row("418.39", NOTES),
        (10, 2): Row("440.33", NOTES),
        (11, 0): Row("450.36.06", NOTES),
        (11, 1): Row("455.23", NOTES),
        (11, 2): Row("460.27.03", NOTES),
        (11, 3): Row("465.19.01", NOTES),
        (11, 4): Row("470.42.01", NOTES),
        (11, 5): Row("495.29.05", NOTES),
        (11, 6): Row("510.39.01", NOTES),
        (11, 7): Row("515.43.04", NOTES),
        (11, 8): Row("520.61.05", NOTES),
        (12, 0): Row("525.60.13", NOTES),
        (12, 1): Row("530.30.02", NOTES),
        (12, 2): Row("535.54.03", NOTES),
        (12, 3): Row("545.23.06", NOTES),
        (12, 4): Row("550.54.14", NOTES),
        (12, 5): Row("555.42.02", NOTES),
        (12, 6): Row("560.28.03", NOTES),
        (12, 8): Row("570.26", NOTES),
        (12, 9): Row("575.51.03", NOTES),
        (13, 0): Row("580.65.06", NOTES),
        (13, 1): Row("590.44.01", NOTES),
        (13, 2): Row("595.45.04", NOTES),
        (13, 3): Row("610", BRANCHES, confirmed=False),
        (13, 4): Row("615", BRANCHES, confirmed=False),
    }
)


def least(cuda: str) -> Row | None:
    """The least driver for machine code of a toolkit: its family's, before CUDA 11 its own."""
    release = _release(cuda)
    if release is None:
        return None
    return FAMILIES.get(release[0]) or (TOOLKITS.get(release) if release[0] < 11 else None)


def own(cuda: str) -> Row | None:
    """The driver that knows all of a toolkit, its PTX, too."""
    release = _release(cuda)
    return TOOLKITS.get(release) if release is not None else None


def _release(cuda: str) -> tuple[int, int] | None:
    """``12.4.1`` as (12, 4); a major release alone is its first minor one."""
    found = re.match(r"(\d{1,4})(?:\.(\d{1,4}))?(?!\d)", cuda)
    return (int(found[1]), int(found[2] or 0)) if found else None
