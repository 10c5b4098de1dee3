"""What EasyBuild refused, in words: exceptions out of it, and out of the easyconfigs that it runs.

Part of the script easybuild_closure.py: standard library and EasyBuild only.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType


class ClosureError(Exception):
    """What the user is told: the message, the file it is about, and what to do."""

    def __init__(self, error: str, file: str | None = None, hint: str = "") -> None:
        super().__init__(error)
        self.report = {"error": error, "file": file, "hint": hint}


def ended(status: int, names: list[str]) -> ClosureError:
    how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
    return ClosureError(
        f"the process that reads the easyconfigs ended {how}, without a word",
        names[0] if len(names) == 1 else None,
        "easyconfigs are Python programs: one of them ends the program that reads it, or exceeds its limits",
    )


@contextlib.contextmanager
def about(file: str) -> Iterator[None]:
    """Whatever goes wrong in here is about ``file``."""
    try:
        yield
    except Exception as error:
        raise explained(error, [file]) from error


def endless(seconds: float, names: list[str]) -> ClosureError:
    return ClosureError(
        f"the easyconfigs were not read within {seconds:g} s",
        names[0] if len(names) == 1 else None,
        "easyconfigs are Python programs: one of them, or a hook or an easyblock, never ends",
    )


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
