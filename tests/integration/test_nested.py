"""Podman in Podman by ci/nested-build: as root on a machine where HPC3BUILD_TEST_USER has subordinate IDs. Minutes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.integration.support import ROOT, missing, sh

USER = os.environ.get("HPC3BUILD_TEST_USER", "")
pytestmark = [
    pytest.mark.engine,
    pytest.mark.long,
    pytest.mark.skipif(not USER or os.geteuid() != 0, reason="not root, or HPC3BUILD_TEST_USER names nobody"),
    pytest.mark.skipif(bool(missing("docker-registry", "crun")), reason=missing("docker-registry", "crun")),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the user can reach; pytest's own folders are root's."""
    path = Path(mkdtemp(prefix="hpc3build-nested-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path)


def test_a_user_builds_in_a_container(folder: Path) -> None:
    done = sh(ROOT / "ci" / "nested-build", USER, folder, timeout=1800)
    user = sh("id", "-u", USER).stdout.strip()
    assert f"UID 0 in the container, outside {user}" in done.stderr
    capabilities = int(re.search(r"CapEff:\s*([0-9a-f]+)", done.stderr)[1], 16)  # type: ignore[index]
    assert not capabilities >> 21 & 1, "CAP_SYS_ADMIN"
    assert "\nCONFORMS\n" in done.stdout
    assert re.fullmatch(r"127\.0\.0\.1:\d+/hpc/mpi-hello@sha256:[0-9a-f]{64}", done.stdout.splitlines()[-1])
