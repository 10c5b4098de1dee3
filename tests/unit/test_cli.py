"""The command line where all is well: help, exit codes, documents against their schemas, annotate on layouts."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hpc3build import __version__
from hpc3build.cli import main
from hpc3build.containerfile import CMD, ENTRYPOINTS
from hpc3build.errors import InputError
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import Manifest
from hpc3build.stores import read_blob
from hpc3build.stores.layout import Layout
from hpc3build.workflows.given_pairs import parse_pairs
from tests.commands import ROOT, Done, assert_one_message, hpc3build
from tests.fake_registry import NAME, FakeRegistry
from tests.images import File, make_index, make_layout

COMMANDS = ("render", "build", "facts", "annotate", "inspect", "check", "spack-extension")
SCHEMAS = ROOT / "hpc3build" / "schemas"
LOCKS = sorted((ROOT / "tests/data/spack/envs").glob("*/spack.lock"))
GPU = "org.supercontainers.gpu"
DEBIAN = {"etc/os-release": b'ID=debian\nVERSION_ID="12"\n'}


def document(text: str, schema: str) -> Any:
    """The one JSON document in ``text``, valid by the schema that ships in the package."""
    found = json.loads(text)
    rules = json.loads((SCHEMAS / f"{schema}.json").read_text())
    jsonschema.Draft202012Validator(rules).validate(found)
    return found


def called(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """``main`` in this process."""
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def image(path: Path, **parts: Any) -> Manifest:
    return make_layout(path, [DEBIAN], **parts)


def now(path: Path) -> tuple[Manifest, ImageConfig]:
    store = Layout(path)
    manifest = store.manifest("latest")
    return manifest, ImageConfig.parse(read_blob(store, manifest.config.digest), manifest.config.digest)


def snapshot(path: Path) -> dict[Path, tuple[int, bytes]]:
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_parses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    out, err = capsys.readouterr()
    assert stop.value.code == 0 and err == ""
    example = " ".join(out.partition("example: ")[2].split())
    assert f"{example} ".startswith(f"hpc3build {command} ")
    from hpc3build.cli import _parser

    assert _parser().parse_args(shlex.split(example)[1:]).command == command
    assert "--debug" in out and "-q" in out and "-v" in out


def test_help_lists_the_commands() -> None:
    done = hpc3build("--help")
    assert done.status == 0 and done.err == ""
    assert [command for command in COMMANDS if not re.search(rf"^    {command}\b", done.out, re.MULTILINE)] == []


def test_version() -> None:
    done = hpc3build("--version")
    assert (done.status, done.out, done.err) == (0, f"hpc3build {__version__}\n", "")


def test_no_command_is_bad_input() -> None:
    done = hpc3build()
    assert done.status == 2 and done.out == "" and "usage:" in done.err


# Documents


def test_schemas_are_schemas() -> None:
    names = {path.stem for path in SCHEMAS.glob("*.json")}
    assert names >= {"facts", "annotate", "check", "inspect"}
    for path in SCHEMAS.glob("*.json"):
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.parent.name)
def test_facts_of_locks(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = called(capsys, "facts", lock, "--json")
    found = document(out, "facts")
    assert (status, err) == (0, "") and found["subject"] == str(lock)
    assert {fact["key"]: fact["value"] for fact in found["facts"]} == found["annotations"]
    assert not set(found["annotations"]) & {conflict["key"] for conflict in found["conflicts"]}
    assert all(fact["evidence"] for fact in found["facts"])


def test_the_seeds_lock() -> None:
    """What the task itself names, through the real command."""
    done = hpc3build("facts", ROOT / "tests/data/spack/envs/v0.20.3-seed-gromacs-cuda/spack.lock", "--json")
    assert (done.status, done.err) == (0, "")
    found = document(done.out, "facts")
    prefix = "org.supercontainers."
    gromacs = "spack.lock: gromacs@2021.5/t2wlesz"  # its hash in the lock, as those of cuda and the count of targets
    wanted = {
        "hardware.cpu.optimized.version": ("x86_64_v3", f"{gromacs} and 23 more: target x86_64_v3"),
        "hardware.cpu.optimized.mode": ("generic", f"archspec: x86_64_v3; {gromacs} and 23 more: target x86_64_v3"),
        "gpu": ("cuda", f"{gromacs} +cuda"),
        "hardware.gpu.cuda.version": ("11.8.0", "spack.lock: cuda@11.8.0/dcmrnll"),
        "mpi": ("none", f"{gromacs} ~mpi"),
        "mpi.implementation": ("threadmpi", f"{gromacs} ~mpi brings its own thread-MPI"),
    }
    told = {fact["key"]: (fact["value"], fact["evidence"]) for fact in found["facts"]}
    assert {name: told.get(prefix + name) for name in wanted} == wanted
    assert {name: found["annotations"].get(prefix + name) for name in wanted} == {n: v for n, (v, _) in wanted.items()}


def test_conflicts_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    lock = ROOT / "tests/data/spack/envs/multi-target-when-possible/spack.lock"
    found = document(called(capsys, "facts", lock, "--json")[1], "facts")
    assert found["conflicts"] and all(len(one["values"]) >= 2 and one["message"] for one in found["conflicts"])
    assert "conflict: " in called(capsys, "facts", lock)[1]


def test_facts_of_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(tmp_path / "i", labels={GPU: "cuda"})
    found = document(called(capsys, "facts", f"oci:{tmp_path}/i", "--json")[1], "facts")
    by_key = {fact["key"]: fact for fact in found["facts"]}
    assert by_key["org.supercontainers.os.vendor"]["source"] == "files"
    assert by_key[GPU] | {"evidence": ""} == {"key": GPU, "value": "cuda", "source": "label", "evidence": ""}


def test_the_schema_bites() -> None:
    good = {"subject": "x", "annotations": {}, "facts": [], "conflicts": []}
    document(json.dumps({**good, "more": 1}), "facts")
    fact = {"key": "k", "value": "v", "source": "user", "evidence": "e"}
    for bad in (
        {},
        {**good, "subject": 1},
        {**good, "annotations": {"k": 1}},
        {**good, "facts": [{**fact, "source": "guess"}]},
        {**good, "facts": [{"key": "k"}]},
        {**good, "conflicts": [{"key": "k", "message": "m", "values": [{"value": "v"}]}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            document(json.dumps(bad), "facts")


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = image(tmp_path / "i", annotations={"a": "1", "both": "2"}, labels={"both": "3", "l": "4"})
    found = document(called(capsys, "inspect", f"oci:{tmp_path}/i", "--json")[1], "inspect")
    assert (found["digest"], found["manifests"]) == (made.digest, [])
    assert (found["annotations"], found["labels"]) == ({"a": "1", "both": "2"}, {"both": "3", "l": "4"})
    assert "both, differing" in called(capsys, "inspect", f"oci:{tmp_path}/i")[1]


def test_inspect_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child = make_layout(tmp_path, [DEBIAN], tag=None)
    index = make_index(tmp_path, [child], annotations={"k": "v"})
    found = document(called(capsys, "inspect", f"oci:{tmp_path}:latest", "--json")[1], "inspect")
    assert found["digest"] == index.digest and found["annotations"] == {"k": "v"}
    assert [entry["digest"] for entry in found["manifests"]] == [child.digest]
    assert child.digest in called(capsys, "inspect", f"oci:{tmp_path}:latest")[1]


def test_inspect_shows_what_refers_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(tmp_path / "i")
    assert main(["annotate", f"oci:{tmp_path}/i", "-a", "my.key=mine", "--attach", "--json"]) == 0
    (attached,) = json.loads(capsys.readouterr().out)["results"][0]["attached"]
    (one,) = document(called(capsys, "inspect", f"oci:{tmp_path}/i", "--json")[1], "inspect")["referrers"]
    assert (one["digest"], one["annotations"]) == (attached, {"my.key": "mine"})
    shown = called(capsys, "inspect", f"oci:{tmp_path}/i")[1]
    assert f"{attached}  application/vnd.hpc3build.annotations.v0+json  my.key=mine" in shown


def test_a_list_of_referrers_that_cannot_be_read_hides_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = image(tmp_path / "i", annotations={"a": "1"})
    make_layout(tmp_path / "i", [], tag=made.digest.replace(":", "-"))  # no index
    with FakeRegistry() as registry:
        registry.add(tmp_path / "i")
        reference = f"{registry.host}/{NAME}:latest"
        found = document(called(capsys, "inspect", reference, "--json")[1], "inspect")
        assert found["annotations"] == {"a": "1"} and found["referrers"] is None
        assert "what refers to it could not be listed: " in called(capsys, "inspect", reference)[1]


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(tmp_path / "bad")
    status, out, _ = called(capsys, "check", f"oci:{tmp_path}/bad", "--json")
    found = document(out, "check")
    assert (status, found["verdict"]) == (1, "FAILS")
    assert {"entrypoint", "command"} <= {one["rule"] for one in found["findings"] if one["outcome"] == "FAILS"}
    status, out, _ = called(capsys, "check", f"oci:{tmp_path}/bad")
    assert status == 1 and out.endswith("\nFAILS\n")
    config = {"Entrypoint": list(ENTRYPOINTS["hpc3-exec"]), "Cmd": list(CMD), "Env": ["PATH=/usr/bin:/bin"]}
    layers = [{**DEBIAN, "bin/bash": File(b"\x7fELF")}]
    make_layout(tmp_path / "good", layers, config=config, annotations={GPU: "none"}, labels={GPU: "none"})
    status, out, _ = called(capsys, "check", f"oci:{tmp_path}/good", "--json")
    found = document(out, "check")
    assert (status, found["verdict"]) == (0, "CONFORMS"), [
        one for one in found["findings"] if one["outcome"] == "FAILS"
    ]


# annotate


def annotate(capsys: pytest.CaptureFixture[str], path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    status, out, _ = called(capsys, "annotate", f"oci:{path}", *options, "--json")
    return status, document(out, "annotate")["results"][0]


def test_annotate_twice_is_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = image(tmp_path)
    status, first = annotate(capsys, tmp_path, "-a", f"{GPU}=none", "-a", "my.key=x=y z")
    new, _ = now(tmp_path)
    assert (status, first["changed"], first["error"]) == (0, True, None)
    assert (first["old_digest"], first["new_digest"]) == (old.digest, new.digest)
    assert new.annotations == {"io.github.hpc3build.vocabulary": "0", GPU: "none", "my.key": "x=y z"}
    assert new.config.digest == old.config.digest, "the image ID stays"
    before = snapshot(tmp_path)
    status, second = annotate(capsys, tmp_path, "-a", f"{GPU}=none", "-a", "my.key=x=y z")
    assert (status, second["changed"], second["written"]) == (0, False, [])
    assert second["old_digest"] == second["new_digest"] == new.digest and snapshot(tmp_path) == before
    assert "unchanged" in called(capsys, "annotate", f"oci:{tmp_path}", "-a", f"{GPU}=none")[1]


def test_annotate_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(tmp_path)
    before = snapshot(tmp_path)
    _, would = annotate(capsys, tmp_path, "-a", "k=v", "--labels", "--dry-run")
    assert snapshot(tmp_path) == before and would["changed"]
    assert "would become" in called(capsys, "annotate", f"oci:{tmp_path}", "-a", "k=v", "--dry-run")[1]
    _, does = annotate(capsys, tmp_path, "-a", "k=v", "--labels")
    assert does["new_digest"] == would["new_digest"] and sorted(does["written"]) == sorted(would["written"])


def test_annotate_labels_and_remove(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = image(tmp_path, annotations={"gone": "1", "kept": "2"}, labels={"gone": "1", "kept": "2"})
    annotate(capsys, tmp_path, "--remove", "gone", "-a", "new=3")
    manifest, config = now(tmp_path)
    assert manifest.annotations == {"kept": "2", "new": "3"} and config.labels == {"gone": "1", "kept": "2"}
    annotate(capsys, tmp_path, "--remove", "gone", "-a", "new=3", "--labels")
    manifest, config = now(tmp_path)
    assert manifest.annotations == config.labels == {"kept": "2", "new": "3"}
    assert manifest.config.digest != old.config.digest and manifest.layers == old.layers


def test_annotate_refuses_what_a_label_contradicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rule R10."""
    image(tmp_path, labels={GPU: "cuda"})
    before = snapshot(tmp_path)
    status, out, err = called(capsys, "annotate", f"oci:{tmp_path}", "-a", f"{GPU}=none")
    assert (status, out) == (1, "") and "--labels" in err and snapshot(tmp_path) == before
    assert annotate(capsys, tmp_path, "-a", f"{GPU}=cuda")[0] == 0
    assert annotate(capsys, tmp_path, "-a", f"{GPU}=none", "--labels")[0] == 0
    manifest, config = now(tmp_path)
    assert manifest.annotations[GPU] == config.labels[GPU] == "none"


