"""Resolve easyconfigs to everything they need, as one JSON document on stdout.

A script, run by the pinned EasyBuild's own Python and never imported by hpc3build: it needs nothing but the standard
library and EasyBuild, no modules tool, no network, and neither reads nor heeds the user's or the site's settings.
``modules`` come in the order of installation. Problems end in exit status 2 and one JSON line with ``error``, ``file``
and ``hint``.

The work is done in a child process, because easyconfigs are Python programs: whatever one of them prints, raises or
ends, the parent is left to say so.
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
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

LIMIT_S = 300  # an easyconfig that never ends; real closures take two seconds
FAILED = 2


class ClosureError(Exception):
    """What the user is told: the message, the file it is about, and what to do."""

    def __init__(self, error: str, file: str | None = None, hint: str = "") -> None:
        super().__init__(error)
        self.report = {"error": error, "file": file, "hint": hint}


def main(argv: list[str]) -> int:
    args = arguments().parse_args(argv)
    # The parent owns EasyBuild's folder, since the child may end without cleaning up.
    with tempfile.TemporaryDirectory(prefix="hpc3build-eb-") as scratch:
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receive)
            work(args, scratch, send)
        os.close(send)
        with os.fdopen(receive, encoding="utf-8", errors="replace") as stream:
            answer = stream.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not complete(answer):
        answer = json.dumps(ended(status, args.easyconfig).report)
        status = FAILED
    sys.stdout.write(answer + "\n")
    return status if status in (0, FAILED) else FAILED


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The closure of easyconfigs as JSON.")
    parser.add_argument("--easyconfig", nargs="+", required=True, help="files, or names on the robot path")
    parser.add_argument("--robot-paths", help="as eb takes it: a trailing colon keeps EasyBuild's own easyconfigs")
    parser.add_argument("--optarch")
    parser.add_argument("--cuda-compute-capabilities")
    return parser


def complete(answer: str) -> bool:
    try:
        return isinstance(json.loads(answer), dict)
    except ValueError:
        return False


def ended(status: int, names: list[str]) -> ClosureError:
    how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
    return ClosureError(
        f"the process that reads the easyconfigs ended {how}, without a word",
        names[0] if len(names) == 1 else None,
        "easyconfigs are Python programs: one of them ends the program that reads it, or never ends",
    )


def work(args: argparse.Namespace, scratch: str, send: int) -> None:
    """What the child does; it never returns. stdout belongs to the parent's answer: what is printed here is not it."""
    status = FAILED
    os.dup2(2, 1)
    signal.alarm(LIMIT_S)
    try:
        answer = closure(args, scratch)
        status = 0
    except ClosureError as problem:
        answer = problem.report
    except BaseException as error:  # SystemExit as well: an easyconfig may call sys.exit()
        answer = explained(error, args.easyconfig).report
    with os.fdopen(send, "w", encoding="utf-8") as stream, contextlib.suppress(OSError):
        stream.write(json.dumps(answer, indent=1 if status == 0 else None))
    os._exit(status)  # no atexit function of an easyconfig may spoil the answer


# --- EasyBuild ------------------------------------------------------------------------------------------------------


def closure(args: argparse.Namespace, scratch: str) -> dict[str, Any]:
    configure(args, scratch)
    from easybuild.framework.easyconfig.tools import parse_easyconfigs
    from easybuild.tools.modules import NoModulesTool
    from easybuild.tools.robot import resolve_dependencies
    from easybuild.tools.version import EASYBLOCKS_VERSION, FRAMEWORK_VERSION

    found = [located(name) for name in args.easyconfig]
    parsed, _ = parse_easyconfigs([(path, False) for path in found], validate=False)
    roots = [entry["full_mod_name"] for entry in parsed]
    ordered = resolve_dependencies(parsed, NoModulesTool(), retain_all_deps=True)
    modules = [module(entry) for entry in ordered]
    mark_build_only(modules, roots)
    return {
        "tool": f"EasyBuild {FRAMEWORK_VERSION} (easyblocks {EASYBLOCKS_VERSION})",
        "easybuild_version": str(FRAMEWORK_VERSION),
        "roots": roots,
        "command": " ".join(["easybuild_closure.py", *args.easyconfig]),
        "easybuild_options": options(),
        "n": len(modules),
        "n_runtime": sum(not entry["builddep"] for entry in modules),
        "modules": modules,
    }


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
        raise ClosureError(f"{sys.executable} has no EasyBuild: {error}", hint=hint) from error
    flags = ["--fetch", "--robot", "--allow-use-as-root-and-accept-consequences", "--ignore-osdeps"]
    flags += [f"--prefix={scratch}/prefix", f"--tmpdir={scratch}"]
    if args.robot_paths:
        flags.append(f"--robot-paths={args.robot_paths}")
    if args.optarch:
        flags.append(f"--optarch={args.optarch}")
    if args.cuda_compute_capabilities:
        flags.append(f"--cuda-compute-capabilities={args.cuda_compute_capabilities}")
    try:
        set_up_configuration(args=flags, silent=True)
    except SystemExit as error:
        raise ClosureError("EasyBuild refuses these options", hint=" ".join(flags)) from error


