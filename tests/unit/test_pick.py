"""Choosing among several images: order, ties, what is read of an index, and records that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc3build.cli import main
from hpc3build.errors import InputError, StoreError
from hpc3build.facts import vocabulary as voc
from hpc3build.host.fingerprint import Fingerprint
from hpc3build.match import Verdict
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.stores.layout import Layout
from hpc3build.workflows.annotate import Wish, annotate
from hpc3build.workflows.candidates import Reading, is_records
from hpc3build.workflows.fingerprint import recorded
from hpc3build.workflows.match import Choice, choose
from tests.fake_http import Fault, cut, status
from tests.fake_registry import NAME, FakeRegistry
from tests.images import descriptor_of, make_document, make_index, make_layout

DATA = Path(__file__).resolve().parents[1] / "data"
CPU, GPU, MPI = voc.CPU_VERSION.name, voc.GPU.name, voc.MPI.name
CODE, CUDA, ABI, RANK = voc.GPU_ARCHITECTURE.name, voc.CUDA_VERSION.name, voc.MPI_ABI.name, voc.RANK.name
PLAIN = {CPU: "x86_64", GPU: "none", MPI: "none"}


def host(name: str) -> Fingerprint:
    return recorded(str(DATA / "hosts" / f"{name}.probe"))


def write_records(folder: Path, images: list[dict[str, str]], **platform: str) -> str:
    lines = [
        json.dumps(
            {
                "reference": f"docker://registry.example/hpc/app:{number}",
                "digest": f"sha256:{number:064x}",
                "platform": {"os": "linux", "architecture": "amd64", **platform},
                "size": 1000,
                "annotations": pairs,
            }
        )
        for number, pairs in enumerate(images)
    ]
    (folder / "images.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "images.jsonl")


def order(choice: Choice) -> list[int]:
    return [int(judged.candidate.digest[7:], 16) for judged in choice.ranked]


def choice_of(folder: Path, images: list[dict[str, str]], name: str) -> Choice:
    return choose((write_records(folder, images),), Reading(run, host=host(name)))


@pytest.mark.parametrize(
    ("name", "images", "expected"),
    [
        (
            "zen2-slurm",
            [PLAIN, {**PLAIN, CPU: "x86_64_v3"}, {**PLAIN, CPU: "zen2"}, {**PLAIN, CPU: "zen3"}],
            [2, 1, 0, 3],
        ),
        ("zen2-slurm", [{**PLAIN, CPU: "skylake"}, PLAIN], [1, 0]),  # DEGRADED below RUN
        ("zen2-slurm", [{CPU: "zen2"}, PLAIN, {**PLAIN, GPU: "cuda"}], [1, 2, 0]),  # UNKNOWN below DEGRADED
        ("a100", [{**PLAIN, CPU: "zen3"}, {**PLAIN, GPU: "cuda", CUDA: "12.2", CODE: "sm_80"}], [1, 0]),  # GPU first
        (
            "h100",
            [
                {**PLAIN, GPU: "cuda", CUDA: "12.2", CODE: "compute_80"},
                {**PLAIN, GPU: "cuda", CUDA: "12.2", CODE: "sm_90"},
            ],
            [1, 0],
        ),
        ("zen2-slurm", [{**PLAIN, MPI: "mpich"}, {**PLAIN, MPI: "openmpi", ABI: "40.30.5"}], [1, 0]),  # ABI nearness
        ("zen2-slurm", [{**PLAIN, RANK: "1"}, {**PLAIN, RANK: "5"}, {**PLAIN, RANK: "-5"}], [1, 0, 2]),
        ("zen2-slurm", [PLAIN, PLAIN, PLAIN], [0, 1, 2]),  # position
    ],
)
def test_order(name: str, images: list[dict[str, str]], expected: list[int], tmp_path: Path) -> None:
    assert order(choice_of(tmp_path, images, name)) == expected


@pytest.mark.parametrize(("name", "architecture"), [("gke-c2d-flux", "amd64"), ("gke-t2a-flux", "arm64")])
def test_lammps_matrix(name: str, architecture: str) -> None:
    """Platform alone chose something that ran 7 and 11 times of 30; these two ran in all of their published runs."""
    choice = choose((str(DATA / "records" / "lammps-matrix.jsonl"),), Reading(run, host=host(name)))
    ran = {f"{mpi}-ubuntu-22.04-{architecture}" for mpi in ("mpich", "openmpi")}
    best = [judged.candidate.reference.rpartition(":")[2] for judged in choice.ranked[: len(ran)]]
    assert set(best) == ran and choice.best.match.verdict is Verdict.RUN
    wrong = [judged for judged in choice.ranked if judged.candidate.platform["architecture"] != architecture]
    assert len(wrong) in (8, 10) and {judged.match.verdict for judged in wrong} == {Verdict.NO}


# What is read of a registry


def flavours(folder: Path, told: list[dict[str, str]], labels: list[dict[str, str]] | None = None) -> None:
    images = [
        make_layout(folder, [{"a": str(number).encode()}], tag=None, labels=(labels or [{}] * len(told))[number])
        for number in range(len(told))
    ]
    platform = {"os": "linux", "architecture": "amd64"}
    children: list[dict[str, Any]] = [
        descriptor_of(image, platform=platform, annotations=pairs) for image, pairs in zip(images, told, strict=True)
    ]
    attestation = {"os": "unknown", "architecture": "unknown"}
    children.append(descriptor_of(images[0], platform=attestation))
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": children}
    make_document(folder, index, tag="1")


def read(registry: FakeRegistry, name: str = "zen2-slurm") -> Choice:
    return choose((f"{registry.host}/{NAME}:1",), Reading(run, host=host(name)))


def test_of_an_annotated_index_the_best_image_alone_is_read(tmp_path: Path) -> None:
    flavours(tmp_path, [PLAIN, {**PLAIN, CPU: "zen2"}, {**PLAIN, CPU: "zen4"}])
    with FakeRegistry() as registry:
        registry.add(tmp_path)
        choice = read(registry)
        assert registry.seen() == ["GET manifests", "GET manifests", "GET blobs"]
    assert len(choice.ranked) == 3 and choice.best.candidate.pairs[CPU] == "zen2"
    assert [judged.candidate.read for judged in choice.ranked] == [True, False, False]


KERNEL, MODULES, PMI = voc.KERNEL_VERSION.name, voc.KERNEL_MODULES.name, voc.PMI.name


@pytest.mark.parametrize(
    "labels",
    [{KERNEL: "99.1.0"}, {MODULES: "nvidia_uvm"}, {CPU: "zen4"}, {MPI: "openmpi", voc.GLIBC.name: "2.36"}],
    ids=" ".join,
)
@pytest.mark.parametrize("name", ["zen2-slurm", "a100", "cray-mi250", "little-known"])
def test_an_index_says_of_an_image_what_the_image_says(name: str, labels: dict[str, str], tmp_path: Path) -> None:
    """What no descriptor holds decides all the same: kernel, modules, MPI's mode; and labels win (R10)."""
    flavours(tmp_path, [PLAIN], [{**PLAIN, **labels}])
    index = parse(f"oci:{tmp_path}:1")
    reading = Reading(run, host=host(name))
    by_index = choose((str(index),), reading).best
    by_image = choose((f"oci:{tmp_path}@{by_index.candidate.digest}",), reading).best
    assert by_index.match == by_image.match


