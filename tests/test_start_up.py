"""What a command loads: start-up stays quick as long as heavy modules stay out.

Nothing here is timed: benchmarks/start_up.py measures ``--version``, at most three times ``python -c pass``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_registry import NAME, FakeRegistry
from tests.images import make_layout

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "tests/data/spack/envs/v0.20.3-seed-gromacs-cuda/spack.lock"
HEAVY = {"oras", "docker", "jinja2", "requests", "urllib3", "importlib.metadata", "easybuild", "rich"}
WATCH = """
import json, runpy, sys
sys.argv = ["hpc3build", *json.loads(sys.argv[1])]
try:
    runpy.run_module("hpc3build", run_name="__main__")
except SystemExit as stop:
    status = stop.code or 0
sys.stderr.write("\\n" + json.dumps([status, sorted(sys.modules)]))
"""


def loaded(*arguments: str | Path) -> tuple[int, set[str]]:
    """Exit status and modules of a command that ran in a fresh interpreter."""
    words = json.dumps([str(argument) for argument in arguments])
    done = subprocess.run([sys.executable, "-c", WATCH, words], capture_output=True, text=True, cwd=ROOT, check=True)
    status, modules = json.loads(done.stderr.splitlines()[-1])
    return status, set(modules)


def test_version_loads_next_to_nothing() -> None:
    status, modules = loaded("--version")
    ours = {name for name in modules if name.split(".")[0] == "hpc3build"}
    assert status == 0 and not modules & HEAVY
    assert ours <= {"hpc3build", "hpc3build.__main__", "hpc3build.cli", "hpc3build.errors"}
    assert not modules & {"ruamel.yaml", "archspec", "zstandard", "asyncio", "email", "subprocess"}


def test_facts_of_a_lock() -> None:
    status, modules = loaded("facts", LOCK, "--json")
    assert status == 0 and not modules & HEAVY
    assert "hpc3build.facts.cpu" in modules and "archspec" in modules, "the watcher sees what is loaded"


@pytest.mark.parametrize("command", [["inspect"], ["check"], ["annotate", "-a", "k=v"], ["facts"]], ids=lambda c: c[0])
def test_layouts_need_no_registry(command: list[str], tmp_path: Path) -> None:
    make_layout(tmp_path, [{"a": b"1"}])
    status, modules = loaded(*command, f"oci:{tmp_path}")
    assert status in (0, 1) and "hpc3build.stores.layout" in modules
    assert not modules & HEAVY


def test_the_watcher_would_see_a_heavy_module() -> None:
    status, modules = loaded("render", ROOT / "recipes/gromacs-cuda")
    assert status == 0 and "jinja2" in modules


@pytest.mark.parametrize("command", ["match", "pick"])
def test_matching_in_a_registry_needs_no_oras(command: str, tmp_path: Path) -> None:
    make_layout(tmp_path, [{"a": b"1"}], tag="1")
    host = ROOT / "tests/data/hosts/a100.probe"
    with FakeRegistry() as registry:
        registry.add(tmp_path)
        status, modules = loaded(command, f"{registry.host}/{NAME}:1", "--host", host, "--allow-unknown")
    assert status == 0 and "hpc3build.stores.registry" in modules
    assert not modules & (HEAVY | {"ruamel.yaml", "hpc3build.rewrite", "hpc3build.containerfile"})
