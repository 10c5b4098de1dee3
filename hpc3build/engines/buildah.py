"""buildah: builds; its ``run`` knows no entry point and no read-only root."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from hpc3build.engines import DEFAULT, ENTRY_POINT, GROUPS, PID_NAMESPACE, READ_ONLY, How, own_name
from hpc3build.errors import ToolError, ToolMissing
from hpc3build.reference import STORAGE, is_digest
from hpc3build.run import Completed, Runner, clean_up

FAILED_BUILD = "nothing was published; the layers built so far stay cached, so that a mended recipe goes on from there"


NO_BASE = "nothing was published; --base names another one: podman images lists those that are here already"
#: What buildah and podman, and docker, say of a FROM that they cannot get: the reason.
_BASE = re.compile(
    r"creating build container: (?P<reason>.+)|failed to resolve source metadata for (?P<docker>.+)", re.MULTILINE
)
#: Where the store is, and how a working container is removed from it.
_STORES = {
    "buildah": ("{{.store.GraphRoot}}", ("buildah", "rm")),
    "podman": ("{{.Store.GraphRoot}}", ("podman", "rm", "--force")),
}


def build_failure(error: ToolError) -> ToolError:
    """A failed build in words: a base image that cannot be had is not the recipe's fault."""
    if found := _BASE.search(error.message):
        return ToolError(f"the base image cannot be had: {found['reason'] or found['docker']}", hint=NO_BASE)
    return ToolError(error.message, hint=FAILED_BUILD)


def build_with(
    command: Sequence[str], runner: Runner, context: Path, secrets: Mapping[str, Path], no_cache: bool
) -> str:
    """Build with ``buildah bud`` or ``podman build``, which take the same options; returns the image's ID."""
    with TemporaryDirectory(prefix="hpc3build-") as folder:
        id_file = Path(folder) / "id"
        argv = [
            *command,
            "--format",
            "oci",
            "--layers",
            "--force-rm",
            "--pull=false",
            "--iidfile",
            str(id_file),
            "--file",
            str(context / "Containerfile"),
        ]
        if no_cache:
            argv.append("--no-cache")
        mark = Path(folder) / "mark"
        mark.touch()
        for name, path in sorted({**secrets, "hpc3build-mark": mark}.items()):
            argv += ["--secret", f"id={name},src={path}"]
        try:
            runner([*argv, str(context)], stream=True)
        except ToolMissing:
            raise
        except BaseException as error:
            _remove_working_containers(command[0], runner, mark)
            if isinstance(error, ToolError):
                raise build_failure(error) from error
            raise
        return id_file.read_text().strip().removeprefix("sha256:")


def _remove_working_containers(tool: str, runner: Runner, mark: Path) -> None:
    """Those of one build: buildah notes a build's secrets, of which ``mark`` is one, beside each of its containers.

    What is ended by a signal leaves them for all its steps, in spite of --force-rm, and with them all their layers.
    """
    question, remove = _STORES[tool]
    root = Path(runner([tool, "info", "--format", question], check=False, apart=True).stdout.strip() or "/nonexistent")
    for note in sorted(root.glob("*-containers/*/userdata/buildah.json")):
        with suppress(OSError):  # another build's, gone by now
            if str(mark) in note.read_text(errors="replace"):
                container = note.parent.parent.name
                clean_up(runner, [*remove, container])
                _remove_bundles(runner, container)


def _remove_bundles(runner: Runner, container: str) -> None:
    """The folders ``buildahN`` of a container's steps: what buildah removes, and podman ended by a signal does not.

    They lie beside the cache mounts, so that a TMPDIR of a build's own would cost these. What is mounted in one is not
    of ours, and stays.
    """
    for place in {Path(gettempdir()), Path("/var/tmp")}:  # noqa: S108 (theirs, where TMPDIR is not set)
        for told in sorted(place.glob("buildah*/run/.containerenv")):
            folder = told.parent.parent
            with suppress(OSError):
                # Another user's might be anything.
                mounted = Path("/proc/self/mountinfo").read_text(errors="replace")
                own = told.stat().st_uid == os.geteuid() and f" {folder}/" not in mounted
                if own and container in told.read_text(errors="replace"):
                    clean_up(runner, ["chmod", "-R", "u+rwX", str(folder)])
                    clean_up(runner, ["rm", "-rf", "--one-file-system", str(folder)])


def shared_options(how: How) -> list[str]:
    """The options of ``how`` that buildah, podman and docker spell alike."""
    options = [f"--env={name}={value}" for name, value in how.env.items()]
    return options + [f"--volume={folder}:{path}" for folder, path in how.mounts]


def told_digest(done: Completed) -> str | None:
    """The digest that an inspecting command printed, None when it failed or knows none."""
    text = done.stdout.strip()
    return text if done.returncode == 0 and is_digest(text) else None


class Buildah:
    """The engine protocol over the ``buildah`` command."""

    name = "buildah"
    store = STORAGE
    lacks = frozenset({ENTRY_POINT, READ_ONLY, GROUPS, PID_NAMESPACE})

    def __init__(self, runner: Runner) -> None:
        self._run = runner

    def version(self) -> str:
        return self._run(["buildah", "--version"]).stdout.split()[2]

    def build(self, context: Path, *, secrets: Mapping[str, Path], no_cache: bool = False) -> str:
        return build_with(["buildah", "bud"], self._run, context, secrets, no_cache)

    def export(self, image: str, layout: Path, tag: str) -> None:
        self._run(["buildah", "push", "--quiet", image, f"oci:{layout}:{tag}"])

    def digest(self, image: str) -> str | None:
        argv = ["buildah", "inspect", "--type", "image", "--format", "{{.FromImageDigest}}", image]
        return told_digest(self._run(argv, check=False))

    def prepared(self, image: str) -> AbstractContextManager[str]:
        return nullcontext(image)

    def run(self, image: str, argv: Sequence[str], how: How = DEFAULT) -> Completed:
        """See Launcher. Raises ToolError for what buildah cannot express: an entry point, a read-only root, groups."""
        if how.entrypoint or how.read_only or how.groups:
            raise ToolError(f"buildah run lacks {' and '.join(sorted(self.lacks))}: cannot run {shlex.join(argv)}")
        container = own_name()
        try:
            self._run(["buildah", "from", "--pull-never", "--name", container, image])
            options = ["--user", how.user] if how.user else []
            options += shared_options(how)
            options += ["--workingdir", how.folder] if how.folder else []
            command = ["buildah", "run", *options, container, "--", *argv]
            # buildah ended by a signal leaves folders in TMPDIR.
            with TemporaryDirectory(prefix="hpc3build-", ignore_cleanup_errors=True) as folder:
                env = {**os.environ, "TMPDIR": folder}
                return self._run(command, check=False, timeout=how.timeout, input=how.stdin, env=env)
        finally:
            clean_up(self._run, ["buildah", "rm", container])
