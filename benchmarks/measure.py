"""What the benchmarks share: processes timed with their memory, runs in turn, and tables of ratios."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HPC3BUILD = (sys.executable, "-m", "hpc3build")


@dataclass(frozen=True)
class Run:
    """One process: wall seconds, of these on the CPU, and peak resident memory in MB (this program's own at least)."""

    seconds: float
    cpu: float
    megabytes: float


def run(argv: Sequence[str | os.PathLike[str]], *, cwd: Path = ROOT, **env: str) -> Run:
    """Run a command without its output. Raises SystemExit with its last lines when it fails."""
    began = time.monotonic()
    with subprocess.Popen(
        [os.fspath(part) for part in argv],
        cwd=cwd,
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        said = process.stderr.read() if process.stderr else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"{argv[0]} ended with {process.returncode}: {said[-500:]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def in_turn(jobs: Mapping[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    """Every job ``rounds`` times, one after the other, so that a busy moment meets them all."""
    found: dict[str, list[Run]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            found[name].append(job())
    return found


def median(runs: Sequence[Run]) -> float:
    """Of the seconds."""
    return statistics.median(run.seconds for run in runs)


def knows(option: str) -> bool:
    """Whether ``annotate`` has the option."""
    argv = [*HPC3BUILD, "annotate", "--help"]
    return option in subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def have(*names: str) -> list[str]:
    """Those that are on the PATH."""
    return [name for name in names if shutil.which(name)]


def show(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in Markdown."""
    table = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for number, row in enumerate(table):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def show_ratios(found: Mapping[str, Sequence[Run]], peer: str, **more: Mapping[str, str]) -> None:
    """Medians, and how many times less than ``peer`` each takes: by the clock, and of processors, which no other work
    on the machine lengthens. ``more`` are further columns, each by the rows' names."""
    rows = []
    base = median(found[peer]), statistics.median(run.cpu for run in found[peer])
    for name, runs in found.items():
        mine = median(runs), statistics.median(run.cpu for run in runs)
        figures = [f"{mine[0]:.3f}", f"{base[0] / mine[0]:.1f}x", f"{mine[1]:.3f}", f"{base[1] / mine[1]:.1f}x"]
        rows.append([name, *figures, *(column[name] for column in more.values())])
    show(["", "clock s", "ratio", "processor s", "ratio", *more], rows)
