"""Bad input of every kind through the real command: one message with its place, the exit code of docs/cli.md."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hpc3build.cli import main
from hpc3build.containerfile import BuildContext
from hpc3build.recipe import Recipe, Settings
from hpc3build.workflows.render import Planned, foreign_target
from tests.commands import ROOT, Done, assert_one_message, hpc3build
from tests.images import make_index, make_layout

LOCK = ROOT / "tests/data/spack/envs/v0.20.3-seed-gromacs-cuda"
ESCAPE = "\x1b[31mred\x07"
FORGED = "x\nhpc3build: error: forged"
LONG = "a" * 5000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nope"], "nope"),
        (["render"], "RECIPE"),
        (["check", "oci:x", ESCAPE], "unrecognized arguments"),
        (["check", "oci:x", FORGED], "unrecognized arguments"),
        (["render", "x", "--entrypoint", "bash"], "bash"),
        (["annotate", "oci:x"], "nothing to write"),
        (["annotate", "oci:x", "-a", "org.supercontainers.documentation=hello"], "base64 of markdown"),
        (["facts", "x", "--nope"], "--nope"),
        (["render", "x", "--optarch=GENERIC"], "--target"),
        (["check", "oci:x", "--smoke", "true"], "--run"),
        (["check", "oci:x", "--run", "podman", "--smoke", " "], "--smoke: its value is empty"),
        (["check", "oci:x", "--run", "podman", "--smoke", "it's"], '--smoke "it\'s"'),
        (["check", "oci:x", "--dry-run"], "--fix"),
        (["annotate", "oci:x", "-a", "k=1", "--remove", "k"], "--remove"),
        (["build", "x", "-t", "oci:x:1", "--label", "a=b"], "--label: labels: of hpc3build.yaml"),
        (["build", "x", "-t", "oci:x:1", "--annotation=a=b"], "--annotation: labels: of hpc3build.yaml"),
        (["annotate", "oci:x", "--annotation", "a=b"], "--annotation: give -a KEY=VALUE;"),
        (["inspect", "oci:x", "--creds", "a:b"], "--password-stdin"),
        (["rendr", "x"], "did you mean render? hpc3build --help"),
        (["render", "x", "--tagret=zen3"], "did you mean --target? hpc3build render --help"),
        (["render", "x", "--entrypoint", "hpc3exec"], "did you mean hpc3-exec?"),
        (["index", "create", "x", "y", "--dry-rn"], "did you mean --dry-run? hpc3build index create --help"),
        (["render"], "hpc3build render recipes/gromacs-cuda"),
        (["annotate", "oci:x", "-a", "k=v", "--fast"], "--detect"),
        (["annotate", "oci:x", "-a", "k=v", "--root", "/opt"], "--detect"),
        (["render", "recipes/hello-spack", "--hooks", "h.py", "--modules", "flat"], "--hooks, --modules: "),
        (["render", "recipes/hello-spack", "--cuda-compute-capabilities", "8.0"], "--cuda-compute-capabilities: "),
        (["render", "recipes/mpi-hello", "--spack-ref", "v1"], "--spack-ref: "),
        (["facts", "recipes/mpi-hello", "--concretize", "builder"], "--concretize: "),
        (["facts", "recipes/hello-spack", "--root", "/opt", "--fast"], "--fast, --root: "),
        (["facts", f"{LOCK}/spack.lock", "--thorough"], "--thorough: "),
        (["facts", f"{LOCK}/spack.lock", "--hooks", "h.py"], "--hooks: "),
        (["facts", "oci:x", "--target", "zen3"], "--target: "),
        (["annotate", "--undo", "r", "oci:x"], "takes no REF"),
        (["annotate", "--undo", "r", "-a", "k=v", "--labels", "--platform", "linux"], "-a, --labels, --platform: "),
        (["render", "recipes/hello-spack", "--base", ""], "--base: its value is empty"),
        (["render", "recipes/hello-spack", "-o="], "-o/--output: "),
        (["build", "recipes/mpi-hello", "-t", "oci:x:1", "--robot-paths="], "--robot-paths: its value is empty"),
        (["check", "oci:x", "--junit="], "--junit: its value is empty"),
        (["run", "oci:x", "true"], "hpc3build run [options] REF -- CMD"),
        (["fingerprint", "--script", "--json"], "--script"),
        (["fingerprint", "--from-probe", "p", "--injects", "/lib/x.so"], "--injects"),
    ],
)
def test_usage(arguments: list[str], told: str) -> None:
    assert told in assert_one_message(hpc3build(*arguments, cwd=ROOT), 2)


def test_the_password_of_a_url_is_not_repeated() -> None:
    for arguments in (["inspect", "oci:x", "https://bob:hunter2@host/x"], ["inspect", "https://bob:hunter2@host/x"]):
        assert "hunter2" not in assert_one_message(hpc3build(*arguments), 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("org.example.index", "see https://u:sekret@h/x"),
        ("org.opencontainers.image.source", "https://u:sekret@h/x"),
        ("org.opencontainers.image.source", "https://u:sekret@h/x of mine"),
        ("org.supercontainers.documentation", base64.b64encode(b"see https://u:sekret@h/x\n").decode()),
    ],
)
def test_a_pair_with_the_password_of_a_url_is_refused_and_not_repeated(key: str, value: str) -> None:
    told = assert_one_message(hpc3build("annotate", "oci:x", "-a", f"{key}={value}"), 2)
    assert f"{key}: the password of https://…@h/x would be public" in told
    assert "sekret" not in told and value not in told


@pytest.mark.parametrize("argument", ["--nothing-like-it", "-z", "more"])
def test_nothing_is_guessed_that_is_not_near(argument: str) -> None:
    assert assert_one_message(hpc3build("check", "oci:x", argument), 2).endswith("\nhint: hpc3build check --help")


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    assert "hint: a recipe is a spack.yaml" in assert_one_message(hpc3build("render", "nope.yaml", cwd=tmp_path), 2)
    shutil.copy(LOCK / "spack.lock", tmp_path)
    assert "hint: a spack.lock alone tells facts" in assert_one_message(hpc3build("render", str(tmp_path)), 2)


# References

BAD_REFERENCES = ["", "oci:", "UPPER/Case:1", "a b", "dir:x", "docker://", "x:y:z", "x@sha256:12", ESCAPE, FORGED, LONG]


@pytest.mark.parametrize("text", BAD_REFERENCES, ids=ascii)
def test_references(text: str) -> None:
    assert_one_message(hpc3build("inspect", text), 2)


@pytest.mark.parametrize("text", BAD_REFERENCES, ids=ascii)
@pytest.mark.parametrize(
    "command",
    [["check", "{}"], ["annotate", "{}", "-a", "k=v"], ["build", "{recipe}", "-t", "{}"]],
    ids=lambda command: command[0],
)
def test_references_of_other_commands(command: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process: the way of an error out of it is the same for all commands."""
    recipe = str(ROOT / "recipes/gromacs-cuda")
    status = main([text if word == "{}" else word.replace("{recipe}", recipe) for word in command])
    assert_one_message(Done(status, *capsys.readouterr()), 2)


