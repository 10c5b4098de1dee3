"""What is written for compspec-go and for MetaHub's first version."""

from __future__ import annotations

import io
import json
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from hpc3build.exports import FORMATS, Subject
from hpc3build.reference import parse
from tests.exported import CUDA, DIGEST, HOSTILE, MPICH, OTHER, ROCM, TITLE, P, subject

#: compspec/schemas (70b23a1) schema.json, said again: per entry a schema, and no further member anywhere.
SCHEMAS_OWN = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "version": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        "compatibilities": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "version", "schema", "attributes"],
                "properties": {
                    **{member: {"type": "string"} for member in ("name", "version", "schema")},
                    "attributes": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            },
        },
    },
}
#: Leaves of supercontainers/compspec.json at 2906f7a and of archspec/compspec.json at 70b23a1.
NODES = {
    "org.supercontainers": {
        *("mpi.implementation", "mpi.version", "mpi.portability.optimization", "mpi.portability.mode"),
        *("os.name", "os.release", "os.vendor", "os.version", "communication.framework"),
        *("hardware.gpu.enabled", "hardware.gpu.driver.version", "hardware.gpu.architecture"),
        "hardware.gpu.cuda.version",
    },
    "io.archspec": {"cpu.family", "cpu.model", "cpu.target", "cpu.vendor"},
}


def compspec(one: Subject) -> dict[str, dict[str, str]]:
    """Attributes by schema, after both forms were checked."""
    made = FORMATS["compspec"].write([one])
    document: dict[str, Any] = json.loads(made.text)
    # compspec-go pkg/types/types.go: CompatibilityRequest, and loadRequest's rule that each name has a schema.
    assert list(document) == ["version", "kind", "metadata", "compatibilities"]
    schemas = document["metadata"]["schemas"]
    for entry in document["compatibilities"]:
        assert set(entry) == {"name", "version", "attributes"} and schemas[entry["name"]].startswith("https://")
        assert set(entry["attributes"]) <= NODES[entry["name"]]
        entry["schema"] = schemas[entry["name"]]
    jsonschema.validate(document, SCHEMAS_OWN)
    return {entry["name"]: entry["attributes"] for entry in document["compatibilities"]}


@pytest.mark.parametrize(
    ("pairs", "attributes", "target"),
    [
        (
            CUDA,
            {
                "communication.framework": "ucx",
                "hardware.gpu.architecture": "compute_90,sm_80,sm_90",
                "hardware.gpu.cuda.version": "12.4",
                "hardware.gpu.driver.version": "525.60.13",
                "hardware.gpu.enabled": "true",
                "mpi.implementation": "openmpi",
                "mpi.version": "4.1.6",
                "os.vendor": "debian",
                "os.version": "12",
            },
            "x86_64_v3",
        ),
        (
            ROCM,
            {
                "communication.framework": "rccl",
                "hardware.gpu.architecture": "gfx90a",
                "hardware.gpu.enabled": "true",
                "mpi.implementation": "none",
            },
            "zen3",
        ),
        (
            MPICH,
            {
                "communication.framework": "libfabric",
                "hardware.gpu.enabled": "false",
                "mpi.implementation": "mpich",
                "mpi.portability.mode": "mpi_replace,libfabric_inject",
                "mpi.version": "4.2.2",
            },
            "neoverse_v1",
        ),
    ],
)
def test_compspec(pairs: dict[str, str], attributes: dict[str, str], target: str) -> None:
    assert compspec(subject(pairs)) == {"org.supercontainers": attributes, "io.archspec": {"cpu.target": target}}


def test_compspec_lists_only_schemas_in_use() -> None:
    made = FORMATS["compspec"].write([subject({P + "gpu": "none"})])
    assert list(json.loads(made.text)["metadata"]["schemas"]) == ["org.supercontainers"]


@pytest.mark.parametrize(
    ("pairs", "reference", "name"),
    [
        (CUDA, "registry.example/hpc/app:1.0", "gromacs"),
        (ROCM, "registry.example/hpc/app:1.0", "app"),
        ({**HOSTILE, P + "gpu": "cuda"}, "registry.example/hpc/app:1.0", TITLE),
        (ROCM, "oci:out/some dir/:1", "some dir"),
    ],
)
def test_compspec_has_a_name(pairs: dict[str, str], reference: str, name: str) -> None:
    made = FORMATS["compspec"].write([subject(pairs, reference=parse(reference))])
    assert json.loads(made.text)["metadata"]["name"] == name and made.text.isascii()


@pytest.mark.parametrize("pairs", [{}, HOSTILE])
def test_compspec_without_attributes(pairs: dict[str, str]) -> None:
    assert FORMATS["compspec"].write([subject(pairs)]).text == ""


CUDA_LIST = f"""\
image: "registry.example/hpc/app:1.0-metahub"
manifests:
- image: "registry.example/hpc/app@{DIGEST}"
  platform:
    architecture: "amd64"
    os: "linux"
    features: ["cpu:x86_64_v3", "nvcap:8.0"]
- image: "registry.example/hpc/app@{DIGEST}"
  platform:
    architecture: "amd64"
    os: "linux"
    features: ["cpu:x86_64_v3", "nvcap:9.0"]
- image: "registry.example/hpc/app@{OTHER}"
  platform:
    architecture: "arm64"
    os: "linux"
    features: ["cpu:neoverse_v1"]
"""


def yaml(text: str) -> Any:
    return YAML(typ="safe").load(io.StringIO(text))


def test_metahub_has_all_images_of_an_index() -> None:
    other = subject(MPICH, digest=OTHER, platform={"os": "linux", "architecture": "arm64", "variant": "v8"})
    made = FORMATS["metahub"].write([subject(CUDA), other])
    assert made.text == CUDA_LIST
    assert yaml(made.text)["manifests"][2]["platform"]["features"] == ["cpu:neoverse_v1"]


def test_metahub_of_amd_s_gpus() -> None:
    made = FORMATS["metahub"].write([subject(ROCM)])
    assert yaml(made.text)["manifests"][0]["platform"]["features"] == ["cpu:zen3"]
    assert any("NVIDIA's GPUs alone" in note for note in made.notes)


def test_metahub_of_nothing() -> None:
    made = FORMATS["metahub"].write([subject(platform={})])
    assert yaml(made.text)["manifests"] == [{"image": f"registry.example/hpc/app@{DIGEST}"}]


@pytest.mark.parametrize("value", ["amd64\n  os: evil", 'a"b', "{x: y}", "# c", "\x1b[31m", "'", "${X}", "a: b"])
def test_metahub_of_hostile_platforms(value: str) -> None:
    made = FORMATS["metahub"].write([subject(HOSTILE, platform={"architecture": value, "os": value})])
    assert yaml(made.text)["manifests"][0]["platform"] == {"architecture": value, "os": value}
    assert all(line.isprintable() for line in made.text.splitlines())


@pytest.mark.parametrize(
    ("image", "reference", "repository"),
    [
        ("registry.example/hpc/new:2", "registry.example/hpc/app:1.0", "registry.example/hpc/app"),
        ("registry.example:5000/hpc/new:2", "oci:/x:1", "registry.example:5000/hpc/new"),
        ("registry.example:5000/hpc/new", "oci:/x:1", "registry.example:5000/hpc/new"),
    ],
)
def test_metahub_by_another_name(image: str, reference: str, repository: str) -> None:
    found = yaml(FORMATS["metahub"].write([subject(reference=parse(reference), image=image)]).text)
    assert found["image"] == image and found["manifests"][0]["image"] == f"{repository}@{DIGEST}"
