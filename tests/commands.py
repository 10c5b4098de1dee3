"""The real command in a process of its own, and what every failure of it must look like."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Done:
    """How a command ended; streams as text, with lone bytes kept by surrogateescape."""

    status: int
    out: str
    err: str


def hpc3build(
    *arguments: str | bytes | Path,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    timeout: int = 120,
) -> Done:
    """``hpc3build ARGUMENTS``; ``env`` changes variables, None takes one away."""
    changed = {**os.environ, "PYTHONUTF8": "1", **(env or {})}
    done = subprocess.run(
        [sys.executable, "-m", "hpc3build", *map(os.fsencode, arguments)],
        cwd=cwd,
        env={name: value for name, value in changed.items() if value is not None},
        stdin=stdin,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return Done(done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``hpc3build ARGUMENTS`` in a process group of its own, to be interrupted; killed with the block."""

    def heed() -> None:  # a background job ignores the one, what nohup starts the other
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    with subprocess.Popen(
        [sys.executable, "-m", "hpc3build", *arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=heed,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def assert_one_message(done: Done, status: int) -> str:
    """One message on stderr in our form, nothing on stdout, no traceback, no control character. Returns the message."""
    assert "Traceback" not in done.err, done.err
    assert done.status == status, done
    assert done.out == ""
    lines = done.err.rstrip("\n").split("\n")
    assert lines[0].startswith("hpc3build: error: ") and len(lines[0]) > len("hpc3build: error: "), done.err
    # A tool's last lines are indented below the message.
    further = [line for line in lines[1:] if not line.startswith(("  ", "hint: "))]
    assert further == [] and sum(line.startswith("hint: ") for line in lines) <= 1, done.err
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.err), ascii(done.err)
    return "\n".join(lines)
