"""The plan of a pipeline: which images, by which jobs. What the jobs do are the shell steps of ci/pipeline/steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import PurePath
from types import MappingProxyType

from hpc3build import resources
from hpc3build.errors import InputError
from hpc3build.facts import cpu

#: GitLab's limit of jobs of one ``parallel:matrix``; GitHub's is 256.
MAX_CELLS = 200
#: Architectures as images name them (GOARCH), by archspec's families.
ARCHITECTURES = MappingProxyType({"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "riscv64": "riscv64"})
#: The variables that tell images of a recipe apart.
AXES = ("HPC3_TARGET", "HPC3_BASE", "HPC3_MPI", "HPC3_CUDA")
# Values reach YAML, a shell's variables and GitLab, which expands $NAME in them.
_VALUE = re.compile(r"[A-Za-z0-9_./@:+,=][A-Za-z0-9_./@:+,= -]*")
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What every recipe is built for. An empty axis leaves the recipe's own; ``architecture`` is that of no target."""

    targets: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    mpis: tuple[str, ...] = ()
    cudas: tuple[str, ...] = ()
    architecture: str = "amd64"

    def by_architecture(self) -> Mapping[str, tuple[str, ...]]:
        """The targets of each architecture. Raises InputError for what archspec does not know."""
        found: dict[str, tuple[str, ...]] = {} if self.targets else {self.architecture: ()}
        for target in self.targets:
            known = cpu.microarchitecture(target)
            family = ARCHITECTURES.get(str(known.family.name)) if known is not None else None
            if family is None:
                raise InputError(
                    f"--target {target}: no CPU target whose runners can be chosen",
                    hint="an archspec name such as x86_64_v3, zen3 or neoverse_v1",
                )
            found[family] = (*found.get(family, ()), target)
        return found

    def variables(self, targets: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """The axes that are given, as variables of the steps."""
        given = zip(AXES, (targets, self.bases, self.mpis, self.cudas), strict=True)
        return {name: values for name, values in given if values}


@dataclass(frozen=True)
class Cell:
    """One image: the variables of its jobs."""

    variables: Mapping[str, str]

    @property
    def name(self) -> str:
        """The folder that steps/cell.sh gives it."""
        told = [value for name, value in self.variables.items() if name in AXES]
        return f"{self.variables['HPC3_NAME']}/{re.sub(r'[^A-Za-z0-9._-]', '-', '-'.join(told)) or 'default'}"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One kind of job; its name is that of its step. ``per`` is cell or recipe, ``when`` always, merge or push.

    ``keeps`` and ``junit`` are patterns of files that later jobs and people get; ``alone`` lets one job a tag run at a
    time, ``final`` keeps its files for good.
    """

    name: str
    stage: str
    per: str
    needs: tuple[str, ...] = ()
    when: str = "push"
    keeps: tuple[str, ...] = ()
    junit: str = ""
    alone: bool = False
    final: bool = False

    @property
    def script(self) -> str:
        """What the job runs, in any POSIX shell, behind the steps login and, for a cell, cell."""
        return step(self.name)

    @property
    def files(self) -> tuple[str, ...]:
        """All that it leaves."""
        return (*self.keeps, *((self.junit,) if self.junit else ()))


def step(name: str) -> str:
    """The text of a step, without a line's end."""
    path = resources.folder("ci") / "pipeline" / "steps" / f"{name}.sh"
    return path.read_text(encoding="utf-8").rstrip("\n")


STAGES = ("render", "build", "check", "index", "publish")
_JUNIT = "out/*/*/junit.xml"
JOBS = (
    Job(name="render", stage="render", per="cell", when="always", keeps=("out/*/*/Containerfile",)),
    Job(
        name="try",
        stage="build",
        per="cell",
        needs=("render",),
        when="merge",
        keeps=("out/*/*/facts.json",),
        junit=_JUNIT,
    ),
    Job(name="build", stage="build", per="cell", needs=("render",), keeps=("out/*/*/digest", "out/*/*/facts.json")),
    Job(name="check", stage="check", per="cell", needs=("build",), junit=_JUNIT),
    Job(name="index", stage="index", per="recipe", needs=("build", "check"), keeps=("out/*/index",), alone=True),
    Job(
        name="publish",
        stage="publish",
        per="recipe",
        needs=("index",),
        keeps=("out/*/records.jsonl",),
        final=True,
    ),
)


@dataclass(frozen=True)
class Pipeline:
    """Recipes by name, and the axes; ``matrix`` and ``cells`` are the same images, as products and one by one."""

    recipes: Mapping[str, str]
    axes: Axes
    first_as_default: bool = False
    jobs: tuple[Job, ...] = field(default=JOBS)

    @property
    def matrix(self) -> tuple[Mapping[str, tuple[str, ...]], ...]:
        """One product of values for each recipe and architecture."""
        return tuple(
            {"HPC3_RECIPE": (recipe,), "HPC3_NAME": (name,), "HPC3_ARCH": (arch,), **self.axes.variables(targets)}
            for name, recipe in self.recipes.items()
            for arch, targets in self.axes.by_architecture().items()
        )

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every image."""
        return tuple(
            Cell(dict(zip(entry, values, strict=True))) for entry in self.matrix for values in product(*entry.values())
        )


def plan(recipes: Sequence[str], axes: Axes, *, first_as_default: bool = False) -> Pipeline:
    """The pipeline of recipes, each an image of its own.

    Raises InputError for values that cannot be variables, names twice, and more images than a matrix may have.
    """
    for value in (*recipes, *axes.targets, *axes.bases, *axes.mpis, *axes.cudas):
        if not _VALUE.fullmatch(value):
            raise InputError(f"{value!r} cannot stand in a pipeline", hint="letters, digits and _ . / @ : + , = -")
    named: dict[str, str] = {}
    for recipe in recipes:
        name = _name(recipe)
        if name in named:
            raise InputError(f"{recipe}: {named[name]} is an image {name} already", hint="a pipeline for each of them")
        named[name] = recipe
    pipeline = Pipeline(named, axes, first_as_default)
    cells = [cell.name for cell in pipeline.cells]
    if len(cells) > MAX_CELLS:
        raise InputError(
            f"{len(cells)} images, and one matrix holds {MAX_CELLS}", hint="a pipeline for some of the recipes"
        )
    if twice := sorted({name for name in cells if cells.count(name) > 1}):
        raise InputError(f"{twice[0]}: two images of this name", hint="is an option given twice?")
    return pipeline


def _name(recipe: str) -> str:
    """The image's name: that of the recipe's folder or easyconfig, in the letters that registries take."""
    path = PurePath(recipe)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"{recipe}: a pipeline runs in the repository", hint="name the recipe from its top")
    stem = path.parent.name if path.suffix in (".yaml", ".yml", ".lock") else path.name.removesuffix(".eb")
    name = re.sub(r"[^a-z0-9._]+", "-", stem.lower()).strip("._-")
    if not _NAME.fullmatch(name):
        raise InputError(f"{recipe}: no image can be named after it", hint="put it into a folder that has a name")
    return name
