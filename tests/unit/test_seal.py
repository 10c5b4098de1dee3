"""Sealed descriptors: one request answers as reading the image would, and whatever touches one breaks its seal."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc3build.facts import vocabulary as voc
from hpc3build.match import Verdict, seal
from hpc3build.match.seal import DECIDING, sealed_size
from hpc3build.oci import Descriptor
from hpc3build.reference import parse
from hpc3build.rewrite.target import Platform, Target
from hpc3build.run import run
from hpc3build.stores.layout import Layout
from hpc3build.workflows.annotate import Wish, annotate
from hpc3build.workflows.candidates import Reading
from hpc3build.workflows.fingerprint import recorded
from hpc3build.workflows.index import annotate as annotate_index
from hpc3build.workflows.index import create
from hpc3build.workflows.match import choose
from tests.fake_registry import NAME, FakeRegistry
from tests.images import make_document, make_layout

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
CPU, GPU, MPI, KERNEL = voc.CPU_VERSION.name, voc.GPU.name, voc.MPI.name, voc.KERNEL_VERSION.name
PLAIN = {CPU: "x86_64", GPU: "none", MPI: "none"}
HOSTS = {
    name: recorded(str(DATA / "hosts" / f"{name}.probe"))
    for name in ("zen2-slurm", "a100", "cray-mi250", "little-known", "gke-t2a-flux")
}


def make(folder: Path, labels: list[Mapping[str, str]], **options: Any) -> None:
    """An index ``all`` of images with these labels."""
    for number, pairs in enumerate(labels):
        make_layout(folder, [{"a": str(number).encode()}], tag=str(number), labels=pairs, **options)
    images = [parse(f"oci:{folder}:{number}") for number in range(len(labels))]
    create(parse(f"oci:{folder}:all"), images, run, first_as_default=True)


def listed(folder: Path) -> tuple[Descriptor, ...]:
    with Layout(str(folder)) as store:
        return tuple(store.manifest("all").descriptors)


# One request


@pytest.mark.parametrize("target", ["x86_64", "zen4"])
def test_one_request_answers(target: str, tmp_path: Path) -> None:
    make(tmp_path, [{**PLAIN, CPU: target}, {**PLAIN, CPU: "zen2", KERNEL: "99.1"}])
    with FakeRegistry() as registry:
        registry.add(tmp_path)
        choice = choose((f"{registry.host}/{NAME}:all",), Reading(run, host=HOSTS["zen2-slurm"]))
        assert registry.seen() == ["GET manifests"]
    runs = target == "x86_64"
    assert choice.best.match.verdict is (Verdict.RUN if runs else Verdict.NO)
    assert choice.ranked[-1].match.deciding is not None
    sizes = [descriptor.annotations[voc.SIZE.name] for descriptor in listed(tmp_path)]
    assert choice.bytes_not_downloaded == sum(map(int, sizes[runs:])) > 0


@pytest.mark.parametrize(
    "labels",
    [{KERNEL: "99.1.0"}, {voc.KERNEL_MODULES.name: "nvidia_uvm"}, {MPI: "openmpi", voc.PMI.name: "pmix"},
     {MPI: "mpich", voc.MPI_MODE.name: "mpi_replace", voc.MPI_ABI.name: "12.1.8"}, {voc.LIBC_PROVIDER.name: "musl"}],
    ids=str,
)  # fmt: skip
def test_what_only_the_image_said_is_on_the_descriptor(labels: dict[str, str], tmp_path: Path) -> None:
    make(tmp_path, [{**PLAIN, **labels}])
    (descriptor,) = listed(tmp_path)
    assert {**PLAIN, **labels}.items() <= descriptor.annotations.items()
    assert sealed_size(descriptor) == int(descriptor.annotations[voc.SIZE.name])


VALUES = {
    CPU: ["x86_64", "x86_64_v3", "zen2", "zen4", "neoverse_n1", "amd64", "vax"],
    GPU: ["none", "cuda", "rocm", "Cuda"],
    voc.GPU_ARCHITECTURE.name: ["sm_80", "compute_90", "gfx90a", "sm"],
    voc.CUDA_VERSION.name: ["12.4", "13.0", "twelve"],
    voc.GPU_DRIVER.name: ["470.57", "999"],
    MPI: ["none", "mpich", "openmpi", "lam"],
    voc.MPI_ABI.name: ["12.1.8", "40.30.4", "new"],
    voc.MPI_MODE.name: ["mpi_replace", "mpi_system", "mpi_replace,libfabric_inject", "magic"],
    voc.PMI.name: ["2", "pmix-4", "3"],
    voc.LIBC_PROVIDER.name: ["glibc", "musl", "none", "dietlibc"],
    voc.GLIBC.name: ["2.17", "2.41", "old"],
    "org.supercontainers.glibc.version": ["2.28"],
    voc.LIBFABRIC_ABI.name: ["1.6", "x y"],
    "org.supercontainers.libfabric.abi": ["1.8"],
    KERNEL: ["3.2", "99.1", ""],
    voc.KERNEL_MODULES.name: ["nvidia_uvm", "xpmem?", "A"],
    voc.VOCABULARY.name: ["0", "7", "zero"],
    voc.RANK.name: ["5", "-1", "first"],
    voc.SIZE.name: ["1"],
    voc.SEAL.name: ["sha256:" + "0" * 64],
    "io.archspec.cpu.target": ["zen2", "x86_64"],
}
SAYINGS = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()})


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(SAYINGS, SAYINGS, st.booleans(), st.sampled_from(["amd64", "arm64"]))
def test_an_index_answers_as_its_images_do(
    labels: dict[str, str], annotations: dict[str, str], twice: bool, architecture: str
) -> None:
    """Whatever labels and annotations say, also what is no value of its key: sealed or read, the judgement is one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, [labels], annotations=annotations, architecture=architecture)
        if twice:
            annotate_index(parse(f"oci:{folder}:all"), run, first_as_default=True)
        (descriptor,) = listed(folder)
        for host in HOSTS.values():
            by_index = choose((f"oci:{folder}:all",), Reading(run, host=host)).best
            read = choose((f"oci:{folder}:all",), Reading(run, host=host, whole=True)).best
            assert by_index.match == read.match
        wrong = [key for key in DECIDING if not all(fits(key.value_in(pairs), key) for pairs in (labels, annotations))]
        if {**annotations, **labels}.get(CPU) in ("x86_64", "zen4") and not wrong:
            assert sealed_size(descriptor) is not None


