"""Rendering: golden files, and values that must not leave their place."""

from __future__ import annotations

import dataclasses
import functools
import getpass
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpc3build import __version__
from hpc3build.conformance.files import ASKS_FOR_A_NAME
from hpc3build.containerfile import CMD, ENTRYPOINTS, BuildContext, build_context
from hpc3build.errors import InputError
from hpc3build.frontends import spack
from hpc3build.recipe import Settings
from hpc3build.run import run
from hpc3build.templates import comment, quoted
from hpc3build.workflows.render import render
from tests.dockerfile_words import ExpandedError, instructions, pairs

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
LOCKED = ROOT / "tests/data/spack/envs/v0.20.3-seed-gromacs-cuda"

HOSTILE = {
    "double quote": 'a "b" c',
    "closing": '" RUN touch /pwned "',
    "single quote": "it's 'so'",
    "dollar": "$HOME ${PATH} $(id) $$ \\$x",
    "backtick": "`id`",
    "backslash": "C:\\temp\\new\\",
    "two at the end": "x\\\\",
    "hash": "# syntax=docker/dockerfile:1",
    "template": "{{ title }} {% raw %} {# x",
    "blanks": "  two  blanks\u00a0",
    "equals": "a=b=c",
    "shell": "; rm -rf / && x | y > z",
    "letters": "Größe 大 🚀",
    "separator": "a\u2028RUN b\u0085c",
    "empty": "",
}
BREAKS = ("a\nRUN touch /pwned", "a\r\nUSER root", "a\x0bb", "a\x00b", "\x1b[31m")


def rendered(source: Path, **settings: object) -> BuildContext:
    return render((str(source),), Settings(**settings), run).context  # type: ignore[arg-type]


def easybuild() -> BuildContext:
    if subprocess.run([sys.executable, "-c", "import easybuild.framework"], capture_output=True).returncode:
        pytest.skip("needs EasyBuild")
    return rendered(ROOT / "recipes/mpi-hello")


CONTEXTS = {
    "easybuild-mpi-hello": easybuild,
    "spack-gromacs-cuda": lambda: rendered(ROOT / "recipes/gromacs-cuda"),
    "spack-locked": lambda: rendered(LOCKED, base="debian:12", spack_ref="v0.20.3"),
}
each_context = pytest.mark.parametrize("name", list(CONTEXTS))


def masked(text: str) -> str:
    return text.replace(f"hpc3build {__version__} ", "hpc3build VERSION ")


@each_context
def test_golden(name: str, request: pytest.FixtureRequest) -> None:
    text = masked(CONTEXTS[name]().containerfile)
    golden = GOLDEN / f"{name}.Containerfile"
    if request.config.getoption("--update-golden"):
        golden.write_text(text, encoding="utf-8")
    assert golden.exists(), "pytest --update-golden writes it"
    assert text == golden.read_text(encoding="utf-8")


@each_context
def test_twice_the_same_bytes(name: str) -> None:
    one, two = CONTEXTS[name](), CONTEXTS[name]()
    assert one.containerfile == two.containerfile
    assert list(one.files.items()) == list(two.files.items())


