"""Many images in a registry: hpc3build in one process against hpc3build and the peers, run once per image.

Wall time, time on the CPU and peak memory, direct to a registry of this machine; memory also for one image alone. With
--delay everything goes through a proxy that waits before each answer, as a network does. Peers that are not installed
are named with the figures recorded in 2026-11 ("recorded": other machine, 100 images scaled up).
Needs docker-registry. crane and regctl are taken from the PATH.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measure import HPC3BUILD, ROOT, Run, have, knows, run, show

sys.path.insert(0, str(ROOT))

from tests.images import make_layout
from tests.integration.registries import KINDS, push, running
from tests.proxy import Proxy

#: oci.md of 2026-11: seconds an image, one process each.
RECORDED = {"crane mutate": 0.049, "regctl image mod": 0.042, "oras-py script": 0.285}
_COUNT = itertools.count()


def one_each(argv: Sequence[str], names: Sequence[str]) -> Run:
    """The sum of all runs; NAME and PAIR in ``argv`` stand for the image and for what is written."""
    began, cpu, most = time.monotonic(), 0.0, 0.0
    for name in names:
        words = {"NAME": name, "PAIR": f"bench={next(_COUNT)}"}
        done = run([words.get(part, part) for part in argv])
        cpu, most = cpu + done.cpu, max(most, done.megabytes)
    return Run(time.monotonic() - began, cpu, most)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--each", type=int, default=50, help="images for tools run once per image, scaled up")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer (default: no proxy)")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpc3build-bench-")))
        host = stack.enter_context(running(KINDS[0], folder / "registry"))
        image = make_layout(folder / "layout", [{"a": os.urandom(100_000)}], tag="1")
        names = [f"bench/app:{number}" for number in range(options.images)]
        for name in names:
            push(folder / "layout", image, f"{host}/{name}")
        if options.delay:
            host = stack.enter_context(Proxy(host, delay=options.delay)).host
        names = [f"{host}/{name}" for name in names]
        config = folder / "regctl.json"
        config.write_text(json.dumps({"hosts": {host: {"tls": "disabled"}}}))
        os.environ["REGCTL_CONFIG"] = str(config)
        rows = measured(names, names[: options.each], folder)
    base = rows[0][1]
    table = [
        [
            tool,
            f"{done.seconds:.2f}",
            f"{done.seconds / base.seconds:.1f}",
            f"{done.cpu:.2f}" if done.cpu else "-",
            f"{done.megabytes:.0f}" if done.megabytes else "-",
        ]
        for tool, done in rows
    ]
    show((f"{options.images} images, +{options.delay} s an answer", "s", "ratio", "s on the CPU", "MB"), table)
    print(f"\nWhat is run once per image was run {options.each} times and scaled up.")


def measured(names: Sequence[str], few: Sequence[str], folder: Path) -> list[tuple[str, Run]]:
    """Tools, with what they took for all images."""
    rows: list[tuple[str, Run]] = []
    listed = folder / "names"
    listed.write_text("\n".join(names) + "\n")
    ours = [*HPC3BUILD, "annotate", "-q"]
    ways: dict[str, list[str]] = {"hpc3build, one process": [*names]}
    if knows("--batch"):
        ways = {
            "hpc3build --batch": ["--batch", str(listed)],
            "hpc3build --batch --referrers ignore": ["--batch", str(listed), "--referrers", "ignore"],
            "hpc3build --batch --jobs 1": ["--batch", str(listed), "--jobs", "1"],
        }
    for way, options in ways.items():
        rows.append((way, run([*ours, "-a", f"bench={next(_COUNT)}", *options])))
    rows.append(("hpc3build, of these one image alone", run([*ours, "-a", f"bench={next(_COUNT)}", names[0]])))
    each = {"hpc3build, once per image": [*ours, "-a", "PAIR", "NAME"]}
    if have("crane"):
        each["crane mutate"] = ["crane", "mutate", "--insecure", "-a", "PAIR", "-t", "NAME", "NAME"]
    if have("regctl"):
        each["regctl image mod"] = ["regctl", "image", "mod", "--replace", "--annotation", "PAIR", "NAME"]
    for tool, argv in each.items():
        done = one_each(argv, few)
        more = len(names) / len(few)
        rows.append((tool, Run(done.seconds * more, done.cpu * more, done.megabytes)))
    rows += [(f"{tool} (recorded)", Run(s * len(names), 0, 0)) for tool, s in RECORDED.items() if tool not in each]
    return rows


if __name__ == "__main__":
    main()
