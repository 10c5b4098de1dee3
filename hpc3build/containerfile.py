"""Recipe and stack to a build context: a multistage Containerfile and the files it copies."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from hpc3build import __version__, bases, resources, templates
from hpc3build.errors import InputError
from hpc3build.frontends import Context
from hpc3build.frontends.settings import SETTINGS_FILE
from hpc3build.recipe import Recipe
from hpc3build.reference import of_base
from hpc3build.urls import with_password
from hpc3build.yamlread import read_yaml, texts_of

#: HPC3's own line (seeds), and the one that keeps quoting and exit codes.
ENTRYPOINTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "hpc3": ("/bin/bash", "--rcfile", "/etc/profile", "-l", "-c", "$*", "--"),
        "hpc3-exec": ("/bin/bash", "--rcfile", "/etc/profile", "-l", "-c", 'exec -- "$@"', "--"),
    }
)
CMD = ("/bin/bash",)
#: What runs a line of shell, and ends as it does: an entry point that joins its arguments would lose its quotes.
SHELL = ("/bin/bash", "-c", "--")
#: The same in the environment that both entry points give a command.
LOGIN_SHELL = ("/bin/bash", "-l", "-c", "--")


#: The formats, and the name of each one's file in a build context.
FORMATS: Mapping[str, str] = MappingProxyType({"containerfile": "Containerfile", "apptainer": "apptainer.def"})


@dataclass(frozen=True)
class BuildContext:
    """``containerfile`` and the context's other ``files`` by their relative path; ``final_image`` is its base.

    ``large`` are files of this machine that are copied when the context is written, by their relative path.
    ``final_digest`` is that image's where the text names it, so that no engine has to be asked.
    ``form`` is a key of FORMATS: what the text is. ``secrets`` are files of this machine that a build gets as secrets.
    ``expected`` are the entries of PATH that the text names before anybody knows whether the application has them.
    """

    containerfile: str
    final_image: str
    files: Mapping[str, bytes]
    form: str = "containerfile"
    executable: frozenset[str] = frozenset()
    secrets: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    final_digest: str | None = None
    large: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    expected: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write the whole context into ``folder``, in place of an older one of ours. Raises InputError.

        A folder that holds anything else is left alone.
        """
        try:
            _clear(folder)
            for name, data in {**self.files, FORMATS[self.form]: self.containerfile.encode()}.items():
                path = _place(folder, name)
                path.write_bytes(data)
                path.chmod(0o755 if name in self.executable else 0o644)
            for name, source in self.large.items():
                path = _place(folder, name)
                shutil.copyfile(source, path)
                path.chmod(0o644)
        except OSError as error:
            raise InputError(f"cannot write the build context to {folder}: {error.strerror}") from error


def _place(folder: Path, name: str) -> Path:
    """The path of a file below ``folder``, in folders that the builder's plain user can read under any umask here."""
    folder.mkdir(parents=True, exist_ok=True)
    for parent in list(reversed(Path(name).parents))[1:]:
        (folder / parent).mkdir(exist_ok=True)
        (folder / parent).chmod(0o755)
    return folder / name


