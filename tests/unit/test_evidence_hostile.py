"""Layers made to do harm, through the command: a clear end, in bounded time and memory, and nothing written."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import random
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import zstandard

from hpc3build.cli import main
from hpc3build.errors import ImageError
from hpc3build.evidence.binary import read_binary
from hpc3build.evidence.layers import SCAN, Layer, read_layers
from hpc3build.evidence.packages import wanted
from tests.evidence_images import IMAGES, make
from tests.images import add_entry

OCI = "application/vnd.oci.image"
ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0)


def tar(*members: tuple[str, bytes] | tarfile.TarInfo, pack: bool = True) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                made.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size, info.mode = len(member[1]), 0o755
            made.addfile(info, io.BytesIO(member[1]))
    return gzip.compress(stream.getvalue(), 1) if pack else stream.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def absurd() -> bytes:
    """A program whose segments lie beyond everything, on each other and in circles."""
    heads = [struct.pack("<IIQQQQQQ", kind, 4, (1 << 64) - 9, 0, 0, 1 << 63, 1 << 63, 1) for kind in (1, 2, 4)]
    return ELF + b"".join(heads) + bytes(64)


def zeros(count: int) -> Iterator[bytes]:
    """A gzip stream of a file of zeros."""
    import zlib

    packer = zlib.compressobj(9, wbits=31)
    info = tarfile.TarInfo("opt/app/lib/libzero.so")
    info.size = count
    yield packer.compress(info.tobuf(tarfile.GNU_FORMAT))
    for _ in range(count >> 20):
        yield packer.compress(bytes(1 << 20))
    yield packer.flush()


def layout(folder: Path, layer: bytes) -> Path:
    """An image with this layer."""

    def put(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        file = folder / "blobs" / "sha256" / digest
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"]}}
    document = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": put(json.dumps(config).encode(), f"{OCI}.config.v1+json"),
        "layers": [put(layer, f"{OCI}.layer.v1.tar+gzip")],
    }
    add_entry(folder, put(json.dumps(document).encode(), f"{OCI}.manifest.v1+json"), "latest")
    return folder


@contextlib.contextmanager
def ends_within(seconds: int) -> Iterator[None]:
    """A hang is a failure: seconds of CPU, as the machine may be busy."""

    def late(*_: object) -> None:
        raise AssertionError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


LINKS = (special("usr/bin/x", tarfile.SYMTYPE, "x"), special("usr/bin/y", tarfile.LNKTYPE, "../../z"))
ABSOLUTE = (("/etc/os-release", b"ID=x\n"), special("usr/bin/sh", tarfile.SYMTYPE, "/../../bin/sh"))
DEVICES = (special("dev/sda", tarfile.BLKTYPE), special("usr/bin/p", tarfile.FIFOTYPE))
NOISE = random.Random(1).randbytes(90_000)


def lying(size: int) -> bytes:
    """A program that says to have another size than it has."""
    info = tarfile.TarInfo("usr/lib/liba.so")
    info.size = size
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + ELF.ljust(512, b"\0") + bytes(1024))


EMPTY = tuple((f"usr/lib/lib{number}.so", b"") for number in range(20_000))
HOSTILE: Mapping[str, tuple[Callable[[], bytes], int, str]] = {
    "traversal": (lambda: tar(("../../etc/passwd", b"x")), 4, "unsafe path"),
    "absolute link": (lambda: tar(*ABSOLUTE), 0, "os.vendor"),
    "loops": (lambda: tar(*LINKS), 4, "unsafe"),
    "devices": (lambda: tar(*DEVICES), 0, "nothing is known"),
    "zeros": (lambda: b"".join(zeros(300 << 20)), 4, "decompression bomb"),
    "cut tar": (lambda: tar(("usr/bin/a", bytes(90_000)))[:-40], 4, "truncated"),
    "cut gzip": (lambda: tar(("usr/bin/a", NOISE))[:40_000], 4, "truncated"),
    "a larger size": (lambda: lying(8 << 30), 4, "truncated"),
    "a size beyond all": (lambda: lying(1 << 70), 4, "says it holds 1,180,591,620,717,411,303,424 bytes"),
    "a negative size": (lambda: lying(-1), 4, "broken tar"),
    "a smaller size": (lambda: lying(3), 0, "nothing is known"),
    "a wrong checksum": (
        lambda: gzip.compress(tar(("a", b"1"), pack=False).replace(b"0000755", b"0000644")),
        4,
        "checksum",
    ),
    "absurd offsets": (lambda: tar(("usr/bin/a", absurd()), ("usr/lib/libmpi.so.40", absurd())), 0, "an MPI is in"),
    "an archive in it": (lambda: tar(("usr/lib/inner.so", tar(("usr/bin/b", ELF)))), 0, "nothing is known"),
    "a database of nothing": (
        lambda: tar(("var/lib/rpm/rpmdb.sqlite", b"SQLite format 3\0" + bytes(4096))),
        0,
        "nothing",
    ),
    "many empty files": (lambda: tar(*EMPTY), 0, "nothing is known"),
}


@pytest.mark.parametrize(("layer", "status", "told"), HOSTILE.values(), ids=HOSTILE)
def test_it_ends_clearly(
    layer: Callable[[], bytes],
    status: int,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = layout(tmp_path / "image", layer())
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with ends_within(60):
        assert main(["facts", f"oci:{folder}:latest"]) == status
    shown = capsys.readouterr()
    assert told in shown.out + shown.err and "Traceback" not in shown.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.long
@pytest.mark.parametrize(
    ("layer", "status"),
    [
        (lambda: b"".join(zeros(10 << 30)), 4),
        (lambda: tar(*((f"usr/lib/{number}.so", b"") for number in range(1_000_000))), 0),
    ],
    ids=["10 GB of zeros in 10 MB", "a million empty files"],
)
def test_in_bounded_memory(layer: Callable[[], bytes], status: int, tmp_path: Path) -> None:
    folder = layout(tmp_path, layer())
    limit = 600 << 20  # of addresses, which Python takes more of than memory

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    argv = [sys.executable, "-m", "hpc3build", "facts", f"oci:{folder}:latest"]
    done = subprocess.run(argv, preexec_fn=limited, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr


#: Layers by the end of their media types.
PACKED: Mapping[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar+gzip": lambda data: gzip.compress(data, 1),
    "tar+zstd": lambda data: zstandard.compress(data, 1),
}


def fuzz(count: int, seed: int, folder: Path) -> None:
    """The layers of a real image with bytes changed: an ImageError or files, never anything else."""
    chance = random.Random(seed)  # (the same inputs every time)
    manifest = make("musl", folder)
    originals = []
    for layer in manifest.layers:
        packed = (folder / "blobs" / "sha256" / layer.digest.partition(":")[2]).read_bytes()
        originals.append(gzip.decompress(packed))

    def asked(path: str) -> int | None:
        found = wanted(path)
        return SCAN if found is None else found

    for _ in range(count):
        data = bytearray(chance.choice(originals))
        for _ in range(chance.choice((1, 3, 20))):
            at = chance.randrange(chance.choice((2048, 8192, len(data))))  # the first headers, or anywhere
            data[at] = chance.choice((0, 0x30, 0x37, 0xFF, chance.randrange(256)))
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        form = chance.choice(list(PACKED))
        content = bytearray(PACKED[form](bytes(data)))
        if form != "tar" and chance.random() < 0.5:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        layer = Layer("sha256:0", form, lambda content=bytes(content): io.BytesIO(content))  # type: ignore[misc]
        try:
            with ends_within(30):
                read_layers([layer], asked, scan=read_binary)
        except ImageError as error:
            assert "layer sha256:0" in error.message


def test_fuzzed_layers(tmp_path: Path) -> None:
    assert "musl" in IMAGES
    fuzz(400, 3, tmp_path)


@pytest.mark.long
def test_more_fuzzed_layers(tmp_path: Path) -> None:
    fuzz(10_000, 4, tmp_path)
