"""A real swap: where match says RUN by mpi_replace, the host's MPI is what the program gets; a DT_RPATH keeps its own.

The host's MPI libraries are those of PyPI's wheels mpich and impi-rt; the image has Debian's MPICH. Debian calls it
libmpich.so.12, so the host's library is bound over that file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc3build.facts import vocabulary as voc
from hpc3build.host.collect import collect
from hpc3build.host.interpret import interpret
from hpc3build.match import Match, Matcher
from hpc3build.run import run
from tests.integration.support import RECIPE, sh

pytestmark = [pytest.mark.engine, pytest.mark.long]

CONTAINERFILE = r"""
ARG BASE
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev libmpich-dev
COPY mpi-hello.c /src/
RUN mpicc.mpich -O2 -o /usr/local/bin/mpi-hello /src/mpi-hello.c && mkdir /opt/own && \
    cp -a /usr/lib/x86_64-linux-gnu/libmpich.so.12* /opt/own/ && \
    mpicc.mpich -O2 -Wl,--disable-new-dtags,-rpath,/opt/own -o /usr/local/bin/mpi-hello-rpath /src/mpi-hello.c
"""
LIBRARY = "/usr/lib/x86_64-linux-gnu/libmpich.so.12.2.2"
#: What evidence says of the image (rule R8); the twin is the same without a mode, as its DT_RPATH defeats a swap.
PAIRS = {
    voc.CPU_VERSION.name: "x86_64",
    voc.GPU.name: "none",
    voc.MPI.name: "mpich",
    voc.MPI_ABI.name: "12.2.2",
    voc.MPI_MODE.name: "mpi_replace",
    voc.LIBC_PROVIDER.name: "glibc",
    voc.GLIBC.name: "2.36",
}
TWIN = {key: value for key, value in PAIRS.items() if key != voc.MPI_MODE.name}


@pytest.fixture(scope="module")
def image(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("swap")
    (folder / "Containerfile").write_text(CONTAINERFILE)
    (folder / "mpi-hello.c").write_bytes((RECIPE / "mpi-hello.c").read_bytes())
    name = f"localhost/hpc3build-test-{uuid.uuid4().hex[:12]}:swap"
    sh("podman", "build", "--isolation", "chroot", "--quiet", "--build-arg", f"BASE={base}", "-t", name, folder)
    yield name
    sh("podman", "rmi", "--no-prune", name)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The data folders of both wheels; skipped where no package index answers."""
    folder = tmp_path_factory.mktemp("wheels")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), "mpich", "impi-rt"]
    if (done := subprocess.run(argv, capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"no package index: {done.stderr[-300:]}")
    found = {}
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / wheel.stem)
        wheel.unlink()
        data = next((folder / wheel.stem).glob("*.data/data"))
        for program in (data / "bin").iterdir():
            program.chmod(0o755)
        found["mpich" if wheel.name.startswith("mpich") else "impi"] = data
    return found


def matched(data: Path, pairs: dict[str, str]) -> Match:
    """As on a host whose module for that MPI is loaded."""
    environ = {"PATH": f"{data / 'bin'}:/usr/sbin:/sbin", "LD_LIBRARY_PATH": str(data / "lib")}
    probe = collect(Path("/"), environ, machine=os.uname().machine, user="nobody", runner=run)
    return Matcher(interpret(probe)).match(pairs, {"os": "linux", "architecture": "amd64"})


def started(image: str, data: Path, program: str) -> str:
    libfabric = "/host/opt/mpi/libfabric/lib"
    options = ["-v", f"{data}:/host:ro", "-v", f"{data / 'lib/libmpi.so.12'}:{LIBRARY}:ro"]
    options += ["-e", f"LD_LIBRARY_PATH=/host/lib/mpich:{libfabric}:/host/lib"]
    options += ["-e", f"FI_PROVIDER_PATH={libfabric}/prov", "-e", "I_MPI_ROOT=/host"]
    return sh("podman", "run", "--rm", "--pull=never", *options, image, program, timeout=120).stdout


@pytest.mark.parametrize(("wheel", "called"), [("mpich", "MPICH Version:      5."), ("impi", "Intel(R) MPI Library")])
def test_swap(wheel: str, called: str, image: str, wheels: dict[str, Path], leftover_containers: None) -> None:
    found = matched(wheels[wheel], PAIRS)
    assert found.verdict.value == "RUN", found.findings
    assert next(finding for finding in found.findings if finding.rule == "mpi.replace").key == voc.MPI_ABI.name
    out = started(image, wheels[wheel], "mpi-hello")
    assert f"MPI library: {called}" in out and "ranks 1 sum 1" in out

    twin = matched(wheels[wheel], TWIN)
    assert not any(finding.rule == "mpi.replace" for finding in twin.findings)
    assert any("its own MPICH-ABI" in finding.message for finding in twin.findings)
    out = started(image, wheels[wheel], "mpi-hello-rpath")
    assert "MPI library: MPICH Version:\t4.0.2" in out and "ranks 1 sum 1" in out
