"""What is written for NFD, checked against its types and evaluated as its matcher does."""

from __future__ import annotations

import io
from typing import Any

import pytest
from archspec.cpu import TARGETS
from ruamel.yaml import YAML

from hpc3build.exports import FORMATS
from hpc3build.exports.cpuid import flag
from tests import nfd
from tests.exported import CUDA, DIGEST, HOSTILE, MPICH, OTHER, ROCM, TITLE, P, subject

write = FORMATS["nfd"].write
V3 = (
    *("AVX", "AVX2", "BMI1", "BMI2", "CX16", "F16C", "FMA3", "LAHF", "LZCNT", "MMX", "MOVBE", "POPCNT"),
    *("SSE", "SSE2", "SSE3", "SSE4", "SSE42", "SSSE3", "XSAVE"),
)
#: klauspost/cpuid v2.2.9 cpuid.go, the constants that archspec has a feature for.
# fmt: off
CPUID = frozenset({
    "ADX", "AESNI", "AMD3DNOW", "AMD3DNOWEXT", "AMXBF16", "AMXINT8", "AMXTILE", "AVX", "AVX2", "AVX512BF16",
    "AVX512BITALG", "AVX512BW", "AVX512CD", "AVX512DQ", "AVX512ER", "AVX512F", "AVX512FP16", "AVX512IFMA", "AVX512PF",
    "AVX512VBMI", "AVX512VBMI2", "AVX512VL", "AVX512VNNI", "AVX512VP2INTERSECT", "AVX512VPOPCNTDQ", "AVXIFMA",
    "AVXNECONVERT", "AVXVNNI", "AVXVNNIINT16", "AVXVNNIINT8", "BMI1", "BMI2", "CLDEMOTE", "CLMUL", "CLZERO",
    "CMPCCXADD", "CX16", "F16C", "FLUSH_L1D", "FMA3", "FMA4", "GFNI", "LAHF", "LZCNT", "MMX", "MOVBE", "MOVDIR64B",
    "MOVDIRI", "POPCNT", "RDRAND", "RDSEED", "SERIALIZE", "SHA", "SM3_X86", "SM4_X86", "SSE", "SSE2", "SSE3", "SSE4",
    "SSE42", "SSE4A", "SSSE3", "TBM", "VAES", "VPCLMULQDQ", "WAITPKG", "XOP", "XSAVE", "XSAVEC", "XSAVEOPT",
})
# fmt: on


def spec(text: str) -> Any:
    found = YAML(typ="safe").load(io.StringIO(text))
    nfd.check(found)
    return found


def node(version: str = "5.14.0", **features: Any) -> dict[str, Any]:
    numbers = dict(zip(("major", "minor", "revision"), version.split("."), strict=False))
    return {
        "kernel.version": {"full": version, **numbers},
        **{name.replace("__", "."): value for name, value in features.items()},
    }


EXISTS = "\n".join(f'        "{name}": {{op: Exists}}' for name in V3)
CUDA_TEXT = f"""\
version: v1alpha1
compatibilities:
- weight: 30
  description: "gromacs 2024.4; CPU x86_64_v3; GPU cuda; CUDA 12.4; MPI openmpi; debian 12"
  rules:
  - name: "cpu x86_64_v3"
    matchFeatures:
    - feature: cpu.cpuid
      matchExpressions:
{EXISTS}
  - name: "kernel 3.2"
    matchAny:
    - matchFeatures:
      - feature: kernel.version
        matchExpressions:
          major: {{op: Gt, value: ["3"]}}
    - matchFeatures:
      - feature: kernel.version
        matchExpressions:
          major: {{op: In, value: ["3"]}}
          minor: {{op: Gt, value: ["1"]}}
  - name: "kernel modules"
    matchFeatures:
    - feature: kernel.enabledmodule
      matchExpressions:
        "nvidia_uvm": {{op: Exists}}
  - name: "gpu"
    matchAny:
    - matchFeatures:
      - feature: pci.device
        matchExpressions:
          vendor: {{op: In, value: ["10de"]}}
          class: {{op: InRegexp, value: ["^03", "^12"]}}
"""


