"""Rendering easyconfigs by the command line: the same bytes every time, and bad input told in one message."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.commands import ROOT, assert_one_message, hpc3build
from tests.dockerfile_words import instructions, pairs

pytest.importorskip("easybuild.framework")
RECIPE = ROOT / "recipes" / "mpi-hello"
HEAD = """
name = 'x'
version = '1.0'
easyblock = 'Tarball'
homepage = 'https://example.org'
description = 'a test'
toolchain = SYSTEM
moduleclass = 'lib'
"""
#: Time zone, locale, seed of Python's hashes, the terminal's width: ten runs, no two alike.
RUNS = [
    {"TZ": zone, "LC_ALL": locale, "LANG": locale, "PYTHONHASHSEED": str(number), "COLUMNS": str(40 + number)}
    for number, (zone, locale) in enumerate(
        [("Pacific/Kiritimati", "C.UTF-8"), ("America/Adak", "C"), ("UTC", "tr_TR.UTF-8"), ("Asia/Kathmandu", "POSIX")]
        * 3
    )
][:10]


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{file.relative_to(folder)}\0{file.stat().st_mode}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()


def test_the_same_input_gives_the_same_bytes_ten_times_of_ten(tmp_path: Path) -> None:
    """From its own folder and from elsewhere, resolved anew and remembered, in different places of the world."""
    found = set()
    for number, env in enumerate(RUNS):
        out = tmp_path / f"out{number}"
        anew = ["--no-cache"] if number % 3 == 0 else []
        cwd = tmp_path if number % 2 else RECIPE
        done = hpc3build("render", RECIPE, "--target", "zen3", "--context", out, *anew, cwd=cwd, env=env)
        assert done.status == 0, done.err
        found.add(digest(out))
    assert len(found) == 1


def test_several_roots_and_their_order(tmp_path: Path) -> None:
    for folder, name in (("one", "a"), ("two", "b")):
        (tmp_path / folder).mkdir()
        text = HEAD.replace("'x'", f"'{name}'") + ("dependencies = [('a', '1.0')]\n" if name == "b" else "")
        (tmp_path / folder / f"{name}-1.0.eb").write_text(text)
    done = hpc3build("render", "two/b-1.0.eb", "one/a-1.0.eb", "--context", "out", cwd=tmp_path)
    assert done.status == 0, done.err
    scripts = tmp_path / "out" / "hpc3build" / "easybuild"
    assert (scripts / "modules.txt").read_text() == "a/1.0\nb/1.0\n"
    assert {path.name for path in (scripts / "application" / "easyconfigs").iterdir()} == {"a-1.0.eb", "b-1.0.eb"}


def test_robot_paths_easyblocks_and_hooks(tmp_path: Path) -> None:
    """A dependency elsewhere, an easyblock of one's own, and a hook that changes what is resolved."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "low-2.0.eb").write_text(HEAD.replace("'x'", "'low'").replace("1.0", "2.0"))
    (tmp_path / "mine.py").write_text(
        "from easybuild.easyblocks.generic.tarball import Tarball\n\n\nclass mine(Tarball):\n    pass\n"
    )
    (tmp_path / "hooks.py").write_text(
        "def parse_hook(ec, *args, **kwargs):\n    if ec.name == 'x':\n        ec['dependencies'] = [('low', '2.0')]\n"
    )
    (tmp_path / "x-1.0.eb").write_text(HEAD.replace("Tarball", "mine"))
    argv = ["render", "x-1.0.eb", "--context", "out", "--robot-paths", "site", "--include-easyblocks", "mine.py"]
    done = hpc3build(*argv, "--hooks", "hooks.py", cwd=tmp_path)
    assert done.status == 0, done.err
    scripts = tmp_path / "out" / "hpc3build" / "easybuild"
    assert (scripts / "dependencies" / "easyconfigs" / "low-2.0.eb").exists()
    assert (scripts / "own" / "hooks.py").exists() and (scripts / "own" / "easyblocks" / "mine.py").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = = 'x'\n", "x-1.0.eb: line 1: SyntaxError"),
        (HEAD + "dependencies = [('libnothere', '9')]\n", "no easyconfig for libnothere/9"),
        (HEAD.replace("SYSTEM", "{'name': 'fooss', 'version': '1'}"), "EasyBuild has no toolchain fooss"),
        (HEAD.replace("'Tarball'", "'EB_CUDA'"), "nobody has accepted the licence"),
        (HEAD.replace("'Tarball'", "'NoSuchBlock'"), "NoSuchBlock"),
        ("import os\nos.system('echo junk; echo junk >&2')\nos._exit(7)\n", "ended with exit status 7"),
        (
            "import os\nfor _ in range(50):\n    if os.fork() == 0:\n        os._exit(0)\nraise OSError('x')\n",
            "OSError: x",
        ),
        ("print('\\x1b[31m' * 1000)\nraise ValueError('\\x1b[31m\\n' * 100)\n", "ValueError"),
        ("x = '\\ud800'\nraise ValueError(x)\n", "ValueError"),
    ],
)
def test_bad_easyconfigs(tmp_path: Path, text: str, says: str) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    (tmp_path / "x-1.0.eb").write_text(text)
    argv = ["render", "x-1.0.eb", "--context", "out", "-o", "Containerfile"]
    done = hpc3build(*argv, cwd=tmp_path, env={"TMPDIR": str(temporary)})
    assert says in assert_one_message(done, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tmp", "x-1.0.eb"] and not list(temporary.iterdir())


@pytest.mark.parametrize(
    "command", [["render", "GROMACS-2024.5-foss-2023b.eb"], ["facts", "GROMACS-2024.5-foss-2023b"]]
)
def test_an_unknown_name_gets_the_nearest(command: list[str]) -> None:
    assert "GROMACS-2024.4-foss-2023b" in assert_one_message(hpc3build(*command), 2)


#: EasyBuild takes whatever holds no blank.
SUFFIX = "-\"$(touch${IFS}mark)`touch${IFS}mark`\\x'*$HOME\\"
#: Instead of Lmod's: each argument by itself, so that a name that was split shows.
MODULE = 'module() { for word in "$@"; do printf \'%s\\0\' "$word"; done; }\n'


def test_a_hostile_version_suffix_is_a_name_and_nothing_else(tmp_path: Path) -> None:
    """It stands in ENV, in JSON and in the list that a shell reads in the builder, which is really read here."""
    (tmp_path / "x-1.0.eb").write_text(HEAD + f"versionsuffix = {SUFFIX!r}\n")
    done = hpc3build("render", "x-1.0.eb", "--context", "out", "--no-cache", cwd=tmp_path)
    assert done.status == 0, done.err
    name, scripts = f"x/1.0{SUFFIX}", tmp_path / "out/hpc3build/easybuild"
    found = instructions((tmp_path / "out/Containerfile").read_text())
    (path,) = [pairs(rest)["PATH"] for instruction, rest in found if instruction == "ENV" and "PATH=" in rest]
    assert path.startswith(f"/opt/easybuild/software/{name}/bin:/usr/local/sbin:")
    assert sum("mark" in rest for _, rest in found) == 1, "no other instruction has it"
    record = json.loads((scripts / "keep.json").read_text())
    assert record["roots"] == [name] and name in {module["module"] for module in record["modules"]}
    activate = (tmp_path / "out/hpc3build/activate.sh").read_text()
    for known in ("/opt/lmod/lmod/init/bash", "/opt/hpc3build/build/easybuild/modules.txt"):
        assert known in activate
    activate = activate.replace("/opt/lmod/lmod/init/bash", f"{tmp_path}/module.sh")
    activate = activate.replace("/opt/hpc3build/build/easybuild", str(scripts))
    (tmp_path / "module.sh").write_text(MODULE)
    read = subprocess.run(["bash", "-euc", activate], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert read.split("\0") == ["use", "/opt/easybuild/modules/all", "load", name, ""]
    assert not (tmp_path / "mark").exists()


def test_a_version_suffix_of_two_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x-1.0.eb").write_text(HEAD + "versionsuffix = '-a\\nRUN touch mark'\n")
    assert_one_message(hpc3build("render", "x-1.0.eb", "--no-cache", cwd=tmp_path), 2)
