"""The wheel, installed into an environment of its own, works away from the checkout."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_import_rules import CLOSURE, MODULES, imported_by

ROOT = Path(__file__).resolve().parents[2]
LOCKED = ROOT / "tests/data/spack/envs/v0.20.3-seed-gromacs-cuda"
#: Imported where they are there: what an extra brings.
OPTIONAL = {"isal", "easybuild"}


def call(*arguments: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "HOME": str(cwd), "LC_ALL": "C.UTF-8", **env}
    return subprocess.run(
        [str(argument) for argument in arguments], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout and only what is listed gets in."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "out", "dist", "tests", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=ignored, symlinks=True)
    done = call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist", cwd=source)
    assert done.returncode == 0, done.stderr
    return next((folder / "dist").glob("hpc3build-*.whl"))


def required(requirements: Iterable[str]) -> dict[str, Distribution]:
    """What these requirements need here without any extra, and what that needs in turn, by name."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        found[name] = distribution(wanted.name)
        assert wanted.specifier.contains(found[name].version, prereleases=True), f"{wanted}: {found[name].version}"
        waiting += [Requirement(text) for text in found[name].requires or ()]
    return found


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh virtual environment: the wheel by pip, and what its METADATA requires lent by links, nothing else."""
    folder = tmp_path_factory.mktemp("home")
    for arguments in (
        [sys.executable, "-m", "venv", folder / "venv"],
        [folder / "venv/bin/pip", "install", "--quiet", "--no-deps", "--no-index", wheel],
    ):
        done = call(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    own = next((folder / "venv/lib").glob("python*/site-packages"))
    (installed,) = distributions(name="hpc3build", path=[str(own)])
    lent = required(installed.requires or ())
    assert {"ruamel-yaml", "requests"} <= lent.keys(), "one that it names, and one that such a one names"
    assert not {"pytest", "mypy", "hatchling", "easybuild"} & lent.keys()
    for found in lent.values():
        for top in {Path(str(file)).parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (own / top).exists():
                (own / top).symlink_to(Path(str(found.locate_file(top))))
    yield folder


def hpc3build(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return call(home / "venv/bin/hpc3build", *arguments, cwd=home)


def python(home: Path, program: str) -> str:
    done = call(home / "venv/bin/python", "-I", "-c", program, cwd=home)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_the_wheels(home: Path) -> None:
    where = Path(python(home, "import hpc3build; print(hpc3build.__file__)").strip())
    assert where.is_relative_to(home / "venv") and not where.is_symlink()
    done = hpc3build(home, "--version")
    assert done.returncode == 0 and done.stdout.startswith("hpc3build ")


def test_what_it_imports_is_required(home: Path) -> None:
    """All that any module imports, lazily or not, comes with the wheel's requirements; the rest is an extra's."""
    imported = {name.split(".")[0] for module in MODULES for _, name in imported_by(module)}
    ours = {"hpc3build", *(name.split(".")[-1] for name in CLOSURE)}
    others = sorted(imported - set(sys.stdlib_module_names) - ours)
    program = f"from importlib.util import find_spec; print([name for name in {others} if not find_spec(name)])"
    assert {"ruamel", "jinja2", "oras", "docker", "archspec", "zstandard"} <= set(others)
    assert set(ast.literal_eval(python(home, program))) == OPTIONAL


@pytest.mark.parametrize("name", ["containerfiles", "plugins", "ci", "recipes"])
def test_shared_folders_are_found(name: str, home: Path) -> None:
    program = f"from hpc3build.resources import folder; print(folder({name!r}))"
    found = Path(python(home, program).strip())
    assert found.is_relative_to(home / "venv")
    inside = {str(path.relative_to(found)) for path in found.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    theirs = {str(path.relative_to(ROOT / name)) for path in (ROOT / name).rglob("*") if path.is_file()}
    assert inside == {path for path in theirs if "__pycache__" not in path} and inside
    for path in inside:
        assert (found / path).read_bytes() == (ROOT / name / path).read_bytes()


def test_it_renders_what_the_checkout_renders(home: Path) -> None:
    options = ["--base", "debian:12", "--spack-ref", "v0.20.3"]
    done = hpc3build(home, "render", LOCKED, *options, "-o", "C", "--context", "context")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "hpc3build: the build context is in context\n")
    theirs = call(sys.executable, "-m", "hpc3build", "render", LOCKED, *options, cwd=ROOT)
    assert theirs.returncode == 0 and (home / "C").read_text() == theirs.stdout
    assert (home / "context/hpc3build/spack/spack.lock").read_bytes() == (LOCKED / "spack.lock").read_bytes()
    scripts = ROOT / "containerfiles/hpc3build"
    for script in (path.name for path in scripts.iterdir() if path.is_file()):
        assert (home / "context/hpc3build" / script).read_bytes() == (scripts / script).read_bytes()


def test_its_own_recipes_render(home: Path) -> None:
    recipes = Path(python(home, "from hpc3build.resources import folder; print(folder('recipes'))").strip())
    done = hpc3build(home, "render", recipes / "gromacs-cuda")
    assert done.returncode == 0 and str(home) not in done.stdout


def test_spack_finds_its_extension(home: Path) -> None:
    """By the folder that the command prints, and by the entry point, as Spack loads it."""
    done = hpc3build(home, "spack-extension")
    assert done.returncode == 0 and Path(done.stdout.strip()).is_relative_to(home / "venv")
    program = (
        "from importlib.metadata import entry_points\n"
        "print([each.load()() for each in entry_points(group='spack.extensions')])"
    )
    assert python(home, program).strip() == repr([done.stdout.strip()])


def test_facts_and_schemas(home: Path) -> None:
    done = hpc3build(home, "facts", LOCKED / "spack.lock", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["annotations"]["org.supercontainers.gpu"] == "cuda"
    program = (
        "from importlib.resources import files; print(sorted(p.name for p in (files('hpc3build')/'schemas').iterdir()))"
    )
    assert "'facts.json'" in python(home, program)


def test_nothing_else_is_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        executable = {info.filename for info in archive.infolist() if info.external_attr >> 16 & 0o111}
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"hpc3build"}
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name or name.endswith((".log", "~"))]
    assert "hpc3build/py.typed" in names
    assert {"hpc3build/_shared/ci/demo", "hpc3build/_shared/ci/test"} <= executable
    assert any(name.endswith("/METADATA") for name in names) and any("LICENSE" in name for name in names)
