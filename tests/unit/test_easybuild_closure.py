"""The script that resolves easyconfigs, run as its users run it: in a process of its own, with a bare environment."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import closures

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "hpc3build" / "frontends" / "easybuild_closure.py"
# One of each kind: SYSTEM only, CUDA beside foss, two toolchains named NVHPC, Intel MPI.
QUICK = {
    "bzip2-1.0.8",
    "GROMACS-2024.4-foss-2023b-CUDA-12.4.0",
    "HDF5-1.14.6-NVHPC-25.9-CUDA-12.9.1",
    "OSU-Micro-Benchmarks-7.5-iimpi-2025a",
}
ADDED = {"path", "toolchain_deps", "sources", "patches", "optarch", "license", "eula"}
HEAD = """
name = '{name}'
version = '1.0'
easyblock = 'ConfigureMake'
homepage = 'https://example.org'
description = 'a test'
toolchain = SYSTEM
moduleclass = 'lib'
"""


def has_easybuild() -> bool:
    # Asked in a process of its own: importing it here would leave its traces in the tests' process.
    asked = subprocess.run([sys.executable, "-c", "import easybuild.framework"], capture_output=True, check=False)
    return asked.returncode == 0


pytestmark = [
    pytest.mark.easybuild,
    pytest.mark.skipif(not has_easybuild(), reason=f"{sys.executable} has no EasyBuild (pip install easybuild)"),
]


def script(*arguments: str | Path, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin", **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def closure(*arguments: str | Path, **env: str) -> dict[str, Any]:
    done = script(*arguments, cwd=None, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def refused(*arguments: str | Path, cwd: Path | None = None) -> dict[str, Any]:
    """The error: one line of JSON, status 2, and no traceback anywhere."""
    done = script(*arguments, cwd=cwd)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1
    report: dict[str, Any] = json.loads(done.stdout)
    assert set(report) == {"error", "file", "hint"}
    assert report["error"]
    return report


def write(folder: Path, name: str, text: str = "", head: bool = True) -> Path:
    path = folder / f"{name}-1.0.eb"
    path.write_text((HEAD.format(name=name) if head else "") + text)
    return path


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in closures.NAMES]
)
def test_recorded_closures_are_reproduced(name: str) -> None:
    recorded = closures.read(name)
    found = closure("--easyconfig", f"{name}.eb")
    for document in (recorded, found):
        del document["tool"]
    del recorded["command"]
    assert found.pop("easybuild_version") == "5.4.1"
    found["modules"] = [{k: v for k, v in entry.items() if k not in ADDED} for entry in found["modules"]]
    assert found == recorded


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "HPL-2.3-foss-2025b" else pytest.mark.long) for name in closures.NAMES],
)
def test_module_set_is_that_of_eb_itself(name: str) -> None:
    eb, as_root = f"{sys.prefix}/bin/eb", "--allow-use-as-root-and-accept-consequences"
    done = subprocess.run(
        [eb, f"{name}.eb", "--dry-run", "--robot", "--fetch", as_root],
        env={"HOME": "/nonexistent", "PATH": f"{sys.prefix}/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    listed = {line.split("(module: ")[1].rstrip(")") for line in done.stdout.splitlines() if "(module: " in line}
    assert listed == {entry["module"] for entry in closures.read(name)["modules"]}


def test_mpi_hello() -> None:
    folder = ROOT / "recipes" / "mpi-hello"
    easyconfig = folder / "mpi-hello-1.0-gompi-system.eb"
    options = ("--optarch=GCC:march=x86-64-v3", "--cuda-compute-capabilities=8.0,9.0")
    found = closure("--easyconfig", easyconfig, f"--robot-paths={folder}:", *options)
    assert found["easybuild_options"]["optarch"] == {"GCC": "march=x86-64-v3"}
    assert found["easybuild_options"]["cuda_compute_capabilities"] == ["8.0", "9.0"]
    modules = {entry["module"]: entry for entry in found["modules"]}
    assert list(modules) == ["GCC/system", "OpenMPI/system-GCC-system", "gompi/system", "mpi-hello/1.0-gompi-system"]
    hello = modules["mpi-hello/1.0-gompi-system"]
    assert hello["mpi_family"] == "OpenMPI"
    assert [dep["module"] for dep in hello["toolchain_deps"]] == ["GCC/system", "OpenMPI/system-GCC-system"]
    assert hello["sources"] == ["mpi-hello.c", "mpi-hello.mk"]
    assert hello["path"] == str(easyconfig)
    assert modules["OpenMPI/system-GCC-system"]["osdependencies"] == [["libopenmpi-dev", "openmpi-devel"]]
    assert not any(entry["builddep"] for entry in found["modules"])


def test_patches_and_optarch_are_told(tmp_path: Path) -> None:
    (tmp_path / "mend.patch").write_text("")
    (tmp_path / "other.patch").write_text("")
    text = """
