"""Builds that fail, or are killed, leave what was there: no layout, no tag, no name, and the old tag as it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc3build.recipe import ENTRYPOINTS
from tests.integration.support import RECIPE, ROOT, Built, digest_in, hpc3build, images, sh, snapshot

pytestmark = pytest.mark.engine

BROKEN_EASYCONFIG = """\
easyblock = 'MakeCp'
name = 'broken'
version = '1.0'
homepage = '(none)'
description = "Does not compile."
toolchain = {'name': 'gompi', 'version': 'system'}
toolchainopts = {'usempi': True}
sources = [
    {'filename': 'mpi-hello.c', 'extract_cmd': 'cp %s .'},
    {'filename': 'mpi-hello.mk', 'extract_cmd': 'cp %s Makefile'},
]
buildopts = 'CC="$MPICC" CFLAGS="$CFLAGS"'
files_to_copy = [(['mpi-hello'], 'bin')]
sanity_check_paths = {'files': ['bin/mpi-hello'], 'dirs': []}
moduleclass = 'tools'
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A copy of recipes/mpi-hello to be changed: as long as only its settings are, all layers come from the cache."""
    return Path(shutil.copytree(RECIPE, tmp_path / "recipe" / "mpi-hello"))


@pytest.fixture
def old(mpi_hello: Built, tmp_path: Path) -> Path:
    """A layout with an image under the tag that the failing build is to write."""
    return Path(shutil.copytree(mpi_hello.layout, tmp_path / "old layout" / "images"))


@pytest.fixture(autouse=True)
def scratch(
    mpi_hello: Built, leftover_containers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """No test here leaves a named image or a container behind; TMPDIR is one of its own."""
    before = images()
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert images() == before


def left_in(scratch: Path) -> list[str]:
    """What the command line put aside and did not remove: secrets, contexts, exports."""
    return sorted(path.name for path in scratch.iterdir() if "hpc3" in path.name)


def edit(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def fails(recipe: Path, base: str, old: Path, *options: str, status: int = 3) -> subprocess.CompletedProcess[str]:
    """Build into a new layout, and over a tag: neither may change anything."""
    fresh, before = old.parent / "fresh", snapshot(old)
    done = hpc3build("build", recipe, "-t", f"oci:{fresh}:1.0", "--base", base, *options, check=False)
    assert done.returncode == status, done.stderr[-3000:]
    assert not fresh.exists() and done.stdout == "" and "Traceback" not in done.stderr
    again = hpc3build("build", recipe, "-t", f"oci:{old}:1.0", "--base", base, *options, check=False)
    assert again.returncode == status and snapshot(old) == before
    assert [path.name for path in old.parent.iterdir()] == [old.name]
    assert left_in(Path(os.environ["TMPDIR"])) == []
    return done


def test_a_compile_that_fails(recipe: Path, base: str, old: Path) -> None:
    (recipe / "mpi-hello-1.0-gompi-system.eb").unlink()
    (recipe / "broken-1.0-gompi-system.eb").write_text(BROKEN_EASYCONFIG)
    (recipe / "mpi-hello.c").write_text("int main(void) { return hpc3build_undeclared_5d1c; }\n")
    edit(recipe / "hpc3build.yaml", ("smoke: mpi-hello\n", ""))
    done = fails(recipe / "broken-1.0-gompi-system.eb", base, old)
    message = done.stderr[done.stderr.rindex("hpc3build: error:") :]
    assert "hpc3build_undeclared_5d1c" in message, "the compiler's own line is not among the last lines"
    assert "failed with exit status" in message and "hint: nothing was published" in message


def test_a_smoke_test_that_fails(recipe: Path, base: str, old: Path) -> None:
    edit(recipe / "hpc3build.yaml", ("smoke: mpi-hello", "smoke: mpi-hello-is-not-there --now"))
    done = fails(recipe, base, old)
    message = done.stderr[done.stderr.rindex("hpc3build: error:") :]
    assert "smoke" in message and "mpi-hello-is-not-there: command not found" in message
    assert "exit status 127" in message and "nothing was published" in message


@pytest.mark.parametrize("entry", ENTRYPOINTS)
def test_a_smoke_test_is_a_line_of_shell_whose_status_counts(entry: str, recipe: Path, base: str, old: Path) -> None:
    """Both entry points run the words of a command: a line's quotes, pipes and status were lost on the way."""
    line = "mpi-hello >/dev/null && sh -c 'exit 3' | cat; exit $((PIPESTATUS[0] + 1))"
    edit(recipe / "hpc3build.yaml", ("smoke: mpi-hello", f"smoke: {json.dumps(line)}\nentrypoint: {entry}"))
    done = hpc3build("build", recipe, "-t", f"oci:{old}:1.0", "--base", base, check=False)
    assert done.returncode == 3 and "exit status 4" in done.stderr and line in done.stderr
    assert "nothing was published" in done.stderr