def located(name: str) -> str:
    """The file for a path or a name; the nearest names where there is none."""
    from easybuild.framework.easyconfig.tools import det_easyconfig_paths
    from easybuild.tools.build_log import EasyBuildError

    if name and Path(name).is_dir():
        raise ClosureError(f"{name} is a folder, where an easyconfig was expected", name, "name the .eb files in it")
    for spelling in (name, f"{name}.eb"):
        with contextlib.suppress(EasyBuildError):
            path = str(det_easyconfig_paths([spelling])[0])
            if Path(path).is_file():
                return path
    raise ClosureError(f"no such easyconfig: {name!r}", name, nearest(Path(name).name))


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


def options() -> dict[str, Any]:
    from easybuild.tools.config import build_option

    return {name: build_option(name) for name in ("optarch", "cuda_compute_capabilities", "rpath")}


def module(entry: dict[str, Any]) -> dict[str, Any]:
    """One module, in the form of the recorded closures."""
    ec = entry["ec"]
    # Unresolved values: %(installdir)s and its like have none here, and raise.
    toolchainopts = dict(ec.get_ref("toolchainopts") or {})
    record: dict[str, Any] = {
        **package(ec),
        "easyconfig": Path(entry["spec"]).name,
        "module": entry["full_mod_name"],
        "easyblock": ec["easyblock"] or f"EB_{ec['name']}",
        "moduleclass": ec["moduleclass"],
        "deps": [package(dep) for dep in ec.dependencies(runtime_only=True)],
        "builddeps": [package(dep) for dep in ec.dependencies(build_only=True)],
        "toolchainopts": toolchainopts,
        "osdependencies": list(ec.get_ref("osdependencies") or []),
        "path": str(Path(entry["spec"]).resolve()),
        **optional(ec, toolchainopts),
        **toolchain(ec),
    }
    extensions = ec.get_ref("exts_list") or []
    if extensions:
        record["n_exts"] = len(extensions)
    record |= beside(ec, Path(entry["spec"]))
    return plain(record)  # type: ignore[no-any-return]


def package(dep: Any) -> dict[str, Any]:
    if dep.get("external_module"):
        return external(dep)
    chain = dep["toolchain"]
    return {
        "name": dep["name"],
        "version": dep["version"],
        "versionsuffix": dep["versionsuffix"] or "",
        "toolchain": {"name": chain["name"], "version": chain["version"]},
    }


def external(dep: Any) -> dict[str, Any]:
    """A dependency on a module of one site, which no easyconfig describes."""
    metadata = dep.get("external_module_metadata") or {}
    return {
        "name": (metadata.get("name") or [dep["full_mod_name"]])[0],
        "version": (metadata.get("version") or [None])[0],
        "versionsuffix": "",
        "toolchain": {"name": "system", "version": "system"},
        "external_module": True,
        "module": dep["full_mod_name"],
    }


def optional(ec: Any, toolchainopts: dict[str, Any]) -> dict[str, Any]:
    cuda = ec.template_values.get("cudaver")
    values = {
        "cudaver": str(cuda) if cuda else None,
        "cuda_compute_capabilities": ec.get_ref("cuda_compute_capabilities"),
        "license": ec.get_ref("software_license"),
    }
    record = {name: value for name, value in values.items() if value}
    if "optarch" in toolchainopts:
        record["optarch"] = toolchainopts["optarch"]  # False is a statement, too: no -march at all
    return record


def toolchain(ec: Any) -> dict[str, Any]:
    """The families, taken from the instance: two toolchains of one name (NVHPC) differ in what they hold."""
    from easybuild.tools.module_naming_scheme.utilities import det_full_ec_version

    kind = type(ec.toolchain)
    record: dict[str, Any] = {"compiler_family": getattr(kind, "COMPILER_FAMILY", None)}
    if getattr(kind, "MPI_FAMILY", None):
        record |= {"mpi_family": kind.MPI_FAMILY, "mpi_module": kind.MPI_MODULE_NAME}
    record["toolchain_deps"] = [
        {**package(dep), "module": dep["full_mod_name"] or f"{dep['name']}/{det_full_ec_version(dep)}"}
        for dep in ec.toolchain.tcdeps or ()
    ]
    return record


def beside(ec: Any, path: Path) -> dict[str, list[str]]:
    """The sources and patches that lie in the easyconfig's own folder, extensions' included."""
    here = {entry.name for entry in path.resolve().parent.iterdir() if entry.is_file()}
    kinds = {"sources": ("sources",), "patches": ("patches", "postinstallpatches", "exts_list", "components")}
    return {
        kind: sorted({text for name in names for text in texts(resolved(ec, name))} & here)
        for kind, names in kinds.items()
    }


