"""Where the command starts, also as ``python -m hpc3build``: scripts ask for the version often, so it loads nothing."""

from __future__ import annotations

import gc
import sys

from hpc3build import __version__


def main() -> int:
    """Answer ``--version`` at once, and hand everything else to the command line."""
    if sys.argv[1:] == ["--version"]:
        try:
            print(f"hpc3build {__version__}", flush=True)
            return 0
        except OSError:
            pass  # a full disk, a closed pipe: the command line has words for it
    # An eighth of a short command would be the collector walking modules that stay; cycles of more objects are found.
    gc.set_threshold(300_000)
    try:
        from hpc3build.cli import main as command_line
    except KeyboardInterrupt:  # of an impatient person, before there are words for it
        return 130
    status = command_line()
    gc.freeze()  # what is left goes with the process: nothing to look through at its end
    return status


if __name__ == "__main__":
    raise SystemExit(main())
