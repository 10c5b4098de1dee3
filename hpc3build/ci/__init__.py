"""Pipelines: one plan of jobs, written for GitLab, for Slurm and for GitHub."""

from __future__ import annotations

from hpc3build.ci.plan import JOBS, Axes, Cell, Job, Pipeline, plan
from hpc3build.ci.writers import WRITERS, included

__all__ = ["JOBS", "WRITERS", "Axes", "Cell", "Job", "Pipeline", "included", "plan"]
