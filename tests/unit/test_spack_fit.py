"""A lock beside the recipe: the builder must be what it was made for, and every mismatch is named at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc3build.containerfile import build_context
from hpc3build.errors import InputError
from hpc3build.frontends import spack
from hpc3build.recipe import Settings
from hpc3build.run import run


def lock(
    *,
    os: str = "debian12",
    gcc: str = "12.2.0",
    target: str = "x86_64_v3",
    release: str = "1.0.0",
    external: str = "",
    compiler: str = "gcc",
) -> str:
    def node(name: str, version: str, *edges: tuple[str, str, str], **more: Any) -> dict[str, Any]:
        needs = [
            {"name": to, "hash": to, "parameters": {"deptypes": [kind], "virtuals": [virtual] if virtual else []}}
            for to, kind, virtual in edges
        ]
        arch = {"platform": "linux", "platform_os": os, "target": target}
        return {"name": name, "version": version, "arch": arch, "dependencies": needs, **more}

    edges = [(compiler, "build", "c"), *([(external, "link", "mpi")] if external else [])]
    nodes = {"zlib": node("zlib", "1.3", *edges), compiler: node(compiler, gcc, external={"path": "/usr"})}
    if external:
        nodes[external] = node(external, "8.1", external={"path": "/opt/cray"})
    return json.dumps(
        {
            "_meta": {"file-type": "spack-lockfile", "lockfile-version": 6},
            "spack": {"version": release},
            "roots": [{"hash": "zlib", "spec": "zlib"}],
            "concrete_specs": nodes,
        }
    )


def plan(folder: Path, text: str, images: Any = None, **settings: Any) -> dict[str, Any]:
    container = {"container": {"images": images or {"os": "debian:12"}}}
    (folder / "spack.yaml").write_text(json.dumps({"spack": {"specs": ["zlib"], **container}}))
    (folder / "spack.lock").write_text(text)
    recipe = spack.load((str(folder),), Settings(**settings), run)
    made = spack.context(recipe, spack.stack(recipe))
    assert build_context(recipe, made).containerfile
    return {**made.variables, "files": made.files, "ref": made.variables["sources"][0].ref}


def refused(folder: Path, text: str, images: Any = None, **settings: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        plan(folder, text, images, **settings)
    assert str(folder / "spack.lock") in caught.value.message
    assert len(caught.value.message.splitlines()) == 1
    return caught.value


def test_a_lock_that_fits_is_installed_as_it_is_by_the_release_that_made_it(tmp_path: Path) -> None:
    text = lock()
    made = plan(tmp_path, text)
    assert made["locked"] is True
    assert made["ref"] == "v1.0.0"
    assert made["files"]["spack/spack.lock"] == text.encode()


def test_clang_brings_its_package(tmp_path: Path) -> None:
    assert "clang" in plan(tmp_path, lock(compiler="llvm", gcc="14.0.6"))["builder_packages"]


def test_another_system_names_both_and_the_base_that_fits(tmp_path: Path) -> None:
    error = refused(tmp_path, lock(os="ubuntu22.04"))
    assert "ubuntu22.04" in error.message
    assert "debian12" in error.message
    assert "--base ubuntu:22.04" in error.hint
    assert plan(tmp_path, lock(os="ubuntu22.04"), base="ubuntu:22.04")["builder_image"] == "ubuntu:22.04"


def test_a_system_outside_the_table(tmp_path: Path) -> None:
    error = refused(tmp_path, lock(os="sles15"))
    assert "sles15" in error.message
    assert "--base" in error.hint


@pytest.mark.parametrize("release", ["1.2.0.dev0", "1.2.0.dev0 (abc)", "0.24"])
def test_a_release_that_no_tag_names_wants_the_commit(tmp_path: Path, release: str) -> None:
    error = refused(tmp_path, lock(release=release))
    assert release in error.message
    assert "--spack-ref" in error.hint
    assert plan(tmp_path, lock(release=release), spack_ref="0123abc")["ref"] == "0123abc"


def test_a_release_that_the_recipe_states_otherwise_is_a_mismatch(tmp_path: Path) -> None:
    images = {"os": "debian:12", "spack": {"ref": "v0.23.1"}}
    error = refused(tmp_path, lock(), images)
    assert "Spack 1.0.0" in error.message
    assert "v0.23.1" in error.message
    assert "--spack-ref v1.0.0" in error.hint
    assert plan(tmp_path, lock(), images, spack_ref="v1.0.0")["ref"] == "v1.0.0"
    assert plan(tmp_path, lock(), {"os": "debian:12", "spack": {"ref": "v1.0.0"}})["ref"] == "v1.0.0"


def test_another_compiler_is_named_with_the_one_that_is_there(tmp_path: Path) -> None:
    error = refused(tmp_path, lock(gcc="13.1.0"))
    assert "gcc@13.1.0" in error.message
    assert "12.2.0" in error.message


def test_an_external_that_the_image_would_lack(tmp_path: Path) -> None:
    text = lock(external="cray-mpich")
    error = refused(tmp_path, text)
    assert "cray-mpich@8.1" in error.message
    assert "--host-provided cray-mpich" in error.hint
    assert plan(tmp_path, text, host_provided=("cray-mpich",))["locked"] is True


def test_all_mismatches_at_once_and_the_way_around_all(tmp_path: Path) -> None:
    text = lock(os="ubuntu22.04", gcc="9.9.9", release="1.2.0.dev0", external="cray-mpich")
    error = refused(tmp_path, text)
    for part in ("ubuntu22.04", "gcc@9.9.9", "1.2.0.dev0", "cray-mpich"):
        assert part in error.message
    assert "--concretize builder" in error.hint
    made = plan(tmp_path, text, concretize="builder")
    assert made["locked"] is False
    assert "spack/spack.lock" not in made["files"]


def test_a_target_that_the_lock_is_not_for(tmp_path: Path) -> None:
    error = refused(tmp_path, lock(), target="zen3")
    assert "x86_64_v3" in error.message
    assert "zen3" in error.message
    assert "--concretize builder" in error.hint
    assert plan(tmp_path, lock(), target="x86_64_v3")["locked"] is True


@pytest.mark.parametrize("text", ["spack:\n", "spack: {container: }\n", "spack:\n  container: {images: }\n"])
def test_an_empty_section_beside_a_lock_is_the_default(tmp_path: Path, text: str) -> None:
    (tmp_path / "spack.yaml").write_text(text)
    (tmp_path / "spack.lock").write_text(lock(os="ubuntu22.04", gcc="11.4.0"))
    recipe = spack.load((str(tmp_path),), Settings(), run)
    assert spack.context(recipe, spack.stack(recipe)).variables["sources"][0].ref == "v1.0.0"


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"{}"])
def test_a_broken_lock_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "spack.yaml").write_text("spack: {}\n")
    (tmp_path / "spack.lock").write_bytes(data)
    with pytest.raises(InputError, match=r"spack\.lock"):
        spack.stack(spack.load((str(tmp_path),), Settings(), run))


def test_a_compiler_that_the_lock_installs_is_not_asked_of_the_base(tmp_path: Path) -> None:
    document = json.loads(lock(gcc="13.3.0"))
    del document["concrete_specs"]["gcc"]["external"]
    assert plan(tmp_path, json.dumps(document))["locked"] is True
    assert "gcc@13.3.0" in refused(tmp_path, lock(gcc="13.3.0")).message
