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
    # An eighth of a short command would be the collector walking modules that stay; cycles of more objects are found.
    gc.set_threshold(300_000)
    from hpc3build.cli import main as command_line

    status = command_line()
    gc.freeze()  # what is left goes with the process: nothing to look through at its end
    return status


if __name__ == "__main__":
    raise SystemExit(main())