def test_annotate_several_goes_on_after_one_that_fails(tmp_path: Path) -> None:
    image(tmp_path / "a")
    image(tmp_path / "c")
    done = hpc3build("annotate", "oci:a", "oci:b", "oci:c", "-a", "k=v", "--json", cwd=tmp_path)
    results = document(done.out, "annotate")["results"]
    assert done.status == 4 and "hpc3build: error: b is not an OCI layout" in done.err
    assert [(result["changed"], bool(result["error"])) for result in results] == [
        (True, False),
        (False, True),
        (True, False),
    ]


def test_annotate_from_lock_and_detect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(tmp_path)
    lock = ROOT / "tests/data/spack/envs/v0.20.3-seed-gromacs-cuda/spack.lock"
    annotate(capsys, tmp_path, "--from", str(lock), "--detect", "-a", "org.opencontainers.image.title=mine")
    found = now(tmp_path)[0].annotations
    assert found[GPU] == "cuda" and found["org.supercontainers.os.vendor"] == "debian"
    assert found["org.opencontainers.image.title"] == "mine", "what the user says wins"


def test_docker_types_are_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(tmp_path, docker=True)
    _, result = annotate(capsys, tmp_path, "-a", "k=v")
    assert result["converted"] and result["warnings"]
    assert called(capsys, "annotate", f"oci:{tmp_path}", "-a", "k=w", "-q")[2] == ""