@each_context
def test_nothing_of_this_machine(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.site.example:3128")
    monkeypatch.setenv("SSL_CERT_FILE", "/site/ca-of-the-site.pem")
    monkeypatch.setenv("PIP_INDEX_URL", "https://pypi.site.example/simple")
    context = CONTEXTS[name]()
    context.write(tmp_path / "context")
    home = str(Path.home())
    told = [str(ROOT), str(tmp_path), "site.example", "ca-of-the-site", sys.prefix]
    told += [home] if home not in ("/", "/root") else ["/root/"]
    told += [platform.node()] if len(platform.node()) > 5 else []  # a short one is part of any hash
    told += [getpass.getuser()] if getpass.getuser() not in ("root", "easybuild") else []
    for file in (tmp_path / "context").rglob("*"):
        if file.is_file():
            data = file.read_bytes().decode("utf-8", "replace")
            assert [word for word in told if word in data] == [], file


@each_context
def test_nothing_asks_for_a_name(name: str) -> None:
    """finish.sh and its comments name these calls to take them out; nothing else may hold them."""
    context = CONTEXTS[name]()
    asks = re.compile(f"{ASKS_FOR_A_NAME}|getpwuid".encode(), re.MULTILINE)
    files = {**context.files, "Containerfile": context.containerfile.encode()}
    assert [file for file, data in files.items() if asks.search(data) and not file.endswith("/finish.sh")] == []


@each_context
def test_shape(name: str) -> None:
    """Two stages; the final one ends in the entry point; site settings are mounted, never copied or set."""
    context = CONTEXTS[name]()
    found = instructions(context.containerfile)
    stages = [rest for word, rest in found if word == "FROM"]
    assert [stage.split()[1:] for stage in stages] == [["AS", "builder"], ["AS", "final"]]
    assert stages[1].split()[0] == context.final_image and context.final_image.startswith("docker.io/")
    assert [word for word, _ in found[-2:]] == ["ENTRYPOINT", "CMD"]
    assert "<<" not in context.containerfile, "buildah 1.28 refuses heredocs"
    final = found[max(index for index, (word, _) in enumerate(found) if word == "FROM") :]
    assert all("--from=builder" in rest for word, rest in final if word in ("COPY", "ADD"))
    assert {word for word, _ in found} <= {"FROM", "COPY", "RUN", "ENV", "LABEL", "USER", "ENTRYPOINT", "CMD"}
    for word, rest in found:
        if word in ("ENV", "LABEL", "ARG"):
            assert not re.search(r"(?i)proxy|cert|secret", rest)


@each_context
def test_copied_files_are_there(name: str) -> None:
    context = CONTEXTS[name]()
    used = set(re.findall(r"/opt/hpc3build/build/([\w./*]+)", context.containerfile))
    used |= set(re.findall(r"/run/hpc3build/([\w./]+)", context.containerfile))
    have = {file.removeprefix("hpc3build/") for file in context.files}
    have |= {parent.as_posix() for file in have for parent in Path(file).parents}
    assert used and {path.removesuffix("/*").rstrip("/") for path in used} <= have


def install_words(context: BuildContext) -> list[str]:
    """What install.sh, which runs once, is called with."""
    (words,) = re.findall(r"spack/install\.sh (.*)", context.containerfile)
    return str(words).split()


def test_locked_installs_the_lock_as_it_is() -> None:
    context = CONTEXTS["spack-locked"]()
    assert context.files["hpc3build/spack/spack.lock"] == (LOCKED / "spack.lock").read_bytes()
    assert install_words(context) == ["lock"]


def test_without_lock_concretizes_once() -> None:
    context = CONTEXTS["spack-gromacs-cuda"]()
    assert "hpc3build/spack/spack.lock" not in context.files
    assert install_words(context) == ["concretize"]
    assert b"container:" not in context.files["hpc3build/spack/spack.yaml"]


# Values in their place


def context_of(settings: Settings, **variables: object) -> BuildContext:
    """The Spack recipe's context under other settings, as if the reader of hpc3build.yaml had let them pass."""
    recipe = spack.load((str(ROOT / "recipes/gromacs-cuda"),), Settings(base="debian:12"), run)
    context = spack.context(recipe, None)
    changed = {**context.variables, "labels": dict(settings.labels), "static_env": {"PATH": "/bin"}, **variables}
    return build_context(
        dataclasses.replace(recipe, settings=settings), dataclasses.replace(context, variables=changed)
    )


@functools.cache
def plain() -> list[str]:
    """The instructions of a recipe that asks for nothing."""
    return [word for word, _ in instructions(context_of(Settings()).containerfile)]


@pytest.mark.parametrize("value", [pytest.param(value, id=name) for name, value in HOSTILE.items()])
def test_env_and_label_values_survive(value: str) -> None:
    settings = Settings(env={"A": value, "Z": "end"}, labels={"a.b": value, "z": "end"})
    found = instructions(context_of(settings).containerfile)
    env = [pairs(rest) for word, rest in found if word == "ENV"]
    labels = [pairs(rest) for word, rest in found if word == "LABEL"]
    assert env == [{"A": value}, {"PATH": "/bin"}, {"Z": "end"}]
    assert labels == [{"a.b": value}, {"z": "end"}]
    assert sorted(word for word, _ in found) == sorted([*plain(), "ENV", "ENV", "LABEL", "LABEL"])


@pytest.mark.parametrize("value", [pytest.param(value, id=name) for name, value in HOSTILE.items()])
def test_title_stays_in_its_comment(value: str) -> None:
    text = context_of(Settings(title=f"x{value}")).containerfile
    assert [word for word, _ in instructions(text)] == plain()
    assert text.splitlines()[0].startswith("# Made by hpc3build") and text.splitlines()[1].startswith("# Build it")


@pytest.mark.parametrize("value", BREAKS)
def test_line_breaks(value: str) -> None:
    for settings in (Settings(env={"A": value}), Settings(labels={"a": value})):
        with pytest.raises(InputError):
            context_of(settings)
    text = context_of(Settings(title=value)).containerfile
    assert [word for word, _ in instructions(text)] == plain()
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)


