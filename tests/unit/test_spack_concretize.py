"""``--concretize host``: a process called spack that replays what real ones said, and what is made of its answer."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hpc3build.errors import InputError, ToolError, ToolMissing
from hpc3build.facts.subjects import of_stack
from hpc3build.frontends import spack
from hpc3build.frontends.spack_lock import read_lock
from hpc3build.recipe import Settings
from hpc3build.run import Completed, run
from hpc3build.workflows.describe import facts_of
from tests.commands import ROOT, assert_one_message, hpc3build

HOST = ROOT / "tests" / "data" / "spack" / "host"
RECORDINGS = sorted(path.parent.name for path in HOST.glob("*/recording.json"))
ENVS = ROOT / "tests" / "data" / "spack" / "envs"
RECIPES = {"hello-1.1.0": ROOT / "recipes" / "hello-spack"}
#: A program that answers as the recording beside it says, and notes how it was asked.
PROGRAM = """\
import json, os, pathlib, sys, time
here = pathlib.Path(__file__).resolve().parent
said = json.loads((here / "recording.json").read_text())
environment = pathlib.Path(sys.argv[sys.argv.index("-e") + 1])
scope = pathlib.Path(sys.argv[sys.argv.index("-C") + 1])
files = [*environment.rglob("*"), *scope.rglob("*")]
asked = {"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(),
         "files": {str(path): path.read_text() for path in files if path.is_file()}}
(here / "asked.json").write_text(json.dumps(asked))
sys.stdout.write(said["output"])
sys.stdout.flush()
if said.get("sleep"):
    if os.fork() == 0:
        time.sleep(said["sleep"])
        os._exit(0)
    time.sleep(said["sleep"])
if said["lock"] is not None:
    (environment / "spack.lock").write_text(json.dumps(said["lock"]))
sys.exit(said["status"])
"""


def recording(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((HOST / name / "recording.json").read_text())
    return document


def answer(lock: Any = None, **fields: Any) -> dict[str, Any]:
    return {"status": 0, "output": "==> Concretized\n", "lock": lock, **fields}


def fake(folder: Path, said: dict[str, Any]) -> Path:
    """A Spack's folder whose bin/spack answers as ``said``."""
    program = folder / "spack" / "bin" / "spack"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!{sys.executable}\n{PROGRAM}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (program.parent / "recording.json").write_text(json.dumps(said))
    return program.parent.parent


def asked(made: Path) -> Any:
    return json.loads((made / "bin" / "asked.json").read_text())


def recipe(folder: Path, text: str = "spack:\n  specs: [zlib]\n") -> Path:
    (folder / "recipe").mkdir()
    (folder / "recipe" / "spack.yaml").write_text(text)
    return folder / "recipe"


def settings(made: Path, **more: Any) -> Settings:
    given = {"concretize_seconds": 60, "environment": {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}, **more}
    return Settings(concretize="host", spack=str(made), **given)


def lock_of(name: str) -> Any:
    return json.loads((ENVS / name / "spack.lock").read_text())


def source_of(name: str) -> Path:
    return RECIPES.get(name, HOST / name)


def test_there_are_recordings_of_several_releases_and_of_refusals() -> None:
    made = [recording(name) for name in RECORDINGS]
    assert len({said["lock"]["spack"]["version"] for said in made if said["lock"]}) >= 2
    assert sum(said["status"] != 0 for said in made) >= 2