# Streams


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_the_terminal(encoding: str, tmp_path: Path) -> None:
    image(tmp_path, annotations={"t": "Größe 大", "e": "\x1b[31m"})
    env = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": None}
    shown = hpc3build("inspect", f"oci:{tmp_path}", env=env)
    assert shown.status == 0 and shown.err == "" and "\x1b" not in shown.out
    document_ = hpc3build("inspect", f"oci:{tmp_path}", "--json", env=env)
    text = os.fsencode(document_.out).decode(encoding)
    assert document_.status == 0 and json.loads(text)["annotations"]["t"] == "Größe 大"
    lost = hpc3build("inspect", f"oci:{tmp_path}/Größe", env=env)
    assert lost.status == 4 and "Traceback" not in lost.err


def test_a_full_disk_and_a_closed_pipe(tmp_path: Path) -> None:
    image(tmp_path)
    command = shlex.join([sys.executable, "-m", "hpc3build", "inspect", f"oci:{tmp_path}"])
    for redirection in (">/dev/full", ">&-"):
        done = subprocess.run(["/bin/sh", "-c", f"{command} {redirection}"], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode != 0 and "Traceback" not in done.stderr and "error" in done.stderr, redirection
    done = subprocess.run(["/bin/bash", "-c", f"{command} | true"], capture_output=True, text=True, cwd=ROOT)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["annotate", "--help"]], ids=" ".join)