def fits(value: str | None, key: Any) -> bool:
    return value is None or bool(key.pattern.fullmatch(value))


def test_what_is_attached_later_counts(tmp_path: Path) -> None:
    make(tmp_path, [{}])
    assert sealed_size(listed(tmp_path)[0]) is None
    image = parse(f"oci:{tmp_path}@{listed(tmp_path)[0].digest}")
    annotate(image, Wish(pairs={**PLAIN, CPU: "zen2"}, attach=True), run)
    assert choose((f"oci:{tmp_path}:all",), Reading(run, host=HOSTS["zen2-slurm"])).best.candidate.pairs[CPU] == "zen2"


# Broken seals

SOUND = Descriptor("application/vnd.oci.image.manifest.v1+json", f"sha256:{1:064x}", 500)


def sound(**pairs: str) -> Descriptor:
    platform = {"os": "linux", "architecture": "amd64"}
    told = {**PLAIN, KERNEL: "5.14", **pairs}
    marks = {voc.SIZE.name: "77", voc.SEAL.name: seal.seal(SOUND.digest, platform, told, 77)}
    return replace(SOUND, platform=platform, annotations={**told, **marks})


def test_a_seal_holds() -> None:
    assert sealed_size(sound()) == 77 and sealed_size(sound(mine="x")) == 77
    other = replace(sound(), annotations={**sound().annotations, "com.example.note": "added later"})
    assert sealed_size(other) == 77, "what decides nothing may be added"


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": f"sha256:{2:064x}"},
        {"platform": {"os": "linux", "architecture": "arm64"}},
        {"platform": {"os": "linux", "architecture": "amd64", "variant": "v3"}},
        {"platform": None},
        *({"annotations": {name: value}} for name, value in
          ((CPU, "zen2"), (KERNEL, "5.15"), (voc.PMI.name, "2"), (voc.RANK.name, "9"), (voc.SIZE.name, "78"),
           (voc.SIZE.name, "٧٧"), (voc.SIZE.name, "7" * 5000), (voc.SIZE.name, "-77"), (voc.SEAL.name, ""),
           (voc.SEAL.name, "sha256:" + "0" * 64))),
        *({"annotations": {name: None}} for name in (CPU, KERNEL, voc.SIZE.name, voc.SEAL.name)),
    ],
    ids=str,
)  # fmt: skip
def test_a_change_breaks_it(changes: dict[str, Any]) -> None:
    pairs = {**sound().annotations, **changes.pop("annotations", {})}
    annotations = {name: value for name, value in pairs.items() if value is not None}
    assert sealed_size(replace(sound(), annotations=annotations, **changes)) is None


