"""Pipelines: the plan, and what the three writers make of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from hpc3build.ci import JOBS, WRITERS, Axes, included, plan
from hpc3build.ci.plan import AXES, MAX_CELLS, STAGES, step
from hpc3build.ci.writers import gitlab
from hpc3build.cli import main
from hpc3build.errors import InputError
from tests.commands import ROOT, hpc3build
from tests.gitlab_runner import document, jobs

OURS = ("recipes/mpi-hello", "--target", "x86_64", "--target", "x86_64_v2", "--target", "x86_64_v3")
AXES_OF_EACH = Axes(
    targets=("x86_64", "zen3", "neoverse_v1"), bases=("debian:12", "rockylinux:9"), cudas=("8.0,9.0", "9.0")
)


def load(text: str) -> Any:
    return YAML(typ="safe").load(text)


def test_cells_are_the_product() -> None:
    cells = plan(["a/x", "b/y.eb"], AXES_OF_EACH).cells
    assert len(cells) == 2 * 3 * 2 * 2 == len({cell.name for cell in cells})
    assert {(cell.variables["HPC3_TARGET"], cell.variables["HPC3_ARCH"]) for cell in cells} == {
        ("x86_64", "amd64"), ("zen3", "amd64"), ("neoverse_v1", "arm64"),
    }  # fmt: skip
    assert {cell.variables["HPC3_NAME"] for cell in cells} == {"x", "y"}


def test_without_axes_a_recipe_is_one_image() -> None:
    (cell,) = plan(["recipes/mpi-hello"], Axes(architecture="arm64")).cells
    assert cell.name == "mpi-hello/default" and cell.variables["HPC3_ARCH"] == "arm64"


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("recipes/mpi-hello", "mpi-hello"),
        ("recipes/mpi-hello/", "mpi-hello"),
        ("a/gromacs/spack.yaml", "gromacs"),
        ("GROMACS-2024.4-foss-2023b", "gromacs-2024.4-foss-2023b"),
        ("x/GROMACS-2024.4-foss-2023b.eb", "gromacs-2024.4-foss-2023b"),
        ("BLAST+-2.16.0.eb", "blast-2.16.0"),
        ("pytorch/easystack.yaml", "pytorch"),
    ],
)
def test_names(recipe: str, name: str) -> None:
    assert list(plan([recipe], Axes()).recipes) == [name]


@pytest.mark.parametrize(
    ("recipes", "axes", "told"),
    [
        (["/abs/x"], Axes(), "in the repository"),
        (["../x"], Axes(), "in the repository"),
        (["a/x", "b/x"], Axes(), "already"),
        (["$CI_JOB_TOKEN"], Axes(), "cannot stand in a pipeline"),
        (["x\ny"], Axes(), "cannot stand in a pipeline"),
        (["spack.yaml"], Axes(), "named after"),
        (["--x"], Axes(), "cannot stand in a pipeline"),
        (["x"], Axes(bases=("debian:12; rm -rf /",)), "cannot stand in a pipeline"),
        (["x"], Axes(targets=("zen99",)), "zen99"),
        (["x"], Axes(targets=("zen3", "zen3")), "given twice"),
        (["x"], Axes(bases=("debian:12", "debian/12")), "two images of this name"),
        ([f"x{number}" for number in range(MAX_CELLS + 1)], Axes(), "one matrix holds"),
    ],
)
def test_what_cannot_be_a_pipeline(recipes: list[str], axes: Axes, told: str) -> None:
    with pytest.raises(InputError) as error:
        plan(recipes, axes)
    assert told in f"{error.value.message} {error.value.hint}"


@settings(deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=3), st.lists(st.text(max_size=12), max_size=3))
def test_any_text_is_refused_or_comes_back_the_same(recipes: list[str], bases: list[str]) -> None:
    """No value changes on its way through YAML, and none becomes a key or an expansion."""
    try:
        pipeline = plan(recipes, Axes(bases=tuple(bases)))
    except InputError:
        return
    matrix = load(gitlab(pipeline, include="jobs.yml"))[".hpc3build:cells"]["parallel"]["matrix"]
    assert [entry["HPC3_RECIPE"] for entry in matrix] == [[recipe] for recipe in recipes]
    assert all(entry.get("HPC3_BASE", []) == bases for entry in matrix)
    assert "$" not in json.dumps(matrix)


def test_the_folder_of_a_cell_is_the_shells(tmp_path: Path) -> None:
    """The plan refuses two images of one name by the same rule as the step makes the name."""
    for cell in plan(["a/x"], AXES_OF_EACH).cells:
        script = step("cell") + '\nprintf "%s\\n" "$hpc3_out" "$@"'
        done = subprocess.run(
            ["sh", "-euc", script], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", **cell.variables},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        folder, recipe, *options = done.stdout.splitlines()
        assert folder == f"out/{cell.name}" and (tmp_path / folder).is_dir() and recipe == "a/x"
        assert options[1::2] == [cell.variables[name] for name in AXES if name in cell.variables]


# GitLab


def test_our_own_pipeline_is_what_the_command_writes() -> None:
    text = (ROOT / "ci/gitlab/jobs.yml").read_text()
    assert text == included(), "write it anew: hpc3build.ci.included()"
    done = hpc3build("ci", "gitlab", *OURS, "--include", "ci/gitlab/jobs.yml", cwd=ROOT)
    assert (done.status, done.err) == (0, "") and done.out == (ROOT / ".gitlab-ci.yml").read_text()


def test_in_one_file_it_is_the_same(tmp_path: Path) -> None:
    assert hpc3build("ci", "gitlab", *OURS, "-o", tmp_path / ".gitlab-ci.yml", cwd=ROOT).status == 0
    assert document(tmp_path / ".gitlab-ci.yml") == document(ROOT / ".gitlab-ci.yml")


@pytest.mark.parametrize("event", ["push", "merge_request_event"])
def test_gitlabs_rules(event: str) -> None:
    """What GitLab's linter asks for, and what we promise; its schema is in test_pipeline.py."""
    configuration = document(ROOT / ".gitlab-ci.yml")
    assert configuration["stages"] == list(STAGES)
    running = [job for job in jobs(configuration) if job.runs(event)]
    order = [configuration["stages"].index(job.keys["stage"]) for job in running]
    kinds = {job.kind for job in running}
    for job in running:
        assert set(job.keys["needs"]) <= kinds, "a job needs one that is not in this pipeline"
        needed = [
            configuration["stages"].index(configuration[f".hpc3build:{need}"]["stage"]) for need in job.keys["needs"]
        ]
        assert all(stage < order[running.index(job)] for stage in needed)
        assert all(isinstance(line, str) for line in job.keys["script"])
        assert len(job.keys["parallel"]["matrix"]) <= MAX_CELLS and len(job.name) <= 255
        assert job.keys["tags"] == (["hpc3build", "$HPC3_ARCH"] if "HPC3_ARCH" in job.variables else ["hpc3build"])
    publishing = {"build", "check", "index", "publish"}
    assert kinds == ({"render", "try"} if event == "merge_request_event" else {"render", *publishing})
    for job in running:
        alone = job.kind == "index"
        assert ("resource_group" in job.keys, job.keys["interruptible"]) == (alone, not alone)


