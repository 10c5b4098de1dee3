"""match on an index of ours and of others, pick, and fingerprint --fast, beside a podman pull of the same image.

The registry is on loopback behind a proxy that counts requests and bytes. All in one run, in turn. Needs
docker-registry; podman is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import HPC3BUILD, ROOT, Run, have, in_turn, median, run, show

sys.path.insert(0, str(ROOT))

from hpc3build.stores.layout import Layout
from tests.images import descriptor_of, make_document, make_layout
from tests.integration.registries import KINDS, push, running
from tests.proxy import Proxy

P = "org.supercontainers."
CPU, GPU, MPI = P + "hardware.cpu.optimized.version", P + "gpu", P + "mpi"
TARGETS = ("x86_64", "x86_64_v2", "x86_64_v3", "x86_64_v4", "zen2", "zen3", "cascadelake", "sapphirerapids")
#: What an image of ours says besides, of which some decides.
MORE = {
    P + "mpi.implementation": "openmpi",
    P + "mpi.abi.version": "40.30.4",
    P + "mpi.portability.mode": "mpi_replace,mpi_system",
    P + "pmi.version": "pmix-4.2.2",
    P + "libc.provider": "glibc",
    P + "libfabric.abi.version": "1.6",
    P + "kernel.version": "3.2.0",
    P + "kernel.modules": "xpmem?",
    P + "os.vendor": "debian",
    P + "os.version": "12",
}
HOST = ROOT / "tests/data/hosts/a100.probe"


def make_indexes(folder: Path) -> None:
    """Eight flavours of one image: ``app:1`` as ``index create`` makes it, ``app:2`` as others tell them apart."""
    layer = os.urandom(8 << 20)
    children = []
    for target in TARGETS:
        pairs = {CPU: target, GPU: "none", MPI: "openmpi", P + "glibc": "2.36", "io.github.hpc3build.vocabulary": "0"}
        image = make_layout(folder, [{"app": layer}, {target: b"1"}], tag=target, labels={**pairs, **MORE})
        platform = {"os": "linux", "architecture": "amd64"}
        children.append(descriptor_of(image, platform=platform, annotations=pairs))
    document = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": children}
    push(folder, make_document(folder, document, tag="2"), f"{os.environ['BENCH_HOST']}/bench/app:2")
    run([*HPC3BUILD, "index", "create", f"oci:{folder}:1", *(f"oci:{folder}:{target}" for target in TARGETS)])
    push(folder, Layout(folder).manifest("1"), f"{os.environ['BENCH_HOST']}/bench/app:1")


def make_records(path: Path, count: int) -> None:
    """Records that differ as those of a site do: targets, GPUs, CUDA, MPI and glibc in many combinations."""
    with path.open("w") as file:
        for number in range(count):
            cuda = number % 3 == 0
            pairs = {
                CPU: TARGETS[number % len(TARGETS)],
                GPU: "cuda" if cuda else "none",
                MPI: ("openmpi", "mpich", "none")[number % 3],
                P + "mpi.abi.version": f"40.30.{number % 7}",
                P + "glibc": f"2.{17 + number % 20}",
                P + "libc.provider": "glibc",
                "io.github.hpc3build.vocabulary": "0",
                "org.opencontainers.image.title": f"app-{number}",
            }
            if cuda:
                pairs |= {
                    P + "hardware.gpu.cuda.version": f"12.{number % 7}",
                    P + "hardware.gpu.architecture": ("sm_80", "sm_90", "compute_80,sm_80")[number % 3],
                }
            entry = {
                "reference": f"docker://registry.example/hpc/app-{number}:1",
                "digest": f"sha256:{number:064x}",
                "platform": {"os": "linux", "architecture": "amd64"},
                "size": 10**9,
                "annotations": pairs,
            }
            file.write(json.dumps(entry) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each, in turn (default 7)")
    parser.add_argument("--records", type=int, default=10_000, help="records for pick (default 10000)")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpc3build-bench-")))
        os.environ["BENCH_HOST"] = host = stack.enter_context(running(KINDS[0], folder / "registry"))
        make_indexes(folder / "layout")
        make_records(folder / "records.jsonl", options.records)
        host_json = folder / "host.json"
        run([*HPC3BUILD, "fingerprint", "--from-probe", str(HOST), "-o", str(host_json)])
        proxy = stack.enter_context(Proxy(host))
        name = f"{proxy.host}/bench/app:1"
        records, given = str(folder / "records.jsonl"), ("--host", str(host_json))
        jobs: dict[str, Callable[[], Run]] = {
            "match, index of ours": lambda: run([*HPC3BUILD, "match", name, *given]),
            "match, index of others": lambda: run([*HPC3BUILD, "match", f"{name[:-1]}2", *given]),
            "pick, index of ours": lambda: run([*HPC3BUILD, "pick", name, *given]),
            f"pick among {options.records} records": lambda: run([*HPC3BUILD, "pick", records, *given]),
            "fingerprint --fast": lambda: run([*HPC3BUILD, "fingerprint", "--fast", "--json"]),
            "fingerprint": lambda: run([*HPC3BUILD, "fingerprint", "--json"]),
            "hpc3build --version": lambda: run([*HPC3BUILD, "--version"]),
        }
        if have("podman"):

            def pull() -> Run:
                subprocess.run(["podman", "rmi", "--force", image], capture_output=True, check=False)
                return run(["podman", "pull", "--quiet", "--tls-verify=false", f"{proxy.host}/bench/app:1"])

            image = f"{proxy.host}/bench/app:1"
            stack.callback(subprocess.run, ["podman", "rmi", "--force", image], capture_output=True, check=False)
            jobs["podman pull of the same"] = pull
        counted = {}
        for tool, job in jobs.items():
            proxy.requests.clear()
            proxy.received = 0
            job()
            counted[tool] = (len(proxy.requests), proxy.received)
        found = in_turn(jobs, options.rounds)
    ours = median(found["match, index of ours"])
    rows = [
        [tool, str(counted[tool][0]), f"{counted[tool][1]:,}", f"{median(runs):.3f}", f"{median(runs) / ours:.2f}",
         f"{max(one.megabytes for one in runs):.0f}"]
        for tool, runs in found.items()
    ]  # fmt: skip
    show(("what", "requests", "bytes down", "s", "ratio", "MB"), rows)
    print(f"\n{options.rounds} runs each, in turn")


if __name__ == "__main__":
    main()
