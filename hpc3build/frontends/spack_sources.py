"""Where the builder gets Spack and its package recipes: fetched by git, or carried in the context from a clone here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hpc3build.errors import InputError, ToolError
from hpc3build.frontends.spack_container import Container
from hpc3build.recipe import Settings
from hpc3build.run import Runner, missing
from hpc3build.urls import holds_login

#: The Spack of recipes without lock that name none.
DEFAULT_REF = "v0.23.1"
PACKAGES_URL = "https://github.com/spack/spack-packages.git"
#: The package recipes that each release of Spack takes by itself (its etc/spack/defaults); older ones bring their own.
_PACKAGES_OF = {"1.0": "releases/v2025.07", "1.1": "releases/v2025.11", "develop": "develop"}
_COMMIT = re.compile(r"[0-9a-f]{40}")
LS_REMOTE_SECONDS = 60
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


def sources(container: Container, settings: Settings, ref: str | None, beside: Path, runner: Runner) -> list[Source]:
    """Spack at ``ref``, and its package recipes where a pin or an option names them; else Spack fetches those itself.

    ``--pin`` names both by commit, and asks for that where they are URLs. Raises InputError, ToolError.
    """
    spack = source("spack", container.spack_url, ref, DEFAULT_REF, beside, runner)
    pin = settings.pin
    found = [_asked(spack, runner, keep=not (pin or container.resolve_sha)) if _asks(container, pin) else spack]
    wanted = settings.pins.get("spack-packages")
    if not (wanted or settings.packages_source) and pin:
        wanted = _packages_of(ref or DEFAULT_REF)
    if wanted or settings.packages_source:
        where = settings.packages_source or PACKAGES_URL
        packages = source("spack-packages", where, wanted, "develop", beside, runner)
        found.append(_asked(packages, runner, keep=False) if pin else packages)
    return found


def _asks(container: Container, pin: bool) -> bool:
    return pin or container.resolve_sha or container.verify


def _packages_of(ref: str) -> str | None:
    """The branch of spack-packages for a release of Spack; None for one that brings its own recipes."""
    if ref in _PACKAGES_OF:
        return _PACKAGES_OF[ref]
    if release := re.fullmatch(r"(?:releases/)?v?(\d+)\.(\d+)(?:\.\d+)?", ref):
        if release.group(1) == "0":
            return None
        known = _PACKAGES_OF.get(f"{release.group(1)}.{release.group(2)}")
        if known is not None:
            return known
    raise InputError(
        f"--pin: which spack-packages Spack {ref} takes is not known", hint="pins: spack-packages of hpc3build.yaml"
    )


def _asked(found: Source, runner: Runner, *, keep: bool) -> Source:
    """The source by the commit that its reference names now (as it is with ``keep``, once that is there)."""
    if found.folder is not None or _COMMIT.fullmatch(found.ref):
        return found
    names = [f"refs/tags/{found.ref}^{{}}", f"refs/tags/{found.ref}", f"refs/heads/{found.ref}", found.ref]
    # git asks a terminal for passwords unless it is told not to.
    argv = ["env", "GIT_TERMINAL_PROMPT=0", "git", "ls-remote", "--", found.url, *names]
    done = runner(argv, check=False, timeout=LS_REMOTE_SECONDS)
    if done.returncode == 127:
        raise missing("git")
    if done.returncode != 0:
        raise ToolError(
            f"{found.name}: {found.url} does not answer: {(done.stderr.strip().splitlines() or ['no message'])[-1]}",
            hint="a clone on this machine needs no network: --spack-source DIR, --packages-source DIR",
        )
    commits = {name: commit for commit, _, name in (line.partition("\t") for line in done.stdout.splitlines())}
    commit = next((commits[name] for name in names if _COMMIT.fullmatch(commits.get(name, ""))), None)
    if commit is None:
        raise InputError(f"{found.name}: {found.url} has no {found.ref}", hint="a tag, a branch or a whole commit")
    return found if keep else Source(found.name, found.url, commit)


def source(name: str, given: str, ref: str | None, default: str, beside: Path, runner: Runner) -> Source:
    """The source that ``given`` names, a URL or a folder (relative to here, or else to ``beside``).

    Without a ``ref`` it is a URL's ``default``, and what is checked out in a folder. Raises InputError when there is
    no such folder, or no such reference in it, and for a URL with a password.
    """
    local = given.removeprefix("file://")
    if local == given and _URL.fullmatch(given):
        if holds_login(given):  # the Containerfile shows it, and an image its history
            raise InputError(
                f"{name}: {given}: a password or token in a URL would be seen in the image",
                hint="a clone on this machine needs none: --spack-source DIR, --packages-source DIR",
            )
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
    raise _unusable(name, folder, ref, runner)


def _unusable(name: str, folder: Path, ref: str | None, runner: Runner) -> InputError:
    """Why a folder gives no commit: it is no clone, or has none of that reference."""
    option, pin = ("--spack-source", "spack") if name == "spack" else ("--packages-source", "spack-packages")
    done = runner(["git", "-C", str(folder), "rev-parse", "--git-dir"], check=False)
    if done.returncode != 0:
        told = (done.stderr.strip().splitlines() or ["git does not say why"])[0].removeprefix("fatal: ")
        return InputError(f"{name}: {folder}: it is no clone: {told}", hint=f"{option} takes a clone here, or a URL")
    what = f"no {ref} in it" if ref else "it has no commit"
    other = "--spack-ref, or " if name == "spack" else ""
    return InputError(
        f"{name}: {folder}: {what}", hint=f"git fetch it there, or name another: {other}pins: {pin} in hpc3build.yaml"
    )


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
