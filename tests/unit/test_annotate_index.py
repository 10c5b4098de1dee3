"""``annotate`` of an index and of an archive by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc3build.cli import main
from hpc3build.oci import OCI_INDEX, Manifest
from hpc3build.stores.layout import Layout
from tests.commands import hpc3build
from tests.images import descriptor_of, make_document, make_layout
from tests.unit.test_stores_archive import pack, raw_of

GPU = "org.supercontainers.gpu"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    path = tmp_path / "layout"
    entries = []
    for name in ("amd64", "arm64"):
        made = make_layout(path, [{name: b"1"}], tag=None, architecture=name)
        entries.append(descriptor_of(made, platform={"os": "linux", "architecture": name}))
    (path / "index.json").unlink()
    make_document(path, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, tag="latest")
    return path


def annotate(capsys: pytest.CaptureFixture[str], layout: Path, *options: str) -> tuple[int, dict[str, Any], Manifest]:
    status = main(["annotate", f"oci:{layout}:latest", "-a", f"{GPU}=none", "--json", *options])
    result: dict[str, Any] = json.loads(capsys.readouterr().out)["results"][0]
    return status, result, Layout(layout).manifest("latest")


@pytest.mark.parametrize(
    ("options", "own", "descriptors", "images"),
    [
        ([], True, [True, True], [False, False]),
        (["--index-only"], True, [False, False], [False, False]),
        (["--descriptors"], False, [True, True], [False, False]),
        (["--all-children"], True, [True, True], [True, True]),
        (["--platform", "linux/arm64"], False, [False, True], [False, True]),
        (["--platform", "linux/arm64", "--descriptors"], False, [False, True], [False, False]),
        (["--platform", "linux/arm64", "--platform", "linux/amd64", "--labels"], False, [True, True], [True, True]),
    ],
)
def test_what_is_meant(
    capsys: pytest.CaptureFixture[str],
    layout: Path,
    options: list[str],
    own: bool,
    descriptors: list[bool],
    images: list[bool],
) -> None:
    before = (layout / "index.json").read_bytes()
    _, would, _ = annotate(capsys, layout, *options, "--dry-run")
    assert (layout / "index.json").read_bytes() == before
    status, result, new = annotate(capsys, layout, *options)
    assert status == 0 and result["changed"] and result == would and result["new_digest"] == new.digest
    assert (GPU in new.annotations) is own
    assert [GPU in entry.annotations for entry in new.descriptors] == descriptors
    assert [GPU in Layout(layout).manifest(entry.digest).annotations for entry in new.descriptors] == images
    assert annotate(capsys, layout, *options)[1]["changed"] is False


@pytest.mark.parametrize(
    "options",
    [
        ["--index-only", "--all-children"],
        ["--platform", "linux/amd64", "--index-only"],
        ["--platform", "linux//"],
        ["--platform", "plan9"],
        ["--attach", "--labels"],
        ["--attach", "--remove", "k"],
        ["--attach", "--descriptors"],
        ["--labels"],
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], layout: Path, options: list[str]) -> None:
    before = (layout / "index.json").read_bytes()
    assert main(["annotate", f"oci:{layout}:latest", "-a", "k=v", *options]) == 2
    assert capsys.readouterr().err.startswith("hpc3build: error: ") and (layout / "index.json").read_bytes() == before


def test_attach(capsys: pytest.CaptureFixture[str], layout: Path) -> None:
    old = Layout(layout).manifest("latest")
    _, would, _ = annotate(capsys, layout, "--attach", "--dry-run")
    assert Layout(layout).tags() == ("latest",) and would["changed"]
    _, result, new = annotate(capsys, layout, "--attach")
    assert new == old and result["old_digest"] == result["new_digest"] == old.digest and len(result["written"]) == 3
    (entry,) = Layout(layout).referrers(old.digest)
    assert entry.annotations[GPU] == "none"
    assert main(["annotate", f"oci:{layout}:latest", "-a", "k=v", "--attach"]) == 0
    (other,) = (one for one in Layout(layout).referrers(old.digest) if one.annotations == {"k": "v"})
    assert f"{old.digest} stays, attached {other.digest}" in capsys.readouterr().out
    assert would["attached"] == result["attached"] == [entry.digest]
    assert annotate(capsys, layout, "--attach")[1]["changed"] is False


def test_an_archive(capsys: pytest.CaptureFixture[str], layout: Path, tmp_path: Path) -> None:
    file = pack(layout, tmp_path / "a.tar")
    assert main(["annotate", f"oci-archive:{file}:latest", "-a", f"{GPU}=none"]) == 0
    assert "->" in capsys.readouterr().out and json.loads(raw_of(file))["annotations"][GPU] == "none"
    assert main(["inspect", f"oci-archive:{file}"]) == 0
    assert "linux/arm64" in capsys.readouterr().out
    assert main(["annotate", f"oci-archive:{tmp_path / 'gone.tar'}", "-a", "k=v"]) == 4


def test_a_dry_run_names_what_would_change(tmp_path: Path) -> None:
    make_layout(tmp_path / "image", [{}], annotations={"org.example.a": "1", "org.example.b": "2"})
    done = hpc3build(
        "annotate", f"oci:{tmp_path / 'image'}", "-a", "org.example.a=3", "--remove", "org.example.b", "--dry-run"
    )
    head, what, *lines = done.out.splitlines()
    assert "would become" in head and what.startswith("  image sha256:")
    assert lines == ["    ~ org.example.a: 1 -> 3", "    - org.example.b=2"]


def test_a_key_that_is_nearly_one_of_the_vocabulary_is_refused(tmp_path: Path) -> None:
    make_layout(tmp_path / "image", [{}])
    done = hpc3build("annotate", f"oci:{tmp_path / 'image'}", "-a", "org.supercontainers.mpii=mpich")
    assert done.status == 2 and "did you mean org.supercontainers.mpi?" in done.err
