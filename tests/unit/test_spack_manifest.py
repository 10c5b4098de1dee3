"""What becomes of a spack.yaml on its way to the builder: notes, sources under development, secrets, externals."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML

from hpc3build.containerfile import BuildContext, build_context
from hpc3build.errors import InputError
from hpc3build.frontends import spack
from hpc3build.frontends.spack_context import SpackRecipe
from hpc3build.recipe import Settings
from hpc3build.run import run
from hpc3build.workflows.build import _check_externals
from tests.commands import hpc3build

BASE = "  container: {images: {os: 'debian:12', spack: v1.0.0}}\n"


def load(folder: Path, text: str, **settings: Any) -> SpackRecipe:
    (folder / "spack.yaml").write_text(text)
    return spack.load((str(folder),), Settings(**settings), run)


def context(folder: Path, text: str, **settings: Any) -> BuildContext:
    recipe = load(folder, text, **settings)
    return build_context(recipe, spack.context(recipe, spack.stack(recipe)))


def manifest(made: BuildContext) -> Any:
    return YAML(typ="safe").load(made.files["hpc3build/spack/spack.yaml"])["spack"]


def refused(folder: Path, text: str, **settings: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        context(folder, text, **settings)
    return caught.value


# What is left out or replaced, as Spack's validate does


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("  modules: {default: {enable: [tcl]}}\n", 3, "spack:modules: not used in images, left out"),
        ("  cdash: {build-group: x}\n", 3, "spack:cdash: not used in images"),
        ("  gitlab_ci: {a: b}\n", 3, "spack:gitlab_ci: not used in images"),
        ("  config:\n    install_tree: {root: /some/dir}\n", 4, "spack:config:install_tree: replaced"),
        ("  view: /some/dir\n", 3, "spack:view: replaced"),
        ("  concretizer: {unify: false}\n", 3, "spack:concretizer:unify: not true"),
    ],
)
def test_one_note_each_with_its_line(text: str, line: int, words: str, tmp_path: Path) -> None:
    recipe = load(tmp_path, f"spack:\n  specs: [zlib]\n{text}{BASE}")
    (note,) = recipe.notes
    assert note.startswith(f"{tmp_path}/spack.yaml:{line}: {words}")
    written = recipe.manifest.document
    assert not {"modules", "cdash", "gitlab_ci", "container"} & set(written)
    assert written["view"] == "/opt/views/view" and written["config"]["install_tree"] == {"root": "/opt/software"}


def test_no_note_without_cause_and_notes_go_to_stderr(tmp_path: Path) -> None:
    text = f"spack:\n  specs: [zlib]\n  view: true\n  concretizer: {{unify: true}}\n{BASE}"
    assert load(tmp_path, text).notes == ()
    (tmp_path / "spack.yaml").write_text(f"{text}  modules: {{}}\n")
    done = hpc3build("render", tmp_path)
    assert done.status == 0 and done.out.startswith("# Made by")
    assert done.err.startswith("hpc3build: note: ") and "modules" in done.err
    assert hpc3build("render", tmp_path, "--quiet").err == ""


# develop: and execute permission


def test_sources_under_development_come_along_for_the_builder_alone(tmp_path: Path) -> None:
    (tmp_path / "src/.git").mkdir(parents=True)
    (tmp_path / "src/.git/config").touch()
    (tmp_path / "src/configure").write_text("#!/bin/sh\n")
    (tmp_path / "src/configure").chmod(0o755)
    (tmp_path / "src/main.c").write_text("int main;")
    (tmp_path / "zlib").mkdir()
    (tmp_path / "zlib/zlib.h").touch()
    develop = "  develop:\n    app: {spec: app@=1.0, path: ./src}\n    zlib: {spec: zlib@=1.3}\n"
    made = context(tmp_path, f"spack:\n  specs: [app]\n{develop}{BASE}")
    found = {name for name in made.files if "/develop/" in name}
    assert found == {f"hpc3build/spack/develop/{name}" for name in ("app/configure", "app/main.c", "zlib/zlib.h")}
    there = "/opt/hpc3build/build/spack/develop"
    assert manifest(made)["develop"] == {
        "app": {"spec": "app@=1.0", "path": f"{there}/app"},
        "zlib": {"spec": "zlib@=1.3", "path": f"{there}/zlib"},
    }
    assert "cp -r spack.yaml /opt/spack-environment/" in made.containerfile, (
        "they go with the context into the builder, not into the environment"
    )
    made.write(tmp_path / "context")
    assert os.access(tmp_path / "context/hpc3build/spack/develop/app/configure", os.X_OK)
    assert not os.access(tmp_path / "context/hpc3build/spack/develop/app/main.c", os.X_OK)


@pytest.mark.parametrize(
    ("develop", "words"),
    [
        ("{app: {path: ./nowhere}}", "no such folder"),
        ("{app: {path: https://example.org/x}}", "no such folder"),
        ("{app: {path: ~/x}}", "not known in the builder"),
        ("{app: x}", "expected a mapping"),
        ("{'../x': {path: .}}", "not the name of a package"),
        ("[app]", "expected a mapping"),
    ],
)
def test_sources_that_are_not_there(develop: str, words: str, tmp_path: Path) -> None:
    error = refused(tmp_path, f"spack:\n  specs: [app]\n  develop: {develop}\n{BASE}")
    assert error.message.startswith(f"{tmp_path}/spack.yaml:3: ") and words in error.message


def test_execute_permission_of_repositories_stays(tmp_path: Path) -> None:
    repo = tmp_path / "mine/packages/app"
    repo.mkdir(parents=True)
    (tmp_path / "mine/repo.yaml").write_text("repo: {namespace: mine}\n")
    (repo / "package.py").touch()
    (repo / "setup.sh").touch(mode=0o755)
    made = context(tmp_path, f"spack:\n  specs: [app]\n  repos: [./mine]\n{BASE}")
    assert made.executable == {"hpc3build/spack/repos/0/mine/packages/app/setup.sh"}
    made.write(tmp_path / "context")
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "context").rglob("mine/packages/app/*")}
    assert modes == {"package.py": 0o644, "setup.sh": 0o755}


# An MPI that the host's takes the place of


@pytest.mark.parametrize(
    "given", ["", "  config: {shared_linking: {type: runpath, bind: true}}\n", "  config: {shared_linking: runpath}\n"]
)
def test_a_swappable_mpi_is_found_by_runpath_and_the_loaders_cache(given: str, tmp_path: Path) -> None:
    text = f"spack:\n  specs: [zlib]\n{given}{BASE}"
    made = context(tmp_path, text, mpi_mode="mpi_replace,libfabric_inject")
    assert manifest(made)["config"]["shared_linking"]["type"] == "runpath"
    assert "install.sh concretize runpath" in made.containerfile
    plain = context(tmp_path, f"spack:\n  specs: [zlib]\n{BASE}", mpi_mode="libfabric_inject")
    assert "shared_linking" not in manifest(plain)["config"] and "runpath" not in plain.containerfile


def test_rpath_and_a_swappable_mpi_are_a_contradiction(tmp_path: Path) -> None:
    text = f"spack:\n  specs: [zlib]\n  config:\n    shared_linking: rpath\n{BASE}"
    assert "defeats mpi:mode" in refused(tmp_path, text, mpi_mode="mpi_replace").message
    assert manifest(context(tmp_path, text))["config"]["shared_linking"] == "rpath"


# Secrets, caches


def test_mirrors_and_keys_are_secrets_of_the_build(tmp_path: Path) -> None:
    (tmp_path / "mirrors.yaml").write_text("mirrors:\n  a: https://user:geheim@example.org\n")
    (tmp_path / "keys.asc").write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    (tmp_path / "hpc3build.yaml").write_text("spack_mirrors: mirrors.yaml\nspack_keys: keys.asc\n")
    made = context(tmp_path, f"spack:\n  specs: [zlib]\n{BASE}")
    assert made.secrets == {
        "hpc3build_mirrors": tmp_path / "mirrors.yaml",
        "hpc3build_keys": tmp_path / "keys.asc",
    }
    assert (
        "--mount=type=secret,id=hpc3build_mirrors,mode=0400 --mount=type=secret,id=hpc3build_keys" in made.containerfile
    )
    everything = [made.containerfile.encode(), *made.files.values()]
    assert not any(b"geheim" in data or b"BEGIN PGP" in data for data in everything)
    assert all(str(tmp_path).encode() not in data for data in everything)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("spack_mirrors", None, "no such file"),
        ("spack_mirrors", "mirror: {}\n", "unknown key"),
        ("spack_mirrors", "mirrors: [a]\n", "expected a mapping"),
        ("spack_keys", None, "no such file"),
        ("spack_keys", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n", "no public key"),
    ],
)
def test_mirrors_and_keys_that_spack_would_refuse(name: str, content: str | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "given").write_text(content)
    error = refused(tmp_path, f"spack:\n  specs: [zlib]\n{BASE}", **{name: "given"})
    assert words in error.message and "PRIVATE" not in error.message


def test_sources_stages_and_packages_are_kept_between_builds(tmp_path: Path) -> None:
    made = context(tmp_path, f"spack:\n  specs: [zlib]\n{BASE}")
    assert " --mount=type=cache,id=hpc3build-spack,target=/var/cache/hpc3build/spack,mode=0755" in made.containerfile
    config = YAML(typ="safe").load(made.files["hpc3build/spack/config/config.yaml"])["config"]
    assert config == {
        "source_cache": "/var/cache/hpc3build/spack/sources",
        "build_stage": ["/var/cache/hpc3build/spack/stage"],
    }
    mirrors = YAML(typ="safe").load(made.files["hpc3build/spack/config/mirrors.yaml"])
    assert mirrors == {"mirrors": {"hpc3build-cache": "file:///var/cache/hpc3build/spack/binaries"}}
    without = context(tmp_path, f"spack:\n  specs: [zlib]\n{BASE}", binary_cache=False)
    assert "hpc3build/spack/config/mirrors.yaml" not in without.files


# What the final image must bring


def locked(folder: Path, external: str, container: dict[str, Any], **settings: Any) -> BuildContext:
    """A lock with one external dependency."""
    node = {"version": "1.0", "arch": {"platform": "linux", "platform_os": "debian12", "target": "x86_64_v3"}}
    dependency = {"name": external, "hash": "b" * 32, "parameters": {"deptypes": ["link", "run"], "virtuals": []}}
    document = {
        "_meta": {"file-type": "spack-lockfile", "lockfile-version": 6, "specfile-version": 5},
        "spack": {"version": "1.0.0"},
        "roots": [{"hash": "a" * 32, "spec": "app"}],
        "concrete_specs": {
            "a" * 32: {**node, "name": "app", "hash": "a" * 32, "dependencies": [dependency]},
            "b" * 32: {**node, "name": external, "hash": "b" * 32, "external": {"path": "/usr"}},
        },
    }
    (folder / "spack.lock").write_text(json.dumps(document))
    text = json.dumps({"spack": {"specs": ["app"], "container": container}})
    return context(folder, text, **settings)


IMAGES = {"images": {"os": "debian:12"}}


@pytest.mark.parametrize("package", ["openmpi-bin", "libopenmpi3", "openmpi", "openmpi4"])
def test_an_external_that_os_packages_bring(package: str, tmp_path: Path) -> None:
    assert locked(tmp_path, "openmpi", {**IMAGES, "os_packages": {"final": [package]}})


def test_an_external_that_the_base_or_the_host_brings(tmp_path: Path) -> None:
    cuda = {"images": {"os": "nvidia/cuda:12.4.1-devel-ubuntu22.04"}, "os_packages": {"command": "apt"}}
    error = None
    try:
        locked(tmp_path, "cuda", cuda)
    except InputError as caught:
        error = caught
    assert error is not None and "cuda@" not in error.message, "only the system differs"
    assert locked(tmp_path, "cray-mpich", IMAGES, host_provided=("cray-mpich",))


@pytest.mark.parametrize("package", ["libopenmpixyz", "notopenmpi", "libgomp1"])
def test_an_external_that_nothing_brings(package: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        locked(tmp_path, "openmpi", {**IMAGES, "os_packages": {"final": [package]}})
    assert caught.value.exit_code == 2
    assert "openmpi@1.0 is external" in caught.value.message
    assert "os_packages:final" in caught.value.hint and "--host-provided openmpi" in caught.value.hint


def test_a_lock_of_the_builder_is_asked_the_same_before_anything_is_published(tmp_path: Path) -> None:
    locked(tmp_path, "openmpi", IMAGES, host_provided=("openmpi",))
    stack = spack.stack(spack.load((str(tmp_path),), Settings(), run))

    def check(**settings: Any) -> None:
        planned = SimpleNamespace(recipe=spack.load((str(tmp_path),), Settings(concretize="builder", **settings), run))
        _check_externals(planned, SimpleNamespace(stack=stack))  # type: ignore[arg-type]

    check(host_provided=("openmpi",))
    with pytest.raises(InputError, match=r"external, and nothing brings them into the final image: openmpi@1\.0"):
        check()


def test_a_final_image_with_an_older_glibc(tmp_path: Path) -> None:
    text = "spack:\n  specs: [zlib]\n  container:\n    images: {build: 'ubuntu:24.04', final: 'rockylinux:9'}\n"
    message = refused(tmp_path, text).message
    assert "ubuntu:24.04 has glibc 2.39, and rockylinux:9 has 2.34" in message
    assert context(tmp_path, text.replace("24.04", "20.04"))


# --mpi


def test_a_provider_of_mpi_is_required(tmp_path: Path) -> None:
    text = f"spack:\n  specs: [hdf5]\n  packages: {{mpi: {{require: [openmpi], buildable: true}}}}\n{BASE}"
    packages = manifest(context(tmp_path, text, mpi_provider="mpich@4.2"))["packages"]
    assert packages["mpi"] == {"require": ["mpich@4.2"], "buildable": True}
    assert packages["all"]["require"] == ["target=x86_64"]


@pytest.mark.parametrize("name", ["", "Mpich", "mpich ~x", "mpich\n", "--x", "mpich;"])
def test_a_provider_is_a_packages_name(name: str, tmp_path: Path) -> None:
    assert "no package of Spack" in refused(tmp_path, f"spack:\n  specs: [hdf5]\n{BASE}", mpi_provider=name).message


def test_a_lock_keeps_its_mpi() -> None:
    lock = Path(__file__).parents[1] / "data/spack/envs/v0.20.3-seed-gromacs-cuda"
    for name, fits in (("openmpi", True), ("mpich", False)):
        recipe = spack.load((str(lock),), Settings(mpi_provider=name), run)
        if fits:
            assert spack.stack(recipe) is not None
            continue
        with pytest.raises(InputError) as caught:
            spack.stack(recipe)
        assert "--mpi says mpich" in caught.value.message and "--concretize" in caught.value.hint


def test_an_easyconfigs_mpi_is_its_toolchains() -> None:
    done = hpc3build("render", Path(__file__).parents[2] / "recipes/mpi-hello", "--mpi", "mpich")
    assert done.status == 2 and "toolchain" in done.err
