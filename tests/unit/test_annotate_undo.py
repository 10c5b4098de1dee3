"""Receipts: what was written is taken back, byte for byte, and only where nobody wrote since."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc3build.cli import main
from hpc3build.errors import InputError
from hpc3build.oci import Manifest
from hpc3build.rewrite.receipt import read
from hpc3build.stores.layout import Layout
from tests.commands import ROOT, assert_one_message, hpc3build
from tests.images import make_index, make_layout

SCHEMA = json.loads((ROOT / "hpc3build" / "schemas" / "receipt.json").read_text())


@pytest.fixture
def index(tmp_path: Path) -> Manifest:
    path = tmp_path / "i"
    children = [make_layout(path, [{name: b"1"}], tag=None, architecture=name) for name in ("amd64", "arm64")]
    (path / "index.json").unlink()
    return make_index(path, children, tag="1")


def receipt(tmp_path: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(document, SCHEMA)
    return document


def test_what_was_written_is_taken_back(
    tmp_path: Path, index: Manifest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_layout(tmp_path / "o", [{"a": b"1"}], annotations={"z": "1"}, tag="1")
    config = Layout(tmp_path / "o").blob_path(image.config.digest).read_bytes()
    monkeypatch.chdir(tmp_path)
    argv = ["annotate", "oci:i:1", "oci:o:1", "-a", "k=v", "--labels", "--all-children", "--receipt", "r.json"]
    assert main(argv) == 0
    entries = receipt(tmp_path)["entries"]
    assert isinstance(entries, list) and [len(entry["manifests"]) for entry in entries] == [3, 1]
    assert entries[0]["reference"] == f"oci:{tmp_path}/i:1", "it holds from any folder"
    # A garbage collector took what no tag named.
    for name, old in (("i", index), ("o", image)):
        kept = Layout(tmp_path / name)
        for digest in (old.digest, *(entry.digest for entry in old.descriptors if old.is_index), image.config.digest):
            kept.blob_path(digest).unlink(missing_ok=True)
    before = {name: (tmp_path / name / "index.json").read_bytes() for name in "io"}
    monkeypatch.chdir("/")
    assert main(["annotate", "--undo", str(tmp_path / "r.json"), "--dry-run"]) == 0
    assert {name: (tmp_path / name / "index.json").read_bytes() for name in "io"} == before
    assert main(["annotate", "--undo", str(tmp_path / "r.json"), "--json"]) == 0
    capsys.readouterr()
    assert Layout(tmp_path / "i").manifest("1").raw == index.raw
    assert Layout(tmp_path / "o").manifest("1").raw == image.raw
    assert Layout(tmp_path / "o").blob_path(image.config.digest).read_bytes() == config
    assert all(Layout(tmp_path / "i").manifest(entry.digest) for entry in index.descriptors)
    assert main(["annotate", "--undo", str(tmp_path / "r.json")]) == 0
    assert capsys.readouterr().out.count("unchanged") == 2


def test_one_tag_twice_goes_back_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_layout(tmp_path / "o", [{}], tag="1")
    monkeypatch.chdir(tmp_path)
    assert main(["annotate", "oci:o:1", "-a", "k=1", "--receipt", "one.json"]) == 0
    assert main(["annotate", "oci:o:1", "-a", "k=2", "--receipt", "two.json"]) == 0
    entries = [json.loads((tmp_path / name).read_text())["entries"][0] for name in ("one.json", "two.json")]
    (tmp_path / "r.json").write_text(json.dumps({"receipt": 1, "entries": entries}))
    assert main(["annotate", "--undo", "r.json"]) == 0
    assert Layout(tmp_path / "o").manifest("1").raw == image.raw


def test_nobody_elses_work_is_lost(tmp_path: Path) -> None:
    make_layout(tmp_path / "o", [{}], tag="1")
    assert hpc3build("annotate", "oci:o:1", "-a", "k=1", "--receipt", "r.json", cwd=tmp_path).status == 0
    assert hpc3build("annotate", "oci:o:1", "-a", "k=2", cwd=tmp_path).status == 0
    there = (tmp_path / "o" / "index.json").read_bytes()
    assert "undo that first" in assert_one_message(hpc3build("annotate", "--undo", "r.json", cwd=tmp_path), 5)
    assert (tmp_path / "o" / "index.json").read_bytes() == there


def test_a_tag_that_was_new_is_not_deleted(tmp_path: Path) -> None:
    make_layout(tmp_path / "o", [{}], tag="1")
    assert hpc3build("annotate", "oci:o:1", "--to", "oci:p:1", "--receipt", "r.json", cwd=tmp_path).status == 0
    message = assert_one_message(hpc3build("annotate", "--undo", "r.json", cwd=tmp_path), 4)
    assert "deletes none" in message and (tmp_path / "p" / "index.json").exists()


def test_a_receipt_is_looked_at_first(tmp_path: Path) -> None:
    make_layout(tmp_path / "o", [{}], tag="1")
    before = (tmp_path / "o" / "index.json").read_bytes()
    (tmp_path / "r.json").write_text("precious")
    for name in ("r.json", "no/r.json"):
        assert_one_message(hpc3build("annotate", "oci:o:1", "-a", "k=v", "--receipt", name, cwd=tmp_path), 2)
    assert (tmp_path / "r.json").read_text() == "precious" and (tmp_path / "o" / "index.json").read_bytes() == before


@pytest.mark.parametrize("what", ["[]", "{}", "x", '{"receipt": 2, "entries": []}', '{"receipt": 1, "entries": [{}]}'])
def test_what_is_no_receipt(tmp_path: Path, what: str) -> None:
    (tmp_path / "r.json").write_text(what)
    assert "r.json" in assert_one_message(hpc3build("annotate", "--undo", "r.json", cwd=tmp_path), 2)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_an_altered_receipt_is_refused_or_means_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = getattr(test_an_altered_receipt_is_refused_or_means_the_same, "good", None)
    if good is None:
        folder = tmp_path_factory.mktemp("receipt")
        make_layout(folder / "o", [{}], tag="1")
        assert main(["annotate", f"oci:{folder}/o:1", "-a", "k=v", "--labels", "--receipt", f"{folder}/r.json"]) == 0
        good = (folder / "r.json").read_bytes()
        test_an_altered_receipt_is_refused_or_means_the_same.good = good  # type: ignore[attr-defined]
    place = data.draw(st.integers(0, len(good) - 1))
    altered = good[:place] + data.draw(st.binary(max_size=3)) + good[place + data.draw(st.integers(0, 3)) :]
    try:
        entries = read(altered, "r.json")
    except InputError:
        return
    for entry in entries:
        assert entry.before is None or entry.manifests[-1].digest == entry.before


def test_an_empty_receipt_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a run leaves it that was ended before anything was written."""
    (tmp_path / "r.json").write_text('{"receipt": 1, "entries": []}')
    assert main(["annotate", "--undo", str(tmp_path / "r.json")]) == 0
    assert "r.json: nothing was written, so there is nothing to undo" in capsys.readouterr().err
    assert main(["annotate", "-q", "--undo", str(tmp_path / "r.json")]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("place", "tag"), [("oci:o", "1"), ("oci:o:1", "1"), ("oci:p", "latest")])
