"""The only module that starts processes: one function, its result, and its failure told in words."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from hpc3build.errors import ToolError, ToolMissing
from hpc3build.interrupts import Interrupts

# Debian's names; they are the same in the Fedora family for all of these.
PACKAGES = {"buildah": "buildah", "podman": "podman", "skopeo": "skopeo", "docker": "docker.io"}
LAST_LINES = 25
GRACE_SECONDS = 10
#: How often what removes something is run where signals end it.
TRIES = 3
#: ECMA-48 sequences, which tools write for terminals.
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@dataclass(frozen=True)
class Completed:
    """What a command left: ``returncode`` is negative when a signal ended it, as in subprocess."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class Runner(Protocol):
    """A callable that runs a command; it can be wrapped to run it elsewhere (inside a builder image, say)."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float | None = None,
        check: bool = True,
        stream: bool = False,
        apart: bool = False,
    ) -> Completed: ...


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str | None = None,
    timeout: float | None = None,
    check: bool = True,
    stream: bool = False,
    apart: bool = False,
) -> Completed:
    """Run ``argv`` without a shell and return what it printed.

    ``stream`` shows both its streams on our stderr as they come (stdout of ours is for results) and keeps them; such a
    command reads nothing.
    ``apart`` is a session of its own: what is sent to all processes of our group does not reach it.
    ``timeout`` is in seconds. Raises ToolMissing when there is no such command, and ToolError when it fails and
    ``check`` is set, or when it runs out of time.
    """
    argv = tuple(argv)
    if stream and input is not None:
        raise ValueError("what is streamed takes no input")  # it would have to be written and read at once
    try:
        if stream:
            return _checked(_streamed(argv, cwd, env, timeout, apart), check)
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=None if env is None else dict(env),
            input=input,
            timeout=timeout,
            capture_output=True,
            stdin=None if input is not None else subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            check=False,
            start_new_session=apart,
        )
    except FileNotFoundError as error:
        if cwd is not None and not cwd.is_dir():
            raise ToolError(f"cannot run {argv[0]}: the folder {cwd} does not exist") from error
        raise missing(argv[0]) from error
    except OSError as error:
        raise ToolError(f"cannot run {argv[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{argv[0]} did not finish within {timeout:g} s", hint=shlex.join(argv)) from error
    return _checked(Completed(argv, done.returncode, done.stdout, done.stderr), check)


def clean_up(runner: Runner, argv: Sequence[str]) -> None:
    """Run a command that removes what another left, whether or not there is anything.

    Ctrl-C and batch systems send their signal to all processes of a job, often more than one: those of a terminal pass
    it by, ours wait for its end, and where one ended it, it is run again.
    """
    with Interrupts():
        for _ in range(TRIES):
            if runner(argv, check=False, apart=True).returncode >= 0:
                break


def run_quietly(argv: Sequence[str], **options: Any) -> Completed:
    """``run`` that shows nothing of what a command prints, unless it fails."""
    return run(argv, **{**options, "stream": False})


def replace(argv: Sequence[str]) -> NoReturn:
    """Become ``argv``: terminal, signals and exit status are the command's own. Raises ToolMissing, ToolError."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606 (no shell, on purpose)
    except FileNotFoundError as error:
        raise missing(argv[0]) from error
    except OSError as error:
        raise ToolError(f"cannot run {argv[0]}: {error.strerror}") from error


def missing(command: str) -> ToolMissing:
    """The error for a command that is not installed."""
    package = PACKAGES.get(command)
    hint = f"install the package {package}" if package else f"install {command}, or put it on PATH"
    return ToolMissing(f"{command}: command not found", hint=hint)


def _streamed(
    argv: tuple[str, ...], cwd: Path | None, env: Mapping[str, str] | None, timeout: float | None, apart: bool
) -> Completed:
    with subprocess.Popen(
        argv,
        cwd=cwd,
        env=None if env is None else dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        # What has a time limit may start workers, which would keep the pipe open after their parent's end.
        start_new_session=apart or timeout is not None,
    ) as process:
        late = threading.Event()

        def stop() -> None:
            late.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        alarm = threading.Timer(timeout or threading.TIMEOUT_MAX, stop)
        alarm.daemon = True
        alarm.start()
        lines: list[str] = []
        try:
            for line in process.stdout or ():
                sys.stderr.write(line)
                sys.stderr.flush()
                lines.append(line)
            process.wait()
        except BaseException:
            # A signal to us alone: the command must end as well, and is given time to clean up.
            started = _Descendants(process.pid)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
            process.kill()
            started.kill()
            if timeout is not None:
                stop()
            raise
        finally:
            alarm.cancel()
    if late.is_set():
        raise subprocess.TimeoutExpired(argv, timeout or 0)
    return Completed(argv, process.returncode, "".join(lines), "")


class _Descendants:
    """The processes that a process started, and those that they did.

    buildah ended by a signal leaves the step that it ran at work when that one changed its user (Linux then forgets
    that it was to die with its parent).
    """

    def __init__(self, pid: int) -> None:
        self._known: dict[int, str] = {}
        self._add(_processes(), {pid})

    def _add(self, processes: Mapping[int, tuple[int, str]], parents: set[int]) -> None:
        while parents:
            parents = {pid for pid, (parent, _) in processes.items() if parent in parents} - self._known.keys()
            self._known.update((pid, processes[pid][1]) for pid in parents)

    def kill(self) -> None:
        """End those that live still, and what they started since."""
        processes = _processes()
        # Another process may have an ended one's number by now, not its start.
        alive = {pid for pid, start in self._known.items() if pid in processes and processes[pid][1] == start}
        self._known = {}
        self._add(processes, alive)
        for pid in alive | self._known.keys():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _processes() -> dict[int, tuple[int, str]]:
    """Parent and start of each process (proc(5), fields 4 and 22); none where there is no /proc."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            found[int(stat.parent.name)] = (int(fields[1]), fields[19])
    return found


def _checked(done: Completed, check: bool) -> Completed:
    if check and done.returncode != 0:
        raise ToolError(failure(done), hint=f"the command was: {shlex.join(done.argv)}")
    return done


def failure(done: Completed) -> str:
    """The failure in words: which command, how it ended, its last lines."""
    name = Path(done.argv[0]).name
    if done.returncode < 0:
        names = {number.value: number.name for number in signal.Signals}  # real-time signals have none
        how = f"was ended by signal {names.get(-done.returncode, -done.returncode)}"
    else:
        how = f"failed with exit status {done.returncode}"
    said = _COLOURS.sub("", done.stderr.strip() or done.stdout.strip())
    lines = said.splitlines()[-LAST_LINES:]
    return f"{name} {how}" + (":\n" + "\n".join(f"  {line}" for line in lines) if lines else "")
