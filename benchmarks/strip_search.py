"""The strip step's search for what to strip, beside the pipeline of ``spack containerize`` (find, file, grep).

    python benchmarks/strip_search.py [DIR]

Both only look: nothing is stripped. What each finds is compared with every file's own first bytes. Needs file(1).
"""

from __future__ import annotations

import argparse
import os
import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from timing import ROOT, Spent, in_turns, print_table

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", nargs="?", default="/usr", type=Path, metavar="DIR")
    parser.add_argument("--runs", type=int, default=1, help="the pipeline takes its time (default: 1)")
    options = parser.parse_args()
    top = options.tree.resolve()
    if shutil.which("file") is None:
        parser.error("the command file is missing: apt-get install file")
    search: Callable[[list[str]], tuple[list[object], object]] = runpy.run_path(str(STRIP))["search"]
    sets: dict[str, set[str]] = {}

    def pipeline() -> None:
        done = subprocess.run(["sh", "-c", PIPELINE, "sh", top], capture_output=True, text=True, check=False)
        sets["find | file | grep"] = set(done.stdout.splitlines())

    def ours() -> None:
        found, _ = search([str(top)])
        sets["strip.py"] = {name for file in found for name in file.names}  # type: ignore[attr-defined]

    spent: dict[str, list[Spent]] = in_turns({"find | file | grep": pipeline, "strip.py": ours}, options.runs)
    there = by_first_bytes(top)
    inodes = {Path(name).stat().st_ino for name in there}
    notes = {}
    for name, found in sets.items():
        has = {Path(path).stat().st_ino for path in found if Path(path).exists()}
        notes[name] = f"missed {len(inodes - has)} of {len(there)}"
    files = sum(len(names) for _, _, names in os.walk(top))
    print(f"{top}: {files} files, {len(there)} ELF files and static archives")
    print_table(spent, "find | file | grep", notes)


if __name__ == "__main__":
    main()
