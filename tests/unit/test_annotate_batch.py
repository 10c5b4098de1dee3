"""Several references in one run: order, one failure beside the others, one tag at a time, the worst exit code."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hpc3build.errors import Hpc3BuildError, InputError, StoreError
from hpc3build.oci import Manifest
from hpc3build.reference import Reference, parse
from hpc3build.report import Progress
from hpc3build.run import run
from hpc3build.stores.access import Access
from hpc3build.stores.layout import Layout
from hpc3build.workflows.annotate import Wish
from hpc3build.workflows.batch import Outcome, Tally, annotate_all, read_list
from tests.commands import ROOT, assert_one_message, hpc3build
from tests.fake_http import Answer, Recorded
from tests.fake_registry import NAME, FakeRegistry
from tests.images import make_layout

WISH = Wish(pairs={"a": "b"}, referrers="ignore")
SCHEMA = json.loads((ROOT / "hpc3build" / "schemas" / "annotate.json").read_text())


def named(*texts: str) -> list[tuple[str, Reference | Hpc3BuildError]]:
    return [(text, parse(text)) for text in texts]


def all_of(*arguments: Any, **options: Any) -> list[Outcome]:
    told: list[Outcome] = []
    annotate_all(*arguments, **options, done=told.append)
    return told


def worst(outcomes: list[Outcome]) -> int:
    tally = Tally()
    for outcome in outcomes:
        tally.add(outcome)
    return tally.exit_code


def tagged(fake: FakeRegistry, layout: Path, count: int) -> list[tuple[str, Reference | Hpc3BuildError]]:
    """The layout's image under ``count`` tags of one repository."""
    fake.add(layout)
    raw = fake.raw("latest")
    for number in range(count):
        fake.put(NAME, f"t{number}", raw, Manifest.parse(raw).media_type)
    return named(*(f"{fake.host}/{NAME}:t{number}" for number in range(count)))


def test_a_list_of_references() -> None:
    text = "# the fleet\nquay.io/a/b:1\n\n  oci:x#1:2 # by hand\n\tquay.io/a/b:2\t#gone\n"
    assert read_list(text, "list") == ("quay.io/a/b:1", "oci:x#1:2", "quay.io/a/b:2")
    with pytest.raises(InputError, match="no references"):
        read_list("# nothing\n", "list")


def test_each_ends_by_itself_and_in_order(tmp_path: Path) -> None:
    for name in "ace":
        make_layout(tmp_path / name, [{}])
    references = named(*(f"oci:{tmp_path / name}" for name in "abcde"))
    references[3] = ("??", InputError("no reference"))
    outcomes = all_of(references, WISH, run, Access(), jobs=3)
    assert [outcome.reference for outcome in outcomes] == [text for text, _ in references]
    assert [outcome.error is None for outcome in outcomes] == [True, False, True, False, True]
    assert worst(outcomes) == StoreError.exit_code and worst(outcomes[:1]) == 0
    assert all(Layout(tmp_path / name).manifest().annotations == {"a": "b"} for name in "ace")


def test_one_tag_is_one_job_and_others_run_beside_it(tmp_path: Path) -> None:
    """The PUTs of two tags wait for each other; of one tag never two requests are open at once."""
    make_layout(tmp_path / "layout", [{}])
    lock, open_now = threading.Lock(), set()
    beside: list[int] = []
    together: list[str] = []
    both = threading.Barrier(2, timeout=60)

    def slow(request: Recorded, right: Any) -> Answer:
        with lock:
            together.extend(open_now & {request.path})
            beside.append(len(open_now))
            open_now.add(request.path)
        both.wait()
        time.sleep(0.05)  # for one of the same tag, should there be two
        answer: Answer = right()
        with lock:
            open_now.discard(request.path)
        return answer

    with FakeRegistry() as fake:
        fake.add(tmp_path / "layout")
        raw = fake.raw("latest")
        for tag in "12":
            fake.put(NAME, tag, raw, Manifest.parse(raw).media_type)
        fake.fail("PUT", "/manifests/", slow, -1)
        host = f"{fake.host}/{NAME}"
        references = named(f"{host}:1", f"{host}:1", f"{host}:2", f"{host}:1")
        outcomes = all_of(references, WISH, run, Access(plain_http=True), jobs=4)
        changed = [outcome.result is not None and outcome.result.changed for outcome in outcomes]
        assert changed == [True, False, True, False] and worst(outcomes) == 0
    assert max(beside) == 1 and together == []


def test_connections_are_kept_within_a_thread(tmp_path: Path) -> None:
    make_layout(tmp_path / "layout", [{}])
    with FakeRegistry() as fake:
        references = tagged(fake, tmp_path / "layout", 20)
        assert worst(all_of(references, WISH, run, Access(plain_http=True), jobs=2)) == 0
        assert fake.seen().count("PUT manifests") == 20