@pytest.mark.parametrize("value", [value for value in HOSTILE.values() if value])
def test_tools_are_one_word_of_the_shell(value: str) -> None:
    """A git reference or release never starts a second command; the RUN line is read by a real shell."""
    recipe = spack.load((str(ROOT / "recipes/gromacs-cuda"),), Settings(), run)
    (source,) = spack.context(recipe, None).variables["sources"]
    found = instructions(context_of(Settings(), sources=[dataclasses.replace(source, ref=value)]).containerfile)
    assert [word for word, _ in found] == plain()
    line = next(rest for word, rest in found if word == "RUN" and "git fetch" in rest)
    command = line[line.index("git fetch") :].partition(" && git checkout")[0]
    shown = subprocess.run(
        ["/bin/sh", "-c", command.replace("git fetch", "printf '%s\\0'", 1)], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split("\0")[:-1][-2:] == [source.url, value]


@pytest.mark.parametrize("name", ENTRYPOINTS)
def test_entry_point_is_json(name: str) -> None:
    found = instructions(context_of(Settings(entrypoint=name)).containerfile)
    assert json.loads(found[-2][1]) == list(ENTRYPOINTS[name]) and json.loads(found[-1][1]) == list(CMD)


def test_entry_points_to_the_letter() -> None:
    text = context_of(Settings(entrypoint="hpc3")).containerfile
    assert 'ENTRYPOINT ["/bin/bash", "--rcfile", "/etc/profile", "-l", "-c", "$*", "--"]\nCMD ["/bin/bash"]\n' in text
    text = context_of(Settings(entrypoint="hpc3-exec")).containerfile
    assert r'ENTRYPOINT ["/bin/bash", "--rcfile", "/etc/profile", "-l", "-c", "exec -- \"$@\"", "--"]' in text


def test_secrets_caches_user() -> None:
    settings = Settings(secrets=("token",), caches=("/var/cache/x",), user="1000:100")
    found = instructions(context_of(settings).containerfile)
    install = next(rest for word, rest in found if word == "RUN" and "spack/install.sh" in rest)
    assert "--mount=type=secret,id=token,mode=0444 " in install
    assert "--mount=type=cache,target=/var/cache/x,mode=1777 " in install
    assert [rest for word, rest in found if word == "USER"] == ["1000:100"]


def test_quoted_and_comment() -> None:
    assert quoted('a"$\\`') == r'"a\"\$\\`"'
    assert comment("a\nb\u2028c") == "a b c"


def test_the_word_reader_itself() -> None:
    """The reader of these tests would see what it looks for."""
    assert pairs(r'A="x\"y" b=\$z') == {"A": 'x"y', "b": "$z"}
    with pytest.raises(ExpandedError):
        pairs('A="$HOME"')
    assert [word for word, _ in instructions("# x\nFROM a\nENV A=b \\\n# y\n C=d\nRUN z")] == ["FROM", "ENV", "RUN"]


@pytest.mark.engine
@pytest.mark.skipif(shutil.which("buildah") is None, reason="needs buildah")
def test_buildah_reads_the_same_values(tmp_path: Path) -> None:
    """What the word reader says is what a real engine makes of the same lines."""
    values = {f"V{number}": value for number, value in enumerate(HOSTILE.values())}
    labels = {f"l.{name}": value for name, value in values.items()}
    text = context_of(Settings(env=values, labels=labels, entrypoint="hpc3-exec")).containerfile
    kept = [line for line in text.split("\n") if line.startswith(("ENV", "LABEL", "ENTRYPOINT", "CMD"))]
    (tmp_path / "Containerfile").write_text("\n".join(["FROM scratch", *kept]) + "\n", encoding="utf-8")
    name = f"localhost/hpc3build-test-words:{os.getpid()}"
    subprocess.run(["buildah", "bud", "--quiet", "-t", name, str(tmp_path)], check=True, capture_output=True)
    try:
        shown = subprocess.run(["buildah", "inspect", "--type", "image", name], check=True, capture_output=True)
    finally:
        subprocess.run(["buildah", "rmi", name], check=False, capture_output=True)
    config = json.loads(shown.stdout)["OCIv1"]["config"]
    assert {name: value for name, value in config["Labels"].items() if name.startswith("l.")} == labels
    assert dict(entry.split("=", 1) for entry in config["Env"]) == {**values, "PATH": "/bin"}
    assert tuple(config["Entrypoint"]) == ENTRYPOINTS["hpc3-exec"] and tuple(config["Cmd"]) == CMD
    assert set(config) == {"Labels", "Env", "Entrypoint", "Cmd"}


def test_a_context_takes_the_place_of_an_older_one_and_of_nothing_else(tmp_path: Path) -> None:
    files = {"hpc3build/site.sh": b"", "hpc3build/old.sh": b"", "sources/a.tar": b""}
    older = BuildContext("FROM a\n", "a", files)
    older.write(tmp_path / "context")
    (tmp_path / "context" / "README").write_text("mine")
    BuildContext("FROM b\n", "b", {"hpc3build/site.sh": b""}).write(tmp_path / "context")
    context = tmp_path / "context"
    found = {str(path.relative_to(context)) for path in context.rglob("*") if path.is_file()}
    assert found == {"Containerfile", "README", "hpc3build/site.sh"}
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "Containerfile").write_text("FROM mine\n")
    with pytest.raises(InputError, match="something else"):
        older.write(tmp_path / "theirs")
    assert (tmp_path / "theirs" / "Containerfile").read_text() == "FROM mine\n"