@pytest.mark.parametrize("name", RECORDINGS)
def test_what_a_real_spack_answered(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = recording(name)
    made = fake(tmp_path, said)
    folder = tmp_path / "copy"
    shutil.copytree(source_of(name), folder)
    pins = folder / "hpc3build.yaml"
    if pins.exists():  # the recording was made with a clone of spack-packages beside it
        pins.write_text(pins.read_text().replace("pins:\n  spack-packages: v2025.11.0\n", ""))
    given = settings(made, target=said["target"])
    if said["status"] != 0:
        with pytest.raises(ToolError) as refused:
            spack.load((str(folder),), given, run)
        error = next(line for line in said["output"].splitlines() if line.startswith("==> Error"))
        assert error in refused.value.message
        assert refused.value.exit_code == 3
        return
    loaded = spack.load((str(folder),), given, run)
    stack = spack.stack(loaded)
    assert stack is not None
    assert loaded.lock is not None and json.loads(loaded.lock) == said["lock"]
    assert of_stack(stack).annotations() == of_stack(read_lock(json.dumps(said["lock"]), "spack.lock")).annotations()
    assert said["output"].splitlines()[0] in capfd.readouterr().err
    words = asked(made)["argv"]
    assert [word for word in words if not word.startswith("/")] == ["-C", "-e", "concretize"]
    assert len(words) == len(said["argv"]) - 1


def test_spack_is_asked_in_an_environment_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fake(tmp_path, answer(lock_of("no-mpi-plain")))
    source = recipe(tmp_path, "spack:\n  specs: [zlib]\n  view: /srv/view\n  container: {images: {os: 'debian:12'}}\n")
    monkeypatch.setenv("SPACK_ENV", "/srv/other")
    monkeypatch.setenv("PYTHONPATH", "/srv/python")
    given = {"SPACK_USER_CONFIG_PATH": str(tmp_path), "SPACK_ROOT": "/srv", "http_proxy": "http://proxy"}
    done = hpc3build("facts", source, "--concretize", "host", "--spack", made, env=given)
    assert done.status == 0, done.err
    saw = asked(made)
    names = {name for name in saw["env"] if name.startswith(("SPACK", "PYTHON"))}
    assert names == {"SPACK_USER_CONFIG_PATH", "SPACK_SYSTEM_CONFIG_PATH"}
    assert saw["env"]["http_proxy"] == "http://proxy"
    scratch = saw["cwd"]
    assert saw["env"]["SPACK_USER_CONFIG_PATH"].startswith(scratch)
    assert not Path(scratch).exists()
    manifest = YAML(typ="safe").load(next(text for name, text in saw["files"].items() if name.endswith("spack.yaml")))
    assert "container" not in manifest["spack"]
    assert manifest["spack"]["view"] is False
    assert manifest["spack"]["config"]["install_tree"]["root"].startswith(scratch)
    assert manifest["spack"]["packages"]["all"]["require"] == ["target=x86_64"]
    assert "reuse: false" in next(text for name, text in saw["files"].items() if name.endswith("concretizer.yaml"))


def test_a_configuration_that_is_named_is_used(tmp_path: Path) -> None:
    made = fake(tmp_path, answer(lock_of("no-mpi-plain")))
    source, config = recipe(tmp_path), tmp_path / "config"
    config.mkdir()
    spack.load((str(source),), settings(made, spack_config=str(config)), run)
    assert asked(made)["env"]["SPACK_USER_CONFIG_PATH"] == str(config)
    with pytest.raises(InputError, match="no such folder"):
        spack.load((str(source),), settings(made, spack_config=str(tmp_path / "gone")), run)


def test_the_target_is_required_and_its_absence_in_the_result_is_told_by_package(tmp_path: Path) -> None:
    made = fake(tmp_path, answer(lock_of("multi-target-when-possible")))
    loaded = spack.load((str(recipe(tmp_path)),), settings(made, target="x86_64_v3"), run)
    text = next(text for name, text in asked(made)["files"].items() if name.endswith("spack.yaml"))
    assert YAML(typ="safe").load(text)["spack"]["packages"]["all"]["require"] == ["target=x86_64_v3"]
    with pytest.raises(InputError) as refused:
        spack.stack(loaded)
    others = {
        package.target
        for package in read_lock(json.dumps(lock_of("multi-target-when-possible")), "l").counted
        if not package.external and package.target != "x86_64_v3"
    }
    assert others and all(f"for {target}: " in refused.value.message for target in others)
    assert "@" in refused.value.message


def test_local_repositories_are_given_by_their_place_here(tmp_path: Path) -> None:
    made = fake(tmp_path, answer(lock_of("no-mpi-plain")))
    shutil.copytree(ROOT / "recipes" / "hello-spack", tmp_path / "hello")
    (tmp_path / "hello" / "hpc3build.yaml").unlink()
    spack.load((str(tmp_path / "hello"),), settings(made), run)
    saw = asked(made)
    manifest = YAML(typ="safe").load(next(text for name, text in saw["files"].items() if name.endswith("spack.yaml")))
    repository = manifest["spack"]["repos"]["hello"]
    assert repository.startswith(saw["cwd"])
    assert f"{repository}/repo.yaml" in saw["files"]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_package_recipes_are_those_of_the_builder(tmp_path: Path) -> None:
    made = fake(tmp_path, answer(lock_of("no-mpi-plain")))
    source, clone = recipe(tmp_path), tmp_path / "spack-packages"
    (clone / "repos" / "spack_repo" / "builtin").mkdir(parents=True)
    git(clone, "init", "-q")
    for number in (1, 2):
        (clone / "file").write_text(str(number))
        git(clone, "add", ".")
        git(clone, "commit", "-qm", str(number))
    first, second = git(clone, "rev-list", "--reverse", "HEAD").splitlines()
    given = settings(made, packages_source=str(clone), pins={"spack-packages": second})
    spack.load((str(source),), given, run)
    scope = next(text for name, text in asked(made)["files"].items() if name.endswith("repos.yaml"))
    assert YAML(typ="safe").load(scope) == {"repos": {"builtin": str(clone / "repos/spack_repo/builtin")}}
    config = next(text for name, text in asked(made)["files"].items() if name.endswith("config.yaml"))
    assert YAML(typ="safe").load(config) == {"config": {"misc_cache": f"$user_cache_path/hpc3build-{second}"}}
    with pytest.raises(InputError, match="is checked out, and pins name"):
        spack.load((str(source),), settings(made, packages_source=str(clone), pins={"spack-packages": first}), run)
    for ref, key in ((first, "commit"), ("v2025.11.0", "tag"), ("develop", "branch")):
        spack.load((str(source),), settings(made, pins={"spack-packages": ref}), run)
        scope = next(text for name, text in asked(made)["files"].items() if name.endswith("repos.yaml"))
        repository = YAML(typ="safe").load(scope)["repos"]["builtin"]
        assert repository == {"git": "https://github.com/spack/spack-packages.git", key: ref}


def test_its_time_is_limited_with_all_that_it_started(tmp_path: Path) -> None:
    made = fake(tmp_path, answer(sleep=30))
    started = time.monotonic()
    with pytest.raises(ToolError, match="did not finish within 1 s"):
        spack.load((str(recipe(tmp_path)),), settings(made, concretize_seconds=1), run)
    assert time.monotonic() - started < 20


def test_a_spack_that_is_not_there(tmp_path: Path) -> None:
    source = recipe(tmp_path)
    with pytest.raises(InputError, match="no bin/spack there"):
        spack.load((str(source),), settings(tmp_path / "gone"), run)

    def nowhere(argv: Sequence[str], **_: Any) -> Completed:
        raise ToolMissing(f"{argv[0]}: command not found")

    with pytest.raises(ToolMissing) as missing:
        spack.load((str(source),), Settings(concretize="host"), nowhere)
    assert "--spack DIR" in missing.value.hint


def test_success_without_a_lock_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="made no lock"):
        spack.load((str(recipe(tmp_path)),), settings(fake(tmp_path, answer())), run)


