"""Resolve easyconfigs to everything they need, as one JSON document on stdout.

A script, run by the pinned EasyBuild's own Python and never imported by hpc3build: it needs nothing but the standard
library and EasyBuild, no modules tool, no network, and neither reads nor heeds the user's or the site's settings.
``modules`` come in the order of installation. Problems end in exit status 2 and one JSON line with ``error``, ``file``
and ``hint``.

The work is done in a child process of few rights (easybuild_cage.py), because easyconfigs are Python programs: whatever
one of them prints, starts, raises or ends, the parent is left to say so.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import os
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc3build.frontends import easybuild_cage as cage
    from hpc3build.frontends import easybuild_files as files
    from hpc3build.frontends import easybuild_modules as modules
    from hpc3build.frontends import easybuild_problems as problems
else:  # as a script: its neighbours, by their own names
    import easybuild_cage as cage
    import easybuild_files as files
    import easybuild_modules as modules
    import easybuild_problems as problems

FAILED = 2


def main(argv: list[str]) -> int:
    args = arguments().parse_args(argv)
    # The child works in a folder of its own.
    args.easyconfig = [str(Path(name).absolute()) if is_file(name) else name for name in args.easyconfig]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # The parent owns EasyBuild's folder, since the child may end without cleaning up.
    with tempfile.TemporaryDirectory(prefix="hpc3build-eb-") as made:
        scratch = Path(args.scratch or made).resolve()
        answer, status = answered(args, scratch)
    sys.stdout.write(answer + "\n")
    return status


def answered(args: argparse.Namespace, scratch: Path) -> tuple[str, int]:
    """What the child has to say, or what there is to say about how it ended."""
    try:
        status = cage.run(lambda: work(args, scratch), scratch, needed(args), args.time_limit)
    except cage.TimeIsUp:
        return json.dumps(problems.endless(args.time_limit, args.easyconfig).report), FAILED
    answer = ""
    with contextlib.suppress(OSError):
        answer = (scratch / "answer").read_text(encoding="utf-8", errors="replace")
    if status in (0, FAILED) and complete(answer):
        return answer, status
    return json.dumps(problems.ended(status, args.easyconfig).report), FAILED


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The closure of easyconfigs as JSON.")
    parser.add_argument("--easyconfig", nargs="+", action="extend", required=True, help="files, or names")
    parser.add_argument("--robot-paths", help="as eb takes it: a trailing colon keeps EasyBuild's own easyconfigs")
    parser.add_argument("--include-easyblocks", action="append", default=[], metavar="FILE")
    parser.add_argument("--hooks", metavar="FILE")
    parser.add_argument("--optarch")
    parser.add_argument("--cuda-compute-capabilities")
    parser.add_argument("--files", action="store_true", help="for every module, which files its installation takes")
    parser.add_argument("--scratch", metavar="DIR", help="an empty folder, which the caller removes")
    parser.add_argument("--time-limit", metavar="SECONDS", type=float, default=cage.LIMIT_S)
    return parser


def is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # a name that no file may have
        return False


def needed(args: argparse.Namespace) -> list[Path]:
    """What the child has to read, as far as the arguments tell."""
    given = [*args.easyconfig, *(args.robot_paths or "").split(":"), *args.include_easyblocks, args.hooks or ""]
    return [Path(sys.prefix), Path(__file__), *(Path(name) for name in given if name and Path(name).exists())]


def complete(answer: str) -> bool:
    try:
        return isinstance(json.loads(answer), dict)
    except (ValueError, RecursionError):
        return False


def work(args: argparse.Namespace, scratch: Path) -> int:
    """What the child does, and its exit status."""
    status = FAILED
    try:
        answer = closure(args, str(scratch))
        status = 0
    except problems.ClosureError as problem:
        answer = problem.report
    except BaseException as error:  # SystemExit as well: an easyconfig may call sys.exit()
        answer = problems.explained(error, args.easyconfig).report
    (scratch / "answer").write_text(json.dumps(answer, indent=1 if status == 0 else None), encoding="utf-8")
    return status


# --- EasyBuild ------------------------------------------------------------------------------------------------------


def closure(args: argparse.Namespace, scratch: str) -> dict[str, Any]:
    configure(args, scratch)
    from easybuild.framework.easyconfig.tools import parse_easyconfigs
    from easybuild.tools.modules import NoModulesTool
    from easybuild.tools.robot import resolve_dependencies

    found = [located(name) for name in args.easyconfig]
    parsed, _ = parse_easyconfigs([(path, False) for path in found], validate=False)
    roots = [entry["full_mod_name"] for entry in parsed]
    ordered = resolve_dependencies(parsed, NoModulesTool(), retain_all_deps=True)
    answer = modules.document(ordered, roots)
    if args.files:
        for entry, module in zip(ordered, answer["modules"], strict=True):
            with problems.about(entry["spec"]):
                module["files"] = files.wanted(entry)
    return answer


def configure(args: argparse.Namespace, scratch: str) -> None:
    """Set EasyBuild up from the arguments alone."""
    # Python puts a script's folder first, and in ours "easybuild" is another module.
    here = Path(__file__).resolve().parent
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != here]
    for name in list(os.environ):
        if name.startswith(("EASYBUILD_", "XDG_CONFIG")):
            del os.environ[name]
    # Where EasyBuild's own easyconfigs are is worked out from where the eb script is.
    os.environ["EB_SCRIPT_PATH"] = str(Path(sys.prefix) / "bin" / "eb")
    # An empty folder instead of those for configuration files: they are found by HOME and by XDG_CONFIG_DIRS.
    os.environ["HOME"] = os.environ["XDG_CONFIG_HOME"] = os.environ["XDG_CONFIG_DIRS"] = scratch
    try:
        from easybuild.tools.options import set_up_configuration
    except ImportError as error:
        hint = "pip install 'hpc3build[easybuild]'"
        raise problems.ClosureError(f"{sys.executable} has no EasyBuild: {error}", hint=hint) from error
    flags = ["--fetch", "--robot", "--allow-use-as-root-and-accept-consequences", "--ignore-osdeps"]
    flags += [f"--prefix={scratch}/prefix", f"--tmpdir={scratch}"]
    if args.robot_paths:
        flags.append(f"--robot-paths={args.robot_paths}")
    if args.include_easyblocks:
        flags.append(f"--include-easyblocks={','.join(args.include_easyblocks)}")
    if args.hooks:
        flags.append(f"--hooks={args.hooks}")
    if args.optarch:
        flags.append(f"--optarch={args.optarch}")
    if args.cuda_compute_capabilities:
        flags.append(f"--cuda-compute-capabilities={args.cuda_compute_capabilities}")
    try:
        set_up_configuration(args=flags, silent=True)
    except SystemExit as error:
        raise problems.ClosureError("EasyBuild refuses these options", hint=" ".join(flags)) from error


def located(name: str) -> str:
    """The file for a path or a name; the nearest names where there is none."""
    from easybuild.framework.easyconfig.tools import det_easyconfig_paths
    from easybuild.tools.build_log import EasyBuildError

    if name and Path(name).is_dir():
        what = f"{name} is a folder, where an easyconfig was expected"
        raise problems.ClosureError(what, name, "name the .eb files in it")
    for spelling in (name, f"{name}.eb"):
        with contextlib.suppress(EasyBuildError):
            path = str(det_easyconfig_paths([spelling])[0])
            if Path(path).is_file():
                return path
    raise problems.ClosureError(f"no such easyconfig: {name!r}", name, nearest(Path(name).name))


def nearest(name: str) -> str:
    from easybuild.tools.config import build_option
    from easybuild.tools.filetools import create_index, load_index

    known: set[str] = set()
    for folder in build_option("robot_path") or ():
        if Path(folder).is_dir():
            known.update(Path(file).name for file in load_index(folder) or create_index(folder))
    # The same software first: between two names of thousands, "close" otherwise favours other software.
    software = re.match(r"[^-]*", name)
    same = [other for other in known if software and other.lower().startswith(software.group().lower())]
    close = difflib.get_close_matches(name, sorted(same) or sorted(known), n=5, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else "no easyconfig on the robot path has a name like this"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
