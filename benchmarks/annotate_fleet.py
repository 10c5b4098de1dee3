"""A registry's images as a whole: rate and memory of one process, requests and bytes an image, shares side by side.

Everything goes to a docker-registry of this machine. "by its own processor time" is the rate that one processor would
reach, were the registry on another machine: other work here lengthens the wall time, not that. The last column compares
peak memory with that of the smallest run: what grows with the number of images would show there.
Needs docker-registry.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from measure import HPC3BUILD, ROOT, Run, run, show

sys.path.insert(0, str(ROOT))

from hpc3build.oci import OCI_MANIFEST, Manifest
from hpc3build.reference import parse
from hpc3build.stores.registry import Registry
from tests.images import make_layout
from tests.integration.registries import KINDS, push, running
from tests.proxy import Proxy

_COUNT = itertools.count()


def fill(host: str, folder: Path, name: str, images: int, repositories: int) -> None:
    """``images`` tags of one small image, spread over repositories NAME/0 …"""
    image: Manifest = make_layout(folder / name, [{"a": os.urandom(100_000)}], tag="1")
    for number in range(repositories):
        push(folder / name, image, f"{host}/{name}/{number}:0")
        with Registry(parse(f"{host}/{name}/{number}")) as registry:
            for tag in range(1, images // repositories):
                registry.put_manifest(image, str(tag))


def argv(*more: str) -> list[str]:
    """Annotate with a value that nothing has yet."""
    return [*HPC3BUILD, "annotate", "-q", "-a", f"bench={next(_COUNT)}", *more]


def side_by_side(name: str, of: int) -> Run:
    """Shares in as many processes; memory is that of the largest."""
    began = time.monotonic()
    pair = f"bench={next(_COUNT)}"
    base = [*HPC3BUILD, "annotate", "-q", "-a", pair, name, "--referrers", "ignore", "--shard"]
    started = [
        subprocess.Popen([*base, f"{number + 1}/{of}"], cwd=ROOT, stdout=subprocess.DEVNULL) for number in range(of)
    ]
    cpu = most = 0.0
    for process in started:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu, most = cpu + usage.ru_utime + usage.ru_stime, max(most, usage.ru_maxrss / 1024)
        if process.returncode:
            raise SystemExit(f"a share ended with {process.returncode}")
    return Run(time.monotonic() - began, cpu, most)


def floor(host: str, name: str, tags: int, repositories: int) -> Run:
    """The same four requests an image, sent by 8 threads that check nothing: what registry and machine can do."""
    images = [(f"{name}/{number}", tag) for number in range(repositories) for tag in range(tags)]
    value = f"bench{next(_COUNT)}"

    def work(mine: list[tuple[str, int]]) -> None:
        with contextlib.closing(http.client.HTTPConnection(host, timeout=60)) as link:

            def ask(method: str, path: str, body: bytes | None = None, kind: str = OCI_MANIFEST) -> bytes:
                headers = {"Content-Type": kind} if body else {"Accept": kind}
                link.request(method, path, body, headers)
                response = link.getresponse()
                content = response.read()
                if response.status >= 300:
                    raise SystemExit(f"{method} {path}: {response.status}")
                return content

            for repository, tag in mine:
                place = f"/v2/{repository}/manifests/{tag}"
                document = json.loads(ask("GET", place))
                ask("GET", f"/v2/{repository}/blobs/{document['config']['digest']}")
                ask("HEAD", place)
                document["annotations"] = {value: "1"}
                ask("PUT", place, json.dumps(document).encode())

    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    threads = [threading.Thread(target=work, args=(images[number::8],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(time.monotonic() - began, cpu, after.ru_maxrss / 1024)


def requests(host: str, name: str, images: int) -> list[list[str]]:
    """What goes over the wire for one image, on average: requests, bytes up, bytes down."""
    rows = []
    pair: list[str] = []
    with Proxy(host) as proxy:
        for what, options in (
            ("--referrers ignore", ["--referrers", "ignore"]),
            ("default", []),
            ("default, --verify", ["--verify"]),
            ("nothing to do", []),
        ):
            proxy.requests.clear()
            proxy.received = 0
            if what != "nothing to do":
                pair = ["-a", f"bench={next(_COUNT)}"]
            run([*HPC3BUILD, "annotate", "-q", *pair, f"docker://{proxy.host}/{name}", *options])
            count = len(proxy.requests)
            rows.append([what, *(f"{number / images:.1f}" for number in (count, proxy.sent, proxy.received))])
    return rows


def far(host: str, name: str, images: int) -> list[list[str]]:
    """With a registry 50 ms away, how the rate grows with what is done at once."""
    rows = []
    with Proxy(host, delay=0.05) as proxy:
        for jobs in ("8", "32"):
            done = run(argv(f"docker://{proxy.host}/{name}", "--jobs", jobs))
            rows.append([f"--jobs {jobs}", f"{images / done.seconds:.0f}"])
    return rows


def flavours(host: str, folder: Path, count: int) -> list[str]:
    """One index of many images that were pushed by digest."""
    names = []
    for number in range(count):
        image = make_layout(folder / "flavours", [{"a": b"1"}], labels={"flavour": str(number)}, tag=None)
        push(folder / "flavours", image, f"{host}/site/app:{number}")
        names.append(f"site/app@{image.digest}")
    with Proxy(host) as proxy:
        placed = [f"{proxy.host}/{name}" for name in names]
        done = run([*HPC3BUILD, "index", "create", "--first-as-default", f"{proxy.host}/site/app:1.0", *placed])
        counts = (len(proxy.requests), proxy.sent, proxy.received)
        return [f"index create of {count}", f"{done.seconds:.1f}", *map(str, counts)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repositories", type=int, default=10)
    parser.add_argument("--flavours", type=int, default=200)
    options = parser.parse_args()
    many, few = options.images, options.images // 10
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpc3build-bench-")))
        host = stack.enter_context(running(KINDS[0], folder / "registry"))
        fill(host, folder, "few", few, options.repositories)
        fill(host, folder, "many", many, options.repositories)
        journal = str(folder / "journal")
        quick = ["--referrers", "ignore"]
        runs: list[tuple[str, int, Run]] = [
            ("few images", few, run(argv(f"docker://{host}/few/*", *quick))),
            ("--referrers ignore", many, run(argv(f"docker://{host}/many/*", *quick))),
            ("default", many, run(argv(f"docker://{host}/many/*"))),
        ]
        pair = argv(f"docker://{host}/many/*", *quick, "--journal", journal)
        runs.append(("with --journal", many, run(pair)))
        runs.append(("the same again: all done", many, run(pair)))
        by_hand = floor(host, "many", many // options.repositories, options.repositories)
        runs.append(("the same requests, nothing else", many, by_hand))
        runs.append(("3 shards side by side", many, side_by_side(f"docker://{host}/many/*", 3)))
        wire = requests(host, "few/*", few)
        away = far(host, "few/*", few)
        index = flavours(host, folder, options.flavours)
    show(("an image takes", "requests", "bytes up", "bytes down"), wire)
    print()
    show(("50 ms away", "images/s"), away)
    print()
    show(("", "s", "requests", "bytes up", "bytes down"), [index])
    print()
    show(("", "images", "s", "images/s", "by its own processor time", "MB", "to the first"), rows(runs))
    print(f"\nload of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


def rows(runs: Sequence[tuple[str, int, Run]]) -> list[list[str]]:
    """The table's lines."""
    base = runs[0][2].megabytes
    return [
        [
            what,
            str(images),
            f"{done.seconds:.1f}",
            f"{images / done.seconds:.0f}",
            f"{images / done.cpu:.0f}",
            f"{done.megabytes:.0f}",
            f"{done.megabytes / base:.2f}",
        ]
        for what, images, done in runs
    ]


if __name__ == "__main__":
    main()
