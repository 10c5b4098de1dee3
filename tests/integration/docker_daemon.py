"""A docker daemon of the tests' own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

#: What a machine without systemd, iptables and a bridge takes.
OPTIONS = ("--iptables=false", "--bridge=none", "--exec-opt", "native.cgroupdriver=cgroupfs")
SECONDS = 120


def answers(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        return True
    return False


@contextlib.contextmanager
def daemon(folder: Path) -> Iterator[None]:
    """A dockerd with its data in ``folder``; everything of it ends with the block. Skips where none starts."""
    if shutil.which("dockerd") is None:
        pytest.skip("not installed: dockerd")
    if os.geteuid() != 0:
        pytest.skip("dockerd needs root")
    place = folder / "sock"
    options = ["--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid"]
    argv = ["dockerd", *OPTIONS, *map(str, options), "--host", f"unix://{place}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + SECONDS
        while not answers(place):
            if process.poll() is not None or time.monotonic() > end:
                last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
                pytest.skip(f"dockerd does not start here: {' '.join(last)[:300]}")
            time.sleep(0.1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", f"unix://{place}")
            yield
    finally:
        # Nothing of its data is kept, so it need not end in good order; its containerd is in the same group.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
        for line in Path("/proc/mounts").read_text().splitlines():
            if line.split()[1].startswith(str(folder)):
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
        shutil.rmtree(folder / "data", ignore_errors=True)
