"""Spack: files of this machine that a spack.yaml names, clones as sources, and what real Spack left of hello-spack."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hpc3build.containerfile import build_context
from hpc3build.errors import InputError
from hpc3build.frontends import Context, spack
from hpc3build.frontends.spack_sources import DEFAULT_REF
from hpc3build.recipe import Settings
from hpc3build.run import run
from hpc3build.workflows.describe import facts_of
from hpc3build.yamlread import read_yaml

ROOT = Path(__file__).resolve().parents[2]
HELLO = ROOT / "recipes/hello-spack"
RECORDED = ROOT / "tests/data/spack/hello-spack"
ENVIRONMENT = "/opt/spack-environment"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(text: str, **files: str) -> Path:
        folder = tmp_path / "recipe"
        folder.mkdir(exist_ok=True)
        (folder / "spack.yaml").write_text(text)
        (folder / "hpc3build.yaml").write_text("base: debian:12\n")
        for name, content in files.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return folder

    return made


def made(folder: Path, **settings: Any) -> Context:
    recipe = spack.load((str(folder),), Settings(**settings), run)
    return spack.context(recipe, spack.stack(recipe))


def manifest_of(context: Context, tmp_path: Path) -> Any:
    path = tmp_path / "manifest.yaml"
    path.write_bytes(context.files["spack/spack.yaml"])
    return read_yaml(path)["spack"]


def read_config(context: Context, name: str) -> Any:
    return YAML(typ="safe").load(context.files[f"spack/config/{name}.yaml"])[name]


def refused(folder: Path, **settings: Any) -> InputError:
    with pytest.raises(InputError) as raised:
        made(folder, **settings)
    assert "\n" not in raised.value.message
    return raised.value


# Local repositories and included files


def test_a_repository_of_the_new_form(tmp_path: Path) -> None:
    context = made(HELLO)
    folder = "repos/hello/spack_repo/hello"
    assert manifest_of(context, tmp_path)["repos"] == {"hello": f"{ENVIRONMENT}/{folder}"}
    there = HELLO / "repo/spack_repo/hello"
    files = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    copied = {name for name in context.files if name.startswith("spack/repos/")}
    assert copied == {f"spack/{folder}/{name}" for name in files}
    assert context.files[f"spack/{folder}/repo.yaml"] == (there / "repo.yaml").read_bytes()
    assert "repos" in context.variables["environment"]


def test_a_repository_of_the_old_form(write: Write, tmp_path: Path) -> None:
    text = "spack:\n  repos:\n  - ./mine\n  - $spack/var/spack/repos/builtin\n  - $env/mine\n  specs: [zlib]\n"
    context = made(write(text, **{"mine__repo.yaml": "repo:\n  namespace: mine\n"}))
    assert manifest_of(context, tmp_path)["repos"] == [
        f"{ENVIRONMENT}/repos/0/mine",
        "$spack/var/spack/repos/builtin",
        f"{ENVIRONMENT}/repos/2/mine",
    ]
    assert context.files["spack/repos/0/mine/repo.yaml"] == b"repo:\n  namespace: mine\n"


def test_what_git_fetches_stays_as_it_is(write: Write, tmp_path: Path) -> None:
    text = """\
spack:
  repos:
    far: https://example.com/repo.git
    near: {git: "git@example.com:repo.git", branch: main}
  include:
  - https://example.com/packages.yaml
  - path: absent.yaml
    optional: true
  specs: [zlib]
