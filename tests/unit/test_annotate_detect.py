"""annotate --detect: what the evidence inside an image says, and what happens where it does not agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc3build.cli import main
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import OCI_INDEX, Manifest
from hpc3build.stores.layout import Layout
from tests.evidence_images import EXPECTED, make
from tests.images import descriptor_of, make_document

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


def test_of_a_gpu_in_doubt_nothing_is_derived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu = {P + "gpu": "cuda", P + "hardware.gpu.cuda.version": "12.4", P + "hardware.gpu.architecture": "sm_80"}
    make("plain", tmp_path, labels=gpu)
    status, result, _ = detect(capsys, tmp_path)
    assert status == 1 and result["undecided"] == [P + "gpu"]
    assert not [key for key in manifest(tmp_path, result["new_digest"]).annotations if "gpu" in key]
    status, result, _ = detect(capsys, tmp_path, "-a", f"{P}gpu=none", "--labels")
    new = manifest(tmp_path, result["new_digest"])
    config = ImageConfig.parse((tmp_path / "blobs" / "sha256" / new.config.digest.partition(":")[2]).read_bytes())
    assert status == 0
    for said in (new.annotations, config.labels):
        assert {key: value for key, value in said.items() if "gpu" in key} == {P + "gpu": "none"}


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


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Two images with different evidence inside, and an artifact without any."""
    path = tmp_path / "index"
    entries = []
    for name, architecture in (("debian-openmpi", "amd64"), ("debian-mpich", "arm64")):
        platform = {"os": "linux", "architecture": architecture}
        entries.append(descriptor_of(make(name, path, tag=None, annotations={P + "glibc": "1.0"}), platform=platform))
    empty = make("plain", path, tag=None).json
    artifact = {**empty, "config": {**empty["config"], "mediaType": "application/vnd.example+json"}}
    entries.append(descriptor_of(make_document(path, artifact)))
    (path / "index.json").unlink()
    make_document(path, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, tag="latest")
    return path


def test_each_image_of_an_index_says_what_is_in_it(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, result, told = detect(capsys, index, "--all-children", "-a", "my.key=mine")
    new = manifest(index, result["new_digest"])
    images = [manifest(index, entry.digest) for entry in new.descriptors]
    for image, name in zip(images, ("debian-openmpi", "debian-mpich"), strict=False):
        assert image.annotations == {**EXPECTED[name]["facts"], **TOUCHED_BY_ALL, "my.key": "mine"}
    assert status == 0 and [entry.annotations[MPI] for entry in new.descriptors[:2]] == ["openmpi", "mpich"]
    # What is true of one image is not true of all.
    assert new.annotations == images[2].annotations == {"my.key": "mine"}
    assert told.count(f"{P}glibc is no longer true: it said '1.0'") == 2
    assert detect(capsys, index, "--all-children", "-a", "my.key=mine")[1]["changed"] is False


def test_of_an_index_only_what_is_meant_is_looked_into(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = Layout(index).manifest("latest")
    _, result, _ = detect(capsys, index, "--platform", "linux/arm64", "--dry-run")
    assert any(MPI in change for change in result["changes"])
    theirs, ours = (Layout(index).manifest(entry.digest).layers for entry in old.descriptors[:2])
    (gone, *_) = (layer for layer in theirs if layer not in ours)
    (index / "blobs" / "sha256" / gone.digest.partition(":")[2]).unlink()
    _, result, _ = detect(capsys, index, "--platform", "linux/arm64")
    new = manifest(index, result["new_digest"])
    assert [entry.annotations.get(MPI) for entry in new.descriptors] == [None, "mpich", None]


def test_descriptors_alone_say_what_is_in_their_images(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = Layout(index).manifest("latest")
    _, result, _ = detect(capsys, index, "--descriptors")
    new = manifest(index, result["new_digest"])
    assert [entry.digest for entry in new.descriptors] == [entry.digest for entry in old.descriptors]
    assert [entry.annotations.get(MPI) for entry in new.descriptors] == ["openmpi", "mpich", None]


def test_what_is_in_images_of_an_index_is_attached_to_each(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = Layout(index).manifest("latest")
    _, result, _ = detect(capsys, index, "--all-children", "--attach")
    said = [Layout(index).referrers(entry.digest) for entry in old.descriptors]
    assert [[one.annotations[MPI] for one in found] for found in said] == [["openmpi"], ["mpich"], []]
    assert set(result["attached"]) == {one.digest for found in said for one in found}


def test_an_index_of_which_no_image_is_meant(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["annotate", f"oci:{index}:latest", "--detect"]) == 2
    assert "--all-children" in capsys.readouterr().err
    assert main(["annotate", f"oci:{index}:latest", "--detect", "--descriptors", "--labels"]) == 2
    assert "--platform or --all-children" in capsys.readouterr().err


def test_an_index_that_is_moved_while_it_is_looked_into_is_looked_into_again(
    index: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpc3build.workflows import annotate as module

    def moving(*arguments: Any) -> Any:
        monkeypatch.setattr(module, "detect", look)
        found = look(*arguments)
        old = Layout(index).manifest("latest").json
        (index / "index.json").unlink()
        make_document(index, {**old, "manifests": old["manifests"][1:]}, tag="latest")
        return found

    look = module.detect
    monkeypatch.setattr(module, "detect", moving)
    _, result, _ = detect(capsys, index, "--all-children")
    new = manifest(index, result["new_digest"])
    assert [entry.annotations.get(MPI) for entry in new.descriptors] == ["mpich", None]