def test_a_reader_to_whom_more_keys_matter_reads_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = sound()
    assert sealed_size(sealed) == 77
    monkeypatch.setattr(seal, "DECIDING", (*DECIDING, voc.TOOLS))
    assert sealed_size(sealed) is None


@pytest.mark.parametrize("option", ["platform", "descriptors"])
def test_what_annotate_changes_is_read_until_the_index_is_annotated_again(option: str, tmp_path: Path) -> None:
    make(tmp_path, [PLAIN])
    index = parse(f"oci:{tmp_path}:all")
    images = Target(platforms=(Platform.parse("linux/amd64"),))
    target = images if option == "platform" else Target(descriptors=True)
    annotate(index, Wish(pairs={voc.MPI_ABI.name: "12.1.8"}, target=target), run)
    (descriptor,) = listed(tmp_path)
    assert sealed_size(descriptor) is None
    assert choose((str(index),), Reading(run, host=HOSTS["a100"])).best.candidate.pairs[voc.MPI_ABI.name] == "12.1.8"
    assert annotate_index(index, run).changed and sealed_size(listed(tmp_path)[0]) is not None
    assert not annotate_index(index, run).changed


@pytest.mark.parametrize("worse", [{CPU: "zen4"}, {MPI: "openmpi"}, {GPU: "cuda"}], ids=str)
def test_an_image_whose_descriptor_was_made_worse_is_read(worse: dict[str, str], tmp_path: Path) -> None:
    make(tmp_path, [PLAIN, {**PLAIN, CPU: "zen2"}])
    document = json.loads(Layout(str(tmp_path)).manifest("all").raw)
    document["manifests"][1]["annotations"] |= worse
    make_document(tmp_path, document, tag="worse")
    best = choose((f"oci:{tmp_path}:worse",), Reading(run, host=HOSTS["zen2-slurm"])).best.candidate
    assert best.digest == document["manifests"][1]["digest"] and best.read


def test_the_documentation_makes_the_same_seal() -> None:
    text = (ROOT / "docs/match.md").read_text().partition("### The seal")[2]
    example = re.search(r"```json\n(.*?)```\s+the seal is `(.*?)`", text, re.S)
    assert example is not None
    document = json.loads(example[1])
    digest, (system, architecture, variant), size, said = document
    platform = {"os": system, "architecture": architecture, "variant": variant}
    pairs = {name: value for name, value in said.items() if value is not None}
    compact = json.dumps(document, separators=(",", ":")).encode()
    assert list(said) == [key.name for key in DECIDING]
    assert example[2] == f"sha256:{hashlib.sha256(compact).hexdigest()}" == seal.seal(digest, platform, pairs, size)


def test_an_image_named_twice_is_listed_once(tmp_path: Path) -> None:
    make(tmp_path, [PLAIN, {**PLAIN, CPU: "zen2"}])
    twice = [parse(f"oci:{tmp_path}:{tag}") for tag in ("all", "1", "0", "0")]
    done = create(parse(f"oci:{tmp_path}:again"), twice, run)
    assert [entry.digest for entry in done.manifest.descriptors] == [entry.digest for entry in listed(tmp_path)]


def test_records_read_what_is_sealed(tmp_path: Path) -> None:
    """A record has all that an image says, a descriptor what decides."""
    make(tmp_path, [{**PLAIN, "com.example.mine": "1"}])
    choice = choose((f"oci:{tmp_path}:all",), Reading(run, whole=True))
    assert choice.best.candidate.pairs["com.example.mine"] == "1"
