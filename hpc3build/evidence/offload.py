"""Code for AMD GPUs: clang's offload bundles (plain and compressed) in a stream, and code objects by themselves.

Sources: "Clang Offload Bundler" and "User Guide for AMDGPU Backend" of LLVM (bundle layout, EF_AMDGPU_MACH, features).
"""

from __future__ import annotations

import re
import struct
import zlib

MAGIC = b"__CLANG_OFFLOAD_BUNDLE__"
COMPRESSED = b"CCOB"
MAX_ENTRIES, MAX_ID = 256, 256
#: Of one bundle's head, ids included; and what is inflated of a compressed one to find it.
MAX_HEAD = 64 << 10
_ZLIB, _ZSTD = 0, 1
_TARGET = re.compile(rb"^(?:hip|hipv4|openmp)-amdgcn-amd-amdhsa-[^-]*-(gfx[0-9a-f]+(?:-generic)?(?::[a-z]+[+-])*)$")

_EM_AMDGPU = 224
#: EF_AMDGPU_MACH, the low byte of e_flags.
_MACHINES = {
    0x2C: "gfx900", 0x2D: "gfx902", 0x2E: "gfx904", 0x2F: "gfx906", 0x30: "gfx908", 0x31: "gfx909", 0x32: "gfx90c",
    0x33: "gfx1010", 0x34: "gfx1011", 0x35: "gfx1012", 0x36: "gfx1030", 0x37: "gfx1031", 0x38: "gfx1032",
    0x39: "gfx1033", 0x3D: "gfx1035", 0x3E: "gfx1034", 0x3F: "gfx90a", 0x40: "gfx940", 0x41: "gfx1100",
    0x42: "gfx1013", 0x43: "gfx1150", 0x44: "gfx1103", 0x45: "gfx1036", 0x46: "gfx1101", 0x47: "gfx1102",
    0x48: "gfx1200", 0x4A: "gfx1151", 0x4B: "gfx941", 0x4C: "gfx942", 0x4E: "gfx1201", 0x4F: "gfx950",
}  # fmt: skip


def code_object(head: bytes) -> str | None:
    """The target of an AMD code object (an ELF file for the GPU), with its features; None for everything else."""
    if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", head, 18)[0] != _EM_AMDGPU:
        return None
    (flags,) = struct.unpack_from("<I", head, 48)
    machine = _MACHINES.get(flags & 0xFF)
    if machine is None:
        return None
    if head[8] < 2:  # code object version 3: one bit a feature, set or not supported
        return machine
    features = ""
    for name, shift in (("sramecc", 10), ("xnack", 8)):
        features += {2: f":{name}-", 3: f":{name}+"}.get(flags >> shift & 3, "")
    return machine + features


class Bundles:
    """Takes a file's bytes in order; ``targets`` are those met so far."""

    def __init__(self) -> None:
        self.targets: set[str] = set()
        self._held = b""

    def feed(self, piece: bytes, *, last: bool = False) -> None:
        """The next bytes of the file; a head that more bytes would complete waits for them, unless it is the last."""
        held = self._held + piece if self._held else piece
        at = 0
        while (at := self._next(held, at)) >= 0:
            if len(held) - at < MAX_HEAD and not last:
                break
            if held.startswith(COMPRESSED, at):
                self._read(_inflated(held[at : at + MAX_HEAD]))
            else:
                self._read(held[at : at + MAX_HEAD])
            at += len(COMPRESSED)
        self._held = held[at if at >= 0 else max(0, len(held) - len(MAGIC) + 1) :]

    @staticmethod
    def _next(held: bytes, at: int) -> int:
        plain, packed = held.find(MAGIC, at), held.find(COMPRESSED, at)
        return min((found for found in (plain, packed) if found >= 0), default=-1)

    def _read(self, head: bytes) -> None:
        if not head.startswith(MAGIC) or len(head) < len(MAGIC) + 8:
            return
        at = len(MAGIC) + 8
        (count,) = struct.unpack_from("<Q", head, len(MAGIC))
        for _ in range(min(count, MAX_ENTRIES)):
            if at + 24 > len(head):
                return
            _, size, length = struct.unpack_from("<QQQ", head, at)
            at += 24
            if length > MAX_ID:
                return
            match = _TARGET.match(head[at : at + length])
            if match and size:
                self.targets.add(match[1].decode())
            at += length


def _inflated(data: bytes) -> bytes:
    """The start of a compressed bundle, nothing where it is none or broken."""
    if len(data) < 24:
        return b""
    version, method = struct.unpack_from("<HH", data, 4)
    header = {1: 20, 2: 24, 3: 32}.get(version)
    if header is None:
        return b""
    if method == _ZLIB:
        try:
            return zlib.decompressobj().decompress(data[header:], MAX_HEAD)
        except zlib.error:
            return b""
    return _unzstd(data[header:]) if method == _ZSTD else b""


def _unzstd(data: bytes) -> bytes:
    import zstandard

    try:
        return zstandard.ZstdDecompressor(max_window_size=8 << 20).stream_reader(data).read(MAX_HEAD)
    except zstandard.ZstdError:
        return b""
