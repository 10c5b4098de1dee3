"""What a build that failed, or was ended, leaves and says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpc3build.engines.buildah import Buildah
from hpc3build.engines.podman import Podman
from hpc3build.errors import ToolError
from hpc3build.run import Completed, run

ABSENT = """\
buildah failed with exit status 125:
  [1/2] STEP 1/14: FROM docker.io/library/debian:12 AS builder
  Trying to pull docker.io/library/debian:12...
  Error: creating build container: initializing source docker://debian:12: pinging container registry: no such host"""


class Store:
    """A store with a working container of somebody else's; a build makes one, and ends with ``error``."""

    def __init__(self, root: Path, error: BaseException) -> None:
        self.root = root
        self._error = error
        self._make("theirs", "id=hpc3build-mark,src=/tmp/hpc3build-other/mark")

    def _make(self, name: str, secret: str) -> None:
        folder = self.root / "overlay-containers" / name / "userdata"
        folder.mkdir(parents=True)
        (folder / "buildah.json").write_text(f'{{"Secrets":["{secret}"]}}')

    @property
    def containers(self) -> set[str]:
        return {path.name for path in (self.root / "overlay-containers").iterdir()}

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        if argv[0] in ("chmod", "rm"):
            return run(argv)
        if argv[1] in ("bud", "build"):
            self._make("ours", next(word for word in argv if word.startswith("id=hpc3build-mark")))
            raise self._error
        if "info" in argv and not options.get("apart"):  # the signal that ended the build comes again
            return Completed(tuple(argv), -2, "", "")
        if "rm" in argv:
            (self.root / "overlay-containers" / argv[-1]).rename(self.root / argv[-1])
        return Completed(tuple(argv), 0, f"{self.root}\n", "")


@pytest.mark.parametrize("make", [Buildah, Podman])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ToolError("buildah was ended by signal SIGKILL")])
def test_its_working_containers_go_and_no_others(make: Any, error: BaseException, tmp_path: Path) -> None:
    store = Store(tmp_path, error)
    with pytest.raises(type(error)):
        make(store).build(tmp_path, secrets={})
    assert store.containers == {"theirs"}


@pytest.mark.parametrize("make", [Buildah, Podman])
def test_the_folders_of_its_steps_go_and_no_others(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As podman leaves them: with folders that nobody can read, beside what build steps have cached."""
    temporary = tmp_path / "tmp"
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    for name, container in (("buildah1", "ours"), ("buildah2", "theirs")):
        (temporary / name / "run").mkdir(parents=True)
        (temporary / name / "run" / ".containerenv").write_text(f'engine="buildah-1.28.2"\nid="{container}"\n')
        (temporary / name / "mnt" / "rootfs").mkdir(parents=True)
        (temporary / name / "mnt" / "rootfs").chmod(0)
    (temporary / "buildah-cache" / "var").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        make(Store(tmp_path / "store", KeyboardInterrupt())).build(tmp_path, secrets={})
    assert {path.name for path in temporary.iterdir()} == {"buildah2", "buildah-cache"}


def test_a_base_image_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(
        ToolError, match=r"cannot be had: initializing source docker://debian:12: .*no such host"
    ) as told:
        Buildah(Store(tmp_path, ToolError(ABSENT))).build(tmp_path, secrets={})
    assert "\n" not in told.value.message and "--base" in told.value.hint
    with pytest.raises(ToolError, match="make: Error 2") as told:
        Buildah(Store(tmp_path / "2", ToolError("buildah failed:\n  make: Error 2"))).build(tmp_path, secrets={})
    assert "a mended recipe" in told.value.hint


def test_a_user_of_no_passwd_file_and_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a job in a container is: there are no settings of a user, and that is no fault."""
    from hpc3build.workflows import build as module

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(module.Path, "home", nobody)
    assert module._home() == Path("/nonexistent")
