from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from hpc3build.errors import BadReference, ImageError, StoreError, TagMoved
from hpc3build.oci import Manifest, digest_of, verify
from hpc3build.reference import parse
from hpc3build.rewrite import Target, apply, plan
from hpc3build.run import run
from hpc3build.stores import archive as archive_module
from hpc3build.stores import open_store, read_blob
from hpc3build.stores.archive import Archive
from hpc3build.stores.layout import Layout
from tests.images import descriptor_of, make_document, make_layout

LAYERS = [{"bin/a": b"one"}, {"bin/b": b"x" * 70000}]
NEEDS_SKOPEO = pytest.mark.skipif(shutil.which("skopeo") is None, reason="not installed: skopeo")


def pack(layout: Path, file: Path, *, ending: bytes = b"", **options: Any) -> Path:
    """A tar of a layout, as skopeo orders it: blobs, index.json, oci-layout."""
    with tarfile.open(file, "w", **{"format": tarfile.USTAR_FORMAT, **options}) as tar:
        tar.add(layout / "blobs", "blobs")
        for name in ("index.json", "oci-layout"):
            tar.add(layout / name, name)
    with file.open("r+b") as stream:  # Go ends with two blocks, Python pads to twenty
        stream.truncate(len(file.read_bytes().rstrip(b"\0")) // 512 * 512 + 1536)
        stream.seek(0, os.SEEK_END)
        stream.write(ending)
    return file


def make(tmp_path: Path, tag: str | None = "latest", **options: Any) -> tuple[Path, Manifest]:
    made = make_layout(tmp_path / "layout", LAYERS, tag=tag)
    return pack(tmp_path / "layout", tmp_path / "a.tar", **options), made


def contents(file: Path) -> dict[str, bytes]:
    """By Python's own reader; a name that stands twice fails."""
    with tarfile.open(file) as tar:
        members = [member for member in tar.getmembers() if member.isfile()]
        names = [member.name for member in members]
        assert len(names) == len(set(names))
        found = {}
        for member in members:
            stream = tar.extractfile(member)
            assert stream is not None
            found[member.name] = stream.read()
    return found


def raw_of(file: Path, tag: str = "latest") -> bytes:
    """The tagged manifest, without our own reader."""
    files = contents(file)
    for entry in json.loads(files["index.json"])["manifests"]:
        if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag:
            raw = files["blobs/" + entry["digest"].replace(":", "/")]
            verify(raw, entry["digest"], tag)
            assert len(raw) == entry["size"]
            return raw
    raise KeyError(tag)


def tags(file: Path) -> tuple[str, ...]:
    with Archive(file) as store:
        return store.tags()


def annotate(file: Path, **pairs: str) -> Manifest:
    reference = parse(f"oci-archive:{file}:latest")
    with open_store(reference, run) as store:
        apply(store, plan(store, reference, annotations=pairs))
        return store.manifest("latest")


def test_reading(tmp_path: Path) -> None:
    file, made = make(tmp_path)
    with open_store(parse(f"oci-archive:{file}"), run) as store:
        assert store.manifest() == store.manifest("latest") == store.manifest(made.digest) == made
        assert store.tags() == ("latest",)
        for descriptor in made.descriptors:
            assert digest_of(read_blob(store, descriptor.digest)) == descriptor.digest
        with store.blob(made.layers[0].digest) as one, store.blob(made.layers[1].digest) as two:
            assert one.read(3) + one.read() and two.read()
        with pytest.raises(StoreError, match="no such tag"):
            store.manifest("nope")
        with pytest.raises(StoreError, match="not there"):
            read_blob(store, "sha256:" + "0" * 64)


def test_in_place(tmp_path: Path) -> None:
    file, old = make(tmp_path)
    before, inode = file.read_bytes(), file.stat().st_ino
    new = annotate(file, a="b")
    after = file.read_bytes()
    assert file.stat().st_ino == inode and new == old.with_annotations({"a": "b"}) and raw_of(file) == new.raw
    kept = len(before) - 1024
    changed = {at // 512 for at in range(kept) if before[at] != after[at]}
    assert len(changed) == 1  # the block of index.json; the digits of the size stayed as many
    assert len(after) == len(before) + 512 + -(-new.size // 512) * 512
    assert {name: content for name, content in contents(file).items() if name != "index.json"} == {
        **{name: content for name, content in tar_contents(before).items() if name != "index.json"},
        f"blobs/sha256/{new.digest[7:]}": new.raw,
    }
    stamp = file.stat().st_mtime_ns
    annotate(file, a="b")
    assert file.read_bytes() == after and file.stat().st_mtime_ns == stamp


def tar_contents(raw: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]


@pytest.mark.parametrize("ending", [b"", bytes(9000), b"rest of a writer that was cut off" * 99])
def test_endings(tmp_path: Path, ending: bytes) -> None:
    file, old = make(tmp_path, ending=ending)
    assert raw_of(file) == old.raw
    new = annotate(file, a="b" * 999)
    assert raw_of(file) == new.raw


def test_no_ending_at_all(tmp_path: Path) -> None:
    file, _ = make(tmp_path)
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 1024)
    assert annotate(file, a="b").raw == raw_of(file)


def test_growing_within_the_slot_and_beyond(tmp_path: Path) -> None:
    file, old = make(tmp_path)
    inode = file.stat().st_ino
    with Archive(file) as store:
        store.put_manifest(old, "a-second-tag")
        assert file.stat().st_ino == inode and store.notes == []
        assert raw_of(file) == raw_of(file, "a-second-tag") == old.raw
        store.put_manifest(old.with_annotations({"k": "v"}), "a-third-tag-that-does-not-fit")
        assert file.stat().st_ino != inode and "did not fit" in store.notes[0]
        assert sorted(store.tags()) == ["a-second-tag", "a-third-tag-that-does-not-fit", "latest"]
    assert raw_of(file, "a-third-tag-that-does-not-fit") == old.with_annotations({"k": "v"}).raw
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "layout"]


def test_the_note_reaches_the_result(tmp_path: Path) -> None:
    make_layout(tmp_path / "layout", LAYERS, tag="other" + "x" * 200)
    file, _ = make(tmp_path)
    index = json.loads(contents(file)["index.json"])
    assert len(index["manifests"]) == 2
    reference = parse(f"oci-archive:{file}:latest")
    with Archive(file) as store:
        result = apply(store, plan(store, reference, annotations={"a": "b"}))
        moved = any("whole file" in warning for warning in result.warnings)
    assert raw_of(file) and moved == (len(store.notes) == 1)


@pytest.mark.parametrize("options", [{"format": tarfile.GNU_FORMAT}, {"format": tarfile.PAX_FORMAT}])
def test_formats(tmp_path: Path, options: dict[str, Any]) -> None:
    if options["format"] == tarfile.PAX_FORMAT:
        options["pax_headers"] = {"comment": "x"}
    file, _ = make(tmp_path, **options)
    for value in ("b", "c" * 3000):
        assert annotate(file, a=value).raw == raw_of(file)


def test_records_before_index_json(tmp_path: Path) -> None:
    """pax records with its mtime, as some writers make: they go with it when the file is copied."""
    made = make_layout(tmp_path / "layout", LAYERS)
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted((tmp_path / "layout").rglob("*")):
            info = tar.gettarinfo(path, "./" + str(path.relative_to(tmp_path / "layout")))
            info.pax_headers = {"SCHILY.xattr.user.x": "y" * 600}
            with path.open("rb") if path.is_file() else io.BytesIO() as stream:
                tar.addfile(info, stream if path.is_file() else None)
    with Archive(tmp_path / "a.tar") as store:
        store.put_manifest(made.with_annotations({"a": "b"}), "latest", expect=made.digest)
        store.put_manifest(made, "long" + "x" * 200)
        assert store.notes and set(store.tags()) == {"latest", "long" + "x" * 200}
        for descriptor in made.descriptors:
            assert digest_of(read_blob(store, descriptor.digest)) == descriptor.digest


def test_an_index_of_images(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    images = [make_layout(layout, [{name: b"1"}], tag=None) for name in "abc"]
    (layout / "index.json").unlink()
    kind = "application/vnd.oci.image.index.v1+json"
    make_document(
        layout, {"schemaVersion": 2, "mediaType": kind, "manifests": [*map(descriptor_of, images)]}, tag="latest"
    )
    file = pack(layout, tmp_path / "a.tar")
    reference = parse(f"oci-archive:{file}:latest")
    with Archive(file) as store:
        result = apply(store, plan(store, reference, annotations={"a": "b"}, target=Target(all_children=True)))
        assert len(result.written) == 4 and store.manifest().annotations == {"a": "b"}
    new = json.loads(raw_of(file))
    for entry in new["manifests"]:
        raw = contents(file)["blobs/" + entry["digest"].replace(":", "/")]
        assert len(raw) == entry["size"] and json.loads(raw)["annotations"] == {"a": "b"}


def test_untagged_and_moved(tmp_path: Path) -> None:
    file, old = make(tmp_path, tag=None)
    with Archive(file) as store:
        store.put_manifest(old.with_annotations({"a": "b"}), None, expect=old.digest)
        assert store.manifest().annotations == {"a": "b"}
        with pytest.raises(TagMoved):
            store.put_manifest(old, "latest", expect=old.digest)
        with pytest.raises(BadReference):
            store.put_manifest(old, "a\nb")


# ---- what is refused


def broken(file: Path, at: int, text: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(at)
        stream.write(text)


def test_compressed_and_other_files(tmp_path: Path) -> None:
    file, _ = make(tmp_path)
    for name, content, error in (
        ("gz", gzip.compress(file.read_bytes()), "compressed .gzip"),
        ("zst", b"\x28\xb5\x2f\xfd" + bytes(999), "compressed .zstd"),
        ("text", b"hello" * 999, "no tar"),
        ("short", b"hello", "block"),
        ("empty", b"", "not an OCI archive"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises((StoreError, ImageError), match=error):
            Archive(tmp_path / name)
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(StoreError):
            Archive(path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StoreError, match="not a file"):
        Archive(tmp_path / "fifo")


def test_a_docker_archive(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("manifest.json"))
    with pytest.raises(StoreError) as caught:
        Archive(tmp_path / "a.tar")
    assert "docker-archive:" in caught.value.hint


def add(file: Path, name: str, content: bytes = b"", **members: Any) -> None:
    with tarfile.open(file, "a") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for member, value in members.items():
            setattr(info, member, value)
        tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("name", ["index.json", "./index.json", "/index.json", "x/../index.json", "oci-layout"])
def test_two_of_them(tmp_path: Path, name: str) -> None:
    file, _ = make(tmp_path)
    add(file, name, b"{}")
    if ".." in name:
        with Archive(file) as store:
            assert store.tags() == ("latest",)
        return
    with pytest.raises(ImageError, match="twice"):
        Archive(file)


def test_links_are_no_files(tmp_path: Path) -> None:
    file, made = make(tmp_path)
    add(file, f"blobs/sha256/{'e' * 64}", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    with Archive(file) as store, pytest.raises(StoreError, match="not there"):
        read_blob(store, "sha256:" + "e" * 64)
    add(file, "index.json", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    with pytest.raises(ImageError, match="twice"):
        Archive(file)
    assert made


def test_damage(tmp_path: Path) -> None:
    file, made = make(tmp_path)
    sound = file.read_bytes()
    place = sound.index(b"diff_ids")
    broken(file, place, b"DIFF")
    with Archive(file) as store, pytest.raises(ImageError):
        read_blob(store, made.config.digest)
    for cut in (700, len(sound) // 2 // 512 * 512, len(sound) - 1536 - 512):
        file.write_bytes(sound[:cut])
        with pytest.raises((ImageError, StoreError)):
            Archive(file)
    file.write_bytes(sound[:148] + b"0000000\0" + sound[156:])
    with pytest.raises(ImageError):
        Archive(file)
    file.write_bytes(sound[:-1024] + bytes(512) + b"x" * 512)
    with pytest.raises(ImageError, match="zero block"):
        Archive(file)


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777\0", b"9z         \0"])
def test_sizes_that_lie(tmp_path: Path, size: bytes) -> None:
    file, _ = make(tmp_path)
    data = bytearray(file.read_bytes())
    at = data.index(b"index.json")
    data[at + 124 : at + 136] = size
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    file.write_bytes(data)
    with pytest.raises(ImageError):
        Archive(file)


def test_many_members_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = make(tmp_path)
    monkeypatch.setattr("hpc3build.stores.tarmap.MAX_MEMBERS", 3)
    with pytest.raises(ImageError, match="3 members"):
        Archive(file)


def test_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, made = make(tmp_path)
    real = os.open

    def refuse(path: Any, flags: int, *more: Any) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *more)

    with Archive(file) as store:
        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(StoreError, match="Permission denied"):
            store.put_manifest(made, "x")


# ---- crashes and concurrent writers


def by_sha512(new: Manifest, file: Path, old: Manifest) -> Manifest:
    """``new`` under a name that no ustar header holds, and so ``old`` in the archive: the index keeps its size."""

    def named(one: Manifest) -> Manifest:
        return Manifest.parse(one.raw, None, f"sha512:{hashlib.sha512(one.raw).hexdigest()}")

    with Archive(file) as store:
        store.put_manifest(named(old), "latest")
    return named(new)


class Killed(BaseException):
    """As SIGKILL does: nothing of ours runs any more."""


def _dying(step: int, monkeypatch: pytest.MonkeyPatch, *, torn: bool) -> list[int]:
    """The ``step``-th write or fsync never happens; with ``torn`` half of its bytes are written, block by block."""
    count = [0]
    write, sync = os.pwrite, os.fsync

    def counted() -> bool:
        count[0] += 1
        return count[0] >= step

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        if counted():
            blocks = len(data) // 1024 * 512
            if torn and count[0] == step and blocks:
                write(descriptor, data[:blocks], offset)
            raise Killed
        return write(descriptor, data, offset)

    def fsync(descriptor: int) -> None:
        if counted():
            raise Killed
        sync(descriptor)

    monkeypatch.setattr(archive_module.os, "pwrite", pwrite)
    monkeypatch.setattr(archive_module.os, "fsync", fsync)
    return count


def _cut_off(file: Path, manifest: Manifest, tag: str) -> bool:
    try:
        with Archive(file) as store:
            store.put_manifest(manifest, tag)
    except Killed:
        return True
    return False


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("grows", [False, True, "beyond", "long name"])
def test_killed_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bool, grows: bool | str) -> None:
    file, old = make(tmp_path)
    pairs = {"a": "b" * (9000 if grows else 1)}
    tag = {False: "latest", True: "second", "beyond": "x" * 240, "long name": "latest"}[grows]
    new = old.with_annotations(pairs)
    if grows == "long name":
        new = by_sha512(new, file, old)
    sound = file.read_bytes()
    seen = []
    for step in range(1, 40):
        file.write_bytes(sound)
        with monkeypatch.context() as patch:
            count = _dying(step, patch, torn=torn)
            done = not _cut_off(file, new, tag)
        for name in tmp_path.glob(".new-*"):  # what SIGKILL would leave
            name.unlink()
        found = {name: raw_of(file, name) for name in tags(file)}
        seen.append(found)
        assert found in ({"latest": old.raw}, {"latest": old.raw, tag: new.raw}, {tag: new.raw})
        with Archive(file) as reader:
            assert digest_of(read_blob(reader, old.layers[1].digest)) == old.layers[1].digest
        if done:
            assert count[0] == step - 1
            break
        # Doing it again mends it.
        with Archive(file) as again:
            again.put_manifest(new, tag)
        assert raw_of(file, tag) == new.raw
    assert (
        done
        and found[tag] == new.raw
        and seen[0] == {"latest": old.raw}
        and len(seen) > (2 if grows == "beyond" else 4)
    )


def test_a_change_across_two_blocks_is_not_made_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_layout(tmp_path / "layout", LAYERS, tag="x" * 180)
    old = make_layout(tmp_path / "layout", LAYERS[:1])
    index = tmp_path / "layout" / "index.json"
    short = 480 - index.read_bytes().rindex(b"sha256:") % 512
    index.write_bytes(index.read_bytes().replace(b"[", b"[" + b" " * (short % 512), 1))
    file = pack(tmp_path / "layout", tmp_path / "a.tar")
    sound, new = file.read_bytes(), old.with_annotations({"a": "b"})
    for step in range(1, 20):
        file.write_bytes(sound)
        with monkeypatch.context() as patch:
            _dying(step, patch, torn=True)
            done = not _cut_off(file, new, "latest")
        assert raw_of(file) in (old.raw, new.raw) and raw_of(file, "x" * 180) == first.raw
        if done:
            break
    assert done and raw_of(file) == new.raw


def _write_tags(path: Path, name: str, manifest: Manifest) -> None:
    for number in range(8):
        with Archive(path) as store:
            store.put_manifest(manifest.with_annotations({name: str(number)}), f"{name}-{number}")


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    file, made = make(tmp_path)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_tags, args=(file, name, made)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    names = {f"{name}-{number}" for name in "abc" for number in range(8)}
    assert set(tags(file)) == {"latest"} | names
    for name in names:
        assert raw_of(file, name) == made.with_annotations({name[0]: name[2:]}).raw


def _write_without(descriptor: int, path: Path, manifest: Manifest) -> None:
    os.close(descriptor)  # a lock lives as long as any copy of its descriptor
    _write_tags(path, "a", manifest)


def test_a_writer_waits_for_the_lock(tmp_path: Path) -> None:
    file, made = make(tmp_path)
    context = multiprocessing.get_context("fork")
    with file.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        writer = context.Process(target=_write_without, args=(held.fileno(), file, made), daemon=True)
        writer.start()
        writer.join(0.5)
        assert writer.is_alive() and tags(file) == ("latest",)
    writer.join(30)
    assert len(tags(file)) == 9


def test_an_older_reader_reads_on(tmp_path: Path) -> None:
    file, made = make(tmp_path)
    with Archive(file) as reader, reader.blob(made.layers[1].digest) as stream:
        stream.read(10)
        with Archive(file) as writer:
            writer.put_manifest(made, "x" * 240)
            assert writer.notes
        assert stream.read()


# ---- other readers


@pytest.mark.engine
@NEEDS_SKOPEO
@pytest.mark.parametrize("value", ["b", "b" * 9000])
def test_skopeo_reads_it(tmp_path: Path, value: str) -> None:
    make_layout(tmp_path / "layout", LAYERS)
    file = tmp_path / "skopeo.tar"
    subprocess.run(["skopeo", "copy", "-q", f"oci:{tmp_path}/layout:latest", f"oci-archive:{file}:latest"], check=True)
    for number in range(3):
        new = annotate(file, a=value, b=str(number))
        argv = ["skopeo", "inspect", "--raw", f"oci-archive:{file}:latest"]
        assert subprocess.run(argv, check=True, capture_output=True).stdout == new.raw == raw_of(file)
    copy = ["skopeo", "copy", "-q", "--preserve-digests", f"oci-archive:{file}:latest", f"oci:{tmp_path}/back:1"]
    subprocess.run(copy, check=True)
    assert Layout(tmp_path / "back").manifest("1") == new


@pytest.mark.engine
@NEEDS_SKOPEO
@pytest.mark.parametrize("long_name", [False, True])
def test_skopeo_reads_it_wherever_the_writer_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_name: bool
) -> None:
    file, old = make(tmp_path)
    new = old.with_annotations({"a": "b" * 3000})
    if long_name:
        new = by_sha512(new, file, old)
    sound = file.read_bytes()
    argv = ["skopeo", "inspect", "--raw", f"oci-archive:{file}:latest"]
    for step in range(1, 16):
        file.write_bytes(sound)
        with monkeypatch.context() as patch:
            count = _dying(step, patch, torn=True)
            _cut_off(file, new, "latest")
        said = subprocess.run(argv, check=True, capture_output=True).stdout
        assert said in (old.raw, new.raw)
        if count[0] < step:
            break
    assert said == new.raw
