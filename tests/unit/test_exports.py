"""What is written for EDF, Sarus, podman, apptainer, Charliecloud and NVIDIA's toolkit: values in, exact texts out."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from hpc3build.cli_export import FORMATS as CHOICES
from hpc3build.errors import InputError
from hpc3build.exports import FORMATS, Export, Subject
from hpc3build.facts import vocabulary as voc
from hpc3build.host.fingerprint import Engine, Fingerprint
from hpc3build.reference import parse
from tests.exported import CUDA, DIGEST, HOST, HOSTILE, MPICH, OTHER, ROCM, P, as_ch_run, subject

COMMENT = "# As the Container Engine has it: the image's entry point is not run. The default of sarus-suite is true.\n"
PINNED = f"registry.example/hpc/app@{DIGEST}"


def export(name: str, one: Subject) -> Export:
    return FORMATS[name].write([one])


def toml(text: str) -> dict[str, Any]:
    found: dict[str, Any] = pytest.importorskip("tomllib").loads(text)
    return found


def test_the_command_knows_every_format() -> None:
    assert tuple(FORMATS) == CHOICES


EDF = {
    "cuda": (CUDA, '[env]\nNVIDIA_VISIBLE_DEVICES = "all"\nNVIDIA_DRIVER_CAPABILITIES = "compute,utility"\n'),
    "rocm": (
        ROCM,
        '[annotations]\ncom.hooks.cxi.enabled = "true"\n'
        'com.hooks.aws_ofi_nccl.enabled = "true"\ncom.hooks.aws_ofi_nccl.variant = "rocm6"\n',
    ),
    "mpich": (MPICH, '[annotations]\ncom.hooks.cxi.enabled = "true"\n'),
    "nothing": ({}, ""),
    "hostile": (HOSTILE, ""),
}


@pytest.mark.parametrize("name", EDF)
def test_edf(name: str) -> None:
    pairs, tables = EDF[name]
    made = export("edf", subject(pairs))
    head = f'# {DIGEST}\nimage = "registry.example#hpc/app:1.0"\n{COMMENT}entrypoint = false\n'
    assert made.text == head + (f"\n{tables}" if tables else "")
    assert toml(made.text)["entrypoint"] is False


def test_edf_of_nccl_asks_for_the_portable_plugin() -> None:
    made = export("edf", subject({**CUDA, P + "communication.framework": "libfabric,nccl"}))
    assert toml(made.text)["annotations"]["com"]["hooks"] == {
        "cxi": {"enabled": "true"},
        "aws_ofi_nccl": {"enabled": "true", "variant": "cuda-dl"},
    }


@pytest.mark.parametrize("version", [{}, {P + "hardware.gpu.rocm.version": "7.0"}])
def test_edf_of_rccl_without_a_variant_says_so(version: dict[str, str]) -> None:
    pairs = {name: value for name, value in ROCM.items() if not name.endswith("rocm.version")}
    made = export("edf", subject({**pairs, **version}))
    assert "aws_ofi_nccl" not in made.text and "cxi" in made.text
    assert any("rocm5 or rocm6" in note for note in made.notes)


def test_edf_leaves_what_the_image_sets() -> None:
    made = export("edf", subject(CUDA, env={"NVIDIA_VISIBLE_DEVICES": "0"}))
    assert toml(made.text)["env"] == {"NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}


def test_edf_doubts_an_injection_that_the_image_does_not_name() -> None:
    told = {**MPICH, P + "mpi.portability.mode": "mpi_system"}
    assert any("mpi_system" in note for note in export("edf", subject(told)).notes)
    assert export("edf", subject(MPICH)).notes == ()


@pytest.mark.parametrize(
    ("fields", "image"),
    [
        ({"index": OTHER}, f"registry.example#hpc/app@{DIGEST}"),
        ({"reference": parse(PINNED)}, f"registry.example#hpc/app@{DIGEST}"),
        ({"reference": parse("debian:12")}, "docker.io#library/debian:12"),
        ({"image": "${SCRATCH}/x\"\n'.sqsh"}, "${SCRATCH}/x\"\n'.sqsh"),
        ({"reference": parse("oci:/x:1"), "image": "/x\x7f\x85\U0001f600.sqsh"}, "/x\x7f\x85\U0001f600.sqsh"),
    ],
)
def test_edf_names_the_image(fields: dict[str, Any], image: str) -> None:
    made = export("edf", subject(**fields))
    assert toml(made.text)["image"] == image
    assert ("@sha256" in image) is any("enroot 4.0" in note for note in made.notes)
    assert all(line.isprintable() for line in made.text.splitlines())


@pytest.mark.parametrize("name", ["edf", "metahub"])
def test_images_of_no_registry_need_a_name(name: str) -> None:
    with pytest.raises(InputError, match="names images of registries") as caught:
        export(name, subject(reference=parse("oci:/x:1")))
    assert "--image" in caught.value.hint


def test_sarus() -> None:
    made = export("sarus", subject(MPICH, host=HOST))
    assert json.loads(made.text) == {
        "version": "1.0.0",
        "hook": {
            "path": "/opt/sarus/default/bin/mpi_hook",
            "env": [
                "LDCONFIG_PATH=/sbin/ldconfig",
                "MPI_LIBS=/opt/mpich/lib/libmpi.so.12",
                "MPI_COMPATIBILITY_TYPE=full",
            ],
        },
        "when": {
            "annotations": {
                r"^org\.supercontainers\.mpi$": "^(.*,)?mpich(,.*)?$",
                r"^org\.supercontainers\.mpi\.portability\.mode$": "^(.*,)?mpi_replace(,.*)?$",
            }
        },
        "stages": ["createContainer"],
    }
    assert made.text.endswith("}\n") and len(made.notes) == 1


@pytest.mark.parametrize(
    ("labels", "fires"),
    [
        (MPICH, True),
        ({**MPICH, P + "mpi": "mpi-abi,mpich"}, True),
        ({**MPICH, P + "mpi": "openmpi"}, False),
        ({**MPICH, P + "mpi": "mpich-of-ours"}, False),
        ({**MPICH, P + "mpi.portability.mode": "libfabric_inject"}, False),
        ({P + "mpi": "mpich"}, False),
        ({"orgxsupercontainers.mpi": "mpich", P + "mpi.portability.mode": "mpi_replace"}, False),
        (CUDA, False),
    ],
)
def test_the_hook_fires_for_what_it_can_replace(labels: dict[str, str], fires: bool) -> None:
    when = json.loads(export("sarus", subject(MPICH, host=HOST)).text)["when"]["annotations"]
    for match in (re.fullmatch, re.search):  # Sarus's boost::regex_match, and Go's MatchString
        found = [any(match(key, name) and match(value, labels[name]) for name in labels) for key, value in when.items()]
        assert all(found) is fires


@pytest.mark.parametrize(
    ("pairs", "host", "why"),
    [
        (CUDA, HOST, "the image says openmpi"),
        ({}, HOST, "nothing of its MPI"),
        (HOSTILE, HOST, "nothing of its MPI"),
        ({**MPICH, P + "mpi.portability.mode": "mpi_system"}, HOST, "says mpi_system, not mpi_replace"),
        ({P + "mpi": "mpich"}, HOST, "says nothing, not mpi_replace"),
        (MPICH, Fingerprint(), "the host has no MPI of the family mpich"),
    ],
)
def test_no_hook(pairs: dict[str, str], host: Fingerprint, why: str) -> None:
    made = export("sarus", subject(pairs, host=host))
    assert made.text == "" and why in made.notes[-1]


def test_sarus_sees_no_annotations() -> None:
    made = export("sarus", subject(MPICH, labels={P + "mpi": "mpich"}, host=HOST))
    assert any(f"no label {voc.MPI_MODE.name}:" in note for note in made.notes)


PODMAN = {
    "cuda": (
        CUDA,
        "--device nvidia.com/gpu=all --group-add keep-groups --network host --ipc host --annotation",
        "gpu=cuda hardware.gpu.architecture=compute_90,sm_80,sm_90 hardware.gpu.cuda.version=12.4 mpi=openmpi "
        "mpi.abi.version=40.30.6 communication.framework=ucx libc.provider=glibc glibc=2.36",
    ),
    "rocm": (
        ROCM,
        "--device /dev/kfd --device /dev/dri --group-add keep-groups --annotation",
        "gpu=rocm hardware.gpu.architecture=gfx90a hardware.gpu.rocm.version=6.2.1 mpi=none "
        "communication.framework=rccl",
    ),
    "mpich": (
        MPICH,
        "--group-add keep-groups --network host --ipc host --annotation",
        "gpu=none mpi=mpich mpi.abi.version=12.4.1 mpi.portability.mode=mpi_replace,libfabric_inject "
        "communication.framework=libfabric libfabric.abi.version=1.6",
    ),
    "nothing": ({}, "", ""),
    "hostile": (HOSTILE, "", ""),
}


@pytest.mark.parametrize("name", PODMAN)
def test_podman(name: str) -> None:
    pairs, options, annotations = PODMAN[name]
    told = " --annotation ".join(f"{P}{pair}" for pair in annotations.split())
    words = " ".join(filter(None, ["podman run --rm", options, told, PINNED]))
    assert export("podman", subject(pairs, image=PINNED)).text == f"{words}\n"


@pytest.mark.parametrize(
    ("version", "word"),
    [
        ("4.9.4", '"org.supercontainers.mpi.portability.mode=mpi_replace,libfabric_inject"'),
        ("5.0.0", "org.supercontainers.mpi.portability.mode=mpi_replace,libfabric_inject"),
        ("10.1", "org.supercontainers.mpi.portability.mode=mpi_replace,libfabric_inject"),
        (None, "org.supercontainers.mpi.portability.mode=mpi_replace,libfabric_inject"),
    ],
)
def test_podman_4_splits_annotations(version: str | None, word: str) -> None:
    host = Fingerprint(engines=(Engine(name="docker", version="1.0"), Engine(name="podman", version=version)))
    made = export("podman", subject(MPICH, image=PINNED, host=host))
    words = shlex.split(made.text)
    assert word in words and "org.supercontainers.mpi=mpich" in words
    assert any(str(version or "no version is known") in note for note in made.notes)


@pytest.mark.parametrize(
    ("pairs", "option"), [(CUDA, ["--nv"]), (ROCM, ["--rocm"]), (MPICH, []), ({}, []), (HOSTILE, [])]
)
def test_apptainer(pairs: dict[str, str], option: list[str]) -> None:
    made = export("apptainer", subject(pairs, image=PINNED))
    assert made.text == " ".join(["apptainer", "run", *option, f"docker://{PINNED}"]) + "\n"
    assert any("mpirun" in note for note in made.notes) is (
        P + "mpi" in pairs and pairs is not ROCM and pairs is not HOSTILE
    )


@pytest.mark.parametrize("name", ["podman", "apptainer"])
@pytest.mark.parametrize("gpu", ["cuda,rocm", "opencl", "sycl"])
def test_alternatives_of_gpus_are_for_people(name: str, gpu: str) -> None:
    made = export(name, subject({P + "gpu": gpu}, image=PINNED))
    assert not {"--device", "--nv", "--rocm"} & set(shlex.split(made.text))
    assert any("add the option" in note for note in made.notes)


@pytest.mark.parametrize("name", ["podman", "apptainer"])
def test_lines_are_one_word_a_name(name: str) -> None:
    image = "oci:/x y'$(id)\"\\`;\n:1"
    assert image in shlex.split(export(name, subject(image=image)).text)


OCI_ENV = "NVIDIA_VISIBLE_DEVICES=all\nNVIDIA_DRIVER_CAPABILITIES=compute,utility\n"


@pytest.mark.parametrize(
    ("version", "codes", "required"),
    [
        ("12.4", "compute_90,sm_80,sm_90", "cuda>=12.0,arch>=8.0"),
        ("12.4.1", "sm_90a", "cuda>=12.0,arch>=9.0"),
        ("12.4", "compute_80", "cuda>=12.4,arch>=8.0"),
        ("10.2", "sm_70", "cuda>=10.2,arch>=7.0"),
        ("12.9", "sm_100f,sm_120", "cuda>=12.0,arch>=10.0"),
        ("12.4", None, "cuda>=12.4"),
        ("12", "sm_80", "cuda>=12.0,arch>=8.0"),
        ("12", None, None),
        (None, "sm_80", None),
    ],
)
def test_oci_env(version: str | None, codes: str | None, required: str | None) -> None:
    said = {P + "gpu": "cuda", P + "hardware.gpu.cuda.version": version, P + "hardware.gpu.architecture": codes}
    made = export("oci-env", subject({name: value for name, value in said.items() if value is not None}))
    assert made.text == OCI_ENV + (f"NVIDIA_REQUIRE_CUDA={required}\n" if required else "")
    assert any("there is no NVIDIA_REQUIRE_CUDA" in note for note in made.notes) is (required is None)


def test_oci_env_leaves_what_the_image_sets() -> None:
    env = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_REQUIRE_CUDA": "cuda>=12.4"}
    made = export("oci-env", subject(CUDA, env=env))
    assert made.text == "NVIDIA_DRIVER_CAPABILITIES=compute,utility\n"
    assert [note for note in made.notes if "otherwise" in note] == [
        "the image sets NVIDIA_REQUIRE_CUDA otherwise, which stays"
    ]
    full = {**env, "NVIDIA_DRIVER_CAPABILITIES": "all"}
    assert export("oci-env", subject(CUDA, env=full)).text == ""


@pytest.mark.parametrize("pairs", [ROCM, MPICH, {}, HOSTILE])
def test_oci_env_is_for_cuda(pairs: dict[str, str]) -> None:
    made = export("oci-env", subject(pairs))
    assert made.text == "" and "only for CUDA" in made.notes[-1]


def test_charliecloud() -> None:
    env = {"PATH": "/opt/bin:/usr/bin", "Q": "'a b'", "ONE": "'", "E": "", "S": " a=b # c ", "T": "a\tb", "U": "日本"}
    made = export("charliecloud", subject(env=env))
    assert made.text == "PATH=/opt/bin:/usr/bin\nQ=''a b''\nONE='\nE=\nS= a=b # c \nT=a\tb\nU=日本\n"
    assert as_ch_run(made.text) == env
    assert made.notes == ("ch-run --set-env=FILE IMAGE -- COMMAND",)


@pytest.mark.parametrize(("value", "expands"), [("$HOME", True), ("a:$B", True), ("a$B", False), ("$", False)])
def test_charliecloud_expands_nothing(value: str, expands: bool) -> None:
    made = export("charliecloud", subject(env={"A": value}))
    assert ("--env-no-expand" in made.notes[-1]) is expands


@pytest.mark.parametrize("value", ["a\nLD_PRELOAD=/x", "\x1b[31m", "a\rb", "\x7f", "\x9b", "\u2028"])
def test_charliecloud_leaves_out_what_no_line_holds(value: str) -> None:
    made = export("charliecloud", subject(env={"A": "1", "B": value}))
    assert made.text == "A=1\n" and made.notes[0].startswith("B: ")
    assert export("charliecloud", subject(env={"B": value})).text == ""


def test_charliecloud_without_variables() -> None:
    assert export("charliecloud", subject(CUDA)) == Export("", ("the image's configuration sets no variables",))


def test_values_that_are_none_are_named() -> None:
    notes = export("edf", subject(HOSTILE)).notes
    assert [note for note in notes if note.startswith(voc.GPU.name)] and all("rm -rf" not in note for note in notes)