"""
    context = made(write(text))
    manifest = manifest_of(context, tmp_path)
    assert manifest["repos"]["far"] == "https://example.com/repo.git"
    assert manifest["repos"]["near"]["git"] == "git@example.com:repo.git"
    assert manifest["include"][0] == "https://example.com/packages.yaml"
    assert [name for name in context.files if name.startswith(("spack/repos", "spack/include"))] == []


def test_included_files(write: Write, tmp_path: Path) -> None:
    text = "spack:\n  include:\n  - ./site/packages.yaml\n  - path: site\n  specs: [zlib]\n"
    context = made(write(text, **{"site__packages.yaml": "packages: {}\n"}))
    assert manifest_of(context, tmp_path)["include"] == [
        f"{ENVIRONMENT}/include/0/packages.yaml",
        {"path": f"{ENVIRONMENT}/include/1/site"},
    ]
    assert context.files["spack/include/0/packages.yaml"] == b"packages: {}\n"
    assert context.files["spack/include/1/site/packages.yaml"] == b"packages: {}\n"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("spack:\n  specs: [zlib]\n  repos:\n  - ./nowhere\n", 4, "no package repository"),
        ("spack:\n  repos:\n    a: ./site\n  specs: [zlib]\n", 3, "no package repository"),
        ("spack:\n  repos:\n    a: ~/repo\n  specs: [zlib]\n", 3, "not known in the builder"),
        ("spack:\n  repos:\n    a: $HOME/repo\n  specs: [zlib]\n", 3, "not known in the builder"),
        ("spack:\n  include:\n  - ./nowhere.yaml\n  specs: [zlib]\n", 3, "no such file"),
        ("spack:\n  include:\n  - ./linked\n  specs: [zlib]\n", 3, "leads out of it"),
        ("spack:\n  repos: ./repo\n  specs: [zlib]\n", 2, "expected a list or a mapping"),
        ("spack:\n  include: {a: b}\n  specs: [zlib]\n", 2, "expected a list"),
    ],
)
def test_what_is_not_there_is_named_with_its_line(write: Write, text: str, line: int, words: str) -> None:
    folder = write(text, **{"site__packages.yaml": "packages: {}\n", "linked__plain": "x"})
    (folder / "linked/link").symlink_to("/etc/hostname")
    error = refused(folder)
    assert error.message.startswith(f"{folder}/spack.yaml:{line}: ") and words in error.message


# The target


def test_the_target_is_required_of_packages_with_requirements_of_their_own(write: Write, tmp_path: Path) -> None:
    text = """\
spack:
  specs: [hdf5]
  packages:
    hdf5: {require: +mpi}
    zlib: {require: ["build_system=makefile", "zlib@1.3"]}
    mpi: {require: [openmpi]}
    blas: {require: [{one_of: [openblas, "intel-oneapi-mkl"]}]}
    cmake: {require: [{any_of: ["@3.30", "+ncurses"]}]}
    openmpi: {buildable: true}
