"""Records of package managers: what is installed, and what broken ones say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc3build.evidence.layers import ImageFile, ImageFiles
from hpc3build.evidence.packages import dpkg, frameworks, installed, managers, scan, wanted


def files(contents: dict[str, bytes]) -> ImageFiles:
    return ImageFiles(
        {
            path: ImageFile(
                path, "file", 0o644, 0, 0, len(data), "", data, "sha256:0", scan(path, len(data), iter([data]))
            )
            for path, data in contents.items()
        }
    )


def found(contents: dict[str, bytes]) -> list[tuple[str, str, str, str]]:
    assert all(wanted(path) for path in contents)
    return [(each.manager, each.name, each.version, each.upstream) for each in installed(files(contents))]


def test_dpkg() -> None:
    status = b"""Package: libopenmpi3
Status: install ok installed
Architecture: amd64
Version: 4.1.4-3+b1
Description: x
 more

Package: libmpich12
Status: deinstall ok config-files
Version: 4.0.2-3

Package: bash
Status: install ok installed
Version: 5.2
"""
    assert found({dpkg.STATUS: status}) == [("dpkg", "libopenmpi3", "4.1.4-3+b1", "4.1.4")]
    parts = {"/var/lib/dpkg/status.d/libmpich12": b"Package: libmpich12\nVersion: 4.0.2-3+b1\n"}
    assert found(parts) == [("dpkg", "libmpich12", "4.0.2-3+b1", "4.0.2")]
    assert wanted("/var/lib/dpkg/status.d/libmpich12.md5sums") is None


@pytest.mark.parametrize(
    ("version", "upstream"),
    [("1:4.1.4-3", "4.1.4"), ("2.5.0+dfsg-1ubuntu2", "2.5.0"), ("12.4.127-1", "12.4.127"), ("5.0~rc1-1", "5.0"),
     ("1.0", "1.0"), ("", "")],
)  # fmt: skip
def test_debian_versions(version: str, upstream: str) -> None:
    assert dpkg.upstream(version) == upstream


def test_apk() -> None:
    assert found({"/lib/apk/db/installed": b"C:Q1\nP:openmpi\nV:4.1.6-r0\n\nP:musl\nV:1\n"}) == [
        ("apk", "openmpi", "4.1.6-r0", "4.1.6")
    ]


def test_conda() -> None:
    record = json.dumps({"name": "mpich", "version": "4.2.0", "files": ["x"] * 10}).encode()
    path = "/opt/conda/conda-meta/mpich-4.2.0-h846660c_100.json"
    assert found({path: record}) == [("conda", "mpich", "4.2.0", "4.2.0")]
    assert found({path: record[:-5]}) == [("conda", "mpich", "4.2.0", "4.2.0")]
    assert wanted("/opt/conda/conda-meta/python-3.11.0-h1_0.json") is None


def test_pip() -> None:
    site = "/usr/lib/python3/dist-packages"
    contents = {
        f"{site}/torch-2.3.0+cu121.dist-info/METADATA": b"Name: torch\nVersion: 2.3.0+cu121\n\nVersion: no\n",
        f"{site}/nvidia_cuda_runtime_cu12-12.1.105.dist-info/METADATA": b"broken",
    }
    assert found(contents) == [
        ("pip", "nvidia-cuda-runtime-cu12", "12.1.105", "12.1.105"),
        ("pip", "torch", "2.3.0+cu121", "2.3.0"),
    ]
    assert frameworks(installed(files(contents))) == ("torch",)
    assert wanted(f"{site}/requests-2.0.dist-info/METADATA") is None


@given(
    st.sampled_from(
        [dpkg.STATUS, "/lib/apk/db/installed", "/c/conda-meta/mpich-1-0.json", "/s/torch-1.dist-info/METADATA"]
    ),
    st.binary(max_size=300),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_end_quietly(path: str, data: bytes) -> None:
    for manager in managers():
        list(manager.read(files({path: data})))