def test_what_sinks_gives_way_to_the_next(tmp_path: Path) -> None:
    told = [{**PLAIN, CPU: "zen2"}, {**PLAIN, CPU: "x86_64_v3"}, PLAIN]
    flavours(tmp_path, told, [{**told[0], KERNEL: "99.1"}, {**told[1], KERNEL: "99.1"}, told[2]])
    choice = choose((f"oci:{tmp_path}:1",), Reading(run, host=host("zen2-slurm")))
    assert choice.best.candidate.pairs[CPU] == "x86_64" and choice.best.match.verdict is Verdict.RUN
    assert [judged.match.verdict for judged in choice.ranked[1:]] == [Verdict.NO, Verdict.NO]


def test_an_image_that_the_index_lists_and_nobody_has(tmp_path: Path) -> None:
    flavours(tmp_path, [{**PLAIN, CPU: "zen2"}, PLAIN])
    with FakeRegistry() as registry:
        registry.add(tmp_path)
        best = read(registry).best.candidate.digest
        del registry.manifests[NAME][best]
        choice = read(registry)
    assert choice.best.candidate.pairs[CPU] == "x86_64"
    deciding = choice.ranked[1].match.deciding
    assert deciding is not None and "it is not there" in deciding.message


def nested(folder: Path) -> str:
    """An index of an index and of an image beside it; returns the inner index's digest."""
    flavours(folder, [{**PLAIN, CPU: "zen2"}], [{**PLAIN, CPU: "zen2"}])
    inner = Layout(folder).manifest("1")
    (folder / "index.json").unlink()
    image = make_layout(folder, [{"b": b"out"}], tag=None, labels=PLAIN)
    platform = {"os": "linux", "architecture": "amd64"}
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor_of(inner), descriptor_of(image, platform=platform)],
    }
    make_document(folder, index, tag="1")
    return inner.digest


