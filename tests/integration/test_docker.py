"""docker: its own store and the engine, with a daemon that is started for these tests alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc3build.engines import How
from hpc3build.engines.docker import Docker
from hpc3build.errors import ToolError
from hpc3build.imageconfig import ImageConfig
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.stores import read_blob
from hpc3build.stores.archive import Archive
from hpc3build.stores.daemon import DaemonStore
from hpc3build.stores.layout import Layout
from tests.images import File, make_layout
from tests.integration.docker_daemon import daemon
from tests.integration.support import hpc3build, sh

pytestmark = pytest.mark.engine
GPU = "org.supercontainers.gpu"


@pytest.fixture(scope="module", autouse=True)
def docker_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with daemon(tmp_path_factory.mktemp("docker")):
        yield


def docker(*argv: str) -> str:
    return sh("/usr/bin/docker", *argv).stdout.strip()


@pytest.fixture
def image(tmp_path: Path) -> str:
    """A small image under a name of its own, which hpc3build put into docker."""
    layers = [{"etc/x": b"1" * 3000}, {"bin/app": File(b"#!/bin/sh\n")}]
    make_layout(tmp_path / "l", layers, labels={"a": "b"}, annotations={"told": "1"}, tag="1")
    name = f"localhost/{tmp_path.name.replace('_', '-')}:1"
    done = hpc3build("annotate", f"oci:{tmp_path}/l:1", "--to", f"docker-daemon:{name}")
    assert "1 left out" in done.stderr
    return name


def test_labels_are_written_and_taken_back(image: str, tmp_path: Path) -> None:
    before = docker("image", "inspect", "--format", "{{.Id}}", image)
    refused = hpc3build("annotate", f"docker-daemon:{image}", "-a", f"{GPU}=none", check=False)
    assert refused.returncode == 4 and "--labels" in refused.stderr and "registry" in refused.stderr
    receipt = tmp_path / "r.json"
    argv = ["annotate", f"docker-daemon:{image}", "-a", f"{GPU}=none", "--labels"]
    hpc3build(*argv, "--receipt", receipt, "--backup-tag", "kept")
    after = json.loads(docker("image", "inspect", image))[0]
    assert after["Config"]["Labels"] == {"a": "b", GPU: "none", "io.github.hpc3build.vocabulary": "0"}
    assert after["Id"] != before and docker("images", "-q", "--no-trunc", image.replace(":1", ":kept")) == before
    assert "unchanged" in hpc3build(*argv).stdout
    hpc3build("annotate", "--undo", receipt)
    assert docker("image", "inspect", "--format", "{{.Id}}", image) == before


def test_layers_come_out_as_they_are(image: str, tmp_path: Path) -> None:
    hpc3build("annotate", f"docker-daemon:{image}", "--to", f"oci-archive:{tmp_path}/a.tar:1", "-a", "k=v")
    with Archive(tmp_path / "a.tar") as archive:
        manifest = archive.manifest("1")
        config = ImageConfig.parse(read_blob(archive, manifest.config.digest), manifest.config.digest)
        assert [layer.digest for layer in manifest.layers] == list(config.diff_ids)
        assert all(len(read_blob(archive, layer.digest)) == layer.size for layer in manifest.layers)
    assert manifest.annotations == {"k": "v"} and config.digest == docker("images", "-q", "--no-trunc", image)
    sh("skopeo", "inspect", f"oci-archive:{tmp_path}/a.tar:1")


def test_what_docker_has_not(tmp_path: Path) -> None:
    done = hpc3build("inspect", "docker-daemon:localhost/nothing:1", check=False)
    assert done.returncode == 4 and "no such image" in done.stderr
    done = hpc3build("inspect", "docker-daemon:x", check=False, env={"DOCKER_HOST": f"unix://{tmp_path}/no.sock"})
    assert done.returncode == 4 and "docker is not reached" in done.stderr


@pytest.fixture(scope="module")
def base_in_docker(base: str) -> str:
    hpc3build("annotate", f"containers-storage:{base}", "--to", f"docker-daemon:{base}")
    return base


@pytest.fixture(scope="module")
def built(base_in_docker: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("context")
    (folder / "secret").write_text("s3cret-5d1c")
    (folder / "Containerfile").write_text(
        f"FROM {base_in_docker} AS builder\n"
        "RUN --mount=type=secret,id=s,mode=0444 wc -c < /run/secrets/s > /count\n"
        f"FROM {base_in_docker}\nCOPY --chown=0:0 --from=builder /count /count\n"
        'ENTRYPOINT ["/bin/echo", "entry"]\nCMD ["point"]\n'
    )
    return Docker(run).build(folder, secrets={"s": folder / "secret"})


def test_the_engine_builds_with_buildkit(built: str, tmp_path: Path) -> None:
    engine = Docker(run)
    assert engine.run(built, ["cat", "/count"], How(entrypoint=False)).stdout == "11\n"
    assert engine.version()[0].isdigit() and engine.digest("localhost/nothing:1") is None
    (tmp_path / "Containerfile").write_text("FROM localhost/nothing:1\n")
    with pytest.raises(ToolError) as told:
        engine.build(tmp_path, secrets={})
    assert "nothing was published" in told.value.hint


@pytest.mark.parametrize(
    ("argv", "how", "status", "out"),
    [
        (["hello"], How(), 0, "entry hello"),
        (["id", "-u"], How(entrypoint=False, user="12345:54321"), 0, "12345"),
        (["touch", "/x"], How(entrypoint=False, read_only=True), 1, ""),
        (["sh", "-c", "echo out; echo err >&2; exit 7"], How(entrypoint=False), 7, "out"),
        (["nothing-of-this-name"], How(entrypoint=False), 127, ""),
        (["/etc/passwd"], How(entrypoint=False), 126, ""),
        (["cat"], How(entrypoint=False, stdin="given\n"), 0, "given"),
        (["sh", "-c", "echo $GIVEN; pwd"], How(entrypoint=False, env={"GIVEN": "1"}, folder="/tmp"), 0, "1\n/tmp"),
        (["id", "-G"], How(entrypoint=False, user="5:5", groups=(7, 8)), 0, "5 7 8"),
        (["ls", "/host"], How(entrypoint=False, mounts=((Path(__file__), "/host/x"),)), 0, "x"),
    ],
)
def test_the_engine_runs(built: str, argv: list[str], how: How, status: int, out: str) -> None:
    done = Docker(run).run(built, argv, how)
    assert (done.returncode, done.stdout.strip()) == (status, out), done
    assert docker("ps", "--all", "--quiet") == ""


def test_what_does_not_end_is_ended(built: str) -> None:
    with pytest.raises(ToolError, match="did not finish within 1 s"):
        Docker(run).run(built, ["sleep", "100"], How(entrypoint=False, timeout=1))
    assert docker("ps", "--all", "--quiet") == ""


def test_the_export_is_packed_and_the_same_again(image: str, tmp_path: Path) -> None:
    for name in "ab":
        Docker(run).export(image, tmp_path / name, "1")
    one, two = (Layout(tmp_path / name).manifest("1") for name in "ab")
    assert one == two and all(layer.media_type.endswith("+gzip") for layer in one.layers)
    with DaemonStore(parse(f"docker-daemon:{image}")) as store:
        assert store.manifest().config.digest == one.config.digest
    sh("skopeo", "inspect", f"oci:{tmp_path}/a:1")


def test_check_runs_in_docker(image: str, tmp_path: Path) -> None:
    before = sorted(docker("images", "--quiet").split())  # docker lists those of one time in any order
    done = hpc3build("check", f"oci:{tmp_path}/l:1", "--run", "docker", "--json", check=False)
    found = [finding["message"] for finding in json.loads(done.stdout)["findings"] if "docker" in finding["where"]]
    # The image has no commands at all, so that docker tells of each that it did not find it.
    assert len(found) > 5 and any("executable file not found" in message for message in found), done.stderr
    assert sorted(docker("images", "--quiet").split()) == before
