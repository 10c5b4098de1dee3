"""The command ci: pipelines for GitLab, Slurm and GitHub."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from hpc3build.console import add_command

_FORMS = {
    "gitlab": "a .gitlab-ci.yml",
    "slurm": "a script that submits job arrays",
    "github": "a workflow for .github/workflows",
}


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "ci",
        run,
        "a pipeline that builds, annotates, checks and indexes",
        "hpc3build ci gitlab recipes/mpi-hello --target x86_64 --target x86_64_v3",
    )
    forms = "; ".join(f"{name}: {text}" for name, text in _FORMS.items())
    parser.add_argument("form", choices=tuple(_FORMS), metavar="|".join(_FORMS), help=forms)
    parser.add_argument("recipe", nargs="+", metavar="RECIPE", help="from the top of the repository; each is an image")
    parser.add_argument("-o", "--output", metavar="FILE", help="write it there (default: standard output)")
    axes = parser.add_argument_group("the matrix", "each may be given several times; every recipe is built for all")
    axes.add_argument("--target", metavar="T", action="append", default=[], help="a CPU target, by archspec's name")
    axes.add_argument("--base", metavar="IMAGE", action="append", default=[], help="a base image")
    axes.add_argument("--mpi", metavar="NAME", action="append", default=[], help="for Spack, what provides MPI")
    axes.add_argument("--cuda", metavar="C", action="append", default=[], help="for EasyBuild, capabilities as 8.0,9.0")
    axes.add_argument("--arch", metavar="A", default="amd64", help="of runners without --target (default: amd64)")
    parser.add_argument(
        "--first-as-default", action="store_true", help="for the index: no image runs on every host, the first may"
    )
    parser.add_argument(
        "--include", metavar="FILE", help="for gitlab, your copy of ci/gitlab/jobs.yml (default: all in one file)"
    )


def run(options: argparse.Namespace) -> int:
    from hpc3build.ci import WRITERS, Axes, plan
    from hpc3build.ci.writers import gitlab
    from hpc3build.errors import InputError
    from hpc3build.frontends import for_source
    from hpc3build.workflows.outputs import write_atomically

    if options.include is not None and options.form != "gitlab":
        raise InputError(f"--include is for gitlab, not for {options.form}")
    for recipe in options.recipe:
        frontend = for_source(recipe).__name__.rpartition(".")[2]  # type: ignore[attr-defined]
        if options.mpi and frontend == "easybuild":
            raise InputError(f"{recipe}: an easyconfig's MPI is its toolchain's", hint="an easyconfig for each MPI")
        if options.cuda and frontend == "spack":
            raise InputError(f"{recipe}: --cuda is for EasyBuild", hint="cuda_arch= in the specs says it to Spack")
    axes = Axes(
        targets=tuple(options.target),
        bases=tuple(options.base),
        mpis=tuple(options.mpi),
        cudas=tuple(options.cuda),
        architecture=options.arch,
    )
    pipeline = plan(options.recipe, axes, first_as_default=options.first_as_default)
    form = gitlab(pipeline, include=options.include) if options.include else WRITERS[options.form](pipeline)
    if options.output:
        write_atomically(options.output, form)
    else:
        sys.stdout.write(form)
    return 0
