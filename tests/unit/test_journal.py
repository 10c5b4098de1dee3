"""What of a long run is done: taken up again, torn lines cut off, another wish refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc3build.errors import InputError
from hpc3build.reference import parse
from hpc3build.rewrite import Result
from hpc3build.workflows.annotate import Wish
from hpc3build.workflows.journal import SYNC, Journal

WISH = Wish(pairs={"a": "ü", "b": "2"}, remove=("c",))
DIGEST = "sha256:" + "0" * 64
NAMES = [f"docker://r.example/app:{number}" for number in range(5)]


def result(name: str, **members: object) -> Result:
    return replace(Result(parse(name), DIGEST, DIGEST, True, (), False, ()), **members)  # type: ignore[arg-type]


def written(path: Path, names: list[str] = NAMES) -> bytes:
    with Journal(str(path), WISH) as journal:
        for name in names:
            journal.add(result(name))
    return path.read_bytes()


def test_what_is_done_is_known_again(tmp_path: Path) -> None:
    lines = written(tmp_path / "journal", NAMES[:2]).splitlines()
    assert [json.loads(line).get("done") for line in lines] == [None, *NAMES[:2]]
    with Journal(str(tmp_path / "journal"), Wish(remove=("c",), pairs={"b": "2", "a": "ü"})) as journal:
        assert [journal.has(name) for name in NAMES] == [True, True, False, False, False]
        assert not journal.undecided
        journal.add(result(NAMES[2], undecided=("a",)))
    with Journal(str(tmp_path / "journal"), WISH) as journal:
        assert journal.has(NAMES[2]) and journal.undecided
    assert (tmp_path / "journal").read_bytes().startswith(b"\n".join(lines) + b"\n")


def test_cut_off_at_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is left of the file, whole lines hold, and the run that follows leaves a good journal."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    whole = written(tmp_path / "whole", NAMES[:3])
    ends = [place for place, byte in enumerate(whole, start=1) if byte == 10]
    for length in range(len(whole) + 1):
        path = tmp_path / "torn"
        path.write_bytes(whole[:length])
        with Journal(str(path), WISH) as journal:
            kept = sum(end <= length for end in ends[1:])
            assert [journal.has(name) for name in NAMES[:3]] == [number < kept for number in range(3)]
            journal.add(result(NAMES[4]))
        for line in path.read_bytes().splitlines():
            json.loads(line)
        with Journal(str(path), WISH) as journal:
            assert journal.has(NAMES[4])


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (replace(WISH, pairs={"a": "x", "b": "2"}), "pairs"),
        (replace(WISH, remove=()), "remove"),
        (replace(WISH, labels=True), "labels"),
        (replace(WISH, detect=True), "detect"),
        (replace(WISH, attach=False, referrers="move"), "referrers"),
    ],
)
def test_of_another_wish_it_is_refused(tmp_path: Path, wish: Wish, told: str) -> None:
    before = written(tmp_path / "journal")
    with pytest.raises(InputError, match=f"another wish: {told} "):
        Journal(str(tmp_path / "journal"), wish)
    assert (tmp_path / "journal").read_bytes() == before


def test_how_carefully_it_is_written_is_no_other_wish(tmp_path: Path) -> None:
    written(tmp_path / "journal")
    Journal(str(tmp_path / "journal"), replace(WISH, verify=True)).close()


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"my notes", 1), (b"my notes\n", 1), (b"[]\n", 1), (b'{"kind":"other"}\n', 1), (b"\xff\xfe\n", 1)],
)
def test_other_files_are_left_alone(tmp_path: Path, content: bytes, line: int) -> None:
    (tmp_path / "notes").write_bytes(content)
    with pytest.raises(InputError, match=f"notes:{line}: no line of a journal"):
        Journal(str(tmp_path / "notes"), WISH)
    assert (tmp_path / "notes").read_bytes() == content


def test_a_strange_line_in_the_middle_is_told(tmp_path: Path) -> None:
    whole = written(tmp_path / "journal")
    (tmp_path / "journal").write_bytes(whole + b'{"done":1}\n')
    with pytest.raises(InputError, match="journal:7: no line of a journal"):
        Journal(str(tmp_path / "journal"), WISH)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with Journal(str(tmp_path / "journal"), WISH), pytest.raises(InputError, match="another run writes it"):
        Journal(str(tmp_path / "journal"), WISH)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "journal"):
        with pytest.raises(InputError, match="--journal"):
            Journal(str(path), WISH)


def test_lines_reach_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    with Journal(str(tmp_path / "journal"), WISH) as journal:
        begun = len(synced)
        for number in range(3 * SYNC):
            journal.add(result(f"docker://r.example/app:{number}"))
        assert begun >= 1 and len(synced) - begun == 3
    assert len(synced) - begun == 4


@given(st.binary(max_size=80))
def test_any_bytes_are_a_journal_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "journal"
    path.write_bytes(content)
    try:
        Journal(str(path), WISH).close()
    except InputError:
        assert path.read_bytes() == content
