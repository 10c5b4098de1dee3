"""charliecloud: runs unpacked images in a user namespace; it never uses an entry point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hpc3build.engines import DEFAULT, ENTRY_POINT, GROUPS, MOUNTS, PID_NAMESPACE, How, own_name
from hpc3build.errors import ToolError
from hpc3build.reference import STORAGE
from hpc3build.run import Completed, Runner, clean_up


class Charliecloud:
    """The launcher protocol over ``ch-run``. The image is unpacked from the store that podman and buildah share."""

    name = "charliecloud"
    store = STORAGE
    lacks = frozenset({ENTRY_POINT, GROUPS, MOUNTS, PID_NAMESPACE})

    def __init__(self, runner: Runner) -> None:
        self._run = runner

    @contextmanager
    def prepared(self, image: str) -> Iterator[str]:
        """Unpack the image into a folder, with /ch/environment as ch-convert(1) writes it from the configuration."""
        with TemporaryDirectory(prefix="hpc3build-ch-") as folder:
            root = Path(folder) / "root"
            root.mkdir()
            container = own_name()
            try:
                self._run(["podman", "create", "--pull=never", "--name", container, image])
                archive = Path(folder) / "image.tar"
                self._run(["podman", "export", "--output", str(archive), container])
                lines = "{{range .Config.Env}}{{println .}}{{end}}"
                env = self._run(["podman", "inspect", "--format", lines, container])
            finally:
                clean_up(self._run, ["podman", "rm", "--force", "--ignore", container])
            # As an unprivileged user unpacks it: the namespace has only one owner, and device nodes are its own.
            self._run(["tar", "-x", "-f", str(archive), "-C", str(root), "--no-same-owner", "--exclude=dev/*"])
            archive.unlink()
            for name in ("ch", "dev", "proc", "sys", "tmp"):
                (root / name).mkdir(exist_ok=True)
            (root / "ch" / "environment").write_text(env.stdout.strip() + "\n")
            yield str(root)

    def run(self, image: str, argv: Sequence[str], how: How = DEFAULT) -> Completed:
        """See Launcher; the root is always read-only. Raises ToolError for what ch-run cannot express."""
        if how.entrypoint or how.groups or how.mounts:
            raise ToolError(f"ch-run lacks {' and '.join(sorted(self.lacks))}")
        user, _, group = (how.user or "0:0").partition(":")
        options = [f"--uid={user}", f"--gid={group or user}", "--unset-env=*", f"--set-env={image}/ch/environment"]
        options += [f"--set-env={name}={value}" for name, value in how.env.items()]
        options += [f"--cd={how.folder}"] if how.folder else []
        # ch-run(1) refuses to start without $USER.
        env = {"USER": "nobody", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        command = ["ch-run", *options, image, "--", *argv]
        return self._run(command, check=False, timeout=how.timeout, input=how.stdin, env=env)
