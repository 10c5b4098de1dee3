"""Run something with as little as possible: easyconfigs are Python programs, and EasyBuild runs every one it reads.

Part of the script easybuild_closure.py: standard library only, Linux. The child is given a folder of its own, limits,
no network where the kernel lets it go without, and, when started as root, the user nobody. Whatever it has started is
ended with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

CPU_S = 60  # real closures take two
MEMORY = 4 << 30
LARGEST_FILE = 64 << 20
MORE_TASKS = 128  # beside those that the user has already
LIMIT_S = 300

_KEEP_CAPABILITIES, _DEATH_SIGNAL, _SUBREAPER, _NO_NEW_PRIVILEGES = 8, 1, 36, 38
_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000
_CAPABILITY_VERSION_3, _READ_EVERYWHERE = 0x20080522, 1 << 2  # CAP_DAC_READ_SEARCH
_libc = ctypes.CDLL(None, use_errno=True)


class TimeIsUp(Exception):
    """The child did not end within its limit of wall time."""


def run(work: Callable[[], int], folder: Path, needed: Iterable[Path], limit_s: float = LIMIT_S) -> int:
    """``work`` in a child whose home is ``folder``; its exit status, negative for a signal. Raises TimeIsUp.

    ``needed`` are the files that it has to read. What it prints lands in ``folder``/output.
    """
    _libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _in_the_child(work, folder, list(needed))
    try:
        return _status(child, time.monotonic() + limit_s)
    finally:
        _end_all()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_the_child(work: Callable[[], int], folder: Path, needed: list[Path]) -> None:
    """Never returns; nothing that an easyconfig has registered for the end of Python is run."""
    status = 1
    try:
        os.setsid()
        output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for stream in (1, 2):
            os.dup2(output, stream)
        _limit()
        _drop_privileges(folder, [*needed, folder, Path(os.__file__)])
        _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        _libc.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        os.chdir(folder)
        status = work()
    finally:
        os._exit(status)


def _limit() -> None:
    tasks = _tasks() + MORE_TASKS
    for which, most in (
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_NPROC, tasks),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(which)
        at_most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (at_most, at_most))


def _tasks() -> int:
    """How many threads the machine runs: the limit is per user, and a user may be busy."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    return 4096


def _drop_privileges(folder: Path, needed: list[Path]) -> None:
    """As root: the user nobody, with the one right to read where nobody else could; else the user as he is."""
    if os.geteuid() != 0:
        _libc.unshare(_NEW_USER | _NEW_NETWORK)
        return
    _libc.unshare(_NEW_NETWORK)
    try:
        nobody = pwd.getpwnam("nobody")
        user, group = nobody.pw_uid, nobody.pw_gid
    except KeyError:
        user = group = 65534
    _libc.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0)
    try:
        os.chown(folder, user, group)
        os.chown(folder / "output", user, group)
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    except OSError:  # root of a container that may not change users
        return
    # access() asks for the user alone, without the capabilities that are left.
    readable = all(os.access(path, os.R_OK) for path in needed)
    _set_capabilities(0 if readable else _READ_EVERYWHERE)


def _set_capabilities(mask: int) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(mask, mask, 0, 0, 0, 0)
    _libc.capset(ctypes.byref(header), ctypes.byref(data))


def _status(child: int, until: float) -> int:
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        left = until - time.monotonic()
        if left <= 0:
            raise TimeIsUp
        # Orphans that came to us end with the same signal: ask again.
        signal.sigtimedwait([signal.SIGCHLD], left)


def _end_all() -> None:
    """End what the child has left running: orphans of ours, since this process is their reaper."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in _descendants():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    print("easybuild_closure.py: processes of an easyconfig are still running", file=sys.stderr)


def _descendants() -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The second field, the command's name, may hold blanks and brackets.
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    more = {os.getpid()}
    while more:
        more = {pid for pid, parent in parents.items() if parent in more} - found
        found |= more
    return found
