"""The commands about hosts in processes of their own: documents, exit codes, and what bad input looks like."""

from __future__ import annotations

import json
import os
import shlex
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hpc3build.facts import vocabulary as voc
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.stores import open_store
from hpc3build.workflows.candidates import Candidate
from hpc3build.workflows.engine_names import Place, name_for
from tests.commands import ROOT, Done, assert_one_message, hpc3build
from tests.fake_registry import NAME, FakeRegistry
from tests.images import descriptor_of, make_document, make_layout

HOSTS = ROOT / "tests/data/hosts"
CPU, GPU, MPI = voc.CPU_VERSION.name, voc.GPU.name, voc.MPI.name
PLAIN = {CPU: "x86_64", GPU: "none", MPI: "none"}


def on(name: str) -> tuple[str, str]:
    return "--host", str(HOSTS / f"{name}.probe")


def document(done: Done, schema: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.out)
    jsonschema.validate(found, json.loads((ROOT / f"hpc3build/schemas/{schema}.json").read_text()))
    return found


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    for name, pairs in {
        "run": PLAIN,
        "no": {**PLAIN, CPU: "zen4"},
        "degraded": {**PLAIN, GPU: "cuda"},
        "unknown": {},
    }.items():
        make_layout(tmp_path, [{name: b"1"}], labels=pairs, tag=name)
    return tmp_path


@pytest.mark.parametrize(
    ("tag", "options", "status", "verdict"),
    [
        ("run", [], 0, "RUN"),
        ("degraded", [], 0, "DEGRADED"),
        ("no", [], 1, "NO"),
        ("unknown", [], 1, "UNKNOWN"),
        ("unknown", ["--allow-unknown"], 0, "UNKNOWN"),
        ("no", ["--allow-unknown"], 1, "NO"),
    ],
)
def test_match(tag: str, options: list[str], status: int, verdict: str, layout: Path) -> None:
    done = hpc3build("match", f"oci:{layout}:{tag}", *on("zen2-slurm"), "--json", *options)
    found = document(done, "match")
    assert (done.status, found["verdict"]) == (status, verdict)
    assert (found["bytes_not_downloaded"] > 0) == (verdict == "NO")
    told = hpc3build("match", f"oci:{layout}:{tag}", *on("zen2-slurm"), *options)
    assert told.status == status and told.out.startswith(verdict)
    if verdict == "RUN":
        assert told.out == "RUN: built for x86_64, which this zen2 host runs; needs no GPU; uses no MPI\n"
    if verdict == "NO":
        assert "lacks avx512" in told.out and "were not downloaded" in told.out


def test_pick(layout: Path) -> None:
    done = hpc3build("pick", *(f"oci:{layout}:{tag}" for tag in ("no", "run")), *on("zen2-slurm"), "--json")
    found = document(done, "pick")
    assert found["picked"]["verdict"] == "RUN" and [c["verdict"] for c in found["candidates"]] == ["RUN", "NO"]
    done = hpc3build("pick", f"oci:{layout}:no", *on("zen2-slurm"), "--explain")
    assert done.status == 1 and done.out == "" and "no image fits; the nearest: NO: needs zen4" in done.err


def test_pick_of_a_registry_is_what_engines_take(tmp_path: Path) -> None:
    images = [make_layout(tmp_path, [{str(n): b"1"}], tag=None) for n in range(2)]
    children = [
        descriptor_of(image, platform={"os": "linux", "architecture": "amd64"}, annotations={**PLAIN, CPU: target})
        for image, target in zip(images, ("x86_64", "zen2"), strict=True)
    ]
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": children}
    make_document(tmp_path, index, tag="1")
    with FakeRegistry() as registry:
        registry.add(tmp_path)
        done = hpc3build("pick", f"docker://{registry.host}/{NAME}:1", *on("zen2-slurm"))
        assert done.out == f"{registry.host}/{NAME}@{images[1].digest}\n"
        assert registry.seen() == ["GET manifests", "GET manifests", "GET blobs"]
        answered = hpc3build("match", f"{registry.host}/{NAME}:1", *on("zen2-slurm"), "--json")
        assert document(answered, "match")["candidates"] == 2
        line = hpc3build("run", f"{registry.host}/{NAME}:1", *on("zen2-slurm"), "--print", "--", "app", "a b")
        assert shlex.split(line.out)[-3:] == [f"{registry.host}/{NAME}@{images[1].digest}", "app", "a b"]
        assert shlex.split(line.out)[:2] == ["podman", "run"] and "--tls-verify=false" in line.out


