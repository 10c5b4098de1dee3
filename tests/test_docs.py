"""The examples of README and docs run as they are written."""

from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc3build.workflows.annotate import annotate
from hpc3build.workflows.check import check
from hpc3build.workflows.describe import describe, facts_of
from hpc3build.workflows.inspect import inspect
from hpc3build.workflows.match import choose
from tests.exported import CUDA, P
from tests.images import make_layout

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "recipes").glob("*/README.md")))
EXAMPLES = [
    (page.relative_to(ROOT).as_posix(), match.group(1).split(" #")[0].strip())
    for page in PAGES
    for match in re.finditer(r"^ {4}(hpc3build .*)$", page.read_text(), re.MULTILINE)
]


def test_there_are_examples() -> None:
    assert {page for page, _ in EXAMPLES} >= {"README.md"}
    assert len({command.split()[1] for _, command in EXAMPLES}) >= 6


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "hpc3build", *shlex.split(command)[1:]]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the recipes, and images where the examples have theirs: one that says nothing, and one much."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    make_layout(tmp_path / "out" / "mpi-hello", [{"etc/os-release": b"ID=debian\nVERSION_ID=12\n"}], tag="1.0")
    said = {**CUDA, f"{P}documentation": base64.b64encode(b"# GROMACS\n").decode()}
    config = {"Env": ["PATH=/opt/gromacs/bin:/usr/bin"]}
    make_layout(tmp_path / "out" / "gromacs", [{"a": b"1"}], labels=said, config=config, tag="2024.4")
    return tmp_path


@pytest.mark.parametrize(
    ("page", "command"), [(page, command) for page, command in EXAMPLES if " build " not in command]
)
def test_example(page: str, command: str, checkout: Path) -> None:
    if re.search(r"\.eb|recipes/(mpi-hello|pytorch)", command):
        pytest.importorskip("easybuild")
    done = run(re.sub(r" --(run|smoke) \S+", "", command), checkout)
    # The made-up image conforms to nothing; every other example succeeds.
    assert done.returncode == (1 if " check " in command else 0), done.stderr
    assert done.stdout or (" --context " in command and (checkout / "out" / "context" / "Containerfile").is_file())


LIBRARY = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/library.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("function", [annotate, check, choose, describe, facts_of, inspect])
def test_functions_say_what_they_raise(function: Callable[..., object]) -> None:
    said = (function.__doc__ or "").partition("Raises")[2]
    assert "InputError" in said
    assert {"StoreError", "ImageError"} <= set(re.findall(r"\w+Error", said)) or "what" in said


def test_the_library_has_examples() -> None:
    assert len(LIBRARY) == 3


#: The examples' image as the README builds it says this; the other says nothing.
BUILT = {
    "io.github.hpc3build.vocabulary": "0",
    f"{P}gpu": "none",
    f"{P}hardware.cpu.optimized.version": "x86_64",
    f"{P}mpi": "none",
}


@pytest.mark.parametrize("said", [{}, BUILT], ids=["silent", "built"])
@pytest.mark.parametrize("program", LIBRARY, ids=lambda program: program.split()[-3])
def test_library(program: str, said: dict[str, str], checkout: Path) -> None:
    """Each prints what it says, of several values one."""
    shutil.rmtree(checkout / "out" / "mpi-hello")
    release = {"etc/os-release": b"ID=debian\nVERSION_ID=12\n"}
    make_layout(checkout / "out" / "mpi-hello", [release], annotations=said, labels=said, tag="1.0")
    (checkout / "spack.lock").symlink_to(ROOT / "tests/data/spack/envs/v0.20.3-seed-gromacs-cuda/spack.lock")
    assert run("hpc3build fingerprint --fast -o host.json", checkout).returncode == 0
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", program], cwd=checkout, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    told = [re.split(", | or ", text) for text in re.findall(r"# prints (.*)", program)]
    printed = done.stdout.splitlines()
    assert len(printed) == len(told)
    assert [line for line, values in zip(printed, told, strict=True) if line not in values] == []
