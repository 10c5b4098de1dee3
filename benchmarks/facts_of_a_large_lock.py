"""Facts of a spack.lock of about 1,200 nodes and 1.4 MB, made from the real locks of the tests: process start included.

Compared with what nobody can go below: a Python that starts and does nothing, and one that only parses the JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measure import HPC3BUILD, ROOT, in_turn, run, show_ratios


def large_lock(nodes: int) -> dict[str, Any]:
    """The locks of version 6 as one environment, again and again under other hashes until there are enough."""
    sources = []
    for path in sorted((ROOT / "tests/data/spack/envs").glob("*/spack.lock")):
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["_meta"]["lockfile-version"] == 6 and document["roots"]:
            sources.append((path.read_text(encoding="utf-8"), list(document["concrete_specs"])))
    made: dict[str, Any] = {}
    roots: list[Any] = []
    copy = 0
    while len(made) < nodes:
        for text, hashes in sources:
            if len(made) >= nodes:
                break
            if copy:
                for digest in hashes:
                    text = text.replace(digest, f"{copy}{digest[1:]}")
            document = json.loads(text)
            made.update(document["concrete_specs"])
            roots += document["roots"]
        copy += 1
    meta = {"file-type": "spack-lockfile", "lockfile-version": 6, "specfile-version": 5}
    return {"_meta": meta, "roots": roots, "concrete_specs": made}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1200)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    document = large_lock(options.nodes)
    with TemporaryDirectory() as folder:
        lock = Path(folder) / "spack.lock"
        lock.write_text(json.dumps(document, separators=(",", ":")), encoding="utf-8")
        counts = f"{len(document['concrete_specs'])} nodes, {len(document['roots'])} roots"
        print(f"{counts}, {lock.stat().st_size / 1e6:.2f} MB")
        parse = [sys.executable, "-c", "import json, sys; json.load(open(sys.argv[1]))", lock]
        jobs = {
            "python: nothing": lambda: run([sys.executable, "-c", "pass"]),
            "python: json.load": lambda: run(parse),
            "hpc3build facts": lambda: run([*HPC3BUILD, "facts", lock, "--json"], PYTHONDONTWRITEBYTECODE=""),
        }
        in_turn(jobs, 1)
        show_ratios(in_turn(jobs, options.runs), "hpc3build facts")


if __name__ == "__main__":
    main()