def test_one_list_of_tags_serves_many_images(tmp_path: Path) -> None:
    """A repository of thousands of tags is not listed thousands of times; what is found in it is still told."""
    make_layout(tmp_path / "layout", [{}])
    with FakeRegistry() as fake:
        references = tagged(fake, tmp_path / "layout", 60)
        fake.seen()
        outcomes: list[Outcome] = []
        wish = Wish(pairs={"a": "b"})
        annotate_all(references, wish, run, Access(plain_http=True), jobs=1, done=outcomes.append)
        seen = fake.seen()
    assert len(outcomes) == 60 and all(outcome.error is None for outcome in outcomes)
    assert seen.count("PUT manifests") == 60 and seen.count("GET tags") == 2


def test_a_defect_is_not_swallowed(tmp_path: Path) -> None:
    for name in "ab":
        make_layout(tmp_path / name, [{}])

    def broken(outcome: Outcome) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        annotate_all(named(*(f"oci:{tmp_path / name}" for name in "ab")), WISH, run, Access(), jobs=2, done=broken)


def test_what_is_done_is_told_whatever_fails(tmp_path: Path) -> None:
    for name in "abc":
        make_layout(tmp_path / name, [{}])
    told: list[str] = []

    def done(outcome: Outcome) -> None:
        told.append(outcome.reference[-1])
        raise BrokenPipeError

    def ended(outcome: Outcome) -> None:
        if outcome.reference.endswith("b"):
            raise InputError("the journal's disk is full")

    references = named(*(f"oci:{tmp_path / name}" for name in "bac"))
    with pytest.raises(InputError, match="disk is full"):
        annotate_all(references, WISH, run, Access(), jobs=1, done=done, ended=ended)
    assert told == ["b"] and Layout(tmp_path / "b").manifest().annotations == {"a": "b"}
    with pytest.raises(BrokenPipeError):
        annotate_all(named(f"oci:{tmp_path / 'a'}"), WISH, run, Access(), jobs=1, done=done)
    assert told == ["b", "a"]


# ---- the command


def test_batch_by_the_command_line(tmp_path: Path) -> None:
    for name in "ab":
        make_layout(tmp_path / name, [{}])
    (tmp_path / "list").write_text("oci:a # one\noci:gone\noci:b\n")
    done = hpc3build("annotate", "--batch", "list", "-a", "k=v", "--jobs", "2", "--json", cwd=tmp_path)
    document = json.loads(done.out)
    jsonschema.validate(document, SCHEMA)
    assert done.status == 4 and document["summary"] == {"changed": 2, "unchanged": 0, "failed": 1}
    more = hpc3build("annotate", "--batch", "list", "-a", "k=w", cwd=tmp_path)
    assert more.err.count("Sarus, Apptainer and Shifter") == 1 and "repeated and not shown: 1" in more.err
    again = hpc3build("annotate", "--batch", "list", "-a", "k=w", cwd=tmp_path)
    assert again.out.count("unchanged") == 2 and "3 references: 0 changed, 2 unchanged, 1 failed" in again.err
    assert "hpc3build: error: gone is not an OCI layout" in again.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-a", "k=v"], "no image is named"),
        (["--batch", "gone", "-a", "k=v"], "gone"),
        (["oci:a", "oci:b", "--to", "oci:c:1"], "--to"),
        (["oci:a", "--jobs", "0", "-a", "k=v"], "--jobs"),
        (["--batch", "-", "--username", "u", "--password-stdin", "-a", "k=v"], "standard input"),
        (["oci:a", "--attach", "--to", "oci:b:1", "-a", "k=v"], "--attach"),
        (["oci:a", "--undo", "r.json"], "--undo"),
        (["--undo", "gone.json"], "gone.json"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, arguments: list[str], told: str) -> None:
    assert told in assert_one_message(hpc3build("annotate", *arguments, cwd=tmp_path), 2)


def test_the_bar_is_for_terminals_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for tty, shown in ((False, False), (True, True)):
        monkeypatch.setattr("sys.stderr.isatty", lambda tty=tty: tty, raising=False)
        seconds = iter([0.0, 10.0, 20.0])
        progress = Progress(lambda: 3, clock=lambda seconds=seconds: next(seconds))  # type: ignore[misc]
        for failed in (True, False):
            with progress.step(failed=failed):
                print("one")
        progress.close()
        out, err = capsys.readouterr()
        assert out == "one\none\n"
        assert ("1/3, 1 failed, 0.1/s, 0:00:20 left" in err) is shown
        assert ("2/3, 1 failed, 0.1/s, 0:00:10 left" in err) is shown
