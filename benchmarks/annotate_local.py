"""One image in containers-storage and in an oci-archive: hpc3build against what skopeo, buildah and regctl take.

The floors are what moves no layer by hand: skopeo copying a layout of manifest and configuration alone, and Python
starting. In-process time is that of the edit without any start. Figures recorded in 2026-11 (318 MB, other machine) are
marked so. Needs skopeo and buildah; regctl is taken from the PATH. containers-storage is one of its own (vfs).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import HPC3BUILD, ROOT, Run, have, in_turn, median, run, show

sys.path.insert(0, str(ROOT))

from hpc3build.reference import parse
from hpc3build.run import run as runner
from hpc3build.workflows.annotate import Wish, annotate
from tests.images import add_entry, descriptor_of, make_document, make_layout

NAME = "containers-storage:localhost/hpc3build-bench:1"
_COUNT = itertools.count()


def pair() -> str:
    return f"bench={next(_COUNT)}"


def in_process(reference: str, rounds: int) -> float:
    """Median seconds of the edit alone."""
    seconds = []
    for _ in range(rounds):
        wish = Wish(pairs=dict([pair().split("=")]))
        began = time.monotonic()
        annotate(parse(reference), wish, runner)
        seconds.append(time.monotonic() - began)
    return statistics.median(seconds)


def storage_jobs(folder: Path) -> dict[str, Callable[[], Run]]:
    def floor() -> Run:
        """The manifest and the configuration alone: skopeo finds the layers in the store."""
        bare = folder / "bare"
        shutil.rmtree(bare, ignore_errors=True)
        raw = subprocess.run(["skopeo", "inspect", "--raw", NAME], capture_output=True, check=True).stdout
        manifest = json.loads(raw) | {"annotations": {"bench": str(next(_COUNT))}}
        text = subprocess.run(["skopeo", "inspect", "--config", "--raw", NAME], capture_output=True, check=True).stdout
        (bare / "blobs" / "sha256").mkdir(parents=True)
        (bare / "blobs" / "sha256" / manifest["config"]["digest"][7:]).write_bytes(text)
        made = make_document(bare, manifest)
        add_entry(bare, descriptor_of(made), "1")
        return run(["skopeo", "copy", "-q", "--preserve-digests", f"oci:{bare}:1", NAME])

    def buildah() -> Run:
        script = (
            'c=$(buildah from "$0") && buildah config --annotation "$1" "$c" >/dev/null && '
            'buildah commit -q --rm "$c" "$0-new" >/dev/null'
        )
        return run(["sh", "-c", script, NAME.removeprefix("containers-storage:"), pair()])

    return {
        "hpc3build annotate": lambda: run([*HPC3BUILD, "annotate", NAME, "-q", "-a", pair()]),
        "skopeo copy without layers (floor; reading not counted)": floor,
        "skopeo export": lambda: exported(folder),
        "buildah from, config, commit (new image ID)": buildah,
    }


def exported(folder: Path) -> Run:
    shutil.rmtree(folder / "exported", ignore_errors=True)
    return run(["skopeo", "copy", "-q", "--dest-oci-accept-uncompressed-layers", NAME, f"oci:{folder / 'exported'}:1"])


def archive_jobs(folder: Path, archive: Path) -> dict[str, Callable[[], Run]]:
    def anew() -> Run:
        (folder / "new.tar").unlink(missing_ok=True)
        return run(["skopeo", "copy", "-q", f"oci-archive:{archive}", f"oci-archive:{folder / 'new.tar'}"])

    found = {
        "hpc3build annotate": lambda: run([*HPC3BUILD, "annotate", f"oci-archive:{archive}", "-q", "-a", pair()]),
        "skopeo copy to a new archive": anew,
    }
    if have("regctl"):
        script = (
            'rm -rf "$1" && regctl image import "ocidir://$1:1" "$0" && '
            'regctl image mod --replace --annotation "$2" "ocidir://$1:1" && '
            'regctl image export "ocidir://$1:1" "$1.tar"'
        )
        found["regctl import, mod, export"] = lambda: run(
            ["sh", "-c", script, str(archive), str(folder / "regctl"), pair()]
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=100, help="size of the layer (default 100)")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpc3build-bench-")))
        conf = folder / "storage.conf"
        conf.write_text(f'[storage]\ndriver = "vfs"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/root"\n')
        os.environ |= {"CONTAINERS_STORAGE_CONF": str(conf), "BUILDAH_ISOLATION": "chroot"}
        make_layout(folder / "layout", [{"data": os.urandom(options.megabytes << 20)}], tag="1", compression="tar")
        archive = folder / "image.tar"
        run(["tar", "cf", archive, "-C", folder / "layout", "oci-layout", "blobs", "index.json"])
        run(["skopeo", "copy", "-q", f"oci:{folder / 'layout'}:1", NAME])
        storage = in_turn(storage_jobs(folder), options.rounds)
        archived = in_turn(archive_jobs(folder, archive), options.rounds)
        inside = {
            NAME: in_process(NAME, options.rounds),
            "archive": in_process(f"oci-archive:{archive}", options.rounds),
        }
    start = median([run([*HPC3BUILD, "--version"]) for _ in range(options.rounds)])
    for title, found, seconds, recorded in (
        ("containers-storage", storage, inside[NAME], "layer-less copy 0.03, skopeo inspect 0.05 each"),
        ("oci-archive", archived, inside["archive"], "in place 0.002, skopeo 2.7, regctl 1.05"),
    ):
        ours = median(found["hpc3build annotate"])
        rows = [[tool, f"{median(runs):.3f}", f"{median(runs) / ours:.2f}"] for tool, runs in found.items()]
        show(
            (f"{title}, {options.megabytes} MB", "s", "ratio"),
            [*rows, ["the edit alone, in process", f"{seconds:.4f}", ""]],
        )
        print(f"recorded, 318 MB: {recorded} s\n")
    print(f"hpc3build --version alone takes {start:.3f} s")


if __name__ == "__main__":
    main()
