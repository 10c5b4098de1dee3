"""An index of eight flavours of recipes/mpi-hello in a real registry: what runtimes pull runs, what pick chooses fits.

One build; the flavours differ in what they say. The answers were worked out by hand from the rules of docs/match.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.registries import KINDS, fetched, running
from tests.integration.support import ROOT, Built, digest_in, hpc3build, sh

pytestmark = [pytest.mark.engine, pytest.mark.skipif(not KINDS, reason="not installed: docker-registry")]

P = "org.supercontainers."
CPU, GPU, MPI, ABI = P + "hardware.cpu.optimized.version", P + "gpu", P + "mpi", P + "mpi.abi.version"
CODE = P + "hardware.gpu.architecture"
CUDA, ROCM = P + "hardware.gpu.cuda.version", P + "hardware.gpu.rocm.version"
FLAVOURS = {
    "zen3": {CPU: "zen3"},
    "v3-cuda": {CPU: "x86_64_v3", GPU: "cuda", CUDA: "12.2", CODE: "sm_80,sm_90"},
    "v3-rocm": {CPU: "x86_64_v3", GPU: "rocm", ROCM: "6.2.0", CODE: "gfx90a"},
    "mpich": {CPU: "x86_64_v3", MPI: "mpich", ABI: "12.1.8"},
    "v4": {CPU: "x86_64_v4"},
    "v2": {CPU: "x86_64_v2"},
    "v3": {CPU: "x86_64_v3"},
    "generic": {CPU: "x86_64"},
}
#: Where, what, and why.
EXPECTED = {
    "zen2-slurm": "v3",  # zen3 and v4 are too new; of v3 and mpich the host's Open MPI is nearer to v3
    "openmpi4-mpirun": "zen3",  # its own target, and mpirun of Open MPI 4
    "a100": "v3-cuda",  # its GPU goes before its CPU
    "h100": "v3-cuda",
    "v100-driver-470": "v4",  # CUDA 12 is too new for the driver, so the best for the CPU
    "cray-cpu": "mpich",  # srun there starts no Open MPI
    "cray-mi250": "mpich",  # likewise: v3-rocm would run on one node only
    "mi300x": "v4",  # gfx90a does not run on gfx942; v4 and zen3 are equally near, and v4 comes first
    "skylake-client": "v3",
    "old-kernel": "v3",
    "workstation-no-driver": "v3",  # the GPU there has no driver
    "gke-t2a-flux": None,  # another architecture
}


@pytest.fixture(scope="module")
def index(mpi_hello: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The index's name, and the flavours' names by digest."""
    with running(KINDS[0], tmp_path_factory.mktemp("registry")) as host:
        names = {}
        for name, says in FLAVOURS.items():
            pairs = [word for key, value in says.items() for word in ("-a", f"{key}={value}")]
            hpc3build("annotate", mpi_hello.reference, "--labels", "--to", f"docker://{host}/hello:{name}", *pairs)
            document = fetched(f"{host}/hello:{name}")
            names["sha256:" + hashlib.sha256(document).hexdigest()] = name
        hpc3build("index", "create", f"docker://{host}/hello:all", *(f"{host}/hello:{name}" for name in FLAVOURS))
        yield f"{host}/hello:all", names


def test_the_order(index: tuple[str, dict[str, str]]) -> None:
    name, flavours = index
    entries = json.loads(fetched(name))["manifests"]
    found = [(flavours[entry["digest"]], entry["platform"].get("variant")) for entry in entries]
    assert found[:4] == [("generic", None), ("v2", "v2"), ("v3", "v3"), ("v4", "v4")]
    assert sorted(found[4:]) == [("mpich", "v3"), ("v3-cuda", "v3"), ("v3-rocm", "v3"), ("zen3", "v3")]


@pytest.mark.parametrize("host", EXPECTED)
def test_pick(host: str, index: tuple[str, dict[str, str]]) -> None:
    name, flavours = index
    done = hpc3build("pick", name, "--host", ROOT / "tests/data/hosts" / f"{host}.probe", "--explain", check=False)
    expected = EXPECTED[host]
    if expected is None:
        assert done.returncode == 1 and done.stdout == ""
    else:
        assert flavours[done.stdout.strip().partition("@")[2]] == expected, done.stderr


def test_podman_pulls_something_that_runs(index: tuple[str, dict[str, str]], leftover_containers: None) -> None:
    name, _ = index
    try:
        sh("podman", "pull", "--quiet", "--tls-verify=false", name)
        assert "ranks 1 sum 1" in sh("podman", "run", "--rm", "--pull=never", name, "mpi-hello").stdout
        told = sh("podman", "image", "inspect", "--format", '{{index .Labels "' + CPU + '"}}', name).stdout.strip()
        assert told == "x86_64"
    finally:
        sh("podman", "rmi", "--no-prune", name, check=False)


def test_podman_runs_what_pick_prints(index: tuple[str, dict[str, str]], leftover_containers: None) -> None:
    """On this very machine, through run as well."""
    picked = hpc3build("pick", index[0]).stdout.strip()
    try:
        argv = ("podman", "run", "--rm", "--tls-verify=false", picked, "mpi-hello")
        assert "ranks 1 sum 1" in sh(*argv).stdout
        done = hpc3build("run", "--engine", "podman", index[0], "--", "mpi-hello")
        assert "ranks 1 sum 1" in done.stdout
    finally:
        sh("podman", "rmi", "--no-prune", picked, check=False)


def test_skopeo_copies_the_first_entry(index: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    name, flavours = index
    sh("skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path / 'pulled'}:1")
    assert flavours[digest_in(tmp_path / "pulled", "1") or ""] == "generic"