def resolved(ec: Any, name: str) -> Any:
    from easybuild.framework.easyconfig.easyconfig import resolve_template

    value = ec.get_ref(name) if name in ec else None
    return resolve_template(value, ec.template_values, expect_resolved=False) if value else value


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from texts(inner)


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: an easyconfig may put anything anywhere."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def mark_build_only(modules: list[dict[str, Any]], roots: Iterable[str]) -> None:
    """``builddep`` is true for what no root reaches through run-time dependencies and toolchains."""
    by_package = {key(entry): entry for entry in modules}
    by_module = {entry["module"]: entry for entry in modules}
    queue = [by_module[name] for name in roots if name in by_module]
    seen = {id(entry) for entry in queue}
    while queue:
        entry = queue.pop()
        chain = entry["toolchain"]
        reached = [by_package.get(key(dep)) for dep in entry["deps"]]
        reached += [m for m in modules if m["name"] == chain["name"] and full_version(m) == chain["version"]]
        for other in reached:
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                queue.append(other)
    for entry in modules:
        entry["builddep"] = id(entry) not in seen


def key(dep: dict[str, Any]) -> tuple[str, ...]:
    chain = dep["toolchain"]
    return dep["name"], dep["version"], dep["versionsuffix"], chain["name"], chain["version"]


def full_version(entry: dict[str, Any]) -> str:
    """A module's version as a toolchain's version names it: 22.7-CUDA-11.7.0, 2023b."""
    return f"{entry['version']}{entry['versionsuffix']}"


# --- what went wrong ------------------------------------------------------------------------------------------------


def explained(error: BaseException, names: list[str]) -> ClosureError:
    """An exception out of EasyBuild, or out of an easyconfig that it runs, in the user's words."""
    message = str(getattr(error, "msg", None) or error) or type(error).__name__
    message = re.sub(r"^(Failed to process easyconfig \S+: )+", "", message)
    file = being_read(error.__traceback__) or (names[0] if len(names) == 1 else None)
    missing = re.match(r"Missing dependencies: (.*?) \(", message)
    if missing:
        return unresolved(missing.group(1).split(", "), file)
    if isinstance(error, SystemExit):
        return ClosureError(f"the easyconfig ends the program that reads it (exit status {error.code})", file)
    circular = re.match(r"Maximum loop cnt \d+ reached", message)
    if circular:
        return ClosureError("these easyconfigs need each other in a circle", file, "one of them has to let go")
    unknown = re.match(r"Toolchain (\S+) not found, available toolchains: (.*)", message)
    if unknown:
        close = difflib.get_close_matches(unknown.group(1), sorted(set(unknown.group(2).split(","))), n=5)
        hint = f"did you mean {', '.join(close)}?" if close else "`eb --list-toolchains` names them all"
        return ClosureError(f"EasyBuild has no toolchain {unknown.group(1)}", file, hint)
    parsing = re.match(r"Parsing easyconfig file failed: (.*?)\s*\((?:<string>, )?line (\d+)\)$", message, re.DOTALL)
    if parsing:
        first = cause(error)
        message = f"line {int(parsing.group(2)) + skipped(first, file)}: {type(first).__name__}: {parsing.group(1)}"
        return ClosureError(message, file, "easyconfigs are Python: mend this line")
    if type(error).__name__ != "EasyBuildError":
        message = f"{type(error).__name__}: {message}"
    return ClosureError(message, file, "`eb FILE --dry-run --robot` shows how EasyBuild itself sees it")


def cause(error: BaseException) -> BaseException:
    while error.__context__ is not None:
        error = error.__context__
    return error


def skipped(error: BaseException, file: str | None) -> int:
    """How many lines EasyBuild's line numbers leave out: it runs what follows the comments at the top of a file."""
    body = error.__traceback__.tb_frame.f_locals.get("pyheader") if error.__traceback__ else None
    if not body or not file:
        return 0
    before, found, _ = Path(file).read_text(encoding="utf-8", errors="replace").rpartition(body)
    return before.count("\n") if found else 0


def being_read(trace: TracebackType | None) -> str | None:
    """The easyconfig that EasyBuild was reading when it failed."""
    found = None
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "process_easyconfig":
            found = trace.tb_frame.f_locals.get("path") or found
        trace = trace.tb_next
    return str(found) if found else None


def unresolved(modules: list[str], file: str | None) -> ClosureError:
    wanted = "; ".join(f"{name} (wanted by {', '.join(wanting(name)) or 'a toolchain'})" for name in modules)
    hint = "add its easyconfig to the recipe's folder, or ask for a version that EasyBuild has"
    return ClosureError(f"no easyconfig for {wanted}", file, hint)


def wanting(missing: str) -> list[str]:
    """Which of the easyconfigs that were read so far depend on the module ``missing``."""
    from easybuild.framework.easyconfig import easyconfig as parsed

    found = set()
    for entry in (entry for entries in parsed._easyconfigs_cache.values() for entry in entries):
        ec = entry["ec"]
        needs = [dep["full_mod_name"] for dep in [*ec.dependencies(), *(ec.toolchain.tcdeps or ())]]
        if missing in [*needs, f"{ec['toolchain']['name']}/{ec['toolchain']['version']}"]:
            found.add(Path(entry["spec"]).name)
    return sorted(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
