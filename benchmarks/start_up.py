"""``hpc3build --version`` beside ``python -c pass`` of the same environment: at most three times as long.

    python benchmarks/start_up.py [--runs N]

Both are started in turn, and the quickest of each counts: a busy machine makes starts slower, and none quicker. Exit
status 1 where the ratio is above three. Run it with the Python of an environment that has hpc3build installed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from measure import HPC3BUILD, in_turn, run

MOST = 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    installed = Path(sys.executable).with_name("hpc3build")
    command = (installed,) if installed.is_file() else HPC3BUILD
    python, ours = "python -c pass", f"{' '.join(map(str, command))} --version"
    jobs = {
        python: lambda: run([sys.executable, "-c", "pass"], PYTHONDONTWRITEBYTECODE=""),
        ours: lambda: run([*command, "--version"], PYTHONDONTWRITEBYTECODE=""),
    }
    in_turn(jobs, 1)
    least = {name: min(run.seconds for run in runs) for name, runs in in_turn(jobs, options.runs).items()}
    for name, seconds in least.items():
        print(f"{seconds * 1000:7.1f} ms  {seconds / least[python]:4.2f}  {name}")
    return 0 if least[ours] <= MOST * least[python] else 1


if __name__ == "__main__":
    sys.exit(main())
