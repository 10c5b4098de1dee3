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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc3build.frontends import easybuild_cage as cage
    from hpc3build.frontends import easybuild_problems as problems
else:  # as a script: its neighbours, by their own names
    import easybuild_cage as cage
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
    if licence := eula(ec):
        record["eula"] = licence
    extensions = ec.get_ref("exts_list") or []
    if extensions:
        record["n_exts"] = len(extensions)
    record |= beside(ec, Path(entry["spec"]))
    return plain(record)  # type: ignore[no-any-return]


#: Which of EasyBuild 5.4.1's easyblocks call check_accepted_eula, the name that they want accepted, and its text.
EULAS = {
    "EB_CUDA": ("CUDA", "https://docs.nvidia.com/cuda/eula/index.html"),
    "EB_cuDNN": ("cuDNN", "https://docs.nvidia.com/deeplearning/cudnn/latest/reference/eula.html"),
    "EB_CUDAcompat": ("NVIDIA-driver", "https://www.nvidia.com/content/DriverDownload-March2009/licence.php?lang=us"),
    "NvidiaBase": ("NVHPC", "https://docs.nvidia.com/hpc-sdk/eula/index.html"),
    "EB_AOCC": ("AOCC", "http://developer.amd.com/wordpress/media/files/AOCC_EULA.pdf"),
    "IntelBase": (
        "Intel-oneAPI",
        "https://software.intel.com/content/www/us/en/develop/articles/end-user-license-agreement.html",
    ),
    "EB_Sentaurus": ("Synopsys", "what its installer shows"),
}


def eula(ec: Any) -> dict[str, str] | None:
    """The licence that EasyBuild wants accepted before it installs this: a matter of the easyblock's ancestors."""
    from easybuild.framework.easyconfig.easyconfig import get_easyblock_class

    if ec["accept_eula"]:
        return None
    easyblock = get_easyblock_class(ec["easyblock"], name=ec["name"], error_on_missing_easyblock=False)
    names = [ancestor.__name__ for ancestor in easyblock.__mro__] if easyblock else []
    if any(name.startswith("System") for name in names):
        return None  # SystemCompiler and SystemMPI descend from Intel's easyblocks, and install nothing
    for ancestor in names:
        # Before 2021 Intel asked for a licence file.
        if ancestor in EULAS and not (ancestor == "IntelBase" and str(ec["version"]) < "2021"):
            name, url = EULAS[ancestor]
            return {"name": name, "url": url}
    return None


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