def test_the_first_of_many_reasons_is_told(tmp_path: Path) -> None:
    output = "==> Note\n==> Error: failed to concretize\n" + "".join(f"  {number}. reason\n" for number in range(90))
    made = fake(tmp_path, answer(status=1, output=output))
    with pytest.raises(ToolError) as refused:
        spack.load((str(recipe(tmp_path)),), settings(made), run)
    assert "==> Error: failed to concretize\n    0. reason" in refused.value.message
    assert "89. reason" not in refused.value.message and "Note" not in refused.value.message


def test_a_target_of_a_definition_is_the_recipes_own(tmp_path: Path) -> None:
    made = fake(tmp_path, answer(lock_of("no-mpi-plain")))
    (tmp_path / "recipe").mkdir()
    shutil.copy(ENVS / "matrix" / "spack.yaml", tmp_path / "recipe")
    spack.load((str(tmp_path / "recipe"),), settings(made), run)
    manifest = next(text for name, text in asked(made)["files"].items() if name.endswith("spack.yaml"))
    assert "require" not in YAML(typ="safe").load(manifest)["spack"].get("packages", {}).get("all", {})


def test_the_lock_of_this_machine_is_built_and_kept(tmp_path: Path) -> None:
    lock = lock_of("v0.20.3-seed-gromacs-cuda")
    made, source, kept = fake(tmp_path, answer(lock)), recipe(tmp_path), tmp_path / "kept.lock"
    (source / "spack.lock").write_text(json.dumps(lock_of("osu-openmpi")))
    options = ["--concretize", "host", "--spack", made, "--save-lock", kept]
    context = tmp_path / "context"
    done = hpc3build("render", source, "--base", "debian:12", "--context", context, *options)
    assert done.status == 0, done.err
    assert "Spack concretizes on this machine" in done.err and "==> Concretized" in done.err
    assert json.loads(kept.read_text()) == lock
    assert json.loads((context / "hpc3build" / "spack" / "spack.lock").read_text()) == lock
    done = hpc3build("facts", source, "--json", "-q", *options)
    assert (done.status, done.err) == (0, "")
    _, facts = facts_of(str(kept), Settings(title="recipe"), run)
    assert json.loads(done.out)["annotations"] | {"org.opencontainers.image.title": "recipe"} == facts.annotations()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--concretize", "lock"], "spack.lock: no such file"),
        (["--spack", "x"], "--spack is for --concretize host"),
        (["--concretize", "builder", "--spack-config", "x"], "--spack-config is for --concretize host"),
        (["--concretize-seconds", "0"], "is no number of seconds"),
        (["--save-lock", "x"], "there is no lock before the build"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], says: str, tmp_path: Path) -> None:
    source = recipe(tmp_path)
    assert says in assert_one_message(hpc3build("render", source, "--base", "debian:12", *options), 2)


def test_the_lock_beside_the_recipe_counts_unless_told_otherwise(tmp_path: Path) -> None:
    source = recipe(tmp_path)
    (source / "spack.lock").write_text(json.dumps(lock_of("osu-openmpi")))
    for how in (None, "lock"):
        assert spack.load((str(source),), Settings(concretize=how), run).lock is not None
    assert spack.load((str(source),), Settings(concretize="builder"), run).lock is None
    _, facts = facts_of(str(source), Settings(concretize="builder"), run)
    assert "org.supercontainers.mpi" not in facts.annotations()