def _clear(folder: Path) -> None:
    """Remove what an earlier context left. Raises InputError where the folder is somebody else's, OSError."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / "hpc3build" / "site.sh").is_file():
        raise InputError(f"{folder} holds something else than a build context of ours", hint="name a new folder")
    for ours in ("hpc3build", "sources"):
        if (folder / ours).is_dir():
            shutil.rmtree(folder / ours)


def build_context(
    recipe: Recipe, context: Context, form: str = "containerfile", pinned: Mapping[str, str] | None = None
) -> BuildContext:
    """Render the frontend's template over the skeleton of the format; same input, same bytes. Raises InputError.

    ``pinned`` gives images by digest for their full names.
    """
    settings = recipe.settings
    frontend = context.template.split(".")[0]
    variables = {**_OPTIONAL, **context.variables}
    planned = variables.pop("static_env")
    own = [entry for entry in planned["PATH"].split(":") if entry not in bases.PATH.split(":")]
    stated = dict(settings.env)
    environment = {**planned, **stated}
    if "PATH" in stated:
        stated["PATH"] = bases.with_own(stated["PATH"])
        behind = stated["PATH"].split(":")
        own = [entry for entry in own if entry not in behind]
        environment["PATH"] = ":".join([*own, *behind])
    final_image = base_image(variables["final_image"])
    for image in ("builder_image", "final_image"):
        named = base_image(variables[image])
        variables[image] = (pinned or {}).get(named, named)
    variables |= {
        "version": __version__,
        "title": recipe.title,
        "env": environment,
        "user": settings.user,
        "entrypoint": list(ENTRYPOINTS[settings.entry]),
        "cmd": list(CMD),
        "secrets": "".join(f" --mount=type=secret,id={name},mode=0444" for name in settings.secrets),
        "caches": "".join(f" --mount=type=cache,target={path},mode=1777" for path in settings.caches),
        "carried": bool(context.sources or context.large),
    }
    files = {f"hpc3build/{name}": data for name, data in (*_shared(frontend), *context.files.items())}
    files["hpc3build/env.json"] = (json.dumps(stated, indent=1, sort_keys=True) + "\n").encode()
    mounted = files["hpc3build/site.sh"] + files["hpc3build/finish.sh"]
    variables["digest"] = hashlib.sha256(mounted).hexdigest()[:12]
    files |= {f"sources/{name}": data for name, data in context.sources.items()}
    text = templates.render(context.template, variables, form, context.own)
    _check_secrets({**files, FORMATS[form]: text.encode()}, recipe)
    return BuildContext(
        text,
        final_image,
        MappingProxyType(dict(sorted(files.items()))),
        form,
        frozenset(f"hpc3build/{name}" for name in context.executable),
        context.secrets,
        variables["final_image"].partition("@")[2] or None,
        MappingProxyType({f"sources/{name}": path for name, path in sorted(context.large.items())}),
        tuple(own),
    )


def _check_secrets(files: Mapping[str, bytes], recipe: Recipe) -> None:
    """Refuse URLs with passwords where an image would keep them: in its history, configuration and recipes."""
    for name, data in files.items():
        if name not in FORMATS.values() and not name.endswith((".yaml", ".json", ".lock", ".eb")):
            continue  # programs and patches may well speak of such URLs
        if (url := with_password(data.decode("utf-8", "replace"))) is not None:
            where = next(_with_passwords(recipe), "")
            raise InputError(
                f"{where}{name} of the build context would hold the password of {url}, and so would the image",
                hint="secrets of hpc3build.yaml reach a build without staying in it; mirrors with logins are for "
                "--spack-mirrors FILE",
            )


def _with_passwords(recipe: Recipe) -> Iterator[str]:
    """Where the recipe's own files, or the option for a title, hold such URLs, to begin a message with."""
    for path in (recipe.origin, recipe.folder / SETTINGS_FILE):
        if path.suffix in (".yaml", ".yml") and path.is_file():
            for where, text in texts_of(path, read_yaml(path, may_be_empty=True)):
                if with_password(text) is not None:
                    yield f"{where}: "
    if with_password(recipe.title) is not None:
        yield f"{recipe.settings.where('title')}: "


# What a template reads and not every frontend has.
_OPTIONAL: Mapping[str, object] = MappingProxyType(
    {"own_build_packages": (), "chown": False, "sections": MappingProxyType({}), "runscript": ""}
)


def base_image(text: str) -> str:
    """The full name of a base image: engines resolve short ones each in their own way, or ask. Raises BadReference."""
    return str(of_base(text)).removeprefix("docker://")


def _shared(frontend: str) -> list[tuple[str, bytes]]:
    """The scripts that run inside the stages: those of all frontends, and the frontend's own."""
    folder = resources.folder("containerfiles")
    found = [(path.name, path.read_bytes()) for path in sorted((folder / "hpc3build").iterdir()) if path.is_file()]
    for path in sorted((folder / frontend).iterdir()):
        if path.is_file():
            name = path.name if path.name == "activate.sh" else f"{frontend}/{path.name}"
            found.append((name, path.read_bytes()))
    return found
