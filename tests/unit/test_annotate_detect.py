"""annotate --detect: what the evidence inside an image says, and what happens where it does not agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc3build.cli import main
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import Manifest
from tests.evidence_images import EXPECTED, make

MPI = "org.supercontainers.mpi"
TOUCHED_BY_ALL = {"io.github.hpc3build.vocabulary": "0"}


def detect(capsys: pytest.CaptureFixture[str], path: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    status = main(["annotate", f"oci:{path}:latest", "--detect", "--json", *options])
    shown = capsys.readouterr()
    return status, json.loads(shown.out)["results"][0] if shown.out else {}, shown.err


def manifest(path: Path, digest: str) -> Manifest:
    return Manifest.parse((path / "blobs" / "sha256" / digest.partition(":")[2]).read_bytes())


@pytest.mark.parametrize("name", ["debian-openmpi", "debian-mpich", "nvidia-base", "cuda-multi"])
def test_only_true_pairs_are_written_and_no_layer_is_touched(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = make(name, tmp_path)
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "blobs" / "sha256").iterdir()}
    status, result, _ = detect(capsys, tmp_path)
    new = manifest(tmp_path, result["new_digest"])
    assert status == 0 and result["changed"] and result["undecided"] == []
    assert new.annotations == {**EXPECTED[name]["facts"], **TOUCHED_BY_ALL}
    assert new.layers == old.layers and new.config == old.config
    after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "blobs" / "sha256").iterdir()}
    assert set(after) - set(before) == {new.digest.partition(":")[2]} and before.items() <= after.items()
    assert detect(capsys, tmp_path)[1]["changed"] is False


def test_a_label_that_contradicts_stops_its_key_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("wrong-label", tmp_path)
    status, result, told = detect(capsys, tmp_path)
    pairs = manifest(tmp_path, result["new_digest"]).annotations
    assert status == 1 and result["undecided"] == [MPI]
    assert MPI not in pairs and pairs["org.supercontainers.mpi.abi.version"] == "40.30.4"
    assert "is left as it is" in told and "mpich" in told and "/usr/local/bin/hello" in told and f"-a {MPI}=" in told


def test_the_user_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("wrong-label", tmp_path)
    status, result, _ = detect(capsys, tmp_path, "-a", f"{MPI}=openmpi", "--labels")
    new = manifest(tmp_path, result["new_digest"])
    config = ImageConfig.parse((tmp_path / "blobs" / "sha256" / new.config.digest.partition(":")[2]).read_bytes())
    assert status == 0 and result["undecided"] == []
    assert new.annotations[MPI] == config.labels[MPI] == "openmpi"


def test_what_only_a_label_says_stays_a_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("plain", tmp_path, labels={"org.opencontainers.image.title": "the base's", "org.supercontainers.tools": "jq"})
    _, result, _ = detect(capsys, tmp_path)
    assert manifest(tmp_path, result["new_digest"]).annotations == {**EXPECTED["plain"]["facts"], **TOUCHED_BY_ALL}


P = "org.supercontainers."
BASES = {
    P + "gpu": "cuda",
    P + "hardware.gpu.cuda.version": "12.4",
    P + "mpi.version": "4.1",
    P + "glibc": "2.31",
    P + "tools": "jq",
    "org.opencontainers.image.vendor": "somebody",
    "my.key": "mine",
}


def test_of_the_bases_pairs_only_what_is_still_true_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("plain", tmp_path, annotations=BASES)
    status, result, told = detect(capsys, tmp_path)
    kept = {key: BASES[key] for key in (P + "tools", "org.opencontainers.image.vendor", "my.key")}
    assert status == 0
    assert manifest(tmp_path, result["new_digest"]).annotations == {
        **kept,
        **EXPECTED["plain"]["facts"],
        **TOUCHED_BY_ALL,
    }
    for key, old in list(BASES.items())[:4]:
        assert f"{key} is no longer true: it said {old!r}" in told
    assert P + "tools is no" not in told


def test_stale_labels_go_with_labels_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("plain", tmp_path, labels={P + "hardware.gpu.cuda.version": "12.4", P + "tools": "jq"})
    _, result, _ = detect(capsys, tmp_path, "--labels")
    new = manifest(tmp_path, result["new_digest"])
    config = ImageConfig.parse((tmp_path / "blobs" / "sha256" / new.config.digest.partition(":")[2]).read_bytes())
    assert P + "hardware.gpu.cuda.version" not in config.labels and config.labels[P + "tools"] == "jq"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--fast", "--thorough"], "exclude each other"),
        (["--root", "bin/x"], "expected an absolute path inside the image"),
        (["--root", "/nowhere"], "no program at /nowhere"),
    ],
)
def test_options_that_cannot_be(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("plain", tmp_path)
    assert main(["facts", f"oci:{tmp_path}:latest", *options]) == 2
    assert told in capsys.readouterr().err


def test_fast_reads_the_layer_of_the_lock_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lower = make("spack", tmp_path).layers[0].digest.partition(":")[2]
    (tmp_path / "blobs" / "sha256" / lower).unlink()
    assert main(["facts", f"oci:{tmp_path}:latest", "--fast", "--json"]) == 0
    pairs = json.loads(capsys.readouterr().out)["annotations"]
    # Nothing of what only all layers together could tell.
    assert pairs["org.supercontainers.mpi.version"] == "4.1.5"
    assert not {"org.supercontainers.mpi.abi.version", "org.supercontainers.kernel.version"} & set(pairs)
    assert main(["facts", f"oci:{tmp_path}:latest"]) == 4
