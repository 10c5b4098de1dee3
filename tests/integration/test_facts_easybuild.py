"""`hpc3build facts NAME.eb --json`, through the real EasyBuild: the answers worked out by hand from the rules."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support import hpc3build

EXPECTED = Path(__file__).resolve().parents[1] / "data" / "easybuild" / "expected"
# The closures are compared elsewhere: here it is the command line, once for each way to an answer.
QUICK = ("impi-2021.13.0-intel-compilers-2024.2.0", "NVHPC-25.9", "RAxML-8.2.13-gompi-2025a")
LONG = (
    "AdaptiveCpp-25.10.0-llvm-compilers-20.1.8-CUDA-12.9.1",
    "BLAST+-2.16.0-gompi-2023b",
    "ESPResSo-4.2.2-foss-2024a-CUDA-12.6.0",
    "HDF5-1.12.2-nvompi-2022.07",
    "HPCG-3.1-lmpflf-2025b",
    "OpenBabel-3.1.1-gompi-2022a",
    "QuantumESPRESSO-7.5-NVHPC-25.3-CUDA-12.8.0",
    "rocFFT-1.0.32-rocm-compilers-19.0.0-ROCm-6.4.1-nompi",
    "rompi-2025a",
)

pytestmark = [
    pytest.mark.easybuild,
    pytest.mark.skipif(importlib.util.find_spec("easybuild") is None, reason="not installed: the pinned EasyBuild"),
]


def facts(*argv: str) -> dict[str, Any]:
    return dict(json.loads(hpc3build("facts", *argv, "--json").stdout))


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in LONG)])
def test_facts_of_an_easyconfig_by_name(name: str) -> None:
    expected = json.loads((EXPECTED / f"{name}.json").read_text(encoding="utf-8"))
    plain = facts(f"{name}.eb")
    assert plain["annotations"] == expected["annotations"]
    assert [conflict["key"] for conflict in plain["conflicts"]] == expected["conflicts"]
    told = {fact["key"] for fact in plain["facts"]}
    assert told == set(expected["annotations"]) and not told & set(expected["undecided"])
    aimed = facts(f"{name}.eb", "--target", "x86_64_v3")
    assert aimed["annotations"] == {**expected["annotations"], **expected["with_target_x86_64_v3"]["annotations"]}
