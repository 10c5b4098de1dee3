"""The pipeline that the repository has for itself, job by job: the matrix, lost runners, and every way to fail."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jsonschema
import pytest

from tests.gitlab_runner import GitLab, Job, Ran, document
from tests.images import make_layout
from tests.integration.registries import KINDS, fetched, push, running
from tests.integration.support import RECIPE, ROOT, hpc3build, sh
from tests.integration.test_registry import PASSWORD, USER, guarded, home

__all__ = ["guarded", "home"]  # a registry with a password, and no credentials of whoever runs the tests
pytestmark = [pytest.mark.engine, pytest.mark.skipif(not KINDS, reason="not installed: docker-registry")]
FILES = (".gitlab-ci.yml", "ci/gitlab/jobs.yml")


@pytest.fixture(autouse=True)
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """hpc3build on the PATH of the jobs, and Git's folder of the checkout out of their sight."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/hpc3build").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hpc3build "$@"\n')
    (tmp_path / "bin/hpc3build").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Our pipeline, beside a recipe that it builds."""
    folder = tmp_path / "repository"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(RECIPE, folder / "recipes/mpi-hello")
    return folder


@pytest.fixture
def registry_here(tmp_path: Path) -> Iterator[str]:
    with running(KINDS[0], tmp_path / "registry") as host:
        yield host


def gitlab(repository: Path, host: str, *, event: str = "push", **given: str) -> GitLab:
    options = {"HPC3_IMAGE": f"{host}/hpc", "HPC3_TAG": "1.0", **given}
    return GitLab(repository, repository.parent / event, options, event)


def assert_failed(ran: Mapping[str, Ran] | Ran, kind: str, *told: str, status: int) -> str:
    """The job of that kind failed, no other, and its log says why."""
    if not isinstance(ran, Ran):
        assert [name.partition(":")[0] for name, one in ran.items() if one.status] == [kind]
        ran = list(ran.values())[-1]
    assert ran.status == status and "Traceback" not in ran.log, ran.log
    assert all(words in ran.log for words in told), ran.log
    return ran.log


def test_a_recipe_that_cannot_be_read(repository: Path) -> None:
    (repository / "recipes/mpi-hello/hpc3build.yaml").write_text("tilte: x\n")
    assert_failed(gitlab(repository, "127.0.0.1:1").run_all(), "render", "hpc3build.yaml:1: tilte", status=2)


def test_a_registry_that_is_down(repository: Path, base: str) -> None:
    """Told before anything is built."""
    pipeline = gitlab(repository, "127.0.0.1:1", HPC3_BUILD_OPTIONS=f"--engine buildah --base {base}")
    log = assert_failed(pipeline.run(pipeline.named("build")[0]), "build", "127.0.0.1:1", "error: ", status=4)
    assert "STEP" not in log and not list((pipeline.folder / "artifacts").rglob("digest"))


def test_a_recipe_that_does_not_build(repository: Path, base: str, registry_here: str) -> None:
    (repository / "recipes/mpi-hello/mpi-hello.c").write_text("#error broken on purpose\n")
    pipeline = gitlab(repository, registry_here, HPC3_BUILD_OPTIONS=f"--engine buildah --base {base}")
    log = assert_failed(pipeline.run(pipeline.named("build")[0]), "build", "nothing was published", status=3)
    assert "broken on purpose" in log or "mpi-hello" in log
    assert not list((pipeline.folder / "artifacts").rglob("digest"))


def test_a_check_that_fails(repository: Path, registry_here: str, tmp_path: Path) -> None:
    """The image of that digest is made up, and conforms to nothing."""
    pipeline = gitlab(repository, registry_here)
    job = pipeline.named("check")[0]
    image = make_layout(tmp_path / "layout", [{"etc/os-release": b"ID=debian\n"}], tag="x")
    push(tmp_path / "layout", image, f"{registry_here}/hpc/mpi-hello:x")
    told = tmp_path / "told" / "out/mpi-hello" / job.variables["HPC3_TARGET"]
    told.mkdir(parents=True)
    (told / "digest").write_text(image.digest + "\n")
    pipeline.artifacts[pipeline.named("build")[0].name] = tmp_path / "told"
    assert_failed(pipeline.run(job), "check", "FAILS", status=1)
    (junit,) = pipeline.artifacts[job.name].rglob("junit.xml")
    assert "<failure" in junit.read_text()


def test_an_index_whose_images_are_gone(repository: Path, registry_here: str, tmp_path: Path) -> None:
    pipeline = gitlab(repository, registry_here)
    told = tmp_path / "told/out/mpi-hello/x"
    told.mkdir(parents=True)
    (told / "digest").write_text("sha256:" + "0" * 64 + "\n")
    pipeline.artifacts[pipeline.named("build")[0].name] = tmp_path / "told"
    (job,) = pipeline.named("index")
    assert_failed(pipeline.run(job), "index", "0000", status=4)
    assert not list(pipeline.artifacts[job.name].rglob("index"))


@pytest.mark.parametrize("password", [PASSWORD, "Wr0ng-but-masked"])
def test_a_password_is_used_and_never_shown(repository: Path, guarded: str, tmp_path: Path, password: str) -> None:
    """Right or wrong; also where somebody turned the shell's tracing on."""
    image = make_layout(tmp_path / "layout", [{"etc/os-release": b"ID=debian\n"}], tag="x")
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {guarded: {"auth": encoded(USER, PASSWORD)}}}))
    sh("skopeo", "copy", "--authfile", tmp_path / "auth.json", "--dest-tls-verify=false",
       f"oci:{tmp_path / 'layout'}:x", f"docker://{guarded}/hpc/mpi-hello:x")  # fmt: skip
    pipeline = gitlab(repository, guarded, HPC3_REGISTRY_USER=USER, HPC3_REGISTRY_PASSWORD=password)
    told = tmp_path / "told/out/mpi-hello/x86_64"
    told.mkdir(parents=True)
    (told / "digest").write_text(image.digest + "\n")
    pipeline.artifacts[pipeline.named("build")[0].name] = tmp_path / "told"
    job = pipeline.named("check")[0]
    traced = {**job.keys, "before_script": ["set -x", *job.keys["before_script"]]}
    for keys in (job.keys, traced):
        ran = pipeline.run(type(job)(job.name, keys, job.variables))
        assert ran.status == (1 if password == PASSWORD else 4), ran.log
        assert ("401" in ran.log) == (password != PASSWORD)
        kept = [path.read_text() for path in pipeline.artifacts[job.name].rglob("*") if path.is_file()]
        for secret in (password, encoded(USER, password)):
            assert not any(secret in text for text in (ran.log, *kept))


