"""One real build for all tests with engines: recipes/mpi-hello by the command line, loaded for podman."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.registries import KINDS, running
from tests.integration.support import MARKERS, RECIPE, ROOT, SITE_CA, Built, hpc3build, missing, sh

ENGINE_VARIABLES = ("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "BUILDAH_ISOLATION")
#: Where curl, pip and hpc3build look for the site's bundle before the system's.
CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


@pytest.fixture(scope="session")
def engine_env() -> Iterator[None]:
    """The environment that ci/test exports, from ci/lib.sh where it did not; put back afterwards."""
    if reason := missing("buildah", "podman", "skopeo", "bash"):
        pytest.skip(reason)
    if importlib.util.find_spec("easybuild") is None:
        pytest.skip("not installed: the pinned EasyBuild (the extra easybuild)")
    with pytest.MonkeyPatch.context() as patch:
        if "HPC3BUILD_TEST_BASE" not in os.environ:
            script = 'source "$1" && engine_env && env -0'
            done = sh("bash", "-c", script, "bash", ROOT / "ci" / "lib.sh")
            theirs = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if "=" in entry)
            for name in ENGINE_VARIABLES:
                if name in theirs:
                    patch.setenv(name, theirs[name])
        yield


@pytest.fixture(scope="session")
def base(engine_env: None) -> str:
    """The name of the base image, which ci/base-image makes where no registry answers."""
    return os.environ.get("HPC3BUILD_TEST_BASE") or sh(ROOT / "ci" / "base-image").stdout.strip()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A site's environment for a build, with markers that must not stay. Only what breaks no download is set."""
    folder = tmp_path_factory.mktemp("site")
    given = (os.environ.get("SSL_CERT_FILE", ""), os.environ.get("PIP_CERT", ""), *CA_FILES)
    authorities = next((Path(name) for name in given if name and Path(name).is_file()), None)
    password = MARKERS["a password of apt's proxy"]
    apt = f'Acquire::http {{ Proxy::proxied.invalid "http://user:{password}@proxy.invalid:3128"; }};\n'
    if theirs := os.environ.get("APT_CONFIG"):
        apt += f'#include "{theirs}";\n'
    (folder / "apt.conf").write_text(apt)
    env = {
        "ftp_proxy": f"http://user:{MARKERS['a proxy password']}@proxy.invalid:3128",
        # EasyBuild gets this one.
        "no_proxy": ",".join(filter(None, (os.environ.get("no_proxy"), MARKERS["a host without proxy"]))),
        "PIP_TRUSTED_HOST": MARKERS["a pip setting"],
        "APT_CONFIG": str(folder / "apt.conf"),
    }
    if authorities:
        comment = f"# {MARKERS['a comment of the CA bundle']}\n".encode()
        (folder / "bundle.pem").write_bytes(comment + authorities.read_bytes() + SITE_CA.read_bytes())
        env |= {"SSL_CERT_FILE": str(folder / "bundle.pem"), "PIP_CERT": str(folder / "bundle.pem")}
    return env


@pytest.fixture(scope="session")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "marker"
    path.write_text(MARKERS["a build secret"] + "\n")
    return path


@pytest.fixture(scope="session")
def mpi_hello(base: str, site: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """recipes/mpi-hello, really built. About 75 s the first time on a machine, then its layers are cached."""
    layout = tmp_path_factory.mktemp("built") / "mpi-hello"
    argv = ["build", str(RECIPE), "-t", f"oci:{layout}:1.0", "--engine", "buildah", "--base", base]
    done = hpc3build(*argv, env=site)
    with loaded(layout, "1.0") as name:
        yield Built(layout, "1.0", name, base, done.stdout, done.stderr)


class loaded:  # noqa: N801
    """An image of a layout under a name of its own in podman's store, while the block runs."""

    def __init__(self, layout: Path, tag: str) -> None:
        self.source = f"oci:{layout}:{tag}"
        self.name = f"localhost/hpc3build-test-{uuid.uuid4().hex[:12]}:1"

    def __enter__(self) -> str:
        # Asked for by its ID, the configuration's digest: a listing of all images fails while another test removes one.
        image = json.loads(sh("skopeo", "inspect", "--raw", self.source).stdout)["config"]["digest"]
        self.theirs = sh("podman", "image", "exists", image.removeprefix("sha256:"), check=False).returncode == 0
        sh("skopeo", "copy", "--quiet", self.source, f"containers-storage:{self.name}")
        return self.name

    def __exit__(self, *_: object) -> None:
        # An image that was there before, under another name or none, only loses our name.
        sh("podman", *(("untag", self.name) if self.theirs else ("rmi", "--no-prune")), self.name)


@pytest.fixture
def leftover_containers(engine_env: None) -> Iterator[None]:
    """Fails the test that leaves a container of buildah or podman behind."""
    before = _containers()
    yield
    assert _containers() - before == set()


def _containers() -> set[str]:
    listed = [["buildah", "containers", "--quiet", "--all"], ["podman", "ps", "--all", "--quiet", "--external"]]
    done = [subprocess.run(argv, capture_output=True, text=True, check=False) for argv in listed]
    return {line[:12] for result in done for line in result.stdout.split()}


@pytest.fixture(scope="session", params=KINDS or ["docker-registry"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of each kind of registry that is here."""
    if not KINDS:
        pytest.skip("not installed: docker-registry")
    with running(request.param, tmp_path_factory.mktemp(request.param)) as host:
        yield host
