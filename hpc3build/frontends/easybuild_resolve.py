"""The closure of easyconfigs: asked of the pinned EasyBuild in a process of its own, or remembered."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from hpc3build.errors import InputError, ToolError, ToolMissing
from hpc3build.frontends import easybuild_cache as cache
from hpc3build.frontends.easybuild_sources import Sources
from hpc3build.jsonread import parsed
from hpc3build.run import Runner

#: Rules and record formats are those of this release; extras [easybuild] of pyproject.toml pins the same.
PINNED = "5.4.1"
#: The script's own limit is shorter, and says what took so long.
RESOLVE_SECONDS = 330
_NAMES = ("closure", "cage", "files", "modules", "problems")
_SCRIPTS = tuple(Path(__file__).with_name(f"easybuild_{name}.py") for name in _NAMES)
#: Nothing of the caller's environment. Modules are read as pip compiled them, which every user can.
_CLEAN = MappingProxyType({"HOME": "/nonexistent", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})


def resolve(sources: Sources, runner: Runner, cache_folder: Path | None = None) -> Mapping[str, Any]:
    """The closure (easybuild_closure.py says what it holds), from ``cache_folder`` where it is known there.

    Raises InputError for easyconfigs that EasyBuild refuses, ToolMissing without EasyBuild, ToolError when it breaks
    otherwise.
    """
    python = easybuild_python()
    key = _key(sources, python) if cache_folder else None
    known = cache.read(cache_folder, key) if cache_folder and key else None
    if known is not None and _whole(known):
        return MappingProxyType(known)
    closure = _asked(sources, python, runner)
    if cache_folder and key:
        cache.write(cache_folder, key, closure)
    return MappingProxyType(closure)


def _key(sources: Sources, python: str) -> str | None:
    releases = sorted(_releases(python))
    if not releases:
        return None
    question = {
        "easyconfigs": sources.easyconfigs,
        "python": python,
        "easybuild": releases,
        "files": bool(sources.sourcepath),
    }
    files = [*_SCRIPTS, *sources.easyblocks, *([sources.hooks] if sources.hooks else [])]
    if sources.sourcepath:
        files += (file for folder in sources.robot_paths for file in folder.rglob("checksums.json"))
    return cache.key_of(question, sources.robot_paths, files)


def _releases(python: str) -> Iterator[str]:
    """What pip says of the EasyBuild beside ``python``: folders whose names end in versions."""
    places = [Path(place) for place in sys.path] if python == sys.executable else []
    places += Path(python).parent.parent.glob("lib/python3*/site-packages")
    for place in dict.fromkeys(places):
        yield from (str(info) for info in place.glob("easybuild*-info"))


def _asked(sources: Sources, python: str, runner: Runner) -> dict[str, Any]:
    names = ", ".join(sources.easyconfigs)
    with TemporaryDirectory(prefix="hpc3build-eb-") as scratch:
        argv = [python, str(_SCRIPTS[0]), "--scratch", scratch, *_arguments(sources)]
        done = runner(argv, env={**_CLEAN, "TMPDIR": scratch}, timeout=RESOLVE_SECONDS, check=False)
    try:
        answer = parsed(done.stdout)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and "error" in answer:
        where = f"{answer['file']}: " if answer.get("file") else ""
        raise InputError(where + _one_line(answer["error"]), hint=_one_line(answer.get("hint") or ""))
    if done.returncode != 0 or not isinstance(answer, dict) or not _whole(answer):
        tail = "\n".join(f"  {line}" for line in done.stderr.strip().splitlines()[-15:])
        raise ToolError(f"EasyBuild could not resolve {names} (exit status {done.returncode}):\n{tail}")
    return answer


def _one_line(text: object) -> str:
    """EasyBuild's messages may be paragraphs, and an easyconfig's exceptions anything."""
    words = " ".join(str(text).split())
    return words if len(words) < 1000 else words[:1000] + "…"


def _whole(answer: Mapping[str, Any]) -> bool:
    return {"modules", "roots"} <= set(answer)


def _arguments(sources: Sources) -> Iterator[str]:
    for name in sources.easyconfigs:
        yield from ("--easyconfig", name)
    if sources.robot_paths:
        yield from ("--robot-paths", ":".join(map(str, sources.robot_paths)) + ":")
    for file in sources.easyblocks:
        yield from ("--include-easyblocks", str(file))
    if sources.hooks:
        yield from ("--hooks", str(sources.hooks))
    if sources.sourcepath:
        yield "--files"


def easybuild_python() -> str:
    """The Python that has the pinned EasyBuild: $HPC3BUILD_EASYBUILD_PYTHON, or our own environment's.

    Raises ToolMissing when there is none. EasyBuild is never imported here: finding its folder is enough.
    """
    if chosen := os.environ.get("HPC3BUILD_EASYBUILD_PYTHON"):
        return chosen
    for place in sys.path:
        if (Path(place) / "easybuild" / "framework").is_dir() or (Path(place) / "easybuild" / "tools").is_dir():
            return sys.executable
    raise ToolMissing(
        "EasyBuild is not installed",
        hint=f"pip install 'hpc3build[easybuild]' (EasyBuild {PINNED}), or name "
        "a Python that has it in HPC3BUILD_EASYBUILD_PYTHON",
    )