def test_a_jobs_token_is_for_its_own_registry_only(repository: Path, guarded: str) -> None:
    given = {"CI_REGISTRY_USER": USER, "CI_REGISTRY_PASSWORD": PASSWORD}
    for own, refused in ((guarded, False), ("elsewhere.invalid", True)):
        pipeline = gitlab(repository, guarded, CI_REGISTRY=own, **given)
        ran = pipeline.run(pipeline.named("publish")[0])
        assert ran.status and PASSWORD not in ran.log
        job = pipeline.named("index")[0]
        told = pipeline.folder / "told/out/mpi-hello/x"
        told.mkdir(parents=True, exist_ok=True)
        (told / "digest").write_text("sha256:" + "0" * 64 + "\n")
        pipeline.artifacts[pipeline.named("build")[0].name] = pipeline.folder / "told"
        assert ("401" in pipeline.run(job).log) == refused


def encoded(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def installed_gitlab_ci_local() -> Path | None:
    """Its package has GitLab's schema: ``npm install gitlab-ci-local``; its folder in HPC3BUILD_GITLAB_CI_LOCAL."""
    folder = Path(os.environ.get("HPC3BUILD_GITLAB_CI_LOCAL", ROOT / "out/node_modules/gitlab-ci-local"))
    return folder if (folder / "src/schema/schema.js").is_file() else None


@pytest.mark.skipif(installed_gitlab_ci_local() is None, reason="not installed: npm's gitlab-ci-local, for the schema")
def test_gitlabs_published_schema() -> None:
    module = installed_gitlab_ci_local() / "src/schema/schema.js"  # type: ignore[operator]
    script = f"import({json.dumps(str(module))}).then(m => console.log(JSON.stringify(m.schema ?? m.default)))"
    schema = json.loads(sh("node", "-e", script).stdout)
    for path in FILES:
        jsonschema.validate(document(ROOT / path), schema)


@pytest.mark.long
def test_three_targets_end_in_one_index(repository: Path, base: str, registry_here: str, tmp_path: Path) -> None:
    """Every job is lost once and runs again; Slurm's script makes the same; then ``pick`` chooses.

    Builds are lost in the middle of their push: earlier, a container of the engine would stay on this machine.
    """
    options = f"--engine buildah --base {base}"
    pipeline = gitlab(repository, registry_here, HPC3_BUILD_OPTIONS=options)
    lost = []
    for job in pipeline.jobs:
        began = time.monotonic()
        blobs = set(uploads(tmp_path))

        def pushes(job: Job = job, began: float = began, blobs: set[Path] = blobs) -> bool:
            return bool(uploads(tmp_path) - blobs) if job.kind == "build" else time.monotonic() > began + 0.1

        lost += [job.kind] if pipeline.run(job, kill_when=pushes).status == -9 else []
        done = pipeline.run(job)
        assert done.status == 0, done.log
    assert set(lost) == {"render", "build", "check", "index", "publish"}
    digests = [path.read_text() for path in sorted((pipeline.folder / "artifacts").rglob("digest"))]
    builds = pipeline.named("build")
    assert pipeline.run(builds[0]).status == 0
    assert [path.read_text() for path in sorted((pipeline.folder / "artifacts").rglob("digest"))] == digests
    name = f"{registry_here}/hpc/mpi-hello:1.0"
    index = fetched(name)
    assert len(json.loads(index)["manifests"]) == 3
    (told,) = pipeline.artifacts[pipeline.named("index")[0].name].rglob("index")
    assert told.read_text().strip() == "sha256:" + hashlib.sha256(index).hexdigest()
    (records,) = pipeline.artifacts[pipeline.named("publish")[0].name].rglob("records.jsonl")
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert [line["platform"].get("variant") for line in lines] == [None, "v2", "v3"]
    assert all(set(line) == {"reference", "digest", "platform", "size", "annotations"} for line in lines)
    assert all(line["reference"] == f"docker://{name}" and line["size"] > 1e6 for line in lines)
    host = ROOT / "tests/data/hosts/zen2-slurm.probe"
    picked = {hpc3build("pick", source, "--host", host).stdout for source in (name, records)}
    assert picked == {f"{registry_here}/hpc/mpi-hello@{lines[2]['digest']}\n"}

    slurm(repository, registry_here, options)
    assert fetched(f"{registry_here}/hpc/mpi-hello:slurm") == index
    assert next(repository.glob("out/slurm-*/mpi-hello/records.jsonl")).read_text() == records.read_text().replace(
        ":1.0", ":slurm"
    )


def uploads(folder: Path) -> set[Path]:
    """What the registry holds, whole or in part."""
    return set((folder / "registry/data").glob("docker/registry/v2/**/data"))


def slurm(repository: Path, host: str, options: str) -> None:
    """The same plan by ``ci slurm``, with an sbatch that runs each task of an array at once."""
    bin_folder = repository.parent / "bin"
    (bin_folder / "sbatch").write_text(
        '#!/bin/bash\nset -eu\nfor word in "$@"; do case $word in\n'
        '--array=*) tasks=${word#*=} ;; --export=ALL,*) export "${word#*ALL,}" ;; esac; done\n'
        'for SLURM_ARRAY_TASK_ID in ${tasks//,/ }; do export SLURM_ARRAY_TASK_ID; bash "${@: -1}" >&2; done\n'
        "echo $RANDOM\n"
    )
    (bin_folder / "sbatch").chmod(0o755)
    script = repository / "pipeline.sh"
    targets = [word for target in ("x86_64", "x86_64_v2", "x86_64_v3") for word in ("--target", target)]
    subprocess.run(
        ["hpc3build", "ci", "slurm", "recipes/mpi-hello", *targets, "-o", script], cwd=repository, check=True
    )
    epoch = "1767323045"  # CI_COMMIT_TIMESTAMP of the other
    variables = {"HPC3_IMAGE": f"{host}/hpc", "HPC3_TAG": "slurm", "HPC3_BUILD_OPTIONS": options}
    sh("bash", script, cwd=repository, env={**variables, "SOURCE_DATE_EPOCH": epoch}, timeout=600)


@pytest.mark.long
def test_a_merge_request_publishes_nothing(repository: Path, base: str, registry_here: str) -> None:
    options = f"--engine buildah --base {base}"
    pipeline = gitlab(repository, registry_here, event="merge_request_event", HPC3_BUILD_OPTIONS=options)
    done = pipeline.run_all()
    assert {name.partition(":")[0] for name in done} == {"render", "try"}
    assert all(ran.status == 0 for ran in done.values()), [ran.log[-2000:] for ran in done.values()]
    for job in pipeline.named("try"):
        names = {path.name for path in pipeline.artifacts[job.name].rglob("*") if path.is_file()}
        assert names == {"facts.json", "junit.xml"}
    catalog = json.loads(sh("curl", "-s", f"http://{registry_here}/v2/_catalog").stdout)
    assert catalog["repositories"] == []