"""
    packages = manifest_of(made(write(text), target="x86_64_v3"), tmp_path)["packages"]
    wanted = "target=x86_64_v3"
    assert packages["all"]["require"] == [wanted]
    assert packages["hdf5"]["require"] == ["+mpi", wanted]
    assert packages["zlib"]["require"][-1] == packages["cmake"]["require"][-1] == wanted
    assert packages["mpi"]["require"] == ["openmpi"] and len(packages["blas"]["require"]) == 1
    assert "require" not in packages["openmpi"]


# Spack and its packages from clones on this machine


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("not installed: git")
    folder = tmp_path / "clone"
    folder.mkdir()
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]

    def git(*argv: str) -> None:
        subprocess.run(["git", "-C", str(folder), *who, *argv], check=True, capture_output=True)

    git("init", "--quiet")
    for number in ("1", "2"):
        (folder / "file").write_text(number)
        git("add", "file")
        git("commit", "--quiet", "-m", number)
        git("tag", f"v1.0.{number}")
    return folder


def commit_of(clone: Path, ref: str) -> str:
    argv = ["git", "-C", str(clone), "rev-parse", f"{ref}^{{commit}}"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def test_a_clone_is_carried_at_its_commit(write: Write, clone: Path, tmp_path: Path) -> None:
    folder = write("spack:\n  specs: [zlib]\n")
    where = str(clone)
    context = made(folder, spack_source=where, spack_ref="v1.0.1", packages_source=f"file://{where}")
    assert [source.ref for source in context.variables["sources"]] == [
        commit_of(clone, "v1.0.1"),
        commit_of(clone, "HEAD"),
    ]
    assert set(context.sources) == {"spack.pack", "spack-packages.pack"}
    assert made(folder, spack_source=where, spack_ref="v1.0.1").sources["spack.pack"] == context.sources["spack.pack"]
    assert read_config(context, "bootstrap") == {"enable": True, "sources:": [], "trusted:": {}}
    assert b"/opt/spack-packages/repos/spack_repo/builtin" in context.files["spack/config/repos.yaml"]
    # The commands of the builder, run here.
    recipe = spack.load((str(folder),), Settings(), run)
    text = build_context(recipe, context).containerfile
    assert "git fetch" not in text and text.count("target=/run/sources") == 2 and where not in text
    assert {"sources/spack.pack", "sources/spack-packages.pack"} < set(build_context(recipe, context).files)
    lines = text.partition("git init --quiet /opt/spack ")[2].partition("\n\n")[0].replace("\\\n", " ")
    (tmp_path / "spack.pack").write_bytes(context.sources["spack.pack"])
    script = f"set -e; git init --quiet {tmp_path}/opt {lines}; cat file; git log --oneline | wc -l"
    script = script.replace("/opt/spack", f"{tmp_path}/opt").replace("/run/sources", str(tmp_path))
    shown = subprocess.run(["/bin/sh", "-c", script], check=True, capture_output=True, text=True).stdout
    assert shown == "11\n"


def test_a_url_is_fetched(write: Write) -> None:
    folder = write("spack:\n  specs: [zlib]\n")
    context = made(
        folder,
        spack_source="ssh://git@site.example/spack.git",
        packages_source="git@site.example:packages.git",
        pins={"spack-packages": "v2025.11.0"},
    )
    found = [(source.url, source.ref) for source in context.variables["sources"]]
    assert found == [
        ("ssh://git@site.example/spack.git", DEFAULT_REF),
        ("git@site.example:packages.git", "v2025.11.0"),
    ]
    assert context.sources == {} and "spack/config/bootstrap.yaml" not in context.files


@pytest.mark.parametrize("source", ["nowhere", "-oProxyCommand=x", "https://a b", "ext::sh -c x", "a;b"])
def test_what_is_no_source(write: Write, source: str) -> None:
    assert "neither a git URL nor a folder" in refused(write("spack:\n  specs: [zlib]\n"), spack_source=source).message


@pytest.mark.parametrize(
    "url",
    [
        "https://bob:hunter2@git.example/spack.git",
        "https://hunter2@git.example/spack.git",  # as GitHub takes a token
        "ssh://bob:hunter2@git.example/spack.git",
        "https://bob:hunter2/x@git.example/spack.git",
    ],
)
def test_a_url_with_a_password_is_refused_without_showing_it(write: Write, url: str) -> None:
    folder = write("spack:\n  specs: [zlib]\n")
    for settings in ({"spack_source": url}, {"spack_source": url, "pin": True}, {"packages_source": url}):
        error = refused(folder, **settings)
        assert "password" in error.message and "clone" in error.hint
        assert "hunter2" not in error.message + error.hint and "git.example" in error.message


URL = "https://bob:hunter2@mirror.example/x"
EXTRA = f"spack: {{specs: [zlib], container: {{extra_instructions: {{final: 'RUN curl {URL}'}}}}}}\n"


@pytest.mark.parametrize(
    ("files", "where"),
    [
        (
            {"spack__yaml": f"spack:\n  specs: [zlib]\n  mirrors: {{site: '{URL}'}}\n"},
            "spack.yaml:3: spack:mirrors:site:",
        ),
        ({"spack__yaml": f"spack:\n  specs: [zlib]\n  repos: {{a: {{git: '{URL}'}}}}\n"}, "spack.yaml"),
        ({"spack__yaml": "spack: {specs: [zlib], include: [m.yaml]}\n", "m.yaml": f"a: {{a: '{URL}'}}"}, "m.yaml"),
        (
            {"hpc3build.yaml": f"base: debian:12\nenv: {{PIP_INDEX_URL: '{URL}'}}\n"},
            "hpc3build.yaml:2: env:PIP_INDEX_URL: hpc3build/env.json",
        ),
        ({"spack__yaml": EXTRA}, "spack.yaml:1: spack:container:extra_instructions:final: Containerfile"),
    ],
)  # fmt: skip
def test_no_password_of_a_url_gets_into_an_image(write: Write, files: dict[str, str], where: str) -> None:
    text = files.pop("spack__yaml", "spack:\n  specs: [zlib]\n")
    recipe = spack.load((str(write(text, **files)),), Settings(), run)
    with pytest.raises(InputError, match=r"password of https://…@mirror\.example/x") as caught:
        build_context(recipe, spack.context(recipe, spack.stack(recipe)))
    assert where in caught.value.message and "hunter2" not in caught.value.message


def test_a_reference_that_the_clone_lacks(write: Write, clone: Path) -> None:
    folder = write("spack:\n  specs: [zlib]\n")
    error = refused(folder, spack_source=str(clone), spack_ref="v9")
    assert "no v9 in it" in error.message and "--spack-ref, or pins: spack in hpc3build.yaml" in error.hint
    error = refused(folder, packages_source=str(clone), pins={"spack-packages": "v9"})
    assert "no v9 in it" in error.message
    assert error.hint == "git fetch it there, or name another: pins: spack-packages in hpc3build.yaml"


@pytest.mark.parametrize("pins", [{}, {"spack-packages": "v9", "spack": "v9"}], ids=["head", "pinned"])
@pytest.mark.parametrize("option", ["spack_source", "packages_source"])
def test_a_folder_that_is_no_clone(
    write: Write, tmp_path: Path, option: str, pins: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "plain").mkdir()
    error = refused(write("spack:\n  specs: [zlib]\n"), **{option: str(tmp_path / "plain")}, pins=pins)
    assert f"{tmp_path / 'plain'}: it is no clone: not a git repository" in error.message
    assert error.hint == f"--{option.replace('_', '-')} takes a clone here, or a URL"


def test_the_lock_of_a_development_version_wants_its_commit(tmp_path: Path) -> None:
    shutil.copytree(HELLO, tmp_path / "hello")
    lock = json.loads((RECORDED / "spack.lock").read_text())
    commit = "5817ab9613f211442a2747b304960c556797c40f"
    lock["spack"] = {"version": "1.3.0.dev0", "type": "git", "commit": commit}
    (tmp_path / "hello/spack.lock").write_text(json.dumps(lock))
    manifest = tmp_path / "hello/spack.yaml"
    text = manifest.read_text()
    assert "Spack 1.3.0.dev0 made it" in refused(tmp_path / "hello").message
    for named in ("develop", commit, commit[:10]):
        manifest.write_text(text.replace("v1.1.0", named))
        assert made(tmp_path / "hello").variables["sources"][0].ref == (named if named == commit[:10] else commit)


# What real Spack 1.1.0 left of the recipe in a container


def test_the_recorded_lock_fits_its_recipe(tmp_path: Path) -> None:
    shutil.copytree(HELLO, tmp_path / "hello")
    shutil.copy(RECORDED / "spack.lock", tmp_path / "hello")
    context = made(tmp_path / "hello")
    assert context.variables["locked"] and context.variables["clingo"] is None
    assert context.variables["sources"][0].ref == "v1.1.0"
    _, facts = facts_of(str(tmp_path / "hello"), Settings(), run)
    pairs = facts.annotations()
    prefix = "org.supercontainers."
    assert pairs[f"{prefix}mpi"] == "openmpi" and pairs[f"{prefix}mpi.version"] == "4.1.4"
    assert pairs[f"{prefix}hardware.cpu.optimized.version"] == "x86_64_v2"
    assert pairs[f"{prefix}communication.framework"] == "libfabric,ucx"


def test_what_activation_leaves(tmp_path: Path) -> None:
    """Real output of `spack env activate --sh` in the builder, read by activate.sh's own lines."""
    script = (ROOT / "containerfiles/spack/activate.sh").read_text()
    script = script.replace(
        "/opt/spack/bin/spack env activate --sh -d /opt/spack-environment", f"cat {RECORDED}/activate.sh"
    )
    shown = subprocess.run(
        ["/bin/bash", "--noprofile", "--norc", "-e", "-c", f"{script}\nenv -0"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    env = dict(entry.split("=", 1) for entry in shown.stdout.split("\0") if entry)
    assert env["PATH"].startswith("/opt/views/view/bin:") and "/opt/views/view" in env["CMAKE_PREFIX_PATH"]
    assert [name for name in env if name.startswith(("MPI", "PYTHON"))] == []