def test_a_base_that_does_not_exist(recipe: Path, old: Path) -> None:
    start = time.monotonic()
    done = fails(recipe, "localhost/hpc3build-test-absent/debian:12", old)
    assert time.monotonic() - start < 120
    message = done.stderr[done.stderr.rindex("hpc3build: error:") :]
    assert "the base image cannot be had" in message and "localhost/hpc3build-test-absent/debian:12" in message
    assert len(message.splitlines()) == 2 and "--base" in message.splitlines()[1]


def test_a_base_that_nobody_knows(recipe: Path, old: Path) -> None:
    done = fails(recipe, "localhost/plan9:4", old, status=2)
    assert "localhost/plan9:4" in done.stderr and "debian:12" in done.stderr


@pytest.mark.parametrize("path", ["file", "file/below", "stranger"])
def test_an_output_that_is_no_layout(path: str, recipe: Path, base: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine\n")
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "mine").write_text("mine\n")
    before = snapshot(tmp_path)
    done = hpc3build("build", recipe, "-t", f"oci:{tmp_path / path}:1.0", "--base", base, check=False)
    assert done.returncode in (2, 4) and str(tmp_path) in done.stderr and "Traceback" not in done.stderr
    assert "STEP" not in done.stderr, "it is told before hours of building, not after"
    assert snapshot(tmp_path) == before


def test_a_target_that_the_easyconfig_overrules(recipe: Path, base: str, old: Path) -> None:
    """The user said x86_64, the code would be x86_64_v3: that is told, and before anything is built."""
    options = ("{'usempi': True}", "{'usempi': True, 'optarch': 'march=x86-64-v3'}")
    edit(recipe / "mpi-hello-1.0-gompi-system.eb", options)
    done = fails(recipe, base, old, "--target", "x86_64", status=2)
    assert "x86_64_v3" in done.stderr and "target is x86_64\n" in done.stderr and "STEP" not in done.stderr


# ---- plan against finding (R9)

DOCTORED = """\
import dataclasses, sys
from hpc3build.engines import choose
from hpc3build.facts import Fact, Source, vocabulary as voc
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.workflows import build, render
from hpc3build.recipe import Settings
from hpc3build import cli

recipe, target, base, *pairs = sys.argv[1:]
real = build.planned_facts

def planned_facts(recipe, stack):
    facts = real(recipe, stack)
    given = (pair.split("=") for pair in pairs)
    mine = [Fact(voc.BY_NAME[key], value, Source.STACK, "a doctored plan") for key, value in given]
    return dataclasses.replace(facts, facts={**facts.facts, **{fact.key: fact for fact in mine}})

build.planned_facts = planned_facts
sys.exit(cli.main(["build", recipe, "-t", target, "--base", base]))
"""


WRONG = [
    ("org.supercontainers.mpi.version", "5.0.3", "4.1.4"),
    ("org.supercontainers.mpi.implementation", "mpich", "openmpi"),
    ("org.supercontainers.hardware.cpu.optimized.version", "aarch64", "x86_64"),
    ("org.supercontainers.os.version", "13", "12"),
]


def test_an_image_that_is_not_what_was_planned(recipe: Path, base: str, old: Path) -> None:
    """Everything that differs is told at once, so one build shows them all."""
    edit(recipe / "hpc3build.yaml", ("smoke: mpi-hello\n", ""))
    before = snapshot(old)
    argv = [
        sys.executable,
        "-c",
        DOCTORED,
        recipe,
        f"oci:{old}:1.0",
        base,
        *(f"{key}={value}" for key, value, _ in WRONG),
    ]
    done = sh(*argv, check=False, cwd=ROOT)
    assert done.returncode == 1, done.stderr[-2000:]
    message = done.stderr[done.stderr.rindex("hpc3build: error:") :]
    for key, value, found in WRONG:
        assert f"{key}: planned {value} (a doctored plan), found {found}" in message
    assert "nothing was published" in message
    assert snapshot(old) == before and [path.name for path in old.parent.iterdir()] == [old.name]


