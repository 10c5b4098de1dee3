"""Where the builder gets Spack and its package recipes: fetched by git, or carried in the context from a clone here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hpc3build.errors import InputError, ToolError
from hpc3build.run import Runner

PACKAGES_URL = "https://github.com/spack/spack-packages.git"
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://|[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:)[A-Za-z0-9._:/@~+%-]+")


@dataclass(frozen=True)
class Source:
    """A git repository for the builder, at one reference: ``folder`` is a clone on this machine, else ``url`` counts.

    ``ref`` of a folder is the commit.
    """

    name: str
    url: str
    ref: str
    folder: Path | None = None


def source(name: str, given: str, ref: str | None, default: str, beside: Path, runner: Runner) -> Source:
    """The source that ``given`` names, a URL or a folder (relative to here, or else to ``beside``).

    Without a ``ref`` it is a URL's ``default``, and what is checked out in a folder. Raises InputError when there is
    no such folder, or no such reference in it.
    """
    local = given.removeprefix("file://")
    if local == given and _URL.fullmatch(given):
        return Source(name, given, ref or default)
    folder = next((path for path in (Path(local), beside / local) if path.is_dir()), None)
    if folder is None:
        raise InputError(f"{name}: {given!r} is neither a git URL nor a folder", hint="a clone, or https://…")
    names = [ref, f"origin/{ref}"] if ref else ["HEAD"]
    for candidate in names:
        argv = ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", "--end-of-options"]
        done = runner([*argv, f"{candidate}^{{commit}}"], check=False)
        if done.returncode == 0:
            return Source(name, given, done.stdout.strip(), folder)
    what = f"no {ref} in it" if ref else "it is no git repository"
    raise InputError(f"{name}: {folder}: {what}", hint="git fetch it there, or name another with --spack-ref or pins")


def pack(found: Source, runner: Runner) -> bytes:
    """The commit of a clone on this machine, without its history, as a git pack. Raises ToolError."""
    with TemporaryDirectory(prefix="hpc3build-git-") as folder:
        base = str(Path(folder) / "pack")
        # One thread: the same clone gives the same bytes.
        argv = ["git", "-C", str(found.folder), "pack-objects", "--quiet", "--revs", "--threads=1", base]
        runner(argv, input=f"--shallow {found.ref}\n{found.ref}\n")
        packs = sorted(Path(folder).glob("*.pack"))
        if len(packs) != 1:
            raise ToolError(f"git made {len(packs)} packs of {found.folder}", hint="unset pack.packSizeLimit there")
        return packs[0].read_bytes()