def test_help_that_cannot_be_printed(words: list[str]) -> None:
    command = shlex.join([sys.executable, "-m", "hpc3build", *words])
    full = subprocess.run(["/bin/sh", "-c", f"{command} >/dev/full"], capture_output=True, text=True, cwd=ROOT)
    assert (full.returncode, full.stderr[:46]) == (3, "hpc3build: error: cannot write the output: No ")
    piped = ["/bin/bash", "-c", f"set -o pipefail; {command} | true"]
    closed = subprocess.run(piped, capture_output=True, text=True, cwd=ROOT)
    assert closed.stderr == "" and closed.returncode in (0, 141)  # 0 where true has not ended yet


def test_a_closed_terminal_ends_nothing_that_nohup_started(tmp_path: Path) -> None:
    """It hangs up while a list of references is read; the list's end is all that is waited for."""
    image(tmp_path / "o")
    for ignored, expected in ((signal.SIG_DFL, 128 + signal.SIGHUP), (signal.SIG_IGN, 0)):
        process = subprocess.Popen(
            [sys.executable, "-m", "hpc3build", "annotate", "--batch", "-", "-a", "k=v", "-q"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=functools.partial(signal.signal, signal.SIGHUP, ignored),
        )
        deadline = time.monotonic() + 20
        while not catches(process.pid, signal.SIGTERM) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(f"oci:{tmp_path / 'o'}\n".encode(), timeout=30)
        assert process.returncode == expected and b"Traceback" not in err, err


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal (proc(5), SigCgt)."""
    mask = re.search(r"^SigCgt:\t([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return mask is not None and bool(int(mask[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize(
    "words",
    [
        "annotate --batch - -a k=v",
        "inspect docker://localhost:1/x --username a --password-stdin",
        "fingerprint --from-probe -",
        "pick -",
    ],
)
def test_a_closed_standard_input(words: str) -> None:
    command = f"{sys.executable} -m hpc3build {words} <&-"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, cwd=ROOT)
    message = assert_one_message(Done(done.returncode, done.stdout, done.stderr), 2)
    assert "standard input is closed" in message


def test_run_needs_no_standard_input(tmp_path: Path) -> None:
    image(tmp_path)
    words = f"run oci:{tmp_path} --engine podman --print --force -- true"
    command = f"{sys.executable} -m hpc3build {words} <&-"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "podman run --rm" in done.stdout and "--tty" not in done.stdout, done.stderr


def test_a_closed_standard_error_takes_nothing_of_the_result(tmp_path: Path) -> None:
    image(tmp_path)
    words = [sys.executable, "-m", "hpc3build", "annotate", f"oci:{tmp_path}", "-a", "k=v", "--json"]
    done = subprocess.run(["/bin/sh", "-c", f"{shlex.join(words)} 2>&-"], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 0 and json.loads(done.stdout)["results"][0]["warnings"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("org.supercontainer.gpu=none", "org.supercontainers.gpu"),
        ("ORG.supercontainers.gpu=none", "org.supercontainers.gpu"),
        ("org.supercontainers.GPU=none", "org.supercontainers.gpu"),
        ("org.opencontainers.image.Title=x", "org.opencontainers.image.title"),
        ("org.supercontainers.hardware.cpu.optimized.version=zen99", "zen"),
        ("io.archspec.cpu.target=x86_64_v9", "x86_64_v"),
    ],
)
def test_what_is_nearly_a_key_or_a_target(text: str, meant: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_pairs([text])
    assert f"did you mean {meant}" in raised.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "gpu=none",
        "com.example.gpu=none",
        "org.opencontainers.image.ref.name=x",
        "org.opencontainers.image.vendor=x",
        "org.supercontainers.site=x",
        "org.supercontainers.hardware.cpu.optimized.version=zen3",
        "MAINTAINER=me",
    ],
)
def test_keys_of_others_are_theirs(text: str) -> None:
    key, _, value = text.partition("=")
    assert parse_pairs([text]) == {key: value}


@pytest.mark.parametrize("before", [["-q"], ["-v"], ["--debug"], ["-q", "--debug"], ["--quiet", "-v"], ["-qv"]])
def test_everywhere_is_before_the_command_too(before: list[str], tmp_path: Path) -> None:
    make_layout(tmp_path, [{}], tag="1")
    reference = f"oci:{tmp_path}:1"
    assert hpc3build(*before, "annotate", reference, "-a", "k=v", "--dry-run") == hpc3build(
        "annotate", *before, reference, "-a", "k=v", "--dry-run"
    )
    done = hpc3build(*before, "index", "create", f"oci:{tmp_path}:i", reference, "--first-as-default")
    assert done.status == 0, done
    again = hpc3build("index", "create", f"oci:{tmp_path}:i", reference, "--first-as-default", *before)
    assert again == done


def test_everywhere_without_a_command() -> None:
    assert hpc3build("-q").status == 2
    assert "invalid choice: 'nope'" in hpc3build("-q", "nope").err
    assert hpc3build("-q", "--version").out == f"hpc3build {__version__}\n"
    assert "Traceback" in hpc3build("--debug", "inspect", "oci:nope").err


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = hpc3build("inspect", "oci:nope", "--debug", cwd=tmp_path)
    assert "Traceback" in done.err and done.status != 0
    assert_one_message(hpc3build("inspect", "oci:nope", cwd=tmp_path), 4)


def test_render_to_a_dash_is_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(ROOT / "recipes" / "hello-spack")
    _, plain, _ = called(capsys, "render", recipe)
    assert called(capsys, "render", recipe, "-o", "-")[1] == plain and not Path("-").exists()
    _, out, err = called(capsys, "render", recipe, "--context", str(tmp_path / "context"))
    assert out == "" and str(tmp_path / "context") in err
    assert called(capsys, "render", recipe, "--context", str(tmp_path / "c2"), "-q")[2] == ""


def test_render_to_file_is_what_stdout_gets(tmp_path: Path) -> None:
    recipe = ROOT / "recipes/gromacs-cuda"
    shown = hpc3build("render", recipe, cwd=tmp_path)
    written = hpc3build("render", recipe, "-o", "C", "--context", "context", cwd=tmp_path)
    assert (shown.status, shown.err, written.status, written.out) == (0, "", 0, "")
    assert (tmp_path / "C").read_text() == (tmp_path / "context/Containerfile").read_text() == shown.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["C", "context"]
    assert (tmp_path / "C").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("org.supercontainers.mpi.abi", "org.supercontainers.mpi.abi.version"),
        ("org.supercontainers.kernel", "org.supercontainers.kernel.version or org.supercontainers.kernel.modules"),
        ("org.supercontainers.cuda.version", "org.supercontainers.hardware.gpu.cuda.version"),
        ("org.supercontainers.gpu.architecture", "org.supercontainers.hardware.gpu.architecture"),
        ("io.github.hpc3build.conf", "io.github.hpc3build.conformance"),
        ("org.supercontainers.mpi.implementations.list", "org.supercontainers.mpi.implementation"),
        ("org.supercontainers.xyzzy", None),
    ],
)
def test_what_begins_as_ours_and_is_no_key_is_written_and_told(
    key: str, meant: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_layout(tmp_path / "image", [{"a": b"1"}])
    assert main(["annotate", f"oci:{tmp_path}/image", "-a", f"{key}=1", "--json"]) == 0
    told = capsys.readouterr()
    (result,) = json.loads(told.out)["results"]
    (warning,) = (one for one in result["warnings"] if "no key of the vocabulary" in one)
    assert result["changed"] and warning in told.err and warning.startswith(f"{key} is no key")
    assert ("did you mean" in warning) == (meant is not None) and (meant is None or warning.endswith(f"{meant}?"))


@pytest.mark.parametrize(
    "key", ["org.supercontainers.mpi.provider", "org.supercontainers.libfabric.abi", "org.example.x"]
)
def test_aliases_and_other_keys_are_not_told(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_layout(tmp_path / "image", [{"a": b"1"}])
    assert main(["annotate", f"oci:{tmp_path}/image", "-a", f"{key}=1"]) == 0
    assert "no key of the vocabulary" not in capsys.readouterr().err


ENDED_TWICE = """\
import os, signal, sys
from hpc3build import cli

def command(options):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("cleaned up")

cli._inspect = command
sys.exit(cli.main(["inspect", "oci:x"]))
"""


def test_a_second_signal_does_not_cut_short_what_the_first_began() -> None:
    """``timeout -s INT`` sends two, to the command and to its group."""
    done = subprocess.run(
        [sys.executable, "-c", ENDED_TWICE], capture_output=True, text=True, cwd=ROOT, timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "cleaned up\n", "hpc3build: interrupted\n")


@pytest.mark.parametrize("words", [["facts"], ["annotate", "--detect"]])
def test_an_index_of_one(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_index(tmp_path, [make_layout(tmp_path, [{}], tag="one")], tag="index")
    assert main([*words, f"oci:{tmp_path}:index"]) == 2
    assert "is an index of 1 manifest, " in capsys.readouterr().err
