"""The pinned EasyBuild as its users start it, and the smallest easyconfig that it really installs with flags."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

LMOD = Path("/usr/share/lmod/lmod/init/bash")


def needed() -> None:
    """Skip the test where there is no eb to start."""
    if not LMOD.exists() or importlib.util.find_spec("easybuild") is None:
        pytest.skip("not installed: Lmod, or the pinned EasyBuild (the extra easybuild)")


def easyconfig(name: str) -> str:
    """``NAME/1.0-GCC-system``, which installs the file ``NAME.c``."""
    return f"""\
easyblock = 'MakeCp'
name = '{name}'
version = '1.0'
homepage = 'https://example.org'
description = 'A text in the place of a program: the flags are what is looked at.'
toolchain = {{'name': 'GCC', 'version': 'system'}}
sources = [{{'filename': '{name}.c', 'extract_cmd': 'cp %s .'}}]
skipsteps = ['build']
files_to_copy = [(['{name}.c'], 'bin')]
sanity_check_paths = {{'files': ['bin/{name}.c'], 'dirs': []}}
moduleclass = 'tools'
"""


def eb(prefix: Path, *arguments: str | Path, **env: str) -> str:
    """What ``eb ARGUMENTS`` said; it must succeed. It installs into ``prefix``."""
    options = [f"--prefix={prefix}", f"--tmpdir={prefix}", "--robot", "--ignoreconfigfiles="]
    options += ["--allow-use-as-root-and-accept-consequences"] if os.geteuid() == 0 else []
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", f'. {LMOD}; exec eb "$@"', "eb", *map(str, arguments), *options],
        env={"HOME": str(prefix), "PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", **env},
        cwd=prefix,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr
