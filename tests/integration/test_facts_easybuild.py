"""`hpc3build facts NAME.eb --json`, through the real EasyBuild: the answers worked out by hand from the rules."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests import closures
from tests.integration.support import hpc3build

EXPECTED = Path(__file__).resolve().parents[1] / "data" / "easybuild" / "expected"
# Each is right for another reason: a provider as root, CUDA by the toolchain only, no planned MPI.
QUICK = {"impi-2021.13.0-intel-compilers-2024.2.0", "NVHPC-25.9", "RAxML-8.2.13-gompi-2025a"}

pytestmark = [
    pytest.mark.easybuild,
    pytest.mark.skipif(importlib.util.find_spec("easybuild") is None, reason="not installed: the pinned EasyBuild"),
]


def facts(*argv: str) -> dict[str, Any]:
    return dict(json.loads(hpc3build("facts", *argv, "--json").stdout))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in closures.NAMES]
)
def test_facts_of_an_easyconfig_by_name(name: str) -> None:
    expected = json.loads((EXPECTED / f"{name}.json").read_text(encoding="utf-8"))
    plain = facts(f"{name}.eb")
    assert plain["annotations"] == expected["annotations"]
    assert [conflict["key"] for conflict in plain["conflicts"]] == expected["conflicts"]
    told = {fact["key"] for fact in plain["facts"]}
    assert told == set(expected["annotations"]) and not told & set(expected["undecided"])
    aimed = facts(f"{name}.eb", "--target", "x86_64_v3")
    assert aimed["annotations"] == {**expected["annotations"], **expected["with_target_x86_64_v3"]["annotations"]}
