"""Recipe to Containerfile."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from hpc3build.containerfile import BuildContext, build_context
from hpc3build.errors import InputError
from hpc3build.frontends import Frontend, for_source
from hpc3build.recipe import Recipe, Settings
from hpc3build.run import Runner
from hpc3build.stack import Stack


@dataclass(frozen=True)
class Planned:
    """A recipe, what it will install where that is known before the build, and the context that installs it."""

    recipe: Recipe
    stack: Stack | None
    context: BuildContext


def render(sources: tuple[str, ...], settings: Settings, runner: Runner) -> Planned:
    """Load, plan and render. Raises InputError for what cannot be built as asked, ToolMissing without EasyBuild."""
    frontend, recipe, stack = load(sources, settings, runner)
    return Planned(recipe, stack, build_context(recipe, frontend.context(recipe, stack)))


def load(sources: tuple[str, ...], settings: Settings, runner: Runner) -> tuple[Frontend[Any], Recipe, Stack | None]:
    """The recipe and its stack, where that is known; the lock is kept where ``--save-lock`` says."""
    frontend = for_source(sources[0])
    recipe: Recipe = frontend.load(sources, settings, runner)
    stack = frontend.stack(recipe)
    if settings.save_lock is not None:
        if recipe.lock is None:
            raise InputError("--save-lock: there is no lock before the build", hint="--concretize host makes one")
        write_atomically(settings.save_lock, recipe.lock)
    return frontend, recipe, stack


def write_atomically(path: str, text: str) -> None:
    """Write a file whole or not at all. Raises InputError."""
    from pathlib import Path
    from tempfile import NamedTemporaryFile

    target = Path(path)
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")  # /dev/stdout, a pipe: nothing to replace
            return
        with NamedTemporaryFile(
            "w", dir=target.parent, prefix=f".{target.name}.", delete=False, encoding="utf-8"
        ) as file:
            try:
                file.write(text)
                file.flush()
                os.chmod(file.name, 0o644)  # noqa: PTH101 (the open file's name)
                Path(file.name).replace(target)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
