"""Resolved closures on disk: found again, and never believed when anything has changed."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc3build.frontends import easybuild_cache as cache
from hpc3build.frontends import easybuild_resolve
from hpc3build.frontends.easybuild_sources import Sources
from hpc3build.run import Completed


@pytest.fixture
def easyconfig(tmp_path: Path) -> Path:
    path = tmp_path / "own" / "A-1.eb"
    path.parent.mkdir()
    path.write_text("name = 'A'")
    return path


class Resolver:
    """A runner that resolves to one module, and counts."""

    def __init__(self, easyconfig: Path) -> None:
        self.answer = {"modules": [{"module": "A/1", "path": str(easyconfig)}], "roots": ["A/1"]}
        self.calls = 0

    def __call__(self, argv: Any, **options: Any) -> Completed:
        self.calls += 1
        return Completed(tuple(argv), 0, json.dumps(self.answer), "")


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python with EasyBuild, as far as pip's records go."""
    path = tmp_path / "venv" / "bin" / "python"
    (tmp_path / "venv" / "lib" / "python3.11" / "site-packages" / "easybuild-5.4.1.dist-info").mkdir(parents=True)
    monkeypatch.setenv("HPC3BUILD_EASYBUILD_PYTHON", str(path))
    return path


def test_the_second_time_nothing_runs(easyconfig: Path, python: Path, tmp_path: Path) -> None:
    resolver, folder = Resolver(easyconfig), tmp_path / "cache"
    sources = Sources(easyconfigs=(str(easyconfig),), robot_paths=(easyconfig.parent,))
    found = [dict(easybuild_resolve.resolve(sources, resolver, folder)) for _ in range(3)]
    assert resolver.calls == 1 and found == [resolver.answer] * 3
    easybuild_resolve.resolve(sources, resolver)
    assert resolver.calls == 2, "without a folder nothing is remembered"


def change_text(easyconfig: Path, python: Path) -> None:
    easyconfig.write_text("name = 'B'")


def add_a_neighbour(easyconfig: Path, python: Path) -> None:
    easyconfig.with_name("B-1.eb").write_text("")


def another_easybuild(easyconfig: Path, python: Path) -> None:
    (python.parents[1] / "lib/python3.11/site-packages/easybuild-5.4.1.dist-info").rename(
        python.parents[1] / "lib/python3.11/site-packages/easybuild-5.4.2.dist-info"
    )


def damage(easyconfig: Path, python: Path) -> None:
    (entry,) = (python.parents[2] / "cache").iterdir()
    data = entry.read_bytes()
    entry.write_bytes(data.replace(b"A/1", b"B/1"))


def cut(easyconfig: Path, python: Path) -> None:
    (entry,) = (python.parents[2] / "cache").iterdir()
    entry.write_bytes(entry.read_bytes()[:100])


def empty(easyconfig: Path, python: Path) -> None:
    (entry,) = (python.parents[2] / "cache").iterdir()
    entry.write_bytes(b"")


@pytest.mark.parametrize("change", [change_text, add_a_neighbour, another_easybuild, damage, cut, empty])
def test_whatever_changes_it_is_resolved_anew(change: Any, easyconfig: Path, python: Path, tmp_path: Path) -> None:
    resolver, folder = Resolver(easyconfig), tmp_path / "cache"
    sources = Sources(easyconfigs=(str(easyconfig),), robot_paths=(easyconfig.parent,))
    easybuild_resolve.resolve(sources, resolver, folder)
    change(easyconfig, python)
    assert dict(easybuild_resolve.resolve(sources, resolver, folder)) == resolver.answer
    assert resolver.calls == 2
    easybuild_resolve.resolve(sources, resolver, folder)
    assert resolver.calls == 2, "and that is remembered"


def test_easyblocks_and_hooks_count(easyconfig: Path, python: Path, tmp_path: Path) -> None:
    resolver, folder, block = Resolver(easyconfig), tmp_path / "cache", tmp_path / "block.py"
    for text in ("one", "two", "two"):
        block.write_text(text)
        sources = Sources(easyconfigs=(str(easyconfig),), easyblocks=(block,), hooks=block)
        easybuild_resolve.resolve(sources, resolver, folder)
    assert resolver.calls == 2


def test_sources_are_asked_for_and_lists_of_checksums_count(easyconfig: Path, python: Path, tmp_path: Path) -> None:
    resolver, folder, sums = Resolver(easyconfig), tmp_path / "cache", easyconfig.with_name("checksums.json")
    plain = Sources(easyconfigs=(str(easyconfig),), robot_paths=(easyconfig.parent,))
    sums.write_text("{}")
    given = replace(plain, sourcepath=(tmp_path,))
    for calls, sources in enumerate((plain, given), 1):
        for _ in range(2):
            easybuild_resolve.resolve(sources, resolver, folder)
            assert resolver.calls == calls
    sums.write_text('{"a": "b"}')
    easybuild_resolve.resolve(plain, resolver, folder)
    assert resolver.calls == 2
    easybuild_resolve.resolve(given, resolver, folder)
    assert resolver.calls == 3


def test_a_place_that_is_no_folder(easyconfig: Path, python: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sources = Sources(easyconfigs=(str(easyconfig),))
    assert easybuild_resolve.resolve(sources, Resolver(easyconfig), tmp_path / "file")
    assert easybuild_resolve.resolve(sources, Resolver(easyconfig), tmp_path / "file" / "below")


def test_writers_and_readers_together(easyconfig: Path, tmp_path: Path) -> None:
    closure = {"modules": [{"module": "A/1", "path": str(easyconfig)}], "roots": ["A/1"], "more": "x" * 100_000}
    folder = tmp_path / "cache"

    def work(number: int) -> bool:
        if number % 2:
            cache.write(folder, "key", closure)
            return True
        return cache.read(folder, "key") in (None, closure)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))
    assert [path.name for path in folder.iterdir()] == ["key"], "nothing half-written stays"


def test_only_the_newest_are_kept(easyconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "KEPT", 3)
    closure = {"modules": [], "roots": []}
    for number in range(6):
        cache.write(tmp_path / "cache", str(number), closure)
        os.utime(tmp_path / "cache" / str(number), (number, number))
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["3", "4", "5"]


def test_folders_too_large_to_list_are_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_FILES", 2)
    for name in "abc":
        (tmp_path / name).write_text("")
    assert cache.key_of({}, [tmp_path], []) is None