toolchain = {'name': 'GCC', 'version': 'system'}
toolchainopts = {'optarch': False}
sources = ['%(name)s.tar.gz']
patches = ['%(version)s-nowhere.patch', ('mend.patch', 1), '/etc/passwd', '../other.patch']
"""
    found = closure("--easyconfig", write(tmp_path, "mine", text))["modules"][-1]
    assert (found["patches"], found["sources"]) == (["mend.patch"], [])
    assert found["optarch"] is False


def test_external_modules_are_marked(tmp_path: Path) -> None:
    found = closure("--easyconfig", write(tmp_path, "mine", "dependencies = [('cray-mpich/8.1', EXTERNAL_MODULE)]"))
    (dependency,) = found["modules"][0]["deps"]
    assert dependency["external_module"] is True
    assert dependency["module"] == "cray-mpich/8.1"


def test_settings_of_user_and_site_are_ignored(tmp_path: Path) -> None:
    for folder in (tmp_path / "easybuild", tmp_path / ".config" / "easybuild"):
        folder.mkdir(parents=True)
        (folder / "config.cfg").write_text("[override]\nfilter-deps=M4,zlib\n")
    (tmp_path / "easybuild.d").mkdir()
    (tmp_path / "easybuild.d" / "site.cfg").write_text("[override]\nfilter-deps=Bison\n")
    settings = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path), "HOME": str(tmp_path)}
    found = closure("--easyconfig", "bzip2-1.0.8.eb", EASYBUILD_FILTER_DEPS="flex", EASYBUILD_OPTARCH="no", **settings)
    assert found["n"] == 6
    assert found["easybuild_options"]["optarch"] is None


def test_suffix_may_be_left_out() -> None:
    assert closure("--easyconfig", "bzip2-1.0.8")["roots"] == ["bzip2/1.0.8"]


@pytest.mark.parametrize(
    ("name", "near"),
    [("bzip2-1.0.9.eb", "bzip2-1.0.8.eb"), ("hpl-2.3-foss-2025b.eb", "HPL-2.3-foss-2025b.eb"), ("", "no easyconfig")],
)
def test_unknown_name_gets_the_nearest(name: str, near: str) -> None:
    report = refused("--easyconfig", name)
    assert f"no such easyconfig: {name!r}" in report["error"]
    assert near in report["hint"]


def test_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder" in refused("--easyconfig", tmp_path)["error"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("name = 'x'\nversion = = '1'\n", "line 2: SyntaxError: invalid syntax"),
        ("name = 'x'\n\nversion = {}['no']\n", "line 3: KeyError: 'no'"),
        ("# EasyBuild runs what follows\n\n# the comments\nname = = 1\n", "line 4: SyntaxError"),
        ("", "empty"),
        ("name = 'x'\n", ""),
        ("name = 5\nversion = ['x']\ntoolchain = 7\n", ""),
        ("import sys\nprint('hello')\nsys.exit(0)\n", "ends the program that reads it"),
        ("import os\nos.write(1, b'{}')\nos._exit(0)\n", "ended with exit status 0"),
        ("import os\nos.kill(os.getpid(), 9)\n", "ended by signal SIGKILL"),
        ("import atexit\natexit.register(print, 'spoilt')\nraise MemoryError\n", "line 3: MemoryError"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
    ],
)
def test_broken_and_hostile_easyconfigs(tmp_path: Path, text: str, error: str) -> None:
    report = refused("--easyconfig", write(tmp_path, "x", text, head=False))
    assert error in report["error"]
    assert report["file"] == str(tmp_path / "x-1.0.eb")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x-1.0.eb"
    path.write_bytes(b"\x9a\xff\x00")
    assert refused("--easyconfig", path)["file"] == str(path)


def test_missing_dependency_names_who_wants_it(tmp_path: Path) -> None:
    write(tmp_path, "lower", "dependencies = [('libnothere', '9.9')]")
    upper = write(tmp_path, "upper", "dependencies = [('lower', '1.0')]")
    report = refused("--easyconfig", upper, f"--robot-paths={tmp_path}:")
    assert report["error"] == "no easyconfig for libnothere/9.9 (wanted by lower-1.0.eb)"


def test_error_in_a_dependency_names_its_file(tmp_path: Path) -> None:
    lower = write(tmp_path, "lower", "this is not: Python")
    upper = write(tmp_path, "upper", "dependencies = [('lower', '1.0')]")
    report = refused("--easyconfig", upper, f"--robot-paths={tmp_path}:")
    assert report["file"] == str(lower)
    assert report["error"].startswith("line 9: SyntaxError")


def test_circle_and_unknown_toolchain(tmp_path: Path) -> None:
    first = write(tmp_path, "first", "dependencies = [('second', '1.0')]")
    write(tmp_path, "second", "dependencies = [('first', '1.0')]")
    assert "in a circle" in refused("--easyconfig", first, f"--robot-paths={tmp_path}:")["error"]
    report = refused("--easyconfig", write(tmp_path, "third", "toolchain = {'name': 'fooss', 'version': '1'}"))
    assert report["error"] == "EasyBuild has no toolchain fooss"
    assert "foss" in report["hint"]


def test_refused_option() -> None:
    report = refused("--easyconfig", "bzip2-1.0.8.eb", "--cuda-compute-capabilities=many")
    assert "--cuda-compute-capabilities" in report["error"]


# ---- easyconfigs are programs: what they may and may not do


def hostile(folder: Path, text: str, *options: str) -> str:
    report = refused("--easyconfig", write(folder, "x", text, head=False), f"--scratch={scratch(folder)}", *options)
    return str(report["error"])


def scratch(folder: Path) -> Path:
    made = folder / "scratch"
    made.mkdir(exist_ok=True)
    return made


def running(marker: str) -> list[bytes]:
    """Command lines of processes that name ``marker``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # ended meanwhile
            found.append(path.read_bytes())
    return [command for command in found if marker.encode() in command]