def test_a_plan_with_fewer_digits_is_refined(recipe: Path, base: str, old: Path) -> None:
    """The counterpart: what agrees is no contradiction, and the finding's digits are written."""
    edit(recipe / "hpc3build.yaml", ("smoke: mpi-hello\n", ""))
    key = "org.supercontainers.mpi.version"
    done = sh(sys.executable, "-c", DOCTORED, recipe, f"oci:{old}:2.0", base, f"{key}=4.1", cwd=ROOT)
    assert any(line.split()[:2] == [key, "4.1.4"] for line in done.stdout.splitlines())


# ---- killed

KILLED = """\
import os, signal, sys
from pathlib import Path
from hpc3build import cli
from hpc3build.engines.buildah import Buildah
from hpc3build.stores import layout, local
from hpc3build.workflows import build

image, where, *argv = sys.argv[1:]
Buildah.build = lambda *_, **__: image  # it is built already
Buildah.remove = lambda *_: None
build.prove = lambda *_: ()  # it has no shell

def dies(owner, name, *, after):
    name, _, file = name.partition(":")
    real = getattr(owner, name)
    def dying(*args, **options):
        if file and Path(args[1]).name != file:
            return real(*args, **options)
        result = real(*args, **options) if after else None
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, dying)

owner, name = where.rstrip("+").split(".", 1)
owners = {"Layout": layout.Layout, "Path": Path, "Buildah": Buildah, "LocalStore": local.LocalStore}
dies(owners[owner], name, after=where.endswith("+"))
sys.exit(cli.main(argv))
"""


SURVIVES = "Path.is_fifo"  # which nothing calls


@pytest.fixture(scope="module")
def tiny(engine_env: None) -> Iterator[str]:
    """An image of one file: it is published in a second."""
    name = "localhost/hpc3build-test-tiny:1"
    container = sh("buildah", "from", "scratch").stdout.strip()
    sh("buildah", "copy", "--quiet", container, RECIPE / "mpi-hello.c", "/opt/mpi-hello.c")
    sh("buildah", "commit", "--quiet", "--rm", container, name)
    yield name
    sh("buildah", "rmi", name)


