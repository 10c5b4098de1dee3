"""Layers as streams: what a container would see, from tars made here."""

from __future__ import annotations

import gzip
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import BinaryIO

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc3build.errors import ImageError
from hpc3build.evidence.layers import SCAN, ImageFile, ImageFiles, Layer, read_layers

TAR = "application/vnd.oci.image.layer.v1.tar+gzip"
Entry = tuple[str, bytes | str | None] | tarfile.TarInfo


def tar(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> bytes:
    """(name, bytes) a file, (name, text) a symbolic link, (name, None) a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
                continue
            name, content = entry
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid = 0o755, 7, 8
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def hard(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.LNKTYPE, target
    return info


def opener(data: bytes) -> Callable[[], AbstractContextManager[BinaryIO]]:
    @contextmanager
    def opened() -> Iterator[BinaryIO]:
        with io.BytesIO(data) as stream:
            yield stream

    return opened


def layer(data: bytes, name: str = "sha256:1") -> Layer:
    return Layer(name, TAR, opener(data))


def image(*layers_oldest_first: bytes, limit: int | None = 1000) -> ImageFiles:
    layers = [layer(data, f"sha256:{number}") for number, data in enumerate(layers_oldest_first)]
    return read_layers(layers, lambda _: limit)


def contents(files: ImageFiles) -> dict[str, bytes]:
    return {path: file.data for path, file in files.items() if file.kind == "file"}


def test_entries_with_their_attributes() -> None:
    files = image(tar(("./usr/", None), ("/usr/x", b"abc"), ("usr//y", "x")))
    assert files["/usr/x"] == ImageFile("/usr/x", "file", 0o755, 7, 8, 3, "", b"abc", "sha256:0")
    assert files["/usr/x"].whole
    assert files["/usr"].kind == "directory"
    assert (files["/usr/y"].kind, files["/usr/y"].target) == ("symlink", "x")
    assert len(files) == 3
    assert files.layers == ("sha256:0",)


def test_only_what_is_wanted_and_as_much() -> None:
    wanted = {"/a": 2, "/b": 0, "/d": 10}
    files = read_layers([layer(tar(("a", b"12345"), ("b", b"12345"), ("c", b"12345"), ("d", b"6")))], wanted.get)
    assert contents(files) == {"/a": b"12", "/b": b"", "/d": b"6"}
    assert (files["/a"].size, files["/a"].whole) == (5, False)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names(form: int) -> None:
    name = "/".join(["directory"] * 30) + "/" + "n" * 150 + "é"
    files = image(tar((name, b"x"), ("link", name), ("last", b"y"), form=form))
    assert files["/" + name].data == b"x"
    assert files["/link"].target == name
    assert contents(files)["/last"] == b"y"


def test_ustar_prefix_and_names_that_are_not_utf8() -> None:
    name = "a" * 90 + "/" + "b" * 90
    assert list(image(tar((name, b""), form=tarfile.USTAR_FORMAT))) == ["/" + name]
    data = tar(("\udcff", b"x"), form=tarfile.GNU_FORMAT)
    assert list(image(data)) == ["/\\xff"]


def _many_members(data: bytes) -> bytes:
    return gzip.compress(data[:700]) + gzip.compress(data[700:]) + bytes(100)


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        _many_members,
        zstandard.ZstdCompressor().compress,
        lambda data: zstandard.compress(data[:700]) + zstandard.compress(data[700:]) + b"\x50\x2a\x4d\x18\x02\0\0\0ab",
    ],
)
def test_compressions_are_told_by_magic(pack: Callable[[bytes], bytes]) -> None:
    content = bytes(range(256)) * 20_000
    files = read_layers([layer(pack(tar(("a", content), ("b", b"2"))))], lambda _: len(content))
    assert contents(files) == {"/a": content, "/b": b"2"}


def test_an_empty_layer_is_zeros() -> None:
    assert not image(gzip.compress(bytes(1024)))


def test_newer_layers_decide() -> None:
    files = image(tar(("a", b"old"), ("b", b"kept")), tar(("a", b"new")))
    assert contents(files) == {"/a": b"new", "/b": b"kept"}
    assert files["/a"].layer == "sha256:1"


@pytest.mark.parametrize(
    ("newer", "seen"),
    [
        ([(".wh.d", b"")], {"/e"}),
        ([("d/.wh.f", b"")], {"/d/s/g", "/e"}),
        ([("d/.wh..wh..opq", b""), ("d/n", b"")], {"/d/n", "/e"}),
        ([("d/n", b""), ("d/.wh..wh..opq", b"")], {"/d/n", "/e"}),
        ([(".wh..wh..opq", b""), ("n", b"")], {"/n"}),
        ([("d", b"a file")], {"/d", "/e"}),
        ([("d", "elsewhere")], {"/e"}),
        ([("d", None)], {"/d/f", "/d/s/g", "/e"}),
        ([("e", None)], {"/d/f", "/d/s/g"}),
        ([(".wh.d", b""), ("d/n", b"")], {"/d/n", "/e"}),
        ([(".wh..wh.plnk", b"")], {"/d/f", "/d/s/g", "/e"}),
    ],
)
def test_what_newer_layers_hide(newer: list[Entry], seen: set[str]) -> None:
    older = tar(("d", None), ("d/f", b""), ("d/s/g", b""), ("e", b""))
    assert set(contents(image(older, tar(*newer)))) == seen
    # Nothing comes back in the layers between, and only what is wanted matters, not what hides it.
    assert set(contents(image(older, tar(*newer), tar(("zzz", b"")), tar()))) == seen | {"/zzz"}
    wanted = dict.fromkeys(("/d/f", "/d/s/g", "/e"), 9)
    layers = [layer(older, "sha256:1"), layer(tar(*newer), "sha256:2")]
    assert set(contents(read_layers(layers, wanted.get))) == seen & set(wanted)


def test_removed_and_made_again() -> None:
    files = image(tar(("d/a", b"1")), tar((".wh.d", b"")), tar(("d/b", b"3")))
    assert contents(files) == {"/d/b": b"3"}


def test_a_whiteout_of_a_link_frees_the_path() -> None:
    files = image(tar(("lib", "usr/lib"), ("usr/lib/x", b"1")), tar((".wh.lib", b""), ("lib/y", b"2")))
    assert files.resolve("/lib/x") is None
    assert files.resolve("/lib/y") == files["/lib/y"]


def test_hard_links_share_what_was_read() -> None:
    files = image(tar(("a", b"data"), hard("b", "./a"), hard("c", "/b")))
    assert (files["/b"].data, files["/b"].target, files["/b"].size) == (b"data", "/a", 4)
    assert files["/c"].data == b"data"


def test_hard_link_to_what_nobody_wants() -> None:
    files = read_layers([layer(tar(("a", b"data"), hard("b", "a")))], {"/b": 9}.get)
    assert (files["/b"].kind, files["/b"].data, files["/b"].target) == ("file", b"", "/a")


def test_hard_links_across_layers() -> None:
    older, link = tar(("a", b"data")), tar(hard("b", "a"))
    assert image(older, link)["/b"].data == b"data"
    # What takes the name later is another file.
    assert image(older, link, tar(("a", b"other")))["/b"].data == b""


def test_hard_link_to_a_symbolic_link() -> None:
    files = image(tar(("real", b"x"), ("a", "real"), hard("b", "a")))
    assert (files["/b"].kind, files["/b"].target) == ("symlink", "real")


def test_resolve_follows_links_anywhere() -> None:
    files = image(
        tar(
            ("usr/lib/x86/libm.so.6", b"m"),
            ("lib", "usr/lib"),
            ("usr/lib/now", "/lib/x86"),
            ("opt/m.so", "../lib/now/libm.so.6"),
            ("loop", "loop2"),
            ("loop2", "/loop"),
            ("out", "../../etc/passwd"),
            ("dangling", "/nowhere"),
            ("etc/passwd", b""),
        )
    )
    libm = files["/usr/lib/x86/libm.so.6"]
    assert files.resolve("/opt/m.so") == libm
    assert files.resolve("/lib/now/./libm.so.6") == libm
    assert files.real_path("/lib/now/gone") == "/usr/lib/x86/gone"
    assert files.resolve("/loop") is None
    assert files.resolve("/out") is None
    assert files.resolve("/dangling") is None
    assert files.resolve("/etc/passwd/x") is None


def test_links_are_known_even_where_nobody_wants_them() -> None:
    files = read_layers([layer(tar(("lib", "usr/lib"), ("usr/lib/x", b"1")))], {"/usr/lib/x": 1}.get)
    assert list(files) == ["/usr/lib/x"]
    assert files.resolve("/lib/x") == files["/usr/lib/x"]


def test_a_newer_layer_that_writes_through_a_link() -> None:
    files = image(tar(("lib", "usr/lib"), ("usr/lib/x", b"1")), tar(("lib/y", b"2")))
    assert files.resolve("/lib/x") is files["/usr/lib/x"]
    assert files.resolve("/lib/y") is files["/lib/y"]


def test_glob() -> None:
    names = ("usr/lib/libmpi.so.40", "usr/lib/a/libmpi.so.12", "usr/lib64/libmpi.so", "opt/[x]")
    files = image(tar(*((name, b"") for name in names)))

    def found(pattern: str) -> list[str]:
        return [file.path for file in files.glob(pattern)]

    assert found("/usr/lib*/libmpi.so*") == ["/usr/lib/libmpi.so.40", "/usr/lib64/libmpi.so"]
    assert found("/usr/**/libmpi.so.*") == ["/usr/lib/a/libmpi.so.12", "/usr/lib/libmpi.so.40"]
    assert found("/usr/lib/[!a]*") == ["/usr/lib/libmpi.so.40"]
    assert found("/opt/**") == ["/opt/[x]"]
    assert found("/opt/[[]x]") == ["/opt/[x]"]
    assert found("/usr/lib?[0-9]/*") == ["/usr/lib64/libmpi.so"]
    assert found("/usr/lib?libmpi.so*") == []


def test_scan_sees_content_that_is_never_held() -> None:
    def scan(path: str, size: int, pieces: Iterator[bytes]) -> object:
        return (size, sum(map(len, pieces))) if path != "/none" else None

    data = tar(*((f"f{number}", bytes(3 << 20)) for number in range(4)), ("none", b"x"), hard("z", "f1"))
    files = read_layers([layer(data)], lambda _: SCAN, scan=scan, limit=50_000)
    assert {file.extract for file in files.values()} == {(3 << 20, 3 << 20)}
    assert sorted(files) == ["/f0", "/f1", "/f2", "/f3", "/z"]


def test_what_scan_leaves_is_skipped() -> None:
    data = tar(("a", b"head" + bytes(5 << 20)), ("b", b"tail"))
    files = read_layers([layer(data)], lambda _: SCAN, scan=lambda _path, _size, pieces: next(pieces)[:4])
    assert [files[path].extract for path in ("/a", "/b")] == [b"head", b"tail"]


def test_enough_leaves_older_layers_unread() -> None:
    def never() -> AbstractContextManager[BinaryIO]:
        raise AssertionError("read")

    layers = [Layer("sha256:old", TAR, never), layer(tar(("spack.lock", b"{}")), "sha256:new")]
    files = read_layers(layers, lambda _: 10, enough=lambda files: "/spack.lock" in files)
    assert files.layers == ("sha256:new",)


def test_layers_are_read_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=60)
    data = opener(tar(("a", b"")))

    @contextmanager
    def opened() -> Iterator[BinaryIO]:
        together.wait()
        with data() as stream:
            yield stream

    assert read_layers([Layer("sha256:1", TAR, opened), Layer("sha256:2", TAR, opened)], lambda _: 0, workers=2)


GZIP = gzip.compress(tar(("a", b"abc" * 5000), ("b", b"2")))
PLAIN = tar(("a", b"abc" * 5000), ("b", b"2"))


def number(header: bytes, at: int, field: bytes) -> bytes:
    """``header`` with another field and the checksum that fits."""
    changed = header[:at] + field + header[at + len(field) :]
    total = sum(changed[:148]) + 8 * 32 + sum(changed[156:512])
    return changed[:148] + f"{total:06o}\0 ".encode() + changed[156:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither gzip"),
        (b"hello" * 200, "neither gzip"),
        (GZIP[:-4], "truncated"),
        (GZIP[: len(GZIP) // 2], "truncated"),
        (GZIP[:-8] + bytes(8), "broken gzip"),
        (GZIP[:40] + b"\xff" * 30 + GZIP[70:], "broken gzip"),
        (zstandard.compress(PLAIN)[:-20], "truncated"),
        (zstandard.compress(PLAIN)[:30] + b"\xff" * 100, "zstd"),
        (PLAIN[:5000], "truncated"),
        (PLAIN[: 512 + 15_360], "no end"),
        (PLAIN[:600], "truncated"),
        (PLAIN[:512] + bytes(15_360) + b"x" * 1024, "checksum"),
        (number(PLAIN, 124, b"77777777777\0"), "truncated"),
        (number(PLAIN, 124, b"\x80" + b"\x7f" * 11), "says it holds"),
        (number(PLAIN, 124, b"\xff" * 12), "negative"),
        (number(PLAIN, 124, b"1_0000000\0\0\0"), "size"),
        (number(PLAIN, 124, b"-0000000001\0"), "size"),
        (tar(("../etc/passwd", b"")), "unsafe path"),
        (tar(("a/../../b", b"")), "unsafe path"),
        (tar(hard("x", "../../etc/shadow")), "unsafe path"),
        (tar(("a/.wh...", b"")), "unsafe whiteout"),
        (tar(("n" * 5000, b"")), "a name that no file can have"),
        (tar(("x", "n" * 5000)), "a name that no file can have"),
    ],
)
def test_broken_layers_are_named(data: bytes, message: str) -> None:
    good = layer(tar(("z", b"")), "sha256:good")
    for layers in ([layer(data, "sha256:bad")], [good, layer(data, "sha256:bad"), good]):
        with pytest.raises(ImageError, match="layer sha256:bad: .*" + message):
            read_layers(layers, lambda _: 10)


def test_malformed_pax_records() -> None:
    name = "n" * 120
    data = tar((name, b""))
    for old, new in ((b"130 path=", b"999 path="), (b"130 path=", b"13x path="), (b"130 path=", b"130 path:")):
        assert old in data
        with pytest.raises(ImageError, match="pax"):
            image(data.replace(old, new))


def test_encrypted_layers_are_refused() -> None:
    with pytest.raises(ImageError, match=r"sha256:e: encrypted"):
        read_layers([Layer("sha256:e", TAR + "+encrypted", opener(b""))], lambda _: 1)


def test_devices_are_entries_only() -> None:
    device = tarfile.TarInfo("dev/null")
    device.type = tarfile.CHRTYPE
    assert image(tar(device))["/dev/null"].kind == "other"


def test_bombs_end_early() -> None:
    zeros = zstandard.ZstdCompressor().compressobj()
    head = tarfile.TarInfo("zeros")
    head.size = 2 << 30
    packed = zeros.compress(head.tobuf())
    for _ in range(400):
        packed += zeros.compress(bytes(1 << 20))
    with pytest.raises(ImageError, match="bomb"):
        image(packed + zeros.flush())


def test_what_is_kept_has_a_limit() -> None:
    data = tar(*((f"f{number}", bytes(10_000)) for number in range(20)))
    with pytest.raises(ImageError, match="sha256:1: more than 0 MiB"):
        read_layers([layer(data)], lambda _: 10_000, limit=100_000)
    big = gzip.compress(tar(("big", bytes(200_000))))
    with pytest.raises(ImageError, match="to keep"):
        read_layers([layer(big)], lambda _: 1 << 40, limit=100_000)


@settings(max_examples=300, deadline=20_000)
@given(st.integers(0, 511 * 3), st.binary(min_size=1, max_size=40), st.booleans(), st.integers(0, len(PLAIN)))
def test_mutations_end_in_image_errors_only(at: int, new: bytes, sums: bool, cut: int) -> None:
    base = tar(("d/" + "n" * 120, b"x"), hard("h", "d"), ("s", "../x"), ("a", b"abc" * 5000))
    changed = base[:at] + new + base[at + len(new) :]
    if sums:  # with right checksums the changes reach further
        changed = b"".join(
            number(changed[block : block + 512], 0, b"")
            if base[block + 257 : block + 262] == b"ustar"
            else changed[block : block + 512]
            for block in range(0, len(changed), 512)
        )
    for data in (changed, changed[:cut]):
        try:
            files = image(data)
        except ImageError:
            continue
        for path in files:
            files.resolve(path)
            assert path.startswith("/")
            assert ".." not in path.split("/")
