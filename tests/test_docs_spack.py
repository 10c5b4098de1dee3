"""The tables of docs/spack.md: every key and every thread has its row, and every row names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from hpc3build.frontends.spack_container import KEYS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "spack.md"
BESIDE, THEIRS = "## Beside `spack containerize`", "## What Spack's own tests check"
#: Threads of 2017 to 2026 in which users ask `spack containerize` for something.
THREADS = {
    "#22684", "#34825", "#37771", "#39353", "#28263", "#14917", "#40771", "#18030", "#34629", "#21910", "#16695",
    "#21242", "#37765", "#29741", "#37768", "#37769", "#37855", "#28427", "#14802", "#25938", "#46198", "#41708",
    "#15309", "#44232", "#40365", "seqeralabs/wave#316", "awslabs/palace#830", "boutproject/hermes-3#601",
    "BNLNPPS/simphony#357",
}  # fmt: skip
#: Their test functions, by file.
OF_SPACK = {
    "cli.py": 3,
    "docker.py": 11,
    "images.py": 3,
    "singularity.py": 3,
}


def rows(heading: str) -> list[list[str]]:
    table = PAGE.read_text(encoding="utf-8").split(heading)[1].split("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[1:]]


@pytest.mark.parametrize("heading", [BESIDE, THEIRS])
def test_every_row_names_tests_that_exist(heading: str) -> None:
    for row in rows(heading):
        named = re.findall(r"`(\w+)::(test_\w+)`", row[-1])
        assert len(row) == (5 if heading == BESIDE else 3) and named, row
        for module, test in named:
            (path,) = ROOT.glob(f"tests/*/{module}.py")
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (module, test)


def test_every_key_has_its_row() -> None:
    text = " ".join(row[0] for row in rows(BESIDE))
    keys = {*KEYS, "resolve_sha", "verify", "url", "ref", "command", "update", "build", "final", "runscript"}
    assert [key for key in keys if not re.search(rf"\b{key}\b", text)] == []


def test_every_thread_is_cited() -> None:
    cited = set(re.findall(r"[\w/.-]*#\d+", " ".join(row[1] for row in rows(BESIDE))))
    assert cited >= THREADS


def test_all_of_spacks_tests_are_listed() -> None:
    found = [row[0].split("`")[1] for row in rows(THEIRS)]
    assert {file: found.count(file) for file in OF_SPACK} == OF_SPACK and len(found) == sum(OF_SPACK.values())