def test_a_registry_tells_its_tags_where_one_is_missing(tmp_path: Path) -> None:
    for number in range(12):
        make_layout(tmp_path, [{str(number): b"1"}], labels=PLAIN, tag=f"1.{number}")
    with FakeRegistry() as registry:
        registry.add(tmp_path)
        name = f"{registry.host}/{NAME}"
        registry.put(NAME, f"sha256-{'0' * 64}.sig", *reversed(registry.manifests[NAME][registry.tags[NAME]["1.0"]]))
        for command in (["match"], ["inspect"], ["facts"], ["annotate", "-a", f"{GPU}=none"], ["index", "annotate"]):
            told = assert_one_message(hpc3build(*command, f"{name}:1.77"), 4)
            assert "hint: tags there: 1.7, " in told and "and 4 more" in told and ".sig" not in told
        assert "typing error" in hpc3build("match", f"{name}@sha256:{'0' * 64}").err
        told = assert_one_message(hpc3build("match", f"{registry.host}/nope/x:1"), 4)
        assert "typing error" in told
        told = assert_one_message(hpc3build("pick", f"{registry.host}/nope/x:*"), 4)
        assert f"{registry.host}/nope/x:*: " in told and "latest" not in told


def test_pick_goes_on_without_what_is_missing(layout: Path) -> None:
    gone = f"oci:{layout}:gone"
    done = hpc3build("pick", gone, f"oci:{layout}:run", *on("zen2-slurm"))
    assert (done.status, done.out) == (0, f"oci:{layout}:run\n")
    assert f"{gone}: no such tag" in done.err
    done = hpc3build("pick", gone, f"oci:{layout}:no", *on("zen2-slurm"))
    assert (done.status, done.out) == (4, "") and "no image fits" in done.err and "no such tag" in done.err
    assert "no such tag" in hpc3build("pick", gone, f"oci:{layout}:other", *on("zen2-slurm")).err
    assert "no such tag" in assert_one_message(hpc3build("pick", gone, *on("zen2-slurm")), 4)


def test_fingerprint(tmp_path: Path) -> None:
    done = hpc3build("fingerprint", "--fast", "--json")
    assert document(done, "fingerprint")["schema"] == 1
    assert hpc3build("fingerprint", "--fast", "-o", tmp_path / "host.json").out == ""
    again = hpc3build("match", "oci:nowhere", "--host", tmp_path / "host.json")
    assert "nowhere" in assert_one_message(again, 4)
    told = hpc3build("fingerprint", "--from-probe", HOSTS / "a100.probe")
    with (HOSTS / "a100.probe").open("rb") as probe:
        piped = hpc3build("fingerprint", "--from-probe", "-", stdin=probe)
    assert piped == told
    assert "standard input" in assert_one_message(hpc3build("fingerprint", "--from-probe", "-"), 2)
    assert "cpu.target" in told.out and "sm_80" in told.out
    printed = hpc3build("fingerprint", "--script").out
    assert printed.startswith("#!/bin/sh\n")
    assert hpc3build("fingerprint", "--script", "-o", tmp_path / "probe.sh").out == ""
    assert (tmp_path / "probe.sh").read_text() == printed
    (tmp_path / "nfd").mkdir()
    assert hpc3build("fingerprint", "--fast", "--nfd-features", tmp_path / "nfd").out == ""
    assert "host.cpu.target=" in (tmp_path / "nfd" / "hpc3build").read_text()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not JSON"),
        ('{"schema": 9}', "schema 9"),
        ("[1]", "where an object belongs"),
        ('{"schema": 1, "cpu": {"features": {"\\u001b[31m": 1}}}', "features"),
        ("hpc3build-probe 9\n", "a newer probe"),
        ("\xff\xfe", "not JSON"),
    ],
)
def test_hosts_that_are_none(text: str, told: str, layout: Path) -> None:
    (layout / "host").write_text(text)
    done = hpc3build("match", f"oci:{layout}:run", "--host", layout / "host")
    assert told in assert_one_message(done, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["match", "UPPER/Case"],
        ["match", "oci:x", "--host", "/no/such/file"],
        ["pick", "oci:a b\x1b"],
        ["index"],
        ["index", "nope"],
        ["index", "create", "x@sha256:" + "0" * 64, "y"],
        ["fingerprint", "--from-probe", "/no/such/file"],
        ["fingerprint", "--injects", "/no/such/library"],
        ["fingerprint", "--nfd-features", "/no/such/folder"],
        ["run", "", "--", "x"],
    ],
    ids=" ".join,
)
def test_bad_input(arguments: list[str]) -> None:
    assert_one_message(hpc3build(*arguments), 2)


# run


def fake_engine(folder: Path, name: str) -> dict[str, str | None]:
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@"\nexit 7\n')
    (folder / "bin" / name).chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}


