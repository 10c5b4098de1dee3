"""Recipe and stack to a build context: a multistage Containerfile and the files it copies."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from hpc3build import __version__, resources
from hpc3build.errors import InputError
from hpc3build.frontends import Context
from hpc3build.recipe import Recipe
from hpc3build.reference import parse

if TYPE_CHECKING:
    from jinja2 import Environment

#: HPC3's own line (seeds), and the one that keeps quoting and exit codes.
ENTRYPOINTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "hpc3": ("/bin/bash", "--rcfile", "/etc/profile", "-l", "-c", "$*", "--"),
        "hpc3-exec": ("/bin/bash", "--rcfile", "/etc/profile", "-l", "-c", 'exec -- "$@"', "--"),
    }
)
CMD = ("/bin/bash",)


@dataclass(frozen=True)
class BuildContext:
    """``containerfile`` and the context's other ``files`` by their relative path; ``final_image`` is its base."""

    containerfile: str
    final_image: str
    files: Mapping[str, bytes]

    def write(self, folder: Path) -> None:
        """Write the whole context into ``folder``, which is made where it is missing. Raises InputError."""
        try:
            for name, data in {**self.files, "Containerfile": self.containerfile.encode()}.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        except OSError as error:
            raise InputError(f"cannot write the build context to {folder}: {error.strerror}") from error


def build_context(recipe: Recipe, context: Context) -> BuildContext:
    """Render the frontend's template over the skeleton; same input, same bytes. Raises InputError."""
    settings = recipe.settings
    frontend = context.template.split(".")[0]
    variables = dict(context.variables)
    environment = {**variables.pop("static_env"), **settings.env}
    for image in ("builder_image", "final_image"):
        variables[image] = base_image(variables[image])
    variables |= {
        "version": __version__,
        "title": recipe.title,
        "env": environment,
        "user": settings.user,
        "entrypoint": list(ENTRYPOINTS[settings.entry]),
        "cmd": list(CMD),
        "secrets": "".join(f" --mount=type=secret,id={name},mode=0444" for name in settings.secrets),
        "caches": "".join(f" --mount=type=cache,target={path},mode=1777" for path in settings.caches),
    }
    files = {f"hpc3build/{name}": data for name, data in (*_shared(frontend), *context.files.items())}
    files["hpc3build/env.json"] = (json.dumps(dict(settings.env), indent=1, sort_keys=True) + "\n").encode()
    mounted = files["hpc3build/site.sh"] + files["hpc3build/finish.sh"]
    variables["digest"] = hashlib.sha256(mounted).hexdigest()[:12]
    files |= {f"sources/{name}": data for name, data in context.sources.items()}
    text = _jinja().get_template(context.template).render(variables)
    return BuildContext(_tidy(text), variables["final_image"], MappingProxyType(dict(sorted(files.items()))))


def base_image(text: str) -> str:
    """The full name of a base image: engines resolve short ones each in their own way, or ask. Raises BadReference."""
    reference = parse(f"docker://{text}")
    return str(reference).removeprefix("docker://")


def _jinja() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Nothing here is HTML; every value that a person gave passes a filter of its own.
    environment = Environment(
        loader=FileSystemLoader(resources.folder("containerfiles")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    environment.filters |= {"quoted": quoted, "comment": comment, "word": shlex.quote, "tojson": _json}
    return environment


def _json(value: object) -> str:
    return json.dumps(value)


def quoted(value: str) -> str:
    """A value of ENV or LABEL between double quotes: nothing in it is expanded. Raises InputError for line breaks."""
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise InputError(f"{value!r}: a value in a Containerfile is one line")
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'


def comment(text: str) -> str:
    """Text that cannot leave its comment line."""
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", text)


def _tidy(text: str) -> str:
    """No trailing blanks, no blank line twice."""
    lines = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


def _shared(frontend: str) -> list[tuple[str, bytes]]:
    """The scripts that run inside the stages: those of all frontends, and the frontend's own."""
    folder = resources.folder("containerfiles")
    found = [(path.name, path.read_bytes()) for path in sorted((folder / "hpc3build").iterdir()) if path.is_file()]
    for path in sorted((folder / frontend).iterdir()):
        if path.is_file():
            name = path.name if path.name == "activate.sh" else f"{frontend}/{path.name}"
            found.append((name, path.read_bytes()))
    return found
