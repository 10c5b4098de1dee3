"""Records what a real Spack answers to ``--concretize host``, for tests that replay it (tests/data/spack/host).

    python -m tests.record_spack NAME RECIPE --spack DIR [--spack-config DIR] [--packages-source DIR] [--target T]

What tells of this machine (paths of the scratch folder, of Spack, of homes) is replaced by names.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc3build.errors import Hpc3BuildError
from hpc3build.frontends import spack
from hpc3build.recipe import Settings
from hpc3build.run import Completed, run

ROOT = Path(__file__).resolve().parents[1]
HOST = ROOT / "tests" / "data" / "spack" / "host"


@dataclass
class Recorder:
    """A runner that keeps what the last command was asked and what it answered."""

    kept: dict[str, Any] = field(default_factory=dict)

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        done = run(argv, **options)
        if "concretize" in argv:
            lock = Path(argv[argv.index("-e") + 1]) / "spack.lock"
            self.kept = {
                "argv": [_hidden(word, argv) for word in argv],
                "status": done.returncode,
                "output": _hidden(done.stdout + done.stderr, argv),
                "lock": json.loads(_hidden(lock.read_text(), argv)) if lock.is_file() else None,
            }
        return done


def _hidden(text: str, argv: Sequence[str]) -> str:
    scratch = str(Path(argv[argv.index("-e") + 1]).parent)
    program = str(Path(argv[0]).resolve().parents[1])
    for place, name in ((scratch, "SCRATCH"), (program, "SPACK"), (str(Path.home()), "HOME")):
        text = text.replace(place, name)
    return re.sub(r"/tmp/[^\s'\",:]+", "TMP", text)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("recipe", type=Path)
    for option in ("--spack", "--spack-config", "--packages-source", "--target"):
        parser.add_argument(option)
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in ("spack", "spack_config", "packages_source", "target")}
    recorder = Recorder()
    settings = Settings(
        **given, concretize="host", concretize_seconds=1800, environment={key: os.environ[key] for key in os.environ}
    )
    try:
        spack.load((str(options.recipe),), settings, recorder)
    except Hpc3BuildError as error:
        print(error.message)
    folder = HOST / options.name
    folder.mkdir(parents=True, exist_ok=True)
    if (ROOT / "recipes").resolve() not in options.recipe.resolve().parents:
        shutil.copy(options.recipe / "spack.yaml" if options.recipe.is_dir() else options.recipe, folder / "spack.yaml")
    document = {"target": options.target, **recorder.kept}
    (folder / "recording.json").write_text(json.dumps(document, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