def test_reference_of_bytes() -> None:
    assert_one_message(hpc3build("inspect", b"oci:a\xff"), 2)


@pytest.mark.parametrize("source", [ESCAPE, FORGED, LONG, "", "./no/such/folder", f"{ESCAPE}.lock", f"{FORGED}.lock"])
@pytest.mark.parametrize("command", ["facts", "render"])
def test_sources_that_are_not_there(command: str, source: str, tmp_path: Path) -> None:
    assert_one_message(hpc3build(command, source, cwd=tmp_path), 2)


@pytest.mark.parametrize("source", ["no.lock", "no.eb", "no.yaml", "folder", f"{LONG}.lock", f"{LONG}.eb"])
def test_missing_files_are_named(source: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert source in assert_one_message(hpc3build("facts", source, cwd=tmp_path), 2)


# spack.yaml

SPACK = "spack:\n  specs: [zlib]\n  container:\n    images: {os: 'debian:12', spack: v0.23.1}\n"
YAMLS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "spack.yaml:1"),
    "scalar": ("hello\n", "spack.yaml:1"),
    "list": ("- a\n", "spack.yaml:1"),
    "truncated": ("spack:\n  specs: [zlib,\n", "spack.yaml:3"),
    "tab": ("spack:\n\tspecs: [zlib]\n", "spack.yaml:2"),
    "not UTF-8": (b"spack:\n  specs: [z\xff]\n", "spack.yaml:2"),
    "NUL": (b"spack:\n  specs: [z\x00]\n", "spack.yaml"),
    "twice": ("spack:\n  specs: [a]\n  specs: [b]\n", "spack.yaml:3"),
    "two documents": ("spack: {specs: [a]}\n---\nspack: {specs: [a]}\n", "spack.yaml:2"),
    "no spack": ("packages: {}\n", "spack"),
    "beside spack": (SPACK + "other: 1\n", "spack.yaml:5: other"),
    "null": ("spack:\n", "spack.yaml"),
    "a spec is a number": ("spack:\n  specs: [5]\n", "spack.yaml:2: spack:specs: expected a spec, found a number"),
    "a spec is nothing": (
        "spack:\n  specs:\n  - zlib\n  -\n",
        "spack.yaml:4: spack:specs: expected a spec, found nothing",
    ),
    "a spec is empty": ("spack:\n  specs: ['']\n", "spack.yaml:2: spack:specs: expected a spec, found an empty text"),
    "what the build states": (
        SPACK + "    labels: {io.github.hpc3build.conformance: any-uid}\n",
        "spack.yaml:5: spack:container:labels:io.github.hpc3build.conformance: the build states it itself",
    ),
    "spack is a list": ("spack: [1]\n", "spack.yaml:1: spack"),
    "specs is a number": ("spack:\n  specs: 5\n", "spack.yaml:2: spack:specs"),
    "specs is a mapping": ("spack:\n  specs: {a: b}\n", "spack.yaml:2: spack:specs"),
    "packages is a list": ("spack:\n  specs: [a]\n  packages: []\n", "spack.yaml:3: spack:packages"),
    "require is a number": ("spack: {specs: [a], packages: {all: {require: 5}}}\n", "spack:packages"),
    "config is text": ("spack:\n  specs: [a]\n  config: x\n", "spack.yaml:3: spack:config"),
    "near key": (SPACK + "    os_packges: {}\n", "spack.yaml:5: spack:container:os_packges"),
    "strip is text": (SPACK + "    strip: perhaps\n", "spack.yaml:5: spack:container:strip"),
    "format": (SPACK + "    format: rpm\n", "spack.yaml:5: spack:container:format"),
    "base with a line break": ('spack: {specs: [a], container: {images: {os: "debian:12\\nRUN x"}}}\n', "images:os"),
    "base unknown": ("spack: {specs: [a], container: {images: {os: 'slackware:1'}}}\n", "slackware:1"),
    "package name": (SPACK + "    os_packages: {final: ['a; rm -rf /']}\n", "spack.yaml:5"),
    "package option": (SPACK + "    os_packages: {final: ['--allow-unauthenticated']}\n", "spack.yaml:5"),
    "git option": ("spack: {specs: [a], container: {images: {os: 'debian:12', spack: '--upload-pack=x'}}}\n", "images"),
    "git url": (
        "spack: {specs: [a], container: {images: {os: 'debian:12', spack: {url: '--x', ref: v1}}}}\n",
        "spack.yaml:1: spack:container:images",
    ),
    "label with a line break": (SPACK + '    labels: {a: "b\\nRUN x"}\n', "spack.yaml:5: spack:container:labels:a"),
    "label key with a line break": (SPACK + '    labels:\n      "a\\nRUN x": b\n', "spack.yaml:6"),
    "label key with =": (SPACK + "    labels:\n      a=b: c\n", "spack.yaml:6"),
    "label key empty": (SPACK + "    labels:\n      '': c\n", "spack.yaml:6"),
    "label with half a character": (SPACK + '    labels:\n      a: "\\ud800"\n', "spack.yaml:6"),
    "label of a tag": (SPACK + "    labels:\n      a: !foo x\n", "spack.yaml:6"),
    "label of a set": (SPACK + "    labels:\n      a: !!set {x}\n", "spack.yaml:6"),
    "hidden FROM": (SPACK + '    extra_instructions: {final: "RUN x\\n from y"}\n', "spack.yaml:5"),
    "backslash at the end": (SPACK + "    extra_instructions: {final: 'RUN x \\'}\n", "spack.yaml:5"),
    "heredoc": (SPACK + '    extra_instructions: {final: "RUN <<E\\nx"}\n', "spack.yaml:5"),
    "loop": ("spack:\n  specs: &a [*a]\n", "spack.yaml"),
    "billion laughs": (
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)),
        "spack.yaml",
    ),
    "deep": ("spack: " + "[" * 1000 + "\n", "spack.yaml"),
    "bool tag": ("spack: {specs: !!bool x}\n", "spack.yaml"),
    "int tag": ("spack: {specs: !!int x}\n", "spack.yaml"),
    "binary tag": ("spack: {specs: !!binary x}\n", "spack.yaml"),
    "timestamp": ("spack: {specs: 2001-12-14t21:59:43.10-95:00}\n", "spack.yaml"),
    "merge": ("spack: {<<: 5}\n", "spack.yaml"),
    "omap tag": ("spack: {specs: !!omap x}\n", "spack.yaml"),
    "version": ("%YAML 9.9\n---\nspack: {}\n", "spack.yaml"),
}


