"""``spack hpc3``: what it hands to hpc3build. Spack itself is a stand-in here, with the names that it has for us."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import pytest

from hpc3build import resources
from tests.commands import hpc3build

Call = Callable[..., list[str]]


class Died(Exception):
    pass


def die(*words: str) -> NoReturn:
    raise Died(" ".join(words))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The few names of Spack's that the plugin uses; ``active`` is the active environment's folder."""
    state = SimpleNamespace(active=None)
    environment = SimpleNamespace(
        active_environment=lambda: SimpleNamespace(path=str(state.active)) if state.active else None
    )
    top, old = ModuleType("spack"), ModuleType("llnl")
    top.__dict__.update(environment=environment, paths=SimpleNamespace(prefix="/srv/spack"))
    old.__path__ = []  # type: ignore[attr-defined]
    for name, module in {
        "spack": top,
        "spack.environment": environment,
        "spack.paths": top.__dict__["paths"],
        "llnl": old,
        "llnl.util": SimpleNamespace(tty=SimpleNamespace(die=die)),
        "llnl.util.tty": SimpleNamespace(die=die),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    yield state


@pytest.fixture
def call(stand_in: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """``spack hpc3 ARGUMENTS``; gives the arguments with which it started hpc3build, whose exit status it returns."""
    told = tmp_path / "told"
    program = tmp_path / "bin" / "hpc3build"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {told}\nexit 4\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("HPC3BUILD", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> list[str]:
        module = runpy.run_path(str(Path(resources.spack_extension()) / "hpc3" / "cmd" / "hpc3.py"))
        parser = argparse.ArgumentParser()
        module["setup_parser"](parser)
        args, unknown = parser.parse_known_args(arguments)
        assert module["hpc3"](parser, args, unknown) == 4
        return told.read_text().splitlines()

    return run


def environment(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("")
    return folder


def test_the_folder_is_printed_and_is_what_spack_wants(tmp_path: Path) -> None:
    done = hpc3build("spack-extension", cwd=tmp_path)
    folder = Path(done.out.strip())
    assert (done.status, done.err) == (0, "")
    assert folder.name == "spack-hpc3"
    assert (folder / "hpc3" / "cmd" / "hpc3.py").is_file()


def test_containerize_is_render_of_the_active_environment(call: Call, stand_in: Any, tmp_path: Path) -> None:
    stand_in.active = environment(tmp_path / "env", "spack.yaml")
    assert call("containerize", "-o", "Containerfile", "--target=zen3") == [
        "render", str(stand_in.active), "-o", "Containerfile", "--target=zen3",
    ]  # fmt: skip


@pytest.mark.parametrize("said", [["--concretize", "host"], ["--concretize=host"]])
def test_the_spack_that_is_asked_is_the_one_that_concretizes(call: Call, tmp_path: Path, said: list[str]) -> None:
    environment(tmp_path, "spack.yaml")
    assert call("containerize", *said) == ["render", str(tmp_path), *said, "--spack", "/srv/spack"]
    assert call("containerize", *said, "--spack", "/x")[-2:] == ["--spack", "/x"]
    assert "/srv/spack" not in call("containerize", "--concretize", "builder")


def test_annotate_says_what_the_lock_says(call: Call, tmp_path: Path) -> None:
    environment(tmp_path, "spack.lock")
    lock = str(tmp_path / "spack.lock")
    assert call("annotate", "oci:out:1", "--labels") == ["annotate", "--from", lock, "oci:out:1", "--labels"]
    with pytest.raises(Died, match="which image"):
        call("annotate", "--labels")


def test_what_is_missing_is_told(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Died, match=r"no spack\.yaml in .* -e DIR"):
        call("containerize")
    with pytest.raises(Died, match=r"no spack\.lock in .* spack concretize"):
        call("annotate", "oci:out:1")
    environment(tmp_path, "spack.yaml")
    monkeypatch.setenv("HPC3BUILD", "/nowhere/hpc3build")
    with pytest.raises(Died, match="/nowhere/hpc3build: command not found"):
        call("containerize")
    monkeypatch.setenv("HPC3BUILD", f"env {tmp_path}/bin/hpc3build")
    assert call("containerize")[0] == "render"
