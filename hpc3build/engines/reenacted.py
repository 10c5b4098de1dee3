"""Apptainer and enroot where they cannot be had: what their run scripts make of an image, run by another engine.

Only the run script is re-enacted: who is who, mounts and namespaces are the other engine's.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from hpc3build.engines import DEFAULT, FOLDER, How, Launcher
from hpc3build.imageconfig import ImageConfig
from hpc3build.run import Completed

#: apptainer/apptainer, internal/pkg/build/sources/conveyorPacker_oci.go: arguments are wrapped in double quotes as they
#: are, joined, and evaluated, so that a dollar sign or a quote in them is the shell's. A config without CMD is rare and
#: told apart there; what it runs is the same.
_APPTAINER = 'line=; for word in "$@"; do line="$line \\"$word\\""; done; eval "set ENTRY ${line:-CMD}"; exec "$@"'
#: NVIDIA/enroot, src/docker.sh: the entry point's words are quoted for bash, the arguments handed on.
_ENROOT = 'cd FOLDER || exit 1; if [ $# -gt 0 ]; then exec ENTRY "$@"; else exec ENTRY CMD; fi'


def _apptainer(config: ImageConfig) -> str:
    def words(given: tuple[str, ...] | None) -> str:
        escaped = (word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") for word in given or ())
        return " ".join(f'"{word}"' for word in escaped)

    entry, command = words(config.entrypoint), words(config.cmd)
    return f"ENTRY={shlex.quote(entry)}; CMD={shlex.quote(command)}; " + _APPTAINER.replace("ENTRY", "$ENTRY").replace(
        "CMD", "$CMD"
    )


def _enroot(config: ImageConfig) -> str:
    entry, command = config.entrypoint or (), config.cmd or ()
    if not entry and not command:
        command = ("/bin/sh",)
    text = _ENROOT.replace("FOLDER", shlex.quote(config.working_dir or "/"))
    return text.replace("ENTRY", shlex.join(entry)).replace("CMD", shlex.join(command))


_SCRIPTS = {"apptainer": _apptainer, "enroot": _enroot}
NAMES = tuple(_SCRIPTS)


class Reenacted:
    """The launcher protocol: the run script of ``name`` for ``config``, under ``engine``, on a read-only root."""

    def __init__(self, name: str, engine: Launcher, config: ImageConfig) -> None:
        self.name = f"{name} (re-enacted)"
        # enroot's run script enters the image's own WORKDIR, whatever the job asked for.
        self.lacks = engine.lacks | ({FOLDER} if name == "enroot" else frozenset())
        self.store = engine.store
        self._engine = engine
        self._script = _SCRIPTS[name](config)

    def prepared(self, image: str) -> AbstractContextManager[str]:
        return self._engine.prepared(image)

    def run(self, image: str, argv: Sequence[str], how: How = DEFAULT) -> Completed:
        """See Launcher; round the entry point it is ``apptainer exec``, or pyxis without ``--container-entrypoint``."""
        command = ["/bin/sh", "-c", self._script, "sh", *argv] if how.entrypoint else argv
        return self._engine.run(image, command, replace(how, entrypoint=False, read_only=True))