def test_the_tag_that_is_written_keeps_no_old_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str, tag: str
) -> None:
    """Also where it is the only one of a layout, or the one that a place without a tag gets."""
    old = make_layout(tmp_path / "o", [{}], tag="1")
    make_layout(tmp_path / "p", [{}], tag="latest")
    monkeypatch.chdir(tmp_path)
    to = ["--to", place] if place == "oci:p" else []
    argv = ["annotate", place if not to else "oci:o:1", "-a", "k=1", *to]
    assert main([*argv, "--backup-tag", tag]) == 2
    assert f"--backup-tag {tag} is the image's own tag" in capsys.readouterr().err
    assert main([*argv, "--backup-tag"]) == 0
    kept = f"{tag}-before-{old.digest[7:19]}"
    assert Layout(tmp_path / place[4:5]).tags() == tuple(sorted((tag, kept)))
    if not to:
        assert main(["annotate", "oci:o:1", "-a", "k=2", "--backup-tag", "latest"]) == 0


def test_two_images_that_become_one_come_back_as_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = [make_layout(tmp_path / "i", [{}], annotations={"x.y": value}, tag=None) for value in "12"]
    (tmp_path / "i" / "index.json").unlink()
    old = make_index(tmp_path / "i", pair, tag="1")
    monkeypatch.chdir(tmp_path)
    argv = ["annotate", "oci:i:1", "--all-children", "-a", "x.y=3"]
    preview = written_by([*argv, "--dry-run"])
    written = written_by([*argv, "--receipt", "r.json"])
    assert written == preview and len(written) == len(set(written)) == 2, "each content once"
    store = Layout(tmp_path / "i")
    assert len({entry.digest for entry in store.manifest("1").descriptors}) == 1
    for one in pair:
        store.blob_path(one.digest).unlink()
    assert main(["annotate", "--undo", "r.json"]) == 0
    assert [store.manifest(entry.digest).raw for entry in store.manifest("1").descriptors] == [one.raw for one in pair]
    assert store.manifest("1").raw == old.raw


def written_by(argv: list[str]) -> list[str]:
    """What a run says that it writes."""
    done = hpc3build(*argv, "--json")
    digests: list[str] = json.loads(done.out)["results"][0]["written"]
    return digests
