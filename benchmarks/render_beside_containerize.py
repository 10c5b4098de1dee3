"""``hpc3build render`` of the seeds' recipe (recipes/gromacs-cuda) beside ``spack containerize``, in one run.

    python benchmarks/render_beside_containerize.py SPACK

SPACK is a clone of Spack. The keys that it refuses are taken out of its copy of the recipe: extra_instructions, which
releases from 0.21 on do not know, and a reference without its URL's companions. Process starts are included.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import HPC3BUILD, ROOT, in_turn, run, show_ratios

RECIPE = ROOT / "recipes" / "gromacs-cuda"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spack", type=Path, metavar="SPACK")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    spack = (options.spack / "bin" / "spack").resolve()
    if not spack.is_file():
        parser.error(f"{options.spack}: no bin/spack there")
    with TemporaryDirectory() as folder:
        for name in ("environment", "user", "system"):
            (Path(folder) / name).mkdir()
        text = (RECIPE / "spack.yaml").read_text(encoding="utf-8")
        theirs = re.sub(r"^    extra_instructions:\n(?:      .*\n)+", "", text, flags=re.MULTILINE)
        (Path(folder) / "environment" / "spack.yaml").write_text(theirs, encoding="utf-8")
        own = {"SPACK_USER_CONFIG_PATH": f"{folder}/user", "SPACK_SYSTEM_CONFIG_PATH": f"{folder}/system"}
        own["PYTHONDONTWRITEBYTECODE"] = ""  # installed programs have theirs
        inside = Path(folder) / "environment"
        jobs = {
            "spack containerize": lambda: run([spack, "containerize"], cwd=inside, **own),
            "spack --version": lambda: run([spack, "--version"], **own),
            "hpc3build render": lambda: run([*HPC3BUILD, "render", RECIPE], PYTHONDONTWRITEBYTECODE=""),
        }
        in_turn(jobs, 1)
        show_ratios(in_turn(jobs, options.runs), "spack containerize")


if __name__ == "__main__":
    main()
