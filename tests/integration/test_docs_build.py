"""The examples of README and docs that build."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.support import sh
from tests.test_docs import EXAMPLES, ROOT, run


@pytest.mark.long
@pytest.mark.engine
@pytest.mark.parametrize(
    ("page", "command"), [(page, command) for page, command in EXAMPLES if " build recipes/mpi-hello" in command]
)
def test_build_example(page: str, command: str, tmp_path: Path, base: str) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    done = run(f"{command} --base {base}", tmp_path)
    for name in re.findall(r"containers-storage:(\S+)", command):
        sh("buildah", "rmi", name, check=False)
    assert done.returncode == 0, done.stderr