def test_run_becomes_the_engine(layout: Path, tmp_path: Path) -> None:
    env = fake_engine(tmp_path, "podman")
    argv = ["run", f"oci:{layout}:run", *on("zen2-slurm"), "--log", str(tmp_path / "log"), "--", "echo", "a b", "*"]
    for _ in range(2):
        done = hpc3build(*argv, env=env)
        assert done.status == 7 and done.out.splitlines()[-4:] == [f"oci:{layout}:run", "echo", "a b", "*"]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(lines) == 2 and lines[0]["verdict"] == "RUN" and lines[0]["facts"][CPU] == "x86_64"
    assert lines[0]["digest"].startswith("sha256:") and lines[0]["engine"] == "podman"


def test_run_refuses_a_no(layout: Path, tmp_path: Path) -> None:
    env = fake_engine(tmp_path, "podman")
    done = hpc3build("run", f"oci:{layout}:no", *on("zen2-slurm"), "--", "x", env=env)
    assert done.status == 1 and done.out == "" and "not run: NO: needs zen4" in done.err
    assert hpc3build("run", f"oci:{layout}:no", *on("zen2-slurm"), "--force", "--", "x", env=env).status == 7


@pytest.mark.parametrize(
    ("engine", "host", "expected"),
    [
        (
            "podman",
            "a100",
            "--device nvidia.com/gpu=all --group-add keep-groups --network host --ipc host --annotation",
        ),
        ("docker", "a100", "docker run --rm --gpus all --network host --ipc host 127.0.0.1:"),
        ("apptainer", "a100", "apptainer run --nv --no-https docker://127.0.0.1:"),
        ("podman", "cray-mi250", "--device /dev/kfd --device /dev/dri --group-add keep-groups"),
        ("apptainer", "cray-mi250", "apptainer run --rocm --no-https docker://127.0.0.1:"),
        ("singularity", "zen2-slurm", "singularity run --no-https docker://127.0.0.1:"),
        ("sarus", "zen2-slurm", "sarus run --mpi 127.0.0.1:"),
    ],
)
def test_lines(engine: str, host: str, expected: str, tmp_path: Path) -> None:
    pairs = {CPU: "x86_64", GPU: "cuda,rocm", MPI: "openmpi", voc.MPI_MODE.name: "mpi_replace"}
    image = make_layout(tmp_path, [{"a": b"1"}], labels=pairs, tag="1")
    with FakeRegistry() as registry:
        registry.add(tmp_path)
        name = f"{registry.host}/{NAME}"
        argv = ["run", f"{name}:1", *on(host), "--engine", engine, "--print", "--force", "-q", "--", "app"]
        done = hpc3build(*argv)
    assert done.status == 0 and expected in done.out and done.out.endswith(f"{name}@{image.digest} app\n"), done


def flavours(folder: Path, tag: str = "1") -> tuple[Any, Any]:
    """An index in a layout whose first entry does not fit zen2-slurm; returns both images."""
    images = [
        make_layout(folder, [{target: b"1"}], labels={**PLAIN, CPU: target}, tag=None) for target in ("zen4", "zen2")
    ]
    children = [descriptor_of(image, platform={"os": "linux", "architecture": "amd64"}) for image in images]
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": children}
    make_document(folder, index, tag=tag)
    return images[0], images[1]