def test_cuda() -> None:
    made = write([subject(CUDA)])
    assert made.text == CUDA_TEXT
    assert made.notes[-1] == (
        "oras attach --artifact-type application/vnd.nfd.image-compatibility.v1alpha1 "
        f"registry.example/hpc/app@{DIGEST} FILE:application/vnd.nfd.image-compatibility.spec.v1alpha1+yaml"
    )
    assert any("no rule for GPU drivers" in note for note in made.notes)


GPUS = [{"vendor": "8086", "class": "0200"}, {"vendor": "10de", "class": "0302"}]


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"cpu__cpuid": [name for name in V3 if name != "AVX2"]}, False),
        ({"cpu__cpuid": [*V3, "AVX512F"]}, True),
        ({"kernel__enabledmodule": ["overlay"]}, False),
        ({"pci__device": GPUS[:1]}, False),
        ({"pci__device": [{"vendor": "10de", "class": "0403"}]}, False),
        ({"pci__device": [{"vendor": "1002", "class": "0380"}]}, False),
        ({"version": "3.1.9"}, False),
        ({"version": "3.2.0"}, True),
        ({"version": "2.6.32"}, False),
    ],
)
def test_rules_of_cuda_on_nodes(changes: dict[str, Any], fits: bool) -> None:
    (entry,) = spec(CUDA_TEXT)["compatibilities"]
    there = {"cpu__cpuid": V3, "kernel__enabledmodule": ["overlay", "nvidia_uvm"], "pci__device": GPUS}
    assert nfd.runs(entry, node(**{**there, **changes})) is fits


@pytest.mark.parametrize(
    ("least", "versions"),
    [
        ("4", {"3.19.0": False, "4.0.0": True, "5.0": True}),
        ("4.0", {"3.19.0": False, "4.0.0": True}),
        ("4.18", {"4.17.9": False, "4.18.0": True, "5.0.0": True, "3.20.0": False}),
        ("4.18.5", {"4.18.4": False, "4.18.5": True, "4.19.0": True, "5.0.0": True, "4.17.9": False}),
        ("4.18.0", {"4.18.0": True, "4.17.9": False}),
    ],
)
def test_least_kernels(least: str, versions: dict[str, bool]) -> None:
    (entry,) = spec(write([subject({P + "kernel.version": least})]).text)["compatibilities"]
    assert {version: nfd.runs(entry, node(version)) for version in versions} == versions


@pytest.mark.parametrize("least", ["4.18.0-553", "5.14.0.1", "6.1rc1"])
def test_kernels_that_are_no_three_numbers(least: str) -> None:
    made = write([subject({**CUDA, P + "kernel.version": least})])
    assert "kernel.version" not in made.text and any(least in note for note in made.notes)


def test_rocm_names_what_nfd_lacks() -> None:
    made = write([subject(ROCM)])
    (entry,) = spec(made.text)["compatibilities"]
    assert [rule["name"] for rule in entry["rules"]] == ["cpu zen3", "gpu"]
    flags = entry["rules"][0]["matchFeatures"][0]["matchExpressions"]
    assert {"SSE4A", "CLZERO", "VAES", *V3} < set(flags)
    assert any("no flag for clflushopt, clwb, fsgsbase, pku" in note for note in made.notes)
    assert entry["rules"][1]["matchAny"][0]["matchFeatures"][0]["matchExpressions"]["vendor"]["value"] == ["1002"]


def test_arm_has_the_kernels_names() -> None:
    (entry,) = spec(write([subject(MPICH)]).text)["compatibilities"]
    assert entry["description"] == "CPU neoverse_v1; GPU none; MPI mpich"
    flags = set(entry["rules"][0]["matchFeatures"][0]["matchExpressions"])
    assert {"SVE", "ATOMICS", "ASIMDDP", "BF16"} < flags and len(entry["rules"]) == 1


