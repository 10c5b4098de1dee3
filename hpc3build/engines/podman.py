"""podman: builds as buildah does, and runs as users do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from hpc3build.engines import DEFAULT, How, own_name
from hpc3build.engines.buildah import build_with, shared_options, told_digest
from hpc3build.reference import STORAGE
from hpc3build.run import Completed, Runner, clean_up


class Podman:
    """The engine protocol over the ``podman`` command."""

    name = "podman"
    store = STORAGE
    lacks: frozenset[str] = frozenset()

    def __init__(self, runner: Runner) -> None:
        self._run = runner

    def version(self) -> str:
        return self._run(["podman", "--version"]).stdout.split()[2]

    def build(self, context: Path, *, secrets: Mapping[str, Path], no_cache: bool = False) -> str:
        return build_with(["podman", "build"], self._run, context, secrets, no_cache)

    def export(self, image: str, layout: Path, tag: str) -> None:
        self._run(["podman", "push", "--quiet", image, f"oci:{layout}:{tag}"])

    def digest(self, image: str) -> str | None:
        return told_digest(self._run(["podman", "image", "inspect", "--format", "{{.Digest}}", image], check=False))

    def prepared(self, image: str) -> AbstractContextManager[str]:
        return nullcontext(image)

    def run(self, image: str, argv: Sequence[str], how: How = DEFAULT) -> Completed:
        container = own_name()
        # Else podman hands the proxies of this machine on, and keeps them in its database.
        options = ["--rm", "--pull=never", "--http-proxy=false", "--name", container]
        options += ["--user", how.user] if how.user else []
        options += [f"--group-add={group}" for group in how.groups]
        options += ["--read-only"] if how.read_only else []
        options += [] if how.entrypoint else ["--entrypoint", ""]
        options += ["--interactive"] if how.stdin is not None else []
        options += shared_options(how)
        options += ["--workdir", how.folder] if how.folder else []
        command = ["podman", "run", *options, image, *argv]
        status = None
        try:
            done = self._run(command, check=False, timeout=how.timeout, input=how.stdin)
            status = done.returncode
        finally:
            # Where podman itself is ended, by Ctrl-C or at the time limit, its --rm may not come to pass. It then exits
            # with 1, as programs do.
            if status != 0:
                clean_up(self._run, ["podman", "rm", "--force", "--ignore", "--time=0", container])
        return done