@pytest.mark.parametrize(
    "where",
    ["Buildah.export", "Buildah.export+", "Layout.absorb", "Layout.absorb+", "Layout.put_blob+", "Layout.put_manifest",
     "Path.replace:index.json", "Path.replace:index.json+"],
)  # fmt: skip
@pytest.mark.parametrize("there", [True, False], ids=["over a tag", "into a new layout"])
def test_killed_while_publishing(where: str, there: bool, tiny: str, recipe: Path, old: Path) -> None:
    edit(recipe / "hpc3build.yaml", ("smoke: mpi-hello\n", ""))
    target = old if there else old.parent / "new"
    before = digest_in(target, "1.0")
    argv = ["build", str(recipe), "-t", f"oci:{target}:1.0", "--engine", "buildah"]
    done = sh(sys.executable, "-c", KILLED, tiny, where, *argv, check=False, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, (done.returncode, done.stderr[-2000:])
    if digest_in(target, "1.0") != before:
        assert where == "Path.replace:index.json+"  # from here on all of the new image is there
    if there:
        sh("skopeo", "copy", "--quiet", f"oci:{target}:1.0", f"dir:{old.parent}/copy")  # whatever it is, it is whole
    again = sh(sys.executable, "-c", KILLED, tiny, SURVIVES, *argv, cwd=ROOT)
    assert digest_in(target, "1.0") == again.stdout.split()[-1]
    sh("skopeo", "copy", "--quiet", f"oci:{target}:1.0", f"dir:{old.parent}/copy2")
    left = {path.name for path in target.iterdir()} - {"blobs", "index.json", "oci-layout"}
    assert not {name for name in left if not name.startswith(".new-")}


@pytest.mark.parametrize("where", ["LocalStore.put_blob+", "LocalStore.put_manifest", "Layout.put_manifest+"])
def test_killed_while_publishing_into_the_store(where: str, tiny: str, recipe: Path) -> None:
    edit(recipe / "hpc3build.yaml", ("smoke: mpi-hello\n", ""))
    name = "localhost/hpc3build-test-kill:1"
    argv = ["build", str(recipe), "-t", f"containers-storage:{name}", "--engine", "buildah"]
    image = images()[tiny]
    container = sh("buildah", "from", "--pull-never", tiny).stdout.strip()
    sh("buildah", "config", "--label", "old=1", container)
    sh("buildah", "commit", "--quiet", "--rm", container, name)
    try:
        before = sh("skopeo", "inspect", "--raw", f"containers-storage:{name}").stdout
        image = image.removeprefix("sha256:")
        done = sh(sys.executable, "-c", KILLED, image, where, *argv, check=False, cwd=ROOT)
        assert done.returncode == -signal.SIGKILL, (done.returncode, done.stderr[-2000:])
        assert sh("skopeo", "inspect", "--raw", f"containers-storage:{name}").stdout == before
        sh(sys.executable, "-c", KILLED, image, SURVIVES, *argv, cwd=ROOT)
        assert "annotations" in sh("skopeo", "inspect", "--raw", f"containers-storage:{name}").stdout
    finally:
        sh("buildah", "rmi", name)


def started(argv: list[str], line: str) -> subprocess.Popen[str]:
    """A build in a session of its own, waited for until the engine has printed ``line``."""
    command = [sys.executable, "-m", "hpc3build", "build", *argv]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A background job of a script, as the tests may be one, ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    for seen in process.stderr:
        if line in seen:
            return process
    process.communicate()
    raise AssertionError(f"the build ended without {line}")


def members(session: int) -> list[int]:
    """The living processes of a session: the command line and all that it started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def ended(session: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while members(session) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not members(session)


def slow(recipe: Path, seconds: int) -> None:
    """A compile step that is still at work when the signal comes."""
    edit(
        recipe / "mpi-hello-1.0-gompi-system.eb",
        ("buildopts = '", f"prebuildopts = 'sleep {seconds} && '\nbuildopts = '"),
    )


#: hpc3build alone can be killed so that its engine lives on; that one then ends by itself, publishing nothing.
ENDINGS = {
    "kill -9 of all": (os.killpg, signal.SIGKILL, 600),
    "kill -9 of hpc3build": (os.kill, signal.SIGKILL, 4),
    "Ctrl-C": (os.killpg, signal.SIGINT, 600),
    "SIGTERM of a batch system": (os.kill, signal.SIGTERM, 600),
}


@pytest.mark.parametrize(("how", "engine"), [*((how, "buildah") for how in ENDINGS), ("Ctrl-C", "podman")])
def test_ended_while_building(how: str, engine: str, recipe: Path, base: str, old: Path, scratch: Path) -> None:
    send, number, seconds = ENDINGS[how]
    slow(recipe, seconds)
    before, fresh, working = snapshot(old), old.parent / "fresh", containers()
    process = started(
        [str(recipe), "--base", base, "--engine", engine, "-t", f"oci:{fresh}:1.0"], "easybuild/install.sh"
    )
    with process:
        try:
            time.sleep(2)
            send(process.pid, number)
            assert ended(process.pid, 120), "processes of the build live on"
            _, stderr = process.communicate(timeout=60)
        finally:
            for left in members(process.pid):
                os.kill(left, signal.SIGKILL)
    assert snapshot(old) == before and not fresh.exists() and "Traceback" not in stderr
    if number == signal.SIGKILL:
        for container in containers() - working:
            sh("buildah", "rm", container)
    else:
        assert process.returncode == 128 + number and left_in(scratch) == [], "secrets lie about"
        assert "hpc3build: interrupted" in stderr
        assert containers() == working, "buildah removes none when it is ended by a signal"
        assert [*scratch.glob("buildah[0-9]*")] == [], "podman removes none of its steps' folders"
    again = hpc3build("build", RECIPE, "--base", base, "--engine", engine, "-t", f"oci:{old}:1.0")
    assert digest_in(old, "1.0") == again.stdout.split()[-1]


def containers() -> set[str]:
    """buildah's working containers; a killed build leaves its own."""
    return set(sh("buildah", "containers", "--quiet", "--all").stdout.split())
