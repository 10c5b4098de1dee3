"""annotate and facts on the real image, in a layout and in podman's store, and building straight into that store."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import loaded
from tests.integration.support import RECIPE, Built, digest_in, hpc3build, images, sh, snapshot

pytestmark = pytest.mark.engine

RANK = "io.github.hpc3build.rank"
PAIR = ("-a", f"{RANK}=7")


@pytest.fixture
def layout(mpi_hello: Built, tmp_path: Path) -> Iterator[Path]:
    """A copy of the built layout, its blobs hard links: what is written anew has another inode."""
    folder = tmp_path / "layout"
    shutil.copytree(mpi_hello.layout, folder, copy_function=lambda a, b: Path(b).hardlink_to(a))
    before = snapshot(mpi_hello.layout)
    yield folder
    assert snapshot(mpi_hello.layout) == before


@pytest.fixture
def stored(mpi_hello: Built) -> Iterator[str]:
    """An image of its own in podman's store: names of one image ID share one manifest there, so the ID must differ."""
    scratch = f"localhost/hpc3build-test-{uuid.uuid4().hex[:12]}:base"
    container = sh("buildah", "from", "--pull-never", mpi_hello.name).stdout.strip()
    try:
        sh("buildah", "config", "--label", f"hpc3build.test={uuid.uuid4().hex}", container)
        sh("buildah", "commit", "--quiet", "--format", "oci", container, scratch)
    finally:
        sh("buildah", "rm", container)
    annotated = [f"{key}={value}" for key, value in mpi_hello.annotations.items()]
    hpc3build("annotate", f"containers-storage:{scratch}", *(part for pair in annotated for part in ("-a", pair)))
    yield scratch
    sh("podman", "rmi", "--no-prune", scratch)


def annotate(reference: str, *options: str) -> dict[str, Any]:
    done = hpc3build("annotate", reference, "--json", *options)
    (result,) = json.loads(done.stdout)["results"]
    assert result["error"] is None and result["reference"] == reference
    return dict(result)


def manifest(reference: str) -> dict[str, Any]:
    return dict(json.loads(sh("skopeo", "inspect", "--raw", reference).stdout))


def image_id(name: str) -> str:
    return sh("podman", "image", "inspect", "--format", "{{.Id}}", name).stdout.strip()


# ---- in a layout


def test_layout_twice(layout: Path, mpi_hello: Built) -> None:
    reference, old = f"oci:{layout}:1.0", snapshot(layout)
    first = annotate(reference, *PAIR)
    assert first["changed"] and first["old_digest"] == mpi_hello.digest != first["new_digest"]
    assert digest_in(layout, "1.0") == first["new_digest"] == first["written"][-1]
    written = snapshot(layout)
    assert set(written) - set(old) == {f"blobs/sha256/{first['new_digest'][7:]}"}
    assert {name for name in old if old[name] != written[name]} == {"index.json"}

    second = annotate(reference, *PAIR)
    assert not second["changed"] and second["written"] == []
    assert second["old_digest"] == second["new_digest"] == first["new_digest"]
    assert snapshot(layout) == written  # not even the same bytes again


def test_layout_without_labels_keeps_the_image_id(layout: Path, mpi_hello: Built) -> None:
    annotate(f"oci:{layout}:1.0", *PAIR)
    new = manifest(f"oci:{layout}:1.0")
    assert new.pop("annotations") == {**mpi_hello.annotations, RANK: "7"}
    old = mpi_hello.manifest
    del old["annotations"]
    assert new == old


def test_layout_with_labels_changes_the_configuration_alone(layout: Path, mpi_hello: Built) -> None:
    first = annotate(f"oci:{layout}:1.0", *PAIR, "--labels")
    assert len(first["written"]) == 2
    config = json.loads(sh("skopeo", "inspect", "--config", f"oci:{layout}:1.0").stdout)
    assert config["config"]["Labels"] == {**mpi_hello.labels, RANK: "7"}
    config["config"]["Labels"] = mpi_hello.labels
    assert config == mpi_hello.config
    assert manifest(f"oci:{layout}:1.0")["layers"] == mpi_hello.manifest["layers"]
    assert not annotate(f"oci:{layout}:1.0", *PAIR, "--labels")["changed"]


def test_layout_there_and_back(layout: Path, mpi_hello: Built) -> None:
    """Removing what was added gives the first manifest again, byte by byte."""
    annotate(f"oci:{layout}:1.0", *PAIR)
    assert annotate(f"oci:{layout}:1.0", "--remove", RANK)["new_digest"] == mpi_hello.digest


def test_layout_dry_run(layout: Path, mpi_hello: Built) -> None:
    before = snapshot(layout)
    result = annotate(f"oci:{layout}:1.0", *PAIR, "--dry-run")
    assert result["changed"] and snapshot(layout) == before
    assert annotate(f"oci:{layout}:1.0", *PAIR)["new_digest"] == result["new_digest"]


def test_layout_moved_meanwhile(layout: Path) -> None:
    before = snapshot(layout)
    done = hpc3build("annotate", f"oci:{layout}:1.0", *PAIR, "--expect-digest", f"sha256:{'0' * 64}", check=False)
    assert done.returncode == 5 and snapshot(layout) == before


def test_a_label_that_contradicts(layout: Path) -> None:
    """Rule R10: runtimes see the label."""
    before = snapshot(layout)
    pair = ("-a", "org.supercontainers.mpi=mpich")
    done = hpc3build("annotate", f"oci:{layout}:1.0", *pair, check=False)
    assert done.returncode == 1 and "--labels" in done.stderr and snapshot(layout) == before
    assert annotate(f"oci:{layout}:1.0", *pair, "--labels")["changed"]