def test_an_index_of_an_index_that_nobody_has(tmp_path: Path) -> None:
    inner = nested(tmp_path)
    with FakeRegistry() as registry:
        registry.add(tmp_path)
        assert read(registry).best.candidate.pairs[CPU] == "zen2"
        del registry.manifests[NAME][inner]
        assert read(registry).best.candidate.pairs[CPU] == "x86_64"


@pytest.mark.parametrize("fault", [status(401), status(403), status(500), cut()], ids=["401", "403", "500", "cut"])
@pytest.mark.parametrize("what", ["inner", "image"])
def test_what_cannot_be_read_is_not_taken_for_absent(
    what: str, fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc3build.stores.transport.random.uniform", lambda low, high: 0.0)
    inner = nested(tmp_path)
    image = next(child.digest for child in Layout(tmp_path).manifest("1").descriptors if child.digest != inner)
    with FakeRegistry() as registry:
        registry.add(tmp_path)
        registry.fail("GET", inner if what == "inner" else image, fault, -1)
        with pytest.raises(StoreError):
            read(registry)


def test_descriptors_that_all_promise_too_much(tmp_path: Path) -> None:
    """What is read is bounded, and a promise alone is never the answer."""
    flavours(tmp_path, [{**PLAIN, CPU: "zen2"}] * 80, [{**PLAIN, CPU: "zen5", "n": str(n)} for n in range(80)])
    with FakeRegistry() as registry:
        registry.add(tmp_path)
        choice = read(registry)
        assert len(registry.requests) == 1 + 2 * 64
    assert choice.best.match.verdict is Verdict.NO and choice.best.candidate.read


def test_a_no_says_what_was_not_downloaded(tmp_path: Path) -> None:
    flavours(tmp_path, [{**PLAIN, CPU: "zen4"}, {**PLAIN, CPU: "zen5"}])
    with FakeRegistry() as registry:
        registry.add(tmp_path)
        reading = Reading(run, host=host("zen2-slurm"))
        choice = choose((f"{registry.host}/{NAME}:1",), reading)
        assert registry.seen() == ["GET manifests", "GET manifests", "GET blobs"]
    assert choice.best.match.verdict is Verdict.NO and choice.bytes_not_downloaded > 0


def test_what_descriptors_leave_out_is_read(tmp_path: Path) -> None:
    """R10: labels come before annotations, also before those of the descriptor."""
    flavours(tmp_path, [{}, {CPU: "zen2"}], [{**PLAIN, CPU: "zen4"}, {**PLAIN, CPU: "x86_64_v2"}])
    with FakeRegistry() as registry:
        registry.add(tmp_path)
        choice = read(registry)
        assert registry.seen() == ["GET manifests"] + ["GET manifests", "GET blobs"] * 2
    assert [judged.candidate.pairs[CPU] for judged in choice.ranked] == ["x86_64_v2", "zen4"]
    assert choice.best.match.verdict is Verdict.RUN and choice.bytes_not_downloaded > 0


def test_an_image_of_its_own_with_labels(tmp_path: Path) -> None:
    make_layout(tmp_path, [{"a": b"1"}], annotations={**PLAIN, CPU: "zen2"}, labels={CPU: "zen4"}, tag="1")
    choice = choose((f"oci:{tmp_path}:1",), Reading(run, host=host("zen2-slurm")))
    assert choice.best.match.verdict is Verdict.NO and choice.best.match.deciding is not None
    assert "zen4" in choice.best.match.deciding.message


def test_what_was_attached_counts_where_the_image_says_nothing(tmp_path: Path) -> None:
    make_layout(tmp_path, [{"a": b"1"}], tag="1")
    reference = parse(f"oci:{tmp_path}:1")
    annotate(reference, Wish(pairs={**PLAIN, CPU: "zen2"}, attach=True), run)
    choice = choose((str(reference),), Reading(run, host=host("zen2-slurm")))
    assert choice.best.match.verdict is Verdict.RUN and choice.best.candidate.pairs[CPU] == "zen2"


def test_tags(tmp_path: Path) -> None:
    for tag, target in (("generic", "x86_64"), ("zen2", "zen2"), ("other", "zen4")):
        make_layout(tmp_path, [{tag: b"1"}], annotations={**PLAIN, CPU: target}, tag=tag)
    with FakeRegistry() as registry:
        registry.add(tmp_path)
        image = registry.manifests[NAME][registry.tags[NAME]["other"]]
        registry.put(NAME, f"sha256-{'0' * 64}.sig", image[1], image[0])  # a signature's tag names no image to run
        reading = Reading(run, host=host("zen2-slurm"))
        assert len(choose((f"docker://{registry.host}/{NAME}:*",), reading).ranked) == 3
        assert choose((f"docker://{registry.host}/{NAME}:*",), reading).best.candidate.pairs[CPU] == "zen2"
        assert len(choose((f"docker://{registry.host}/{NAME}:[go]*",), reading).ranked) == 2
        with pytest.raises(InputError, match="no tag fits v"):
            choose((f"docker://{registry.host}/{NAME}:v*",), reading)


def test_a_large_index_is_not_read_image_by_image(tmp_path: Path) -> None:
    image = make_layout(tmp_path, [{"a": b"1"}], tag=None)
    make_index(tmp_path, [image] * 5000, tag="1")
    with FakeRegistry() as registry:
        registry.add(tmp_path)
        choice = read(registry)
        assert len(registry.requests) < 200
    assert len(choice.ranked) == 5000 and choice.best.match.verdict is Verdict.UNKNOWN


# Records that are none

GOOD = json.dumps({"reference": "docker://r.example/a:1", "digest": "sha256:" + "0" * 64})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no image"),
        ("[]", ":1: no image record"),
        ("nope", ":1: not JSON"),
        (f"{GOOD}\n{{}}", ":2: reference and digest"),
        (GOOD[:-1] + ', "platform": 3}', "platform and annotations"),
        (GOOD[:-1] + ', "annotations": {"a": 3}}', "no text"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_bad_records(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(InputError, match=told):
        choose((str(tmp_path / "bad.jsonl"),), Reading(run, host=host("zen2-slurm")))


@pytest.mark.parametrize("name", ["oci-records.jsonl", "oci", "docker-records", "containers-storage"])
def test_a_file_of_records_may_have_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(write_records(tmp_path, [PLAIN])).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert order(choose((name,), Reading(run, host=host("zen2-slurm")))) == [0]


@pytest.mark.parametrize("text", ["oci:images.jsonl", "oci-archive:images.jsonl", "docker-daemon:images.jsonl:1"])
def test_a_reference_is_no_file_of_records(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(write_records(tmp_path, [PLAIN])).rename(tmp_path / text)
    monkeypatch.chdir(tmp_path)
    assert not is_records(text)


def test_a_hundred_thousand_records(tmp_path: Path) -> None:
    (tmp_path / "many.jsonl").write_text((GOOD[:-1] + ', "size": -1, "platform": {"os": 1}}\n') * 100_000)
    choice = choose((str(tmp_path / "many.jsonl"),), Reading(run, host=host("zen2-slurm")))
    assert len(choice.ranked) == 100_000 and choice.best.match.verdict is Verdict.UNKNOWN


def test_records_of_an_index_are_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every image is read, though its descriptor would be enough to choose it; and pick takes them back."""
    says = {"org.supercontainers.gpu": "none", "org.supercontainers.mpi": "none"}
    name = "org.supercontainers.hardware.cpu.optimized.version"
    images = [
        make_layout(tmp_path / "a", [{"x": value.encode()}], labels={**says, name: value, "mine": "1"}, tag=value)
        for value in ("x86_64", "x86_64_v3")
    ]
    references = [f"oci:{tmp_path}/a:{value}" for value in ("x86_64", "x86_64_v3")]
    assert main(["index", "create", f"oci:{tmp_path}/a:all", *references, "--digest-file", f"{tmp_path}/digest"]) == 0
    capsys.readouterr()
    digest = (tmp_path / "digest").read_text().strip()
    assert digest == Layout(tmp_path / "a").manifest("all").digest
    assert main(["inspect", f"oci:{tmp_path}/a:all", "--records"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["digest"] for line in lines] == [image.digest for image in images]
    assert all(line["reference"] == f"oci:{tmp_path}/a:all" and line["annotations"]["mine"] == "1" for line in lines)
    assert [line["size"] for line in lines] == [sum(layer.size for layer in image.layers) for image in images]
    assert lines[1]["platform"] == {"os": "linux", "architecture": "amd64", "variant": "v3"}
