"""Facts of images by what lies in their layers: time beside gzip and beside unpacking and searching, and memory.

The layer is made of this machine's own /usr (9,555 files, about 65 MB packed). Figures of one run are compared with
each other only; the targets are 1.6 times gzip, a fifth of unpack and search, and 150 MB.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import random
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import HPC3BUILD, Run, have, in_turn, median, run, show

OCI = "application/vnd.oci.image"
FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/bin", "/usr/lib/python3", "/usr/share")
FILES = 9555
BYTES = 170 << 20
LARGEST = 12 << 20


def files() -> Iterator[Path]:
    """Libraries and programs for two thirds of the bytes, then many small files."""
    left, count = BYTES, FILES
    for folder, share in zip(FOLDERS, (0.55, 0.55, 0.7, 0.9, 1.0), strict=True):
        for top, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                path = Path(top, name)
                if path.is_symlink() or not path.is_file() or (size := path.stat().st_size) > LARGEST:
                    continue
                if left - size < BYTES * (1 - share) or count == 0:
                    continue
                if share == 1.0 and size > 24 << 10:
                    continue
                left, count = left - size, count - 1
                yield path


def layer_of_this_machine(target: Path, vendor: str = "debian") -> None:
    with gzip.open(target, "wb", 6) as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        for path in files():
            tar.add(path)
        _add(tar, "etc/os-release", f"ID={vendor}\nVERSION_ID=12\n".encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o755
    tar.addfile(info, io.BytesIO(data))


class _Library(io.RawIOBase):
    """An ELF file of ``size`` bytes: the head of a real one, then noise."""

    def __init__(self, head: bytes, size: int) -> None:
        self._head, self._left = head, size
        self._noise = random.Random(1).randbytes(1 << 20)  # noqa: S311 (noise)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._head[:size]
        self._head = self._head[size:]
        data = (data + self._noise[: size - len(data)])[: self._left]
        self._left -= len(data)
        return data


def large(target: Path, libraries: int, size: int) -> None:
    """Few large libraries."""
    head = Path(sys.executable).resolve().read_bytes()
    with gzip.open(target, "wb", 1) as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        for number in range(libraries):
            info = tarfile.TarInfo(f"opt/app/lib/libbig{number}.so")
            info.size = size
            tar.addfile(info, _Library(head, size))  # type: ignore[arg-type]


def many(target: Path, entries: int) -> None:
    """Very many small files, of which some look like libraries."""
    with gzip.open(target, "wb", 1) as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        for number in range(entries):
            tar.members = []  # type: ignore[attr-defined] # or it keeps them all, which would be measured
            _add(tar, f"opt/app/share/{number % 997}/file{number}.{'so' if number % 50 == 0 else 'txt'}", b"x")


def layout(folder: Path, *layers: Path) -> str:
    """An OCI layout around layers that lie there; their digests are of what they are."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    descriptors, sums = [], []
    for layer in layers:
        digest = hashlib.sha256()
        with layer.open("rb") as stream:
            while data := stream.read(1 << 20):
                digest.update(data)
        os.link(layer, blobs / digest.hexdigest())
        sums.append(f"sha256:{digest.hexdigest()}")
        size = layer.stat().st_size
        descriptors.append({"mediaType": f"{OCI}.layer.v1.tar+gzip", "digest": sums[-1], "size": size})
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": sums}}
    document = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": put(json.dumps(config).encode(), f"{OCI}.config.v1+json"),
        "layers": descriptors,
    }
    manifest = put(json.dumps(document).encode(), f"{OCI}.manifest.v1+json")
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "1"}  # umoci wants a tag
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"oci:{folder}"


def facts(reference: str, **env: str) -> Callable[[], Run]:
    return lambda: run([*HPC3BUILD, "facts", reference, "--json"], **env)


def times(work: Path, rounds: int) -> None:
    layer = work / "layer.tar.gz"
    layer_of_this_machine(layer)
    twin = work / "twin.tar.gz"
    layer_of_this_machine(twin, "devuan")
    print(f"one layer: {layer.stat().st_size >> 20} MB packed\n")
    one, two = layout(work / "one", layer), layout(work / "two", layer, twin)
    names = "-path '*/bin/*' -o -name '*.so*'"
    search = f"find $d -type f \\( {names} \\) -exec readelf -dV {{}} + >/dev/null 2>&1; rm -rf $d"
    tar = f"d=$(mktemp -d) && tar -xzf $0 -C $d --no-same-owner && {search}"
    umoci = f"d=$(mktemp -d) && umoci unpack --image $0:1 $d/bundle >/dev/null && {search}"
    jobs = {
        "gzip -dc LAYER": lambda: run(["sh", "-c", "gzip -dc $0 >/dev/null", str(layer)]),
        "tar -x, find, readelf": lambda: run(["bash", "-c", tar, str(layer)]),
        "umoci unpack, find, readelf": lambda: run(["bash", "-c", umoci, one.removeprefix("oci:")]),
        "hpc3build facts": facts(one),
        "hpc3build facts, two such layers": facts(two),
        "the same on one core": lambda: run(["taskset", "-c", "0", *HPC3BUILD, "facts", two]),
    }
    if not have("readelf"):
        del jobs["tar -x, find, readelf"]
    if not (have("readelf") and have("umoci")):
        del jobs["umoci unpack, find, readelf"]
    if not have("taskset"):
        del jobs["the same on one core"]
    found = in_turn(jobs, rounds)
    base, busy = median(found["gzip -dc LAYER"]), _processor(found["gzip -dc LAYER"])
    rows = [
        (
            name,
            f"{median(runs):.2f}",
            f"{median(runs) / base:.2f}",
            f"{_processor(runs):.2f}",
            f"{_processor(runs) / busy:.2f}",
            f"{max(each.megabytes for each in runs):.0f}",
        )
        for name, runs in found.items()
    ]
    show(("what", "clock s", "times gzip", "cpu s", "times gzip", "MB"), rows)


def _processor(runs: list[Run]) -> float:
    return min(each.cpu for each in runs)


def memory(work: Path) -> None:
    cases: dict[str, Callable[[Path], None]] = {
        "2 GB of libraries": lambda path: large(path, 20, 100 << 20),
        "a library of 600 MB": lambda path: large(path, 1, 600 << 20),
        "500,000 entries": lambda path: many(path, 500_000),
    }
    rows = []
    for number, (name, make) in enumerate(cases.items()):
        layer = work / f"memory{number}.tar.gz"
        make(layer)
        spent = facts(layout(work / f"memory{number}", layer))()
        rows.append((name, f"{spent.seconds:.1f}", f"{spent.megabytes:.0f}"))
        layer.unlink()
    show(("layer", "seconds", "MB"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each is run (default: 3)")
    parser.add_argument("--no-memory", action="store_true", help="leave out the large layers (4 GB of disk, minutes)")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="hpc3build-benchmark-") as folder:
        times(Path(folder), options.rounds)
        if not options.no_memory:
            print()
            memory(Path(folder))


if __name__ == "__main__":
    main()