# ---- in podman's store


def test_store_twice(stored: str) -> None:
    reference, old = f"containers-storage:{stored}", manifest(f"containers-storage:{stored}")
    before = image_id(stored)
    first = annotate(reference, *PAIR)
    new = manifest(reference)
    assert first["changed"] and image_id(stored) == before
    assert new == {**old, "annotations": {**old["annotations"], RANK: "7"}}
    second = annotate(reference, *PAIR)
    assert not second["changed"] and second["written"] == [] and second["new_digest"] == first["new_digest"]
    assert manifest(reference) == new and image_id(stored) == before


def test_store_with_labels(stored: str) -> None:
    before = image_id(stored)
    assert annotate(f"containers-storage:{stored}", *PAIR, "--labels")["changed"]
    assert image_id(stored) != before
    labels = json.loads(sh("podman", "image", "inspect", "--format", "{{json .Labels}}", stored).stdout)
    assert labels[RANK] == "7" and labels["org.supercontainers.mpi"] == "openmpi"
    assert "Open MPI v4" in sh("podman", "run", "--rm", "--pull=never", stored, "mpi-hello").stdout
    sh("podman", "rmi", "--no-prune", before)


# ---- what is inside says the same


#: Facts that only the build knows; evidence inside the image can't give them.
OF_THE_BUILD = {
    "io.github.hpc3build.conformance",
    "io.github.hpc3build.lock",
    "org.opencontainers.image.base.digest",
    "org.opencontainers.image.base.name",
    "org.opencontainers.image.created",
    "org.supercontainers.documentation",
}


def test_detect_finds_the_same(layout: Path, mpi_hello: Built) -> None:
    keys = [key for key in mpi_hello.annotations if key not in OF_THE_BUILD]
    for key in keys:
        assert annotate(f"oci:{layout}:1.0", "--remove", key, "--labels")["changed"]
    stripped = manifest(f"oci:{layout}:1.0")["annotations"]
    assert set(stripped) == OF_THE_BUILD & set(mpi_hello.annotations)
    result = annotate(f"oci:{layout}:1.0", "--detect", "--labels")
    assert manifest(f"oci:{layout}:1.0")["annotations"] == mpi_hello.annotations
    assert result["changed"] and not annotate(f"oci:{layout}:1.0", "--detect", "--labels")["changed"]


@pytest.mark.parametrize("where", ["layout", "store"])
def test_facts_of_the_image_agree(where: str, mpi_hello: Built) -> None:
    reference = mpi_hello.reference if where == "layout" else f"containers-storage:{mpi_hello.name}"
    document = json.loads(hpc3build("facts", reference, "--json").stdout)
    assert document["subject"] == reference and document["conflicts"] == []
    assert document["annotations"] == mpi_hello.annotations
    facts = {fact["key"]: fact for fact in document["facts"]}
    assert set(facts) == set(document["annotations"]) and all(fact["evidence"] for fact in facts.values())
    # What was only published, and what the image itself shows.
    publisher = {"org.opencontainers.image.title", "org.opencontainers.image.version", "io.github.hpc3build.vocabulary"}
    assert {key for key, fact in facts.items() if fact["source"] == "label"} <= OF_THE_BUILD | publisher
    assert "libmpi.so.40" in facts["org.supercontainers.mpi.abi.version"]["evidence"]


def test_the_plan_agrees_with_the_image(mpi_hello: Built) -> None:
    planned = json.loads(hpc3build("facts", RECIPE, "--json").stdout)["annotations"]
    assert planned.items() <= mpi_hello.annotations.items() and len(planned) >= 6


def test_inspect(mpi_hello: Built) -> None:
    document = json.loads(hpc3build("inspect", mpi_hello.reference, "--json").stdout)
    assert document["digest"] == mpi_hello.digest
    assert (document["annotations"], document["labels"]) == (mpi_hello.annotations, mpi_hello.labels)
    text = hpc3build("inspect", mpi_hello.reference).stdout
    assert all(key in text for key in mpi_hello.annotations)


# ---- building into podman's store


def test_build_into_the_store(mpi_hello: Built) -> None:
    name = f"localhost/hpc3build-test-{uuid.uuid4().hex[:12]}:1"
    argv = ["build", "recipes/mpi-hello", "-t", f"containers-storage:{name}", "--engine", "podman"]
    try:
        done = hpc3build(*argv, "--base", mpi_hello.base)
        assert "Open MPI v4" in sh("podman", "run", "--rm", "--pull=never", name, "mpi-hello").stdout
        raw = manifest(f"containers-storage:{name}")
        labels = json.loads(sh("podman", "image", "inspect", "--format", "{{json .Labels}}", name).stdout)
        assert labels.pop("io.buildah.version") and labels == raw["annotations"]
        volatile = {"org.opencontainers.image.created"}
        assert {k: v for k, v in raw["annotations"].items() if k not in volatile} == {
            k: v for k, v in mpi_hello.annotations.items() if k not in volatile
        }
        assert done.stdout.splitlines()[-1].startswith(f"containers-storage:{name} sha256:")
        assert hpc3build("check", f"containers-storage:{name}").returncode == 0
    finally:
        sh("podman", "rmi", "--no-prune", name, check=False)


def test_a_loaded_copy_is_the_same_image(mpi_hello: Built) -> None:
    """skopeo copies what was built, annotations and all, and podman sees the labels."""
    with loaded(mpi_hello.layout, mpi_hello.tag) as name:
        labels = json.loads(sh("podman", "image", "inspect", "--format", "{{json .Labels}}", name).stdout)
        assert labels == mpi_hello.labels
        assert f"sha256:{image_id(name)}" == mpi_hello.manifest["config"]["digest"]
    assert name not in images()
