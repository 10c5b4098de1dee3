"""The PATH of a login in an image: its configuration's, then what the profile scripts add in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hpc3build.evidence.layers import ImageFiles

#: What a container has whose configuration names none (runc, crun).
DEFAULT = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Where distributions put their programs: being there makes none an application.
SYSTEM = frozenset({"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/sbin", "/usr/libexec"})
_PATH = re.compile(r"""^\s*(?:export\s+|setenv\s+)?PATH[= ]["']?([^"'\s;]+)""", re.MULTILINE)


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``, for readers of layers."""
    if path in ("/etc/profile", "/etc/environment", "/etc/bash.bashrc", "/etc/login.defs"):
        return 64 << 10
    return 64 << 10 if path.startswith("/etc/profile.d/") and path.endswith(".sh") else None


def folders(files: ImageFiles, env: Mapping[str, str]) -> Mapping[str, str]:
    """The directories, each with where it is said; those that only a shell could work out are left out."""
    found: dict[str, str] = {}
    for folder in env.get("PATH", DEFAULT).split(":"):
        if folder.startswith("/"):
            found.setdefault(folder.rstrip("/") or "/", "PATH of the configuration")
    for path, folder in _of_scripts(files):
        if folder.startswith("/") and "$" not in folder and "`" not in folder:
            found.setdefault(folder.rstrip("/") or "/", path)
    return found


def _of_scripts(files: ImageFiles) -> Iterator[tuple[str, str]]:
    dropped_in = (path for path in sorted(files) if path.startswith("/etc/profile.d/"))
    for path in ("/etc/environment", "/etc/profile", *dropped_in):
        file = files.resolve(path)
        for match in _PATH.finditer(file.data.decode("utf-8", "replace") if file else ""):
            yield from ((path, folder) for folder in match[1].split(":"))
