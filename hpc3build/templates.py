"""Containerfiles and Apptainer definitions as Jinja templates: filters, and a recipe's own template over ours."""

from __future__ import annotations

import json
import re
import shlex
import traceback
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc3build import resources
from hpc3build.errors import InputError
from hpc3build.frontends import OwnTemplate
from hpc3build.instructions import instruction_fault

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.nodes import Template

#: Skeleton of each format, and the template of Spack's whose place it takes.
SKELETONS = {"containerfile": "skeleton.j2", "apptainer": "apptainer.j2"}
_OF_SPACK = {"containerfile": "container/Dockerfile", "apptainer": "container/singularity.def"}
_BLOCKS = ("build_stage", "final_stage")
_MAX_OUTPUT = 1 << 20
# What must begin a line of its own, whatever an own template puts before it.
_OURS = re.compile(r"FROM |COPY hpc3build |RUN --mount=type=bind,source=hpc3build")


def render(template: str, variables: Mapping[str, Any], form: str, own: OwnTemplate | None) -> str:
    """Render a frontend's ``template`` in a format, with the recipe's own template over it.

    Raises InputError for an own template that cannot be used, with its file and line where they are known.
    """
    values = {**variables, "skeleton": SKELETONS[form], "own_template": own is not None}
    if own is None:
        return _tidy(_environment().get_template(template).render(values))
    environment = _own_environment(own, template, form)
    _check_chain(environment, own, form)
    text = _tidy(_rendered(environment, own, {**own.variables, **values}))
    if form == "containerfile":
        _check_stages(text, own)
    return text


def pipeline(template: str, variables: Mapping[str, Any]) -> str:
    """Render a template of ci/pipeline."""
    return _tidy(_environment(folder=resources.folder("ci") / "pipeline").get_template(template).render(variables))


def _environment(sandboxed: bool = False, folder: Path | None = None) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made: type[Environment] = Environment
    if sandboxed:
        from jinja2 import sandbox

        made = sandbox.ImmutableSandboxedEnvironment
    # Nothing here is HTML; every value that a person gave passes a filter of its own.
    environment = made(
        loader=FileSystemLoader(folder or resources.folder("containerfiles")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {
        "quoted": quoted,
        "comment": comment,
        "word": shlex.quote,
        "line": one_line,
        "tojson": json.dumps,
    }
    return environment


def _own_environment(own: OwnTemplate, template: str, form: str) -> Environment:
    """Own templates are program text of the recipe's author: in a sandbox they read variables and nothing else."""
    from jinja2 import ChoiceLoader, DictLoader, FileSystemLoader

    environment = _environment(sandboxed=True)
    ours = DictLoader({_OF_SPACK[form]: f'{{% extends "{template}" %}}'})
    theirs = FileSystemLoader([str(folder) for folder in own.folders])
    environment.loader = ChoiceLoader([ours, theirs, environment.loader] if environment.loader else [ours, theirs])
    return environment


def _check_chain(environment: Environment, own: OwnTemplate, form: str) -> None:
    """An own template must extend ours, directly or through others, and its blocks must be there to be filled."""
    from jinja2 import nodes

    base, name, known = _OF_SPACK[form], own.name, set(_BLOCKS)
    hint = f'start it with {{% extends "{base}" %}} and put instructions into the blocks {" and ".join(_BLOCKS)}'
    blocks: list[tuple[str, str, int]] = []
    for _ in range(8):
        if name == base:
            break
        tree, path = _parsed(environment, name, own)
        blocks += [(block.name, path, block.lineno) for block in tree.find_all(nodes.Block)]
        extends = tree.find(nodes.Extends)
        if extends is None or not isinstance(extends.template, nodes.Const):
            raise InputError(f"{path}:1: it does not extend {base}", hint=hint)
        name = str(extends.template.value)
        if name != base and name.startswith("container/") and not _is_theirs(own, name):
            raise InputError(
                f"{path}:{extends.lineno}: {name} of Spack has no counterpart here",
                hint=f"{hint}; packages for the builder are container:os_packages:build",
            )
    else:
        raise InputError(f"{own.where}: {own.name} extends others without end", hint=hint)
    for block, path, line in blocks:
        if block not in known:
            raise InputError(f"{path}:{line}: no block {block} in {base}", hint=f"blocks are {', '.join(_BLOCKS)}")


def _is_theirs(own: OwnTemplate, name: str) -> bool:
    return any((folder / name).is_file() for folder in own.folders)


def _parsed(environment: Environment, name: str, own: OwnTemplate) -> tuple[Template, str]:
    from jinja2 import TemplateNotFound, TemplateSyntaxError

    path: str | None = name
    try:
        source, path, _ = environment.loader.get_source(environment, name) if environment.loader else ("", name, None)
        return environment.parse(source, name, path), path or name
    except TemplateNotFound as error:
        searched = ", ".join(str(folder) for folder in own.folders)
        raise InputError(
            f"{own.where}: no template {name}", hint=f"looked for in {searched}; config:template_dirs names others"
        ) from error
    except TemplateSyntaxError as error:
        raise InputError(f"{path}:{error.lineno}: {error.message}") from error
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{own.where}: {name} cannot be read: {error}") from error


def _rendered(environment: Environment, own: OwnTemplate, variables: Mapping[str, Any]) -> str:
    from jinja2 import UndefinedError

    try:
        parts = []
        size = 0
        for part in environment.get_template(own.name).generate(variables):
            size += len(part)
            if size > _MAX_OUTPUT:
                raise InputError(f"{own.where}: {own.name} gives more than {_MAX_OUTPUT >> 10} KiB")
            parts.append(part)
        return "".join(parts)
    except InputError:
        raise
    except UndefinedError as error:
        hint = f"known are {', '.join(sorted(own.variables))}, labels and strip"
        raise InputError(f"{_place(error, own)}: {error.message}", hint=hint) from error
    except Exception as error:  # whatever a template's expressions provoke
        raise InputError(f"{_place(error, own)}: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error


def _place(error: BaseException, own: OwnTemplate) -> str:
    """File and line of the own template where ``error`` arose; Jinja puts them into the traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    folders = tuple(f"{folder}/" for folder in own.folders)
    inside = [frame for frame in frames if frame.filename.startswith(folders)]
    return f"{inside[-1].filename}:{inside[-1].lineno}" if inside else own.where


def _check_stages(text: str, own: OwnTemplate) -> None:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    fault = None
    if sum(re.match(r"\s*FROM\s", line, re.IGNORECASE) is not None for line in lines) != 2:
        fault = "FROM starts another stage and can't stand here", ""
    elif any(_OURS.match(line) and before.rstrip().endswith("\\") for before, line in pairwise(lines)):
        fault = "the last line of a block ends with a backslash and would swallow the next one", ""
    else:
        others = "\n".join(line for line in lines if not re.match(r"\s*FROM\s", line, re.IGNORECASE))
        fault = instruction_fault(others)
    if fault is not None:
        raise InputError(f"{own.where}: {own.name}: {fault[0]}", hint=fault[1])


def quoted(value: str) -> str:
    """A value of ENV or LABEL between double quotes: nothing in it is expanded. Raises InputError for line breaks."""
    return '"' + re.sub(r'([\\"$])', r"\\\1", one_line(value)) + '"'


def one_line(value: str) -> str:
    """The value as it is. Raises InputError for line breaks and control characters."""
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise InputError(f"{value!r}: a value in a Containerfile is one line")
    return value


def comment(text: str) -> str:
    """Text that cannot leave its comment line."""
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", text)


def _tidy(text: str) -> str:
    """No trailing blanks, no blank line twice."""
    lines = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"
