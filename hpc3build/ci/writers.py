"""The same plan for GitLab, Slurm and GitHub; each form is a template of ci/pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from hpc3build import templates
from hpc3build.ci.plan import JOBS, STAGES, Pipeline, step


def gitlab(pipeline: Pipeline, *, include: str | None = None) -> str:
    """A ``.gitlab-ci.yml``. ``include`` names the file of the repository with the jobs, else they are in it."""
    return templates.pipeline(
        "gitlab.yml.j2", {"pipeline": pipeline, "include": include, "jobs": included() if include is None else ""}
    )


def included() -> str:
    """ci/gitlab/jobs.yml: the jobs without a matrix, which pipelines of one's own include and extend."""
    return templates.pipeline("jobs.yml.j2", {**_shared(), "jobs": JOBS, "stages": STAGES})


def slurm(pipeline: Pipeline) -> str:
    """A shell script that submits itself, a job array for each job and architecture."""
    jobs = [job for job in pipeline.jobs if job.when != "merge"]
    arrays = {
        arch: [number for number, cell in enumerate(pipeline.cells) if cell.variables["HPC3_ARCH"] == arch]
        for arch in dict.fromkeys(cell.variables["HPC3_ARCH"] for cell in pipeline.cells)
    }
    return templates.pipeline("slurm.sh.j2", {**_shared(), "pipeline": pipeline, "jobs": jobs, "arrays": arrays})


def github(pipeline: Pipeline) -> str:
    """A workflow for ``.github/workflows``."""
    return templates.pipeline("github.yml.j2", {**_shared(), "pipeline": pipeline, "jobs": pipeline.jobs})


def _shared() -> dict[str, str]:
    """The steps that come before a job's own."""
    return {"login": step("login"), "cell": step("cell")}


WRITERS: Mapping[str, Callable[[Pipeline], str]] = MappingProxyType(
    {"gitlab": gitlab, "slurm": slurm, "github": github}
)
