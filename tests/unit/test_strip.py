"""The strip step on programs compiled here."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

STRIP = Path(__file__).parents[2] / "containerfiles" / "hpc3build" / "strip.py"
PROGRAM = '#include <stdio.h>\nint answer(void);\nint main(void) { printf("%d\\n", answer()); return 0; }\n'
LIBRARY = "static int helper(int x) { return x * 2; }\nint answer(void) { return helper(21); }\n"

pytestmark = pytest.mark.skipif(not shutil.which("gcc") or not shutil.which("strip"), reason="needs gcc and binutils")


def gcc(folder: Path, *arguments: str) -> None:
    subprocess.run(["gcc", "-g3", *arguments], cwd=folder, check=True)


def strip(*folders: Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": path} if path is not None else None
    command = [sys.executable, str(STRIP), *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def stripped(*folders: Path) -> str:
    done = strip(*folders)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    return done.stdout


def output(program: Path) -> str:
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout


def sums(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    (folder / "main.c").write_text(PROGRAM)
    (folder / "answer.c").write_text(LIBRARY)
    gcc(folder, "-fPIC", "-c", "answer.c")
    gcc(folder, "-fPIC", "-shared", "-o", "libanswer.so", "answer.o")
    subprocess.run(["ar", "rcs", "libanswer.a", "answer.o"], cwd=folder, check=True)
    gcc(folder, "-pie", "-fPIE", "-o", "pie", "main.c", "answer.c")
    gcc(folder, "-no-pie", "-o", "no-pie", "main.c", "answer.c")
    gcc(folder, "-o", "linked", "main.c", "-L.", "-lanswer", "-Wl,-rpath,$ORIGIN")
    for name in ("main.c", "answer.c"):
        (folder / name).unlink()
    return folder


@pytest.fixture
def tree(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "tree"))


def test_programs_and_libraries_shrink_and_still_work(tree: Path) -> None:
    before = {path.name: path.stat() for path in tree.iterdir()}
    text = stripped(tree)
    assert "5 of 6 files stripped" in text
    assert "1 object files" in text
    for name in ("pie", "no-pie", "linked", "libanswer.so", "libanswer.a"):
        assert (tree / name).stat().st_size < before[name].st_size, name
    for name in ("pie", "no-pie", "linked"):
        assert output(tree / name) == "42\n"
    assert (tree / "answer.o").stat().st_size == before["answer.o"].st_size


def test_static_archives_still_link(tree: Path, tmp_path: Path) -> None:
    stripped(tree)
    (tmp_path / "main.c").write_text(PROGRAM)
    gcc(tmp_path, "-o", "again", "main.c", str(tree / "libanswer.a"))
    assert output(tmp_path / "again") == "42\n"


def test_attributes_stay(tree: Path) -> None:
    program, folder_times = tree / "pie", (1_500_000_000_000_000_001, 1_500_000_001_000_000_002)
    program.chmod(0o4555)
    os.utime(program, ns=(1_600_000_000_123_456_789, 1_600_000_001_123_456_789))
    os.utime(tree, ns=folder_times)
    if os.geteuid() == 0:
        os.chown(program, 1234, 2345)
        program.chmod(0o4555)
    before = program.stat()
    stripped(tree)
    after = program.stat()
    assert after.st_size < before.st_size
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_mtime_ns == before.st_mtime_ns
    assert tree.stat().st_mtime_ns == folder_times[1]
    assert not list(tree.glob(".hpc3*"))


def test_hard_links_stay_one_file(tree: Path) -> None:
    (tree / "sub").mkdir()
    (tree / "sub" / "pie2").hardlink_to(tree / "pie")
    (tree / "symbolic").symlink_to("pie")
    assert "5 of 6 files" in stripped(tree, tree / "sub")
    assert (tree / "sub" / "pie2").samefile(tree / "pie")
    assert (tree / "pie").stat().st_nlink == 2
    assert (tree / "symbolic").is_symlink()
    assert output(tree / "sub" / "pie2") == "42\n"


def test_hard_links_from_elsewhere_stay_one_file(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.hardlink_to(tree / "pie")
    (tree / "pie").chmod(0o555)
    size = outside.stat().st_size
    stripped(tree)
    assert outside.samefile(tree / "pie")
    assert outside.stat().st_size < size
    assert stat.S_IMODE(outside.stat().st_mode) == 0o555
    assert output(outside) == "42\n"


def test_what_must_not_be_stripped_stays_identical(tree: Path) -> None:
    other = tree / "other"
    other.mkdir()
    program, library = (tree / "pie").read_bytes(), (tree / "libanswer.a").read_bytes()
    machine = b"\xb7\0" if program[18:20] != b"\xb7\0" else b"\x3e\0"  # aarch64, or x86_64 there
    (other / "foreign").write_bytes(program[:18] + machine + program[20:])
    at = library.index(b"\x7fELF")
    (other / "foreign.a").write_bytes(library[: at + 18] + machine + library[at + 20 :])
    (other / "appended").write_bytes(program + b"PK\3\4 a zip file")
    (other / "script").write_text("#!/bin/sh\necho hello\n")
    (other / "short").write_bytes(b"\x7fELF")
    (other / "empty").write_bytes(b"")
    (other / "broken").write_bytes(program[:40] + b"\xff" * 24 + program[64:])
    (other / "cut").write_bytes(program[: len(program) // 2])
    (other / "broken.a").write_bytes(b"!<arch>\nnonsense")
    (other / "bitcode.a").write_bytes(b"!<arch>\n" + b"x.o/".ljust(48) + b"4         `\nBC\xc0\xde")
    (other / "go").write_bytes(program)
    subprocess.run(["objcopy", "--add-section", ".go.buildinfo=script", "go"], cwd=other, check=True)
    subprocess.run(["objcopy", "--only-keep-debug", str(tree / "pie"), "pie.debug"], cwd=other, check=True)
    offset = 32  # of the section table's offset and, behind it, its size: nothing fits
    (other / "lies").write_bytes(program[:offset] + program[offset : offset + 8] + b"\xff" * 7 + program[offset + 15 :])
    before = sums(other)
    text = stripped(other)
    assert sums(other) == before
    assert text.startswith("strip: 0 of ")
    for reason in ("1 of Go", "2 of another architecture", "1 with data behind their end", "1 debug information"):
        assert reason in text


def test_a_second_time_changes_nothing(tree: Path) -> None:
    stripped(tree)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tree.iterdir()}
    assert "strip: 0 of 6 files" in stripped(tree)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tree.iterdir()} == before


def _fake(folder: Path, script: str) -> str:
    folder.mkdir()
    (folder / "strip").write_text("#!/bin/sh\n" + script)
    (folder / "strip").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_a_failing_file_is_named_and_fails_nothing(tree: Path, tmp_path: Path) -> None:
    path = _fake(
        tmp_path / "bin", f'case "$*" in *no-pie) echo odd file; exit 1;; esac; exec {shutil.which("strip")} "$@"\n'
    )
    before = sums(tree)
    done = strip(tree, path=path)
    assert done.returncode == 0
    assert "1 failed" in done.stdout
    assert done.stderr == f"strip: left as it was: {tree}/no-pie: strip ended with 1: odd file\n"
    assert sums(tree)["no-pie"] == before["no-pie"]
    assert not list(tree.glob(".hpc3*"))


def test_a_strip_that_changes_the_program_is_not_believed(tree: Path, tmp_path: Path) -> None:
    # As old binutils did to files that patchelf had written: something loaded differs (820 is just behind
    # the headers), the file is smaller.
    script = f'{shutil.which("strip")} "$@" || exit; case "$2" in --strip-unneeded) printf X | '
    script += 'dd of="$4" bs=1 seek=820 conv=notrunc status=none;; esac\n'
    before = sums(tree)
    done = strip(tree, path=_fake(tmp_path / "bin", script))
    assert done.returncode == 0
    assert "that strip would have changed" in done.stdout
    assert sums(tree)["pie"] == before["pie"]


def test_names_that_are_no_text(tree: Path) -> None:
    odd = os.fsencode(tree) + b"/\xff\n"
    (tree / "pie").rename(os.fsdecode(odd))
    assert "5 of 6" in stripped(tree)


def test_what_is_missing(tree: Path, tmp_path: Path) -> None:
    done = strip(tree, tmp_path / "none")
    assert done.returncode == 2
    assert f"no such directory: {tmp_path}/none" in done.stderr
    assert strip().returncode == 2
    done = strip(tree, path="/nowhere")
    assert done.returncode == 3
    assert "binutils" in done.stderr


def test_works_with_old_pythons(tree: Path) -> None:
    """Python 3.6 where there is one, else its grammar as far as ast knows it."""
    import ast

    ast.parse(STRIP.read_text(), feature_version=(3, 6))
    for version in ("3.6", "3.7", "3.8"):
        for python in Path.home().glob(f".pyenv/versions/{version}.*/bin/python"):
            done = subprocess.run(
                [python, STRIP, tree], capture_output=True, text=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert output(tree / "pie") == "42\n"
