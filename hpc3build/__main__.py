"""Where the command starts, also as ``python -m hpc3build``: scripts ask for the version often, so it loads nothing."""

from __future__ import annotations

import gc
import sys

from hpc3build import __version__


def main() -> int:
    """Answer ``--version`` at once, and hand everything else to the command line."""
    if sys.argv[1:] == ["--version"]:
        print(f"hpc3build {__version__}")
        return 0
    # An eighth of a short command is the collector walking modules that stay; what is left then is reclaimed as well.
    gc.set_threshold(100_000)
    from hpc3build.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    raise SystemExit(main())
