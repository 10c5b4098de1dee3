"""A docker daemon of the tests' own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

#: What a machine without systemd, iptables and a bridge takes.
OPTIONS = ("--iptables=false", "--bridge=none", "--exec-opt", "native.cgroupdriver=cgroupfs")
SECONDS = 120


def answers(path: Path) -> bool:
    """Whether it answers a request; it listens long before it does, and may end in between."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SECONDS)
        client.connect(str(path))
        client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return b" 200 " in client.recv(64)
    return False


@contextlib.contextmanager
def daemon(folder: Path) -> Iterator[None]:
    """A dockerd with its data in ``folder``; everything of it ends with the block. Skips where none starts."""
    if shutil.which("dockerd") is None:
        pytest.skip("not installed: dockerd")
    if os.geteuid() != 0:
        pytest.skip("dockerd needs root")
    # Its containerd takes no socket whose path is longer than 104 characters, and then does not start.
    short = Path(tempfile.mkdtemp(prefix="hpc3-", dir="/tmp"))
    place = short / "sock"
    options = ["--data-root", folder / "data", "--exec-root", short / "exec", "--pidfile", short / "pid"]
    argv = ["dockerd", *OPTIONS, *map(str, options), "--host", f"unix://{place}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    try:
        if not is_ready(process, place):
            last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
            pytest.skip(f"dockerd does not start here: {' '.join(last)[:300]}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", f"unix://{place}")
            yield
    finally:
        end(process)
        for line in Path("/proc/mounts").read_text().splitlines():
            if line.split()[1].startswith((str(folder), str(short))):
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
        shutil.rmtree(folder / "data", ignore_errors=True)
        shutil.rmtree(short, ignore_errors=True)


def is_ready(process: subprocess.Popen[bytes], place: Path) -> bool:
    """Wait until it answers; False for one that ends, or takes too long."""
    until = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < until:
        if answers(place):
            return True
        time.sleep(0.1)
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of its data is kept, so it need not end in good order; its containerd is in the same group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
