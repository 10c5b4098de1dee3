"""Concretization by a Spack of this machine, in an environment of its own: nobody's configuration, nobody's store."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hpc3build.errors import InputError, ToolError, ToolMissing
from hpc3build.frontends.spack_manifest import manifest
from hpc3build.frontends.spack_sources import PACKAGES_URL, source
from hpc3build.recipe import Settings
from hpc3build.run import LAST_LINES, Completed, Runner, failure
from hpc3build.yamlread import Section, dump_yaml

_BUILTIN = "repos/spack_repo/builtin"


def concretize(spack: Section, settings: Settings, folder: Path, runner: Runner) -> str:
    """The text of the lock that Spack makes of the manifest ``spack``, with the target required of every package.

    ``folder`` is the recipe's, for paths of sources. Raises ToolMissing without a Spack, ToolError with Spack's own
    words where it refuses or runs out of time, InputError for folders that are not what they should be.
    """
    program = _program(settings)
    with TemporaryDirectory(prefix="hpc3build-spack-") as scratch:
        top = Path(scratch)
        environment = top / "environment"
        made = manifest(spack, settings, str(environment))
        document = made.document
        # Where packages would lie does not enter the lock, but Spack looks there for what is installed.
        document["config"]["install_tree"] = {"root": str(top / "store")}
        document["view"] = False
        _write(environment, {"spack.yaml": dump_yaml({"spack": document}), **made.files})
        _write(top / "scope", _scope(program, settings, folder, runner))
        for name in ("user", "system"):
            (top / name).mkdir()
        argv = [program, "-C", str(top / "scope"), "-e", str(environment), "concretize"]
        try:
            done = runner(
                argv,
                cwd=top,
                env=_environment(settings, top),
                timeout=settings.concretize_seconds,
                check=False,
                stream=True,
            )
        except ToolMissing as error:
            raise ToolMissing(error.message, hint="--spack DIR names a Spack, or put its bin folder on PATH") from error
        lock = environment / "spack.lock"
        if done.returncode != 0:
            whose = f"with {settings.spack_config}" if settings.spack_config else "without your own configuration"
            raise ToolError(failure(_from_the_error(done)), hint=f"Spack says so of {spack.path}, read {whose}")
        if not lock.is_file():
            raise ToolError(f"{program} made no lock of {spack.path}", hint="are there specs in it?")
        return lock.read_text(encoding="utf-8")


def _program(settings: Settings) -> str:
    if settings.spack_config is not None and not Path(settings.spack_config).is_dir():
        raise InputError(f"--spack-config {settings.spack_config}: no such folder")
    if settings.spack is None:
        return "spack"
    program = Path(settings.spack) / "bin" / "spack"
    if not program.is_file():
        raise InputError(f"--spack {settings.spack}: no bin/spack there", hint="the folder of a clone of Spack")
    return str(program.resolve())


def _environment(settings: Settings, top: Path) -> dict[str, str]:
    user = settings.spack_config
    return {
        **settings.environment,
        "SPACK_USER_CONFIG_PATH": str(Path(user).resolve() if user else top / "user"),
        "SPACK_SYSTEM_CONFIG_PATH": str(top / "system"),
    }


def _scope(program: str, settings: Settings, folder: Path, runner: Runner) -> dict[str, bytes]:
    """Our own configuration: nothing of this machine is reused, and the package recipes are the builder's."""
    found: dict[str, Any] = {"concretizer": {"reuse": False}}
    read = str(Path(shutil.which(program, path=settings.environment.get("PATH")) or program).resolve())
    pinned = settings.pins.get("spack-packages")
    if pinned or settings.packages_source:
        given = settings.packages_source or PACKAGES_URL
        recipes = source("spack-packages", given, pinned, "develop", folder, runner)
        read += f" {recipes.ref}"
        if recipes.folder is None:
            key = "commit" if len(recipes.ref) == 40 else "tag" if recipes.ref.startswith("v") else "branch"
            found["repos"] = {"builtin": {"git": recipes.url, key: recipes.ref}}
        else:
            checked_out = source("spack-packages", given, "HEAD", "HEAD", folder, runner).ref
            if checked_out != recipes.ref:
                raise InputError(
                    f"{recipes.folder}: {checked_out[:12]} is checked out, and pins name {pinned}",
                    hint=f"git -C {recipes.folder} checkout {pinned}",
                )
            found["repos"] = {"builtin": str((recipes.folder / _BUILTIN).resolve())}
    # Spack's indices of virtuals and patches are stale, and fatal, after another Spack's or other recipes'.
    key = hashlib.sha256(read.encode()).hexdigest()[:12]
    found["config"] = {"misc_cache": f"$user_cache_path/hpc3build-{key}"}
    return {f"{section}.yaml": dump_yaml({section: value}) for section, value in found.items()}


def _from_the_error(done: Completed) -> Completed:
    """Its output from where Spack says what is wrong; of a hundred reasons the first count."""
    lines = (done.stdout + done.stderr).splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith("==> Error")), None)
    kept = lines if first is None else lines[first : first + LAST_LINES]
    return Completed(done.argv, done.returncode, "\n".join(kept), "")


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
