"""``export`` and ``docs`` in processes of their own: what comes out where, which image of an index, and exit codes."""

from __future__ import annotations

import base64
import json
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import ROOT, assert_one_message, hpc3build
from tests.exported import MPICH, P, as_ch_run
from tests.fake_registry import NAME, FakeRegistry
from tests.images import descriptor_of, make_document, make_index, make_layout

DOCUMENTATION = P + "documentation"
TEXT = "# GROMACS\n\n\trun `gmx` – 日本\n"
HOSTS = ROOT / "tests/data/hosts"
FORMATS = ("edf", "sarus", "podman", "apptainer", "charliecloud", "nfd", "compspec", "metahub", "oci-env")
NAMED = ("edf", "podman", "apptainer", "metahub")
PLAIN = {P + "hardware.cpu.optimized.version": "x86_64", P + "gpu": "none", P + "mpi": "none"}
GPU = {**PLAIN, P + "gpu": "cuda", P + "hardware.gpu.architecture": "sm_80", P + "hardware.gpu.cuda.version": "12.0"}
ARM = {**PLAIN, P + "hardware.cpu.optimized.version": "aarch64"}
ENV = {"Env": ["PATH=/opt/bin:/usr/bin"]}


def encoded(text: str | bytes) -> dict[str, str]:
    content = text.encode() if isinstance(text, str) else text
    return {DOCUMENTATION: base64.b64encode(content).decode()}


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Images, and an index of a plain one and one for CUDA."""
    plain = make_layout(tmp_path, [{"a": b"1"}], labels={**PLAIN, **encoded("plain\n")}, tag="plain", config=ENV)
    cuda = make_layout(tmp_path, [{"a": b"2"}], labels={**GPU, **encoded(TEXT)}, tag="cuda", config=ENV)
    arm = make_layout(tmp_path, [{"a": b"3"}], labels=ARM, tag="arm", architecture="arm64")
    make_layout(tmp_path, [{"a": b"4"}], labels=MPICH, tag="mpich", architecture="arm64")
    entries = [
        descriptor_of(image, platform={"os": "linux", "architecture": name})
        for image, name in ((plain, "amd64"), (cuda, "amd64"), (arm, "arm64"))
    ]
    kind = "application/vnd.oci.image.index.v1+json"
    make_document(tmp_path, {"schemaVersion": 2, "mediaType": kind, "manifests": entries}, tag="index")
    make_layout(tmp_path, [{"a": b"5"}], tag="nothing")
    return tmp_path


def digest(layout: Path, tag: str) -> str:
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    return next(str(one["digest"]) for one in entries if one["annotations"]["org.opencontainers.image.ref.name"] == tag)


def on(name: str) -> tuple[str, str]:
    return "--host", str(HOSTS / f"{name}.probe")


@pytest.mark.parametrize("name", FORMATS)
def test_results_go_to_stdout_and_notes_to_stderr(name: str, layout: Path) -> None:
    tag = "mpich" if name == "sarus" else "cuda"
    options = [*on("mpich-4.2"), *(["--image", "registry.example/hpc/app:1"] if name in NAMED else [])]
    done = hpc3build("export", name, f"oci:{layout}:{tag}", *options)
    assert done.status == 0 and done.out.endswith("\n"), done
    assert "note" not in done.out
    assert all(line.startswith("hpc3build: note: ") for line in done.err.splitlines())
    quiet = hpc3build("export", name, f"oci:{layout}:{tag}", *options, "-q")
    assert (quiet.out, quiet.err) == (done.out, "")
    file = layout / "written"
    written = hpc3build("export", name, f"oci:{layout}:{tag}", *options, "-o", str(file))
    assert (written.status, written.out, written.err) == (0, "", done.err)
    assert file.read_text() == done.out and stat.S_IMODE(file.stat().st_mode) == 0o644


def test_engines_are_given_the_reference(layout: Path) -> None:
    done = hpc3build("export", "apptainer", "oci:layout:cuda", cwd=_linked(layout))
    assert shlex.split(done.out) == ["apptainer", "run", "--nv", "oci:layout:cuda"]


def _linked(layout: Path) -> Path:
    folder = layout / "sub"
    folder.mkdir()
    (folder / "layout").symlink_to(layout)
    return folder


@pytest.mark.parametrize("name", ["sarus", "nfd", "compspec", "oci-env", "charliecloud"])
def test_nothing_to_write(name: str, layout: Path) -> None:
    file = layout / "written"
    file.write_text("before")
    done = hpc3build("export", name, f"oci:{layout}:nothing", "-q", "-o", str(file), *on("mpich-4.2"))
    assert (done.status, done.out) == (1, "") and done.err.startswith("hpc3build: nothing to write: ")
    assert file.read_text() == "before" and len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "tag"),
    [
        (on("a100"), "cuda"),
        (on("gke-t2a-flux"), "arm"),
        (on("zen2-slurm"), "plain"),
        (("--platform", "linux/arm64"), "arm"),
        (("--platform", "linux/amd64", *on("a100")), "cuda"),
        (("--platform", "linux/amd64", *on("zen2-slurm")), "plain"),
    ],
)
def test_of_an_index_the_best_image(options: tuple[str, ...], tag: str, layout: Path) -> None:
    done = hpc3build("export", "edf", f"oci:{layout}:index", "--image", "registry.example/hpc/app:1", *options)
    assert done.status == 0, done
    assert done.out.startswith(f"# {digest(layout, tag)}\n")
    told = f"images {digest(layout, tag)}" in done.err
    assert told is (options != ("--platform", "linux/arm64")), "a choice that was none is not told"


@pytest.mark.parametrize(("name", "entries"), [("nfd", "compatibilities"), ("metahub", "manifests")])
def test_some_hold_all_images_of_an_index(name: str, entries: str, layout: Path) -> None:
    options = ["--image", "registry.example/hpc/app:1"] if name in NAMED else []
    done = hpc3build("export", name, f"oci:{layout}:index", *options)
    assert done.status == 0 and entries in done.out
    assert all(digest(layout, tag) in done.out for tag in ("plain", "cuda", "arm"))
    one = hpc3build("export", name, f"oci:{layout}:index", *options, "--platform", "linux/arm64")
    assert digest(layout, "cuda") not in one.out and "aarch64" in one.out


@pytest.mark.parametrize("gone", [["cuda"], ["plain", "cuda", "arm"]])
def test_images_that_an_index_lists_and_that_are_not_there(gone: list[str], layout: Path) -> None:
    for tag in gone:
        (layout / "blobs" / digest(layout, tag).replace(":", "/")).unlink()
    done = hpc3build("export", "nfd", f"oci:{layout}:index")
    if len(gone) == 3:
        assert "none is there" in assert_one_message(done, 4)
    else:
        assert done.status == 0 and digest(layout, "plain") in done.out and digest(layout, "cuda") not in done.out
        assert f"note: {digest(layout, 'cuda')}: the index lists this image" in done.err


def test_none_of_an_index_fits(layout: Path) -> None:
    done = hpc3build("export", "edf", f"oci:{layout}:index", *on("power9"))
    assert (done.status, done.out) == (1, "")
    assert "none of its 3 images runs on power9" in done.err and "--platform" in done.err


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["export", "edf", "oci:{}:absent"], 4, "absent"),
        (["export", "edf", "oci:{}/absent:1"], 4, "absent"),
        (["docs", "oci:{}:absent"], 4, "absent"),
        (["export", "edf", "oci:{}:cuda"], 2, "an EDF names images of registries"),
        (["export", "metahub", "oci:{}:cuda"], 2, "manifest.yml names images of registries"),
        (["export", "edf", "oci:{}:cuda", "--platform", "linux/arm64"], 2, "no image for linux/arm64"),
        (["export", "edf", "oci:{}:cuda", "--platform", "arm 64"], 2, "--platform arm 64"),
        (["export", "edf", "oci:{}:index", "--host", "/absent"], 2, "/absent"),
        (["export", "edf", "oci:{}:cuda", "-o", "/absent/x"], 2, "/absent"),
        (["export", "nfd", "oci:{}:cuda", "--image", "x"], 2, "--image is for edf, podman, apptainer, metahub"),
        (["export", "edf", "oci:{}:cuda", "--image", "x", "--host", "/absent"], 2, "/absent"),
        (["export", "edf", "oci:{}:cuda", "--image", "bad name"], 2, "--image 'bad name': blanks"),
        (["export", "edf", "oci:{}:cuda", "--image", "a\nb"], 2, "--image 'a\\nb': blanks"),
        *(
            (["export", name, "oci:{}:cuda", "--image", "bad name"], 2, "--image: 'bad name' is not an image reference")
            for name in ("podman", "apptainer", "metahub")
        ),
        (["export", "edf", "oci:{}:cuda", "--image", ""], 2, "--image: its value is empty"),
        (["export", "docker", "oci:{}:cuda"], 2, "invalid choice"),
        (["export", "edf", "-"], 2, "-"),
        (["export", "podman", "oci:{}:index", "--platform", "linux/arm64"], 2, "by its tag"),
    ],
)
def test_bad_input(arguments: list[str], status: int, told: str, layout: Path) -> None:
    assert told in assert_one_message(hpc3build(*(word.format(layout) for word in arguments)), status)


def test_an_artifact_is_no_image(layout: Path) -> None:
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": f"sha256:{'44' * 32}", "size": 2}
    kind = "application/vnd.oci.image.manifest.v1+json"
    make_document(layout, {"schemaVersion": 2, "mediaType": kind, "config": empty, "layers": [empty]}, tag="artifact")
    assert "no image there" in assert_one_message(hpc3build("export", "nfd", f"oci:{layout}:artifact"), 2)


@pytest.fixture
def registry(layout: Path) -> Iterator[FakeRegistry]:
    with FakeRegistry() as found:
        found.add(layout)
        yield found


def test_a_registry_s_image_is_named_by_its_digest(registry: FakeRegistry, layout: Path) -> None:
    name = f"{registry.host}/{NAME}"
    done = hpc3build("export", "podman", f"{name}:cuda")
    words = shlex.split(done.out)
    assert words[-1] == f"{name}@{digest(layout, 'cuda')}" and "--tls-verify=false" in words
    done = hpc3build("export", "edf", f"{name}:cuda")
    assert f'image = "{registry.host}#{NAME}:cuda"' in done.out
    done = hpc3build("export", "edf", f"{name}:index", "--platform", "linux/arm64")
    assert f'image = "{registry.host}#{NAME}@{digest(layout, "arm")}"' in done.out


def test_sealed_descriptors_are_enough_for_all_of_an_index(registry: FakeRegistry) -> None:
    name = f"{registry.host}/{NAME}:index"
    assert hpc3build("index", "annotate", name).status == 0
    seen = len(registry.requests)
    done = hpc3build("export", "metahub", name)
    assert done.status == 0 and done.out.count("features:") == 3
    asked = [request for request in registry.requests[seen:] if "/v2/" in request.path and len(request.path) > 4]
    assert len(asked) == 1


def test_layers_are_never_read(registry: FakeRegistry, layout: Path) -> None:
    layers = {
        layer["digest"]
        for blob in (layout / "blobs/sha256").iterdir()
        if blob.read_bytes()[:1] == b"{"
        for layer in json.loads(blob.read_bytes()).get("layers", [])
    }
    for arguments in (("export", "edf", f"{registry.host}/{NAME}:cuda"), ("docs", f"{registry.host}/{NAME}:cuda")):
        assert hpc3build(*arguments).status == 0
    asked = " ".join(request.path for request in registry.requests)
    assert layers and not any(layer in asked for layer in layers)


def test_docs(layout: Path) -> None:
    done = hpc3build("docs", f"oci:{layout}:cuda")
    assert (done.status, done.out, done.err) == (0, TEXT, "")


def test_docs_of_an_index_are_its_own_else_its_image_s(layout: Path) -> None:
    done = hpc3build("docs", f"oci:{layout}:index", *on("a100"))
    assert done.out == TEXT and digest(layout, "cuda") in done.err
    assert hpc3build("docs", f"oci:{layout}:index", *on("power9")).out == "plain\n", "to be read it need not run"
    one = make_layout(layout, [{"a": b"9"}], labels=encoded("image\n"), tag="nine")
    make_index(layout, [one], tag="own", annotations=encoded("own\n"))
    assert hpc3build("docs", f"oci:{layout}:own").out == "own\n"


def test_docs_that_were_attached(registry: FakeRegistry, tmp_path: Path) -> None:
    name = f"{registry.host}/{NAME}:mpich"
    pair = encoded("attached\n")[DOCUMENTATION]
    assert hpc3build("docs", name).status == 1
    assert hpc3build("annotate", name, "--attach", "-a", f"{DOCUMENTATION}={pair}").status == 0
    assert hpc3build("docs", name).out == "attached\n"


@pytest.mark.parametrize("tag", ["nothing", "mpich"])
def test_no_docs(tag: str, layout: Path) -> None:
    done = hpc3build("docs", f"oci:{layout}:{tag}", "-q")
    assert (done.status, done.out) == (1, "")
    assert f"oci:{layout}:{tag}: the image has no documentation ({DOCUMENTATION})" in done.err


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("not base64!", "not base64"),
        ("YQ", "not base64"),
        ("日本", "not base64"),
        ("YQ==\nYQ==", "not base64"),
        (base64.b64encode(b"a\xff").decode(), "not UTF-8 at byte 1"),
    ],
)
def test_docs_that_are_none(value: str, why: str, layout: Path) -> None:
    make_layout(layout, [{"a": b"8"}], labels={DOCUMENTATION: value}, tag="bad")
    told = assert_one_message(hpc3build("docs", f"oci:{layout}:bad"), 4)
    assert why in told and f"oci:{layout}" in told and digest(layout, "bad") in told


def test_docs_move_no_terminal(layout: Path) -> None:
    hostile = "a\r\nb\x1b[31m\x07\x9b\x7f\rc\x00\td"
    make_layout(layout, [{"a": b"8"}], labels=encoded(hostile), tag="hostile")
    done = hpc3build("docs", f"oci:{layout}:hostile")
    assert done.out == "a\nb\ufffd[31m\ufffd\ufffd\ufffd\ufffdc\ufffd\td\n"


def test_charliecloud_s_file_holds_the_image_s_variables(layout: Path) -> None:
    env = ["PATH=/opt/bin:/usr/bin", "Q='a b'", "X=\x1b]0;evil\x07", "D=$HOME"]
    make_layout(layout, [{"a": b"8"}], labels=PLAIN, tag="env", config={"Env": env})
    done = hpc3build("export", "charliecloud", f"oci:{layout}:env")
    assert as_ch_run(done.out) == {"PATH": "/opt/bin:/usr/bin", "Q": "'a b'", "D": "$HOME"}
    assert "X: a value with control characters" in done.err and "\x1b" not in done.err
