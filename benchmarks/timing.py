"""What the benchmarks share: commands timed in turns, and one table of ratios at the end."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Our command as a checkout starts it; an installed hpc3build takes the same way in.
HPC3BUILD = (sys.executable, "-m", "hpc3build")


def command(argv: Sequence[str | Path], cwd: Path = ROOT, **variables: str) -> Callable[[], None]:
    """A call of ``argv`` that ends the benchmark when the command fails; Python may keep its byte code, as it does."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def call() -> None:
        done = subprocess.run(
            [*map(str, argv)], cwd=cwd, env={**env, **variables}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit(f"{argv[0]} ended with {done.returncode}: {done.stderr.strip()[-1000:]}")

    return call


@dataclass(frozen=True)
class Spent:
    """Seconds of one run: by the clock, and of processors (its child processes' too), which others cannot lengthen."""

    clock: float
    processor: float


def in_turns(calls: Mapping[str, Callable[[], None]], runs: int) -> dict[str, list[Spent]]:
    """One warm-up, then the calls in turns, so that a busy machine is busy for all of them."""
    spent: dict[str, list[Spent]] = {name: [] for name in calls}
    for number in range(runs + 1):
        for name, call in calls.items():
            clock, processor = time.perf_counter(), _processor()
            call()
            if number:
                spent[name].append(Spent(time.perf_counter() - clock, _processor() - processor))
    return spent


def _processor() -> float:
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def print_table(spent: Mapping[str, Sequence[Spent]], peer: str, notes: Mapping[str, str] | None = None) -> None:
    """Medians, the fastest run, and how many times faster than ``peer`` each is, by the clock and by processors."""
    clock, processor = _medians(spent[peer])
    width = max(map(len, spent))
    print(f"\n{'what':{width}}   clock s (fastest)  ratio   cpu s  ratio")
    for name, runs in spent.items():
        mine = _medians(runs)
        fastest = min(run.clock for run in runs)
        ratios = f"{clock / mine[0]:5.1f}x", f"{processor / mine[1]:5.1f}x"
        row = f"{name:{width}}  {mine[0]:8.3f} ({fastest:7.3f}) {ratios[0]} {mine[1]:7.3f} {ratios[1]}"
        print(f"{row}  {(notes or {}).get(name, '')}".rstrip())


def _medians(runs: Sequence[Spent]) -> tuple[float, float]:
    return statistics.median(run.clock for run in runs), statistics.median(run.processor for run in runs)
