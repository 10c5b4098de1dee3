"""Building straight into a registry, with and without a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.registries import KINDS
from tests.integration.support import Built, hpc3build, sh
from tests.integration.test_registry import PASSWORD, USER, guarded, home, host

pytestmark = [pytest.mark.engine, pytest.mark.skipif(not KINDS, reason="not installed: docker-registry")]
__all__ = ["guarded", "home", "host"]  # fixtures of the real registries

RECIPE = "recipes/mpi-hello"


def test_build_pushes_the_same_pairs(mpi_hello: Built, host: str) -> None:
    name = f"{host}/site/mpi-hello:1.0"
    done = hpc3build("build", RECIPE, "--base", mpi_hello.base, "--engine", "buildah", "-t", name)
    digest = done.stdout.split()[-1]
    assert done.stdout.splitlines()[-1] == f"docker://{name} {digest}"
    inspected = sh("skopeo", "inspect", "--tls-verify=false", f"docker://{name}")
    assert digest in inspected.stdout and '"org.supercontainers.mpi": "openmpi"' in inspected.stdout
    assert hpc3build("check", name, "--run", "podman").returncode == 0


def test_a_registry_that_refuses_is_told_before_anything_is_built(guarded: str, base: str) -> None:
    argv = ["build", RECIPE, "--base", base, "--engine", "buildah", "-t", f"{guarded}/site/mpi-hello:1.0"]
    refused = hpc3build(*argv, check=False)
    assert refused.returncode == 4 and "401" in refused.stderr and "STEP" not in refused.stderr
    wrong = hpc3build(*argv, "--username", USER, "--password-stdin", check=False, input="wrong\n")
    assert wrong.returncode == 4 and "wrong" not in wrong.stderr.replace("hint", "")


def test_a_password_from_standard_input(mpi_hello: Built, guarded: str, tmp_path: Path) -> None:
    name = f"{guarded}/site/mpi-hello:1.0"
    argv = ["build", RECIPE, "--base", mpi_hello.base, "--engine", "buildah", "-t", name]
    done = hpc3build(*argv, "--username", USER, "--password-stdin", input=f"{PASSWORD}\n")
    assert PASSWORD not in done.stdout + done.stderr
    assert done.stdout.split()[-2] == f"docker://{name}"
