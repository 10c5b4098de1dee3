"""One image in a registry: requests, bytes and wall time of hpc3build and of the peers on the PATH, in one run.

Everything goes through a proxy that counts; with --delay it also waits before each answer, as a network does. Peers
that are not installed are named with the figures recorded in 2026-11 (marked "recorded"; other machine, same work).
Needs docker-registry. crane, regctl and oras are taken from the PATH.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import HPC3BUILD, ROOT, Run, have, in_turn, knows, median, run, show

sys.path.insert(0, str(ROOT))

from tests.images import make_layout
from tests.integration.registries import KINDS, push, running
from tests.proxy import Proxy

#: oci.md of 2026-11, loopback without delay: requests, bytes up and down.
RECORDED = {
    "crane mutate": (18, 2333, 2367),
    "regctl image mod": (6, 1296, 2541),
    "oras fetch, edit, push": (3, 1297, 1276),
    "buildx imagetools create": (18, 424, 3997),
    "skopeo to dir: and back": (18, 1297, 318_381_062),
    "buildah from, config, commit, push": (31, 2927, 318_381_062),
}
_COUNT = itertools.count()


def jobs(name: str) -> dict[str, Callable[[], Run]]:
    """Each gives the annotation another value, so that there is always something to write."""

    def value() -> str:
        return f"bench={next(_COUNT)}"

    def ours(*options: str) -> Callable[[], Run]:
        return lambda: run([*HPC3BUILD, "annotate", name, "-q", *options, "-a", value()])

    found: dict[str, Callable[[], Run]] = {"hpc3build annotate": ours()}
    if knows("--referrers"):
        found["hpc3build annotate --referrers ignore"] = ours("--referrers", "ignore")
    if have("crane"):
        found["crane mutate"] = lambda: run(["crane", "mutate", "--insecure", "-a", value(), "-t", name, name])
    if have("regctl"):
        found["regctl image mod"] = lambda: run(["regctl", "image", "mod", "--replace", "--annotation", value(), name])
    if have("oras", "jq") == ["oras", "jq"]:
        edit = (
            'oras manifest fetch --plain-http $0 | jq -c ".annotations.bench=\\"$1\\"" > $2 && '
            "oras manifest push --plain-http $0 $2"
        )
        file = Path(tempfile.gettempdir()) / f"bench-{os.getpid()}.json"
        found["oras fetch, edit, push"] = lambda: run(["sh", "-c", edit, name, value(), str(file)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each tool, in turn (default 7)")
    parser.add_argument("--delay", type=float, default=0.1, help="seconds before each answer (default 0.1)")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpc3build-bench-")))
        host = stack.enter_context(running(KINDS[0], folder / "registry"))
        layer = os.urandom(4 << 20)
        image = make_layout(folder / "layout", [{f"{n}": layer + bytes([n])} for n in range(3)], tag="1")
        proxy = stack.enter_context(Proxy(host))
        name = f"{proxy.host}/bench/app:1"
        config = folder / "regctl.json"
        config.write_text(json.dumps({"hosts": {proxy.host: {"tls": "disabled"}}}))
        os.environ["REGCTL_CONFIG"] = str(config)
        push(folder / "layout", image, f"{host}/bench/app:1")
        tools = jobs(name)
        counted = {}
        for tool, job in tools.items():
            job()  # the configuration of crane's is there from now on
            proxy.requests.clear()
            proxy.received = 0
            job()
            layers = sum(entry.digest in request.path for request in proxy.requests for entry in image.layers)
            counted[tool] = (len(proxy.requests), proxy.sent, proxy.received, layers)
        near = in_turn(tools, options.rounds)
        proxy.delay = options.delay
        far = in_turn(tools, options.rounds)
    start = median([run([*HPC3BUILD, "--version"]) for _ in range(options.rounds)])
    ours = median(far["hpc3build annotate"])
    rows = [
        [
            tool, str(counted[tool][0]), f"{counted[tool][1]:,}", f"{counted[tool][2]:,}", f"{median(near[tool]):.3f}",
            f"{median(far[tool]):.3f}", f"{median(far[tool]) / ours:.2f}",
        ]
        for tool in tools
    ]  # fmt: skip
    rows += [
        [f"{tool} (recorded)", str(requests), f"{up:,}", f"{down:,}", "-", "-", "-"]
        for tool, (requests, up, down) in RECORDED.items()
        if tool not in tools
    ]
    show(("tool", "requests", "bytes up", "bytes down", "s", f"s, +{options.delay} s an answer", "ratio"), rows)
    version = subprocess.run([KINDS[0], "--version"], capture_output=True, text=True, check=False).stdout.strip()
    print(f"\n{options.rounds} runs each, in turn; {version}; hpc3build --version alone takes {start:.3f} s")


if __name__ == "__main__":
    main()