@pytest.mark.parametrize(
    "text",
    ["while True: pass\n", "import signal\nsignal.signal(14, signal.SIG_IGN)\nsignal.pause()\n"],
    ids=["busy", "asleep"],
)
def test_one_that_never_ends(tmp_path: Path, text: str) -> None:
    assert hostile(tmp_path, text, "--time-limit=1.5") == "the easyconfigs were not read within 1.5 s"


def test_what_it_starts_ends_with_it(tmp_path: Path) -> None:
    """Also what has left its session and its parent, and what holds the output open."""
    marker = f"hpc3build-{tmp_path.name}-{id(tmp_path)}"
    text = f"""
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", "{marker}"])
    os._exit(0)
time.sleep(0.3)
raise ValueError("done")
"""
    assert hostile(tmp_path, text) == "line 9: ValueError: done"
    assert running(marker) == []


def test_processes_without_end(tmp_path: Path) -> None:
    assert hostile(tmp_path, "import os\nwhile True:\n    os.fork()\n", "--time-limit=1.5")
    assert running(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("text", "error"),
    [("while True: print('x' * 100_000)\n", "File too large"), ("x = 'x' * 10**11\n", "MemoryError")],
    ids=["junk", "memory"],
)
def test_limits(tmp_path: Path, text: str, error: str) -> None:
    assert error in hostile(tmp_path, text)


def test_junk_on_both_streams_is_not_the_answer(tmp_path: Path) -> None:
    easyconfig = write(tmp_path, "x", "import os, sys\nprint('{}')\nos.write(2, b'junk')\n")
    assert closure("--easyconfig", easyconfig)["roots"] == ["x/1.0"]


def test_few_rights(tmp_path: Path) -> None:
    """Root becomes nobody, who reads what has to be read, and writes in his own folder alone."""
    tmp_path.chmod(0o700)
    text = f"""
import os
told = [os.getuid() == 0, os.environ['HOME'], os.getcwd(), open('/proc/self/status').read().count('NoNewPrivs:\\t1')]
try:
    open({str(tmp_path / "written")!r}, 'w')
except OSError:
    told.append('refused')
raise ValueError(told)
"""
    told = hostile(tmp_path, text)
    folder = str(tmp_path / "scratch")
    assert told.startswith(f"line 8: ValueError: [False, '{folder}', '{folder}', 1")
    if os.getuid() == 0:
        assert told.endswith("'refused']")
        assert not (tmp_path / "written").exists()


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    done = script("--easyconfig", write(tmp_path, "x", "raise ValueError", head=False), TMPDIR=str(folder))
    assert done.returncode == 2 and list(folder.iterdir()) == []