def put(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("name", YAMLS)
def test_spack_yaml(name: str, tmp_path: Path) -> None:
    content, told = YAMLS[name]
    put(tmp_path, {"spack.yaml": content})
    message = assert_one_message(hpc3build("render", ".", cwd=tmp_path), 2)
    assert told in message and len(message) < 1000


def test_the_good_spack_yaml(tmp_path: Path) -> None:
    """The table above fails for its own reasons."""
    put(tmp_path, {"spack.yaml": SPACK})
    done = hpc3build("render", ".", cwd=tmp_path)
    assert (done.status, done.err) == (0, "") and done.out.startswith("# Made by")


def test_anchors_may_be_used_twice(tmp_path: Path) -> None:
    """YAML allows it; no warning of a library and no line of our source may show."""
    put(tmp_path, {"spack.yaml": SPACK.replace("[zlib]", "&x [zlib]") + "  definitions: &x []\n"})
    done = hpc3build("render", ".", cwd=tmp_path)
    assert "item_value" not in done.err and "ruamel" not in done.err
    assert (done.status == 0 and all(line.startswith("hpc3build: note: ") for line in done.err.splitlines())) or (
        assert_one_message(done, 2)
    )


# spack.lock


def lock_with(change: str, value: object) -> str:
    data = json.loads((LOCK / "spack.lock").read_text())
    *path, last = change.split("/")
    place = data
    for step in path:
        place = place[int(step) if isinstance(place, list) else next(k for k in place if k.startswith(step))]
    place[int(last) if isinstance(place, list) else last] = value
    return json.dumps(data)


LOCKS: dict[str, str | bytes] = {
    "empty": "",
    "truncated": (LOCK / "spack.lock").read_bytes()[:5000],
    "not UTF-8": b'{"_meta": "\xff"}',
    "not an object": "[]",
    "deep": "[" * 100_000,
    "number": '{"_meta": ' + "9" * 5000 + "}",
    "other": '{"a": 1}',
    "old version": lock_with("_meta/lockfile-version", 0),
    "new version": lock_with("_meta/lockfile-version", 99),
    "version is text": lock_with("_meta/lockfile-version", "4"),
    "version is true": lock_with("_meta/lockfile-version", True),
    "specs are a list": lock_with("concrete_specs", []),
    "no roots": lock_with("roots", []),
    "roots is text": lock_with("roots", "x"),
    "root that is not there": lock_with("roots/0/hash", "zzz"),
    "dangling edge": (LOCK / "spack.lock").read_text().replace('"hash": "qfjwlvm', '"hash": "zzzzzzz'),
    "hostile name": (LOCK / "spack.lock").read_text().replace('"hash": "qfjwlvm', '"hash": "\\u001b[31m'),
}


@pytest.mark.parametrize("name", LOCKS)
def test_spack_lock(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``facts`` in a process of its own, ``render`` in this one."""
    put(tmp_path, {"spack.lock": LOCKS[name], "spack.yaml": (LOCK / "spack.yaml").read_bytes()})
    monkeypatch.chdir(tmp_path)
    facts = hpc3build("facts", "spack.lock", cwd=tmp_path)
    status = main(["render", ".", "--base", "debian:12", "--spack-ref", "v0.20.3"])
    for done in (facts, Done(status, *capsys.readouterr())):
        message = assert_one_message(done, 2)
        assert "spack.lock" in message and len(message) < 1000


def test_lock_without_specs_beside_it(tmp_path: Path) -> None:
    shutil.copy(LOCK / "spack.lock", tmp_path)
    put(tmp_path, {"spack.yaml": "spack:\n"})
    assert_one_message(hpc3build("render", ".", cwd=tmp_path), 2)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], ["amazonlinux:2", "--base debian:12", "--concretize builder"]),
        (["--spack-ref", "v0.20.3", "--base", "ubuntu:22.04"], ["debian12", "--base debian:12"]),
        (["--base", "debian:12", "--spack-ref", "v0.20.3", "--target", "zen3"], ["zen3", "x86_64_v3"]),
        (["--base", "debian:12", "--spack-ref=-x"], ["error: --spack-ref: '-x' is not a git reference"]),
    ],
)
def test_a_lock_that_does_not_fit(options: list[str], told: list[str]) -> None:
    message = assert_one_message(hpc3build("render", LOCK, *options), 2)
    assert [word for word in told if word not in message] == []


# Files that are none: a pipe without a writer would be waited for without end

READ = [
    (["facts", "f.lock"], ["f.lock"]),
    (["facts", "f.json"], ["f.json"]),
    (["render", "f.yaml"], ["f.yaml"]),
    (["render", "recipe"], ["recipe/spack.yaml", "recipe/hpc3build.yaml"]),
    (["render", "recipe"], ["recipe/spack.yaml", "recipe/spack.lock"]),
    (["facts", "./x-1.eb"], ["x-1.eb"]),
    (["render", "recipe", "--spack-keys", "keys"], ["recipe/spack.yaml", "keys"]),
    (["annotate", "oci:x", "--from", "f.lock"], ["f.lock"]),
    (["annotate", "oci:x", "--from", "f.json"], ["f.json"]),
    (["annotate", "-a", "k=v", "--batch", "list"], ["list"]),
    (["annotate", "--undo", "receipt"], ["receipt"]),
    (["match", "oci:x", "--host", "host"], ["host"]),
    (["fingerprint", "--from-probe", "probe"], ["probe"]),
]


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
@pytest.mark.parametrize(("arguments", "files"), READ, ids=lambda value: " ".join(value))
def test_what_is_no_file_is_not_waited_for(
    arguments: list[str], files: list[str], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two files is a good one, the last is none."""
    (tmp_path / "recipe").mkdir()
    put(tmp_path, dict.fromkeys(files[:-1], SPACK))
    odd = tmp_path / files[-1]
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # a socket's name has 108 bytes at most
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(files[-1])
    else:
        odd.mkdir()
    done = hpc3build(*arguments, cwd=tmp_path, timeout=30)
    assert files[-1].removeprefix("recipe/") in assert_one_message(done, 2)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/tty"])
def test_devices_are_no_files(device: str) -> None:
    for arguments in (["match", "oci:x", "--host"], ["annotate", "-a", "k=v", "--batch"]):
        assert f"{device}: not a file" in assert_one_message(hpc3build(*arguments, device, timeout=30), 2)


def test_what_a_shell_hands_over_as_a_file_is_read(tmp_path: Path) -> None:
    """``--host <(ssh node …)``: a pipe, by the number of its descriptor."""
    make_layout(tmp_path / "image", [{"a": b"1"}])
    line = f'{sys.executable} -m hpc3build match oci:image --host <(sleep 1; cat "$0") --allow-unknown --json'
    host = ROOT / "tests/data/hosts/a100.probe"
    done = subprocess.run(
        ["bash", "-c", line, host], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert json.loads(done.stdout)["verdict"] == "UNKNOWN", done.stderr


# Easyconfigs

EB = "name = 'x'\nversion = '1'\neasyblock = 'ConfigureMake'\nhomepage = 'https://x'\ndescription = 'x'\n"
EASYCONFIGS = {
    "empty": "",
    "truncated": EB + "toolchain = {'name': 'GCC', 'vers",
    "binary": b"\x7fELF\x00\xff",
    "no toolchain": EB,
    "mistyped": EB + "toolchain = 5\n",
    "dependency that is nowhere": EB + "toolchain = SYSTEM\ndependencies = [('nope-nope', '9')]\n",
    "ends": EB + "import sys\nsys.exit(0)\n",
    "prints": EB + "print('{\"modules\": []}')\nraise SystemExit(0)\n",
    "kills": EB + "import os\nos.kill(os.getpid(), 9)\n",
    "OS package": EB + "toolchain = SYSTEM\nosdependencies = ['$(touch x)', 'a; id']\n",
    "escape": EB + "toolchain = {'name': '\\x1b[31m', 'version': '1'}\n",
}


@pytest.mark.easybuild
@pytest.mark.parametrize("name", EASYCONFIGS)
def test_easyconfig(name: str, tmp_path: Path) -> None:
    if subprocess.run([sys.executable, "-c", "import easybuild.framework"], capture_output=True).returncode:
        pytest.skip("needs EasyBuild")
    put(tmp_path, {"x-1.eb": EASYCONFIGS[name]})
    assert "x-1.eb" in assert_one_message(hpc3build("facts", "x-1.eb", cwd=tmp_path), 2)


def test_without_easybuild(tmp_path: Path) -> None:
    put(tmp_path, {"x-1.eb": EB + "toolchain = SYSTEM\n"})
    done = hpc3build("facts", "x-1.eb", cwd=tmp_path, env={"HPC3BUILD_EASYBUILD_PYTHON": "/nonexistent/python"})
    assert_one_message(done, 3)


# Options

DIGEST = "sha256:" + "0" * 64
OPTIONS = [
    (["-a", "k"], 2),
    (["-a", "=v"], 2),
    (["-a", "a b=v"], 2),
    (["-a", f"{ESCAPE}=v"], 2),
    (["-a", "k=a\nb"], 2),
    (["-a", f"k={ESCAPE}"], 2),
    (["-a", "k=" + "x" * 5000], 2),
    (["-a", b"k=\xff"], 2),
    (["-a", "run.oci.x=1"], 2),
    (["-a", "org.supercontainer.gpu=none"], 2),
    (["-a", "ORG.supercontainers.gpu=none"], 2),
    (["-a", "org.supercontainers.hardware.cpu.optimized.version=zen99"], 2),
    (["-a", "io.archspec.cpu.target=zen99"], 2),
    (["-a", "com.hooks.cxi.enabled=true"], 2),
    (["-a", "org.supercontainers.gpu=NOPE"], 2),
    (["-a", "k=1", "-a", "k=2"], 2),
    (["--remove", "a b"], 2),
    (["--remove", ""], 2),
    (["-a", "k=v", "--expect-digest", "foo"], 2),
    (["-a", "k=v", "--expect-digest", "sha256:12"], 2),
    (["-a", "k=v", "--expect-digest", DIGEST], 5),
    (["-a", "k=v", "--from", "nope.lock"], 2),
    (["-a", "k=v", "--from", "lock.json"], 2),
    (["-a", "k=v", "--from", "nope.closure"], 2),
    (["-a", "k=v", "--from", "./nope"], 2),
    (["-a", "k=v", "--from", "nope"], 2),
    (["--from", "."], 2),
    (["-a", "org.supercontainers.mpi=none"], 1),
]


@pytest.mark.parametrize(("options", "status"), OPTIONS, ids=lambda value: ascii(value)[:40])
def test_annotate_options(options: list[str | bytes], status: int, tmp_path: Path) -> None:
    make_layout(tmp_path / "image", [{"a": b"1"}], labels={"org.supercontainers.mpi": "mpich"})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert_one_message(hpc3build("annotate", "oci:image", *options, cwd=tmp_path), status)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--engine", "nope"], "nope"),
        (["--engine", ESCAPE], "--engine"),
        (["--secret", "x"], "--secret"),
        (["--secret", "id=a,src=nope"], "nope"),
        (["--secret", "id=a,src="], "--secret"),
        (["--secret", "src=spack.yaml"], "--secret"),
        (["--secret", "id=a,src=spack.yaml,mode=1"], "--secret"),
        (["--secret", "id=a;b,src=spack.yaml"], "--secret"),
        (["--secret", f"id=a,src={LONG}"], "--secret"),
        (["--target", "nope"], "nope"),
        (["--base", "a\nRUN x"], "base"),
        (["--base", ESCAPE], "base"),
    ],
)
def test_build_options(options: list[str], told: str, tmp_path: Path) -> None:
    """Refused before anything is built: there is no engine on this PATH at all."""
    put(tmp_path, {"spack.yaml": SPACK})
    done = hpc3build("build", ".", "-t", "oci:out:1", *options, cwd=tmp_path, env={"PATH": "/nonexistent"})
    assert told in assert_one_message(done, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spack.yaml"]


@pytest.mark.parametrize("given", ["other", "mytoke", "mytoken.2", "hpc3build_easybuild"])
def test_a_secret_that_no_step_mounts(given: str, tmp_path: Path) -> None:
    """Its owner believes that the build had it."""
    put(tmp_path, {"spack.yaml": SPACK, "hpc3build.yaml": "secrets: [mytoken]\n", "tok": "x"})
    options = ("-t", "oci:out:1", "--secret", f"id={given},src=tok")
    done = hpc3build("build", ".", *options, cwd=tmp_path, env={"PATH": "/nonexistent"})
    message = assert_one_message(done, 2)
    assert f"--secret id={given}: no step" in message and f"secrets: [{given}]" in message


def test_secrets_that_steps_mount(tmp_path: Path) -> None:
    """Those that are declared, those of a recipe's own lines, and hpc3build's own; one that nobody gives is told."""
    own = "spack:\n  specs: [zlib]\n  container:\n    extra_instructions:\n"
    own += "      build: RUN --mount=type=secret,id=mine cat /run/secrets/mine\n"
    put(tmp_path, {"spack.yaml": own, "hpc3build.yaml": "secrets: [mytoken, mytoken, absent]\n", "tok": "x"})
    ids = [word for name in ("mytoken", "mine", "hpc3build_env") for word in ("--secret", f"id={name},src=tok")]
    done = hpc3build("build", ".", "-t", "oci:out:1", *ids, cwd=tmp_path, env={"PATH": "/nonexistent"})
    assert done.status == 3, "there is no engine, which comes after"
    assert "note: no --secret id=absent,src=FILE is given" in done.err and "mytoken" not in done.err
    rendered = hpc3build("render", ".", cwd=tmp_path).out
    assert rendered.count("id=mytoken") == rendered.count("id=absent") > 0


LINES = ["a\nRUN x", "a\n", "a\rb", "a\u2028b", "a\x85b", ESCAPE, FORGED, b"\xff"]
TEXTS = ["title", "base", "target", "mpi", "spack-ref", "spack-source", "packages-source", "host-provided"]


@pytest.mark.parametrize("text", LINES, ids=ascii)
@pytest.mark.parametrize("command", ["render", "facts"])
def test_a_title_is_one_line(command: str, text: str | bytes, tmp_path: Path) -> None:
    put(tmp_path, {"spack.yaml": SPACK})
    message = assert_one_message(hpc3build(command, ".", "--title", text, cwd=tmp_path), 2)
    assert message.startswith("hpc3build: error: --title: the value ")


@pytest.mark.parametrize("option", TEXTS)
def test_options_that_end_up_in_files_are_one_line(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, {"spack.yaml": SPACK})
    monkeypatch.chdir(tmp_path)
    status = main(["render", ".", f"--{option}=a\nRUN x"])
    message = assert_one_message(Done(status, *capsys.readouterr()), 2)
    assert message.startswith(f"hpc3build: error: --{option}: the value holds a line break")


def test_a_title_is_no_longer_than_a_label(tmp_path: Path) -> None:
    put(tmp_path, {"spack.yaml": SPACK})
    message = assert_one_message(hpc3build("render", ".", "--title", LONG, cwd=tmp_path), 2)
    assert message.startswith("hpc3build: error: --title: ") and "4096" in message and len(message) < 1000
    put(tmp_path, {"hpc3build.yaml": f"rank: 1\ntitle: {LONG}\n"})
    message = assert_one_message(hpc3build("render", ".", cwd=tmp_path), 2)
    assert message.startswith("hpc3build: error: hpc3build.yaml:2: title: ") and "4096" in message


def test_a_target_that_this_machine_does_not_build(tmp_path: Path) -> None:
    here = os.uname().machine
    other, family = ("neoverse_v1", "aarch64") if here == "x86_64" else ("zen3", "x86_64")
    (tmp_path / "spack.yaml").write_text("spack:\n  specs: [zlib]\n")
    told = f"the target {other} is one of {family}, and this machine, which would build it, is {here}"
    nothing = {"PATH": "/nonexistent"}
    for folder in ("by-option", "beside"):
        argv = ["--target", other] if folder == "by-option" else []
        if not argv:
            (tmp_path / "hpc3build.yaml").write_text(f"target: {other}\n")
        done = hpc3build("build", ".", "-t", "oci:out:1", *argv, cwd=tmp_path, env=nothing)
        assert assert_one_message(done, 2).startswith(f"hpc3build: error: {told}\nhint: ")
        rendered = hpc3build("render", ".", *argv, cwd=tmp_path)
        assert rendered.status == 0 and rendered.err == f"hpc3build: note: {told}; build it elsewhere\n"
    assert hpc3build("render", ".", "-q", *argv, cwd=tmp_path).err == ""
    remote = {**nothing, "DOCKER_HOST": "tcp://builder.example:2375"}
    done = hpc3build("build", ".", "-t", "oci:out:1", "--engine", "docker", cwd=tmp_path, env=remote)
    assert "which would build it" not in done.err


@pytest.mark.parametrize("target", ["x86_64_v2", "zen3", "native", None])
def test_a_target_of_the_machine(target: str | None, tmp_path: Path) -> None:
    recipe = Recipe(origin=tmp_path, folder=tmp_path, settings=Settings(target=target))
    planned = Planned(recipe, None, BuildContext("", "", {}))
    assert foreign_target(planned, "x86_64") is None
    assert (foreign_target(planned, "arm64") is None) is (target in ("native", None))


def test_a_base_that_from_does_not_take(tmp_path: Path) -> None:
    (tmp_path / "spack.yaml").write_text("spack:\n  specs: [zlib]\n")
    message = assert_one_message(hpc3build("render", ".", "--base", "oci:out/x:1", cwd=tmp_path), 2)
    assert message.startswith(
        "hpc3build: error: --base: 'oci:out/x:1' is not the name of a base image\nhint: FROM takes "
    )
    assert "podman pull oci:out/x:1" in message and "docker-daemon" not in message


def test_no_engine(tmp_path: Path) -> None:
    put(tmp_path, {"spack.yaml": SPACK})
    for options in ([], ["--engine", "buildah"], ["--engine", "podman"]):
        done = hpc3build("build", ".", "-t", "oci:out:1", *options, cwd=tmp_path, env={"PATH": "/nonexistent"})
        assert "install" in assert_one_message(done, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spack.yaml"]


# Images


def test_images(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    make_index(tmp_path / "index", [make_layout(tmp_path / "index", [{"a": b"1"}], tag=None)])
    make_layout(tmp_path / "broken", [{"a": b"1"}])
    for blob in (tmp_path / "broken/blobs/sha256").iterdir():
        blob.write_bytes(blob.read_bytes()[:-1])
    for arguments, status in (
        (["inspect", "oci:nope"], 4),
        (["inspect", "oci:empty"], 4),
        (["inspect", "oci:broken"], 4),
        (["check", "oci:broken"], 4),
        (["check", "oci:index:latest"], 2),
        (["check", "oci:index:latest", "--run", "nope"], 2),
        (["inspect", "oci:index:other"], 4),
        (["annotate", "oci:index:latest", "-a", "k=v", "--platform", "plan9"], 2),
        (["annotate", "oci:index", "-a", "k=v"], 2),
        (["facts", "docker://localhost:1/x:1"], 4),
    ):
        assert_one_message(hpc3build(*arguments, cwd=tmp_path), status)


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["render", "{recipe}", "-o", "no/file"], "there is no folder no"),
        (["render", "{recipe}", "-o", "{folder}"], "it is a folder"),
        (["render", "{recipe}", "--concretize", "host", "--save-lock", "no/file"], "there is no folder no"),
        (["build", "{recipe}", "-t", "oci:x:1", "--digest-file", "no/file"], "there is no folder no"),
        (["check", "oci:image", "--junit", "no/file"], "there is no folder no"),
        (["check", "oci:image", "--sarif", "no/file"], "there is no folder no"),
        (["check", "oci:image", "--fix", "--receipt", "no/file"], "there is no folder no"),
        (
            ["index", "create", "oci:new:1", "oci:image", "--first-as-default", "--digest-file", "no/file"],
            "no folder no",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_file_that_cannot_be_written_is_told_before_the_work(
    arguments: list[str], place: str, tmp_path: Path
) -> None:
    make_layout(tmp_path / "image", [{"a": b"1"}])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    filled = [word.format(recipe=ROOT / "recipes/hello-spack", folder=tmp_path) for word in arguments]
    told = assert_one_message(hpc3build(*filled, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/nowhere"}), 2)
    assert "cannot write" in told and place in told
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("oci:file:1", "file is a file, expected an OCI layout or a new name"),
        ("oci-archive:no/a.tar:1", "there is no folder no"),
        ("oci-archive:image:1", "image is not a file\nhint: oci:image is the layout there"),
    ],
)
def test_places_where_no_image_can_go(to: str, told: str, tmp_path: Path) -> None:
    make_layout(tmp_path / "image", [{"a": b"1"}])
    (tmp_path / "file").touch()
    done = hpc3build("annotate", "oci:image", "--to", to, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert told in assert_one_message(done, 4)


@pytest.mark.parametrize("command", ["facts", "inspect", "check", "match", "pick", "annotate"])
@pytest.mark.parametrize(
    "name", ["nope.json", "nope.lock", "nope.eb", "out/nope.yaml", "./nope", "/nope/x", "../nope.tar"]
)
def test_a_file_that_is_not_there_is_no_image_of_docker_hub(command: str, name: str, tmp_path: Path) -> None:
    arguments = [command, name, *(["-a", "k=v"] if command == "annotate" else [])]
    done = hpc3build(*arguments, cwd=tmp_path)
    assert_one_message(done, 2)
    assert name in done.err and "registry-1" not in done.err