def test_alternatives_of_gpus() -> None:
    (entry,) = spec(write([subject({P + "gpu": "cuda,rocm"})]).text)["compatibilities"]
    for vendor in ("10de", "1002"):
        assert nfd.runs(entry, {"pci.device": [{"vendor": vendor, "class": "0300"}]})
    assert not nfd.runs(entry, {"pci.device": [{"vendor": "8086", "class": "0300"}]})
    made = write([subject({**CUDA, P + "gpu": "opencl"})])
    assert "pci.device" not in made.text and any("opencl" in note for note in made.notes)


@pytest.mark.parametrize("pairs", [{}, HOSTILE, {P + "gpu": "none"}, {P + "os.vendor": "debian"}])
def test_nothing(pairs: dict[str, str]) -> None:
    """An empty list of rules would say that it runs everywhere."""
    made = write([subject(pairs)])
    assert made.text == "" and made.notes[-1] == "the image says nothing that NFD has a rule for"


def test_an_image_that_needs_nothing_says_so() -> None:
    made = write([subject({P + "hardware.cpu.optimized.version": "x86_64", P + "gpu": "none"})])
    assert spec(made.text)["compatibilities"] == [{"description": "CPU x86_64; GPU none", "rules": []}]


def test_the_image_s_distribution_is_no_rule() -> None:
    assert "osrelease" not in CUDA_TEXT and "debian 12" in CUDA_TEXT


def test_a_target_that_archspec_does_not_know() -> None:
    made = write([subject({**CUDA, P + "hardware.cpu.optimized.version": "zen9"})])
    assert "cpu.cpuid" not in made.text and any("zen9" in note for note in made.notes)


def test_a_target_without_features_is_told() -> None:
    made = write([subject({P + "hardware.cpu.optimized.version": "power9le", P + "gpu": "none"})])
    assert any("NFD has no flag for it" in note for note in made.notes)


@pytest.mark.parametrize(
    ("rank", "weight"), [("1", 1), ("100", 100), ("0", None), ("101", None), ("-3", None), ("9" * 20, None)]
)
def test_weights_are_kubernetes(rank: str, weight: int | None) -> None:
    made = write([subject({**CUDA, "io.github.hpc3build.rank": rank})])
    assert spec(made.text)["compatibilities"][0].get("weight") == weight
    assert any("no weight" in note for note in made.notes) is (weight is None and rank != "0")


def test_an_entry_an_image_of_an_index() -> None:
    index = f"sha256:{'ee' * 32}"
    made = write([subject(CUDA, index=index), subject(ROCM, digest=OTHER, index=index)])
    entries = spec(made.text)["compatibilities"]
    assert [entry["tag"] for entry in entries] == [DIGEST, OTHER]
    assert f"registry.example/hpc/app@{index} " in made.notes[-1]
    assert any(note.startswith(f"{OTHER[:19]}: CPU target zen3") for note in made.notes)


def test_hostile_titles_stay_titles() -> None:
    made = write([subject({**HOSTILE, P + "gpu": "cuda"})])
    (entry,) = spec(made.text)["compatibilities"]
    assert entry["description"] == f"{TITLE}; GPU cuda"
    assert any("value is not of the key's form" in note for note in made.notes)


def test_flags_are_those_of_cpuid() -> None:
    features = {name for target in TARGETS.values() if str(target.family) == "x86_64" for name in target.features}
    found = {name: flag("x86_64", name) for name in features}
    assert {name for name in found.values() if name is not None} <= CPUID
    assert {name for name, known in found.items() if known is None} <= {
        *("clflushopt", "clwb", "fsgsbase", "pku", "rdpid", "sha512", "tsc_adjust"),
    }
    assert flag("ppc64le", "altivec") is None
