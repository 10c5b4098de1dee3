"""What the tests with real engines share: running the command line and the engines, and reading what was built."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "mpi-hello"
#: An authority for the site's bundle, always the same one: layers of earlier runs that the engine kept would show it.
SITE_CA = ROOT / "tests" / "data" / "site" / "ca.pem"
USERS = {"root": "0:0", "nobody": "65534:65534", "unknown": "12345:54321"}
#: What must never be found in what was built: values given to the build in its environment and as secrets.
MARKERS = {
    "a proxy password": "S3CRET-proxy-5d1c",
    "a pip setting": "s3cret-pip-5d1c.invalid",
    "a host without proxy": "s3cret-no-proxy-5d1c.invalid",
    "a password of apt's proxy": "S3CRET-apt-5d1c",
    "a comment of the CA bundle": "S3CRET-ca-5d1c",
    "a build secret": "S3CRET-file-5d1c",
}
#: What an MPI program on Debian 12 with its Open MPI says by its files alone, however it was made.
DEBIAN_OPENMPI = {
    "org.supercontainers.mpi": "openmpi",
    "org.supercontainers.mpi.implementation": "openmpi",
    "org.supercontainers.mpi.version": "4.1.4",
    "org.supercontainers.mpi.abi.version": "40.30.4",
    "org.supercontainers.mpi.portability.mode": "mpi_replace",
    "org.supercontainers.communication.framework": "libfabric,psm2,ucx,verbs",
    "org.supercontainers.libfabric.abi.version": "1.6",
    "org.supercontainers.pmi.version": "pmix-4.2.2",
    "org.supercontainers.kernel.version": "3.2.0",
    "org.supercontainers.libc.provider": "glibc",
    "org.supercontainers.glibc": "2.36",
    "org.supercontainers.os.vendor": "debian",
    "org.supercontainers.os.version": "12",
}


def missing(*tools: str) -> str:
    """The tools that are not installed, as a reason to skip; empty when all are there."""
    absent = [tool for tool in tools if shutil.which(tool) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def sh(
    *argv: str | Path,
    check: bool = True,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 600,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command; with ``check`` its streams are part of the assertion that fails."""
    done = subprocess.run(
        [str(part) for part in argv],
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=None if env is None else {**os.environ, **env},
        timeout=timeout,
        cwd=cwd,
        check=False,
    )
    assert not check or done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def hpc3build(*argv: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    return sh(sys.executable, "-m", "hpc3build", *argv, check=check, cwd=ROOT, **options)


@dataclass(frozen=True)
class Built:
    """One image that the command line really built, and its name in podman's store."""

    layout: Path
    tag: str
    name: str
    base: str
    stdout: str
    stderr: str

    @property
    def reference(self) -> str:
        return f"oci:{self.layout}:{self.tag}"

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads(self.blob(self.digest)))

    @property
    def digest(self) -> str:
        return digest_in(self.layout, self.tag) or ""

    @property
    def config(self) -> dict[str, Any]:
        return dict(json.loads(self.blob(self.manifest["config"]["digest"])))

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self.manifest["annotations"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.config["config"]["Labels"])

    def blob(self, digest: str) -> bytes:
        return (self.layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()

    def layers(self) -> Iterator[bytes]:
        """The layers' tars, oldest first."""
        for layer in self.manifest["layers"]:
            assert layer["mediaType"].endswith("+gzip"), layer
            yield gzip.decompress(self.blob(layer["digest"]))

    def podman(self, *argv: str, options: tuple[str, ...] = (), **rest: Any) -> subprocess.CompletedProcess[str]:
        return sh("podman", "run", "--rm", "--pull=never", *options, self.name, *argv, **rest)


def digest_in(layout: Path, tag: str) -> str | None:
    """What a tag of a layout names, read without the product."""
    index = layout / "index.json"
    if not index.exists():
        return None
    entries = json.loads(index.read_text())["manifests"]
    names = "org.opencontainers.image.ref.name"
    return next((entry["digest"] for entry in entries if entry.get("annotations", {}).get(names) == tag), None)


def parse_env(text: str) -> dict[str, str]:
    """The output of env, one line a variable."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def images() -> dict[str, str]:
    """Names of the images in the store, with their IDs; cached layers have no name."""
    argv = ("podman", "images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
    # It fails when another process removes an image while it lists them.
    done = sh(*argv, check=False)
    lines = (done if done.returncode == 0 else sh(*argv)).stdout.splitlines()
    return {name: digest for name, digest in (line.split() for line in lines) if not name.startswith("<none>")}


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file below ``folder`` with what changes when it is written or replaced."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        if path.is_file():
            found[str(path.relative_to(folder))] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found
