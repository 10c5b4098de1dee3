"""Engines behind a runner in this process: no container stays, however its run ended."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from requests.exceptions import ConnectionError, ReadTimeout

from hpc3build.engines import How, Launcher
from hpc3build.engines.buildah import Buildah
from hpc3build.engines.charliecloud import Charliecloud
from hpc3build.engines.docker import Docker
from hpc3build.engines.podman import Podman
from hpc3build.errors import StoreError, ToolError
from hpc3build.run import Completed, run


class Engines:
    """Containers by name, as podman and buildah keep them; ``ends`` is how the command that makes one ends."""

    def __init__(self, ends: BaseException | int) -> None:
        self.containers: set[str] = set()
        self.made = 0
        self._ends = ends

    def __call__(self, argv: Sequence[str], *, check: bool = True, **_: Any) -> Completed:
        if argv[1] in ("run", "create", "from") and "--name" in argv:
            self.containers.add(argv[list(argv).index("--name") + 1])
            self.made += 1
            if isinstance(self._ends, BaseException):
                raise self._ends
            if "--rm" in argv and self._ends == 0:
                self.containers.clear()
            if check and self._ends:
                raise ToolError("ended")
            return Completed(tuple(argv), self._ends, "", "")
        if argv[1] == "rm":
            self.containers.discard(argv[-1])
        return Completed(tuple(argv), 0, "", "")


class Daemon:
    """Docker's client with one container, which the connection is lost to while it is waited for."""

    def __init__(self, lost: OSError) -> None:
        self.lost = lost
        self.containers = self.networks = self.api = self
        self.removed = 0

    def create(self, *_: Any, **__: Any) -> Daemon:
        return self

    def list(self, **_: Any) -> list[Any]:
        return []

    def start(self) -> None:
        pass

    def wait(self, **_: Any) -> dict[str, int]:
        raise self.lost

    def remove_container(self, *_: Any, **__: Any) -> None:
        self.removed += 1

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("lost", "timeout", "kind", "told"),
    [
        (ReadTimeout("Read timed out. (read timeout=3)"), 3.0, ToolError, "true did not finish within 3 s in image"),
        # As the SDK tells it where the answer's head had come already.
        (ConnectionError("UnixHTTPConnectionPool: Read timed out."), 3.0, ToolError, "did not finish within 3 s"),
        (ConnectionError("Connection aborted."), 3.0, StoreError, "docker is not reached: Connection aborted."),
        (ConnectionError("Connection aborted."), None, StoreError, "docker is not reached: Connection aborted."),
        (ReadTimeout("Read timed out."), None, StoreError, "docker is not reached: Read timed out."),
    ],
)
def test_a_daemon_that_is_cut_off(
    lost: OSError, timeout: float | None, kind: type[Exception], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(lost)
    monkeypatch.setattr("hpc3build.engines.docker.connect", lambda what: daemon)
    with pytest.raises(kind, match=re.escape(told)):
        Docker(run).run("image", ["true"], How(timeout=timeout))
    assert daemon.removed == 1


@pytest.mark.parametrize("ends", [0, 1, 3, 125, -2, KeyboardInterrupt(), ToolError("did not finish within 120 s")])
@pytest.mark.parametrize("make", [Podman, Buildah, Charliecloud])
def test_no_container_stays(make: Callable[[Any], Launcher], ends: BaseException | int) -> None:
    engines = Engines(ends)
    launcher = make(engines)
    with suppress(KeyboardInterrupt, ToolError, FileNotFoundError), launcher.prepared("image") as prepared:
        launcher.run(prepared, ["true"], How(entrypoint=False))
    assert engines.made == 1 and engines.containers == set()


@pytest.mark.parametrize("ends", [0, -2, KeyboardInterrupt()])
def test_buildah_leaves_no_folder_of_a_run(
    ends: BaseException | int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended by a signal it removes none of its own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = []

    def runner(argv: Sequence[str], *, env: Mapping[str, str] | None = None, **_: Any) -> Completed:
        if argv[1] == "run":
            assert env is not None and env["PATH"]
            made.append(Path(env["TMPDIR"]) / "buildah1" / "mnt")
            made[0].mkdir(parents=True)
            made[0].chmod(0o100)
            if isinstance(ends, BaseException):
                raise ends
            return Completed(tuple(argv), ends, "", "")
        return Completed(tuple(argv), 0, "", "")

    with suppress(KeyboardInterrupt):
        Buildah(runner).run("image", ["true"], How(entrypoint=False))
    assert made and list(tmp_path.iterdir()) == []
