"""The strip step's search for what to strip, beside the pipeline of ``spack containerize`` (find, file, grep).

    python benchmarks/strip_search.py [DIR]

Both only look: nothing is stripped. What each finds is compared with every file's own first bytes. Needs file(1).
"""

from __future__ import annotations

import argparse
import os
import resource
import runpy
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import ROOT, Run, in_turn, show_ratios

STRIP = ROOT / "containerfiles" / "hpc3build" / "strip.py"
#: As it stands in the Dockerfiles that were published (its last steps, awk and strip, follow the search).
PIPELINE = """\
find -L "$1"/* -type f -exec readlink -f '{}' \\; | xargs file -i | grep 'charset=binary' |
grep 'x-executable\\|x-archive\\|x-sharedlib' | awk -F: '{print $1}' | sort -u
"""
MAGIC = (b"\x7fELF", b"!<arch>\n")


def by_first_bytes(top: Path) -> set[str]:
    """Every ELF file and static archive below ``top``, one name an inode."""
    found: dict[tuple[int, int], str] = {}
    for folder, _, names in os.walk(top):
        for name in names:
            path = Path(folder, name)
            try:
                info = path.lstat()
                if not path.is_symlink() and path.is_file():
                    with path.open("rb") as file:
                        if file.read(8).startswith(MAGIC):
                            found.setdefault((info.st_dev, info.st_ino), str(path))
            except OSError:
                continue
    return set(found.values())


def processor() -> float:
    """Seconds of processors so far, of this process and of its children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", nargs="?", default="/usr", type=Path, metavar="DIR")
    parser.add_argument("--runs", type=int, default=1, help="the pipeline takes its time (default: 1)")
    options = parser.parse_args()
    top = options.tree.resolve()
    if shutil.which("file") is None:
        parser.error("the command file is missing: apt-get install file")
    search: Callable[[list[str]], tuple[list[Any], object]] = runpy.run_path(str(STRIP))["search"]
    sets: dict[str, set[str]] = {}

    def timed(name: str, look: Callable[[], set[str]]) -> Callable[[], Run]:
        def job() -> Run:
            before, began = processor(), time.monotonic()
            sets[name] = look()
            return Run(time.monotonic() - began, processor() - before, 0)

        return job

    def pipeline() -> set[str]:
        done = subprocess.run(["sh", "-c", PIPELINE, "sh", top], capture_output=True, text=True, check=False)
        return set(done.stdout.splitlines())

    def ours() -> set[str]:
        return {name for file in search([str(top)])[0] for name in file.names}

    jobs = {"find, file, grep": timed("find, file, grep", pipeline), "strip.py": timed("strip.py", ours)}
    in_turn({"strip.py": jobs["strip.py"]}, 1)
    found_in = in_turn(jobs, options.runs)
    there = by_first_bytes(top)
    inodes = {Path(name).stat().st_ino for name in there}
    missed = {}
    for name, found in sets.items():
        has = {Path(path).stat().st_ino for path in found if Path(path).exists()}
        missed[name] = f"{len(inodes - has)} of {len(there)}"
    files = sum(len(names) for _, _, names in os.walk(top))
    print(f"{top}: {files} files, {len(there)} ELF files and static archives")
    show_ratios(found_in, "find, file, grep", missed=missed)


if __name__ == "__main__":
    main()