@pytest.mark.parametrize("engine", ["podman", "apptainer"])
def test_of_a_layouts_index_the_image_that_was_picked_is_run(engine: str, tmp_path: Path) -> None:
    """Engines take the first entry of an index: they get a layout that lists the picked image alone."""
    _, fits = flavours(tmp_path / "layout")
    env = {**fake_engine(tmp_path, engine), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    argv = ["run", f"oci:{tmp_path / 'layout'}:1", *on("zen2-slurm"), "--engine", engine]
    for options in ([], ["--print"], []):  # again, and for whom the line is printed
        done = hpc3build(*argv, *options, "--log", str(tmp_path / "log"), "--", "app", env=env)
        name = shlex.split(done.out)[-2]
        assert name.startswith(f"oci:{tmp_path / 'cache'}/") and done.status == (0 if options else 7)
        answer = json.loads(hpc3build("inspect", name, "--json").out)
        assert answer["digest"] == fits.digest
    assert {json.loads(line)["digest"] for line in (tmp_path / "log").read_text().splitlines()} == {fits.digest}
    layout = Path(name[4:].partition(":")[0])
    assert [entry["digest"] for entry in json.loads((layout / "index.json").read_text())["manifests"]] == [fits.digest]
    assert list((tmp_path / "cache/hpc3build/run").iterdir()) == [layout]
    by_digest = hpc3build("run", f"oci:{tmp_path / 'layout'}@{fits.digest}", *argv[2:], "--print", "--", "app", env=env)
    assert shlex.split(by_digest.out)[-2] == name


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    flavours(tmp_path / "layout")
    (tmp_path / "file").touch()
    argv = ["run", f"oci:{tmp_path / 'layout'}:1", *on("zen2-slurm"), "--engine", "podman", "--print", "--", "app"]
    nowhere = dict.fromkeys(("XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "TMPDIR"), str(tmp_path / "file"))
    done = hpc3build(*argv, env={**fake_engine(tmp_path, "podman"), **nowhere})
    assert "hint: XDG_CACHE_HOME names another folder" in assert_one_message(done, 2)
    done = hpc3build(*argv, env={**fake_engine(tmp_path, "podman"), **nowhere, "TMPDIR": str(tmp_path)})
    folder = tmp_path / f"hpc3build-run-{os.geteuid()}"
    assert f"oci:{folder}/" in done.out and folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    done = hpc3build(*argv, env={**fake_engine(tmp_path, "podman"), **nowhere, "TMPDIR": str(tmp_path)})
    assert "others may write there" in assert_one_message(done, 2)


def test_what_engines_would_choose_themselves_is_refused(tmp_path: Path) -> None:
    _, fits = flavours(tmp_path / "layout")
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        for path in sorted((tmp_path / "layout").rglob("*")):
            tar.add(path, path.relative_to(tmp_path / "layout"), recursive=False)
    argv = ["run", f"oci-archive:{tmp_path / 'image.tar'}:1", *on("zen2-slurm"), "--engine", "podman", "--print"]
    told = assert_one_message(hpc3build(*argv, "--", "app"), 2)
    assert "would take another one of that index" in told
    assert f"annotate oci-archive:{tmp_path / 'image.tar'}@{fits.digest} --to" in told


def test_tasks_that_start_at_once_share_a_whole_layout(tmp_path: Path) -> None:
    _, fits = flavours(tmp_path / "layout")
    candidate = Candidate(f"oci:{tmp_path / 'layout'}:1", fits.digest, {}, {})
    place = Place(run, (tmp_path / "side",))
    start = threading.Barrier(8)

    def task(_: int) -> tuple[str, str]:
        start.wait()
        name = name_for("podman", candidate, place)
        with open_store(parse(name), run) as store:
            return name, store.manifest(parse(name).tag).digest

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(task, range(8)))
    assert {digest for _, digest in found} == {fits.digest} and len(found) == 1
    assert len(list((tmp_path / "side").iterdir())) == 1


def test_a_record_of_a_layout_elsewhere_is_picked(tmp_path: Path) -> None:
    digest = "sha256:" + "1" * 64
    entry = {"reference": "oci:/no/such/layout:1", "digest": digest, "annotations": PLAIN, "platform": {"os": "linux"}}
    (tmp_path / "records").write_text(json.dumps(entry) + "\n")
    done = hpc3build("pick", tmp_path / "records", *on("zen2-slurm"), "--allow-unknown")
    assert (done.status, done.out) == (0, f"oci:/no/such/layout@{digest}\n") and "is not an OCI layout" in done.err


def test_pick_prints_what_podman_takes(layout: Path, tmp_path: Path) -> None:
    done = hpc3build("pick", f"oci:{layout}:run", *on("zen2-slurm"))
    assert (done.out, done.err) == (f"oci:{layout}:run\n", "")
    _, fits = flavours(tmp_path / "flavours")
    done = hpc3build("pick", f"oci:{tmp_path / 'flavours'}:1", *on("zen2-slurm"))
    assert done.out == f"oci:{tmp_path / 'flavours'}@{fits.digest}\n" and done.status == 0
    assert "engines take an image of a layout by its tag" in done.err and "hpc3build run starts it" in done.err
    found = hpc3build("pick", f"oci:{layout}:run", *on("zen2-slurm"), "--json")
    assert document(found, "pick")["picked"]["reference"] == f"oci:{layout}:run"


@pytest.mark.parametrize(
    ("engine", "instead"),
    [("docker", "docker-daemon:NAME:TAG"), ("sarus", "docker://HOST/NAME:TAG")],
)
def test_engines_that_cannot_take_it(engine: str, instead: str, layout: Path) -> None:
    done = hpc3build("run", f"oci:{layout}:run", *on("zen2-slurm"), "--engine", engine, "--print", "--", "app")
    told = assert_one_message(done, 2)
    assert f"{engine} takes no image of oci" in told and f"--to {instead}" in told


def test_run_needs_an_engine_that_is_known(layout: Path) -> None:
    done = hpc3build("run", f"oci:{layout}:run", *on("zen2-slurm"), "--engine", "nope", "--", "x")
    assert "no such engine" in assert_one_message(done, 2)
    assert "command not found" in assert_one_message(
        hpc3build("run", f"oci:{layout}:run", *on("little-known"), "--", "x"), 3
    )