def test_no_host_is_named_in_our_own_pipeline() -> None:
    for path in (".gitlab-ci.yml", "ci/gitlab/jobs.yml"):
        text = (ROOT / path).read_text()
        assert not re.search(r"[a-z0-9-]+\.(com|org|io|net|example)\b", text), path


def test_first_as_default_reaches_the_index() -> None:
    text = load(gitlab(plan(["x"], Axes(targets=("zen3",)), first_as_default=True)))
    assert text["index"]["variables"] == {"HPC3_INDEX_OPTIONS": "--first-as-default"}


# Slurm


def test_slurm_is_a_script_that_shells_take(tmp_path: Path) -> None:
    script = WRITERS["slurm"](plan(["a/x", "b/y"], AXES_OF_EACH))
    (tmp_path / "p.sh").write_text(script)
    subprocess.run(["bash", "-n", tmp_path / "p.sh"], check=True)
    done = subprocess.run(["bash", tmp_path / "p.sh"], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode != 0 and "HPC3_IMAGE" in done.stderr


def test_slurm_submits_each_architecture_behind_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "p.sh").write_text(WRITERS["slurm"](plan(["a/x", "b/y"], AXES_OF_EACH)))
    sbatch = tmp_path / "sbatch"
    sbatch.write_text('#!/bin/sh\necho "$@" >>calls\nwc -l <calls\n')
    sbatch.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HPC3_IMAGE": "h/n", "HPC3_SBATCH_ARM64": "--partition=arm"}
    subprocess.run(["bash", "p.sh"], cwd=tmp_path, env=env, check=True, capture_output=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    told = [re.search(r"HPC3_JOB=(\w+)", call)[1] for call in calls]  # type: ignore[index]
    assert told == ["render"] * 2 + ["build"] * 2 + ["check"] * 2 + ["index"] * 2 + ["publish"] * 2
    assert [bool(re.search("partition=arm", call)) for call in calls[:6]] == [False, True] * 3
    assert "--dependency=afterok:1:2 " in calls[2] and "--dependency=afterok:3:4 " in calls[4]
    assert "afterok:3:4,afterok:5:6,singleton" in calls[6] and "--job-name=hpc3build-x-latest" in calls[6]
    numbers = [int(number) for call in calls[:2] for number in re.search(r"--array=([\d,]+)", call)[1].split(",")]  # type: ignore[index]
    assert sorted(numbers) == list(range(24))


# GitHub


def test_github_is_the_same_plan() -> None:
    pipeline = plan(["a/x", "b/y"], AXES_OF_EACH)
    workflow = load(WRITERS["github"](pipeline))
    assert list(workflow["jobs"]) == [job.name for job in JOBS]
    for job in JOBS:
        written = workflow["jobs"][job.name]
        assert written.get("needs", []) == list(job.needs)
        include = written["strategy"]["matrix"]["include"]
        expected = (
            [dict(cell.variables) for cell in pipeline.cells]
            if job.per == "cell"
            else [{"HPC3_NAME": "x"}, {"HPC3_NAME": "y"}]
        )
        assert include == expected and set(written["env"]) == set(include[0])
        for run in (one["run"] for one in written["steps"] if "run" in one):
            subprocess.run(["bash", "-n"], input=run, text=True, check=True)
            assert "secrets." not in run and "${{" not in run, "an expression in a script is an injection"
        uploads = [one["with"] for one in written["steps"] if one.get("uses", "").startswith("actions/upload")]
        assert uploads[0]["overwrite"] is True, "a job that runs again uploads again"


# The command


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gitlab", "no/such/recipe"], "no/such/recipe"),
        (["jenkins", "recipes/mpi-hello"], "jenkins"),
        (["gitlab", "recipes/mpi-hello", "--mpi", "mpich"], "toolchain"),
        (["gitlab", "recipes/gromacs-cuda", "--cuda", "9.0"], "EasyBuild"),
        (["slurm", "recipes/mpi-hello", "--include", "x.yml"], "--include"),
        (["gitlab", "recipes/mpi-hello", "--target", "\x1b[31m"], "cannot stand"),
    ],
)
def test_bad_input(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    try:
        status = main(["ci", *arguments])
    except SystemExit as end:
        status = int(str(end.code))
    out, err = capsys.readouterr()
    assert (status, out) == (2, "") and told in err


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="not installed: shellcheck")
def test_steps_are_clean() -> None:
    for job in JOBS:
        parts = ["login", *(["cell"] if job.per == "cell" else []), job.name]
        text = "\n".join(map(step, parts))
        subprocess.run(["shellcheck", "-s", "sh", "-e", "SC2153", "-"], input=text, text=True, check=True)
