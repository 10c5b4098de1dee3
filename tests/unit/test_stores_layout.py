from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from hpc3build.errors import BadReference, ImageError, StoreError, TagMoved
from hpc3build.oci import Manifest, digest_of
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.stores import layout as layout_module
from hpc3build.stores import open_store, read_blob
from hpc3build.stores.files import NEW, told
from hpc3build.stores.layout import REF_NAME, Layout
from tests.images import Symlink, make_layout

LAYERS = [{"bin/a": b"one", "bin/b": Symlink("a")}, {"bin/a": None}]


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_reading(tmp_path: Path) -> None:
    made = make_layout(tmp_path, LAYERS, annotations={"k": "v"})
    with open_store(parse(f"oci:{tmp_path}"), run) as store:
        assert store.manifest() == store.manifest("latest") == store.manifest(made.digest) == made
        assert store.tags() == ("latest",)
        assert digest_of(read_blob(store, made.layers[0].digest)) == made.layers[0].digest


def test_several_and_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no image"):
        Layout.create(tmp_path).manifest()
    one = make_layout(tmp_path, LAYERS, tag="one")
    make_layout(tmp_path, LAYERS[:1], tag="two")
    three = make_layout(tmp_path, [], tag=None)
    store = Layout(tmp_path)
    assert store.tags() == ("one", "two") and store.manifest(three.digest) == three
    with pytest.raises(BadReference) as ambiguous:
        store.manifest()
    assert f"oci:{tmp_path}:two" in ambiguous.value.hint and f"oci:{tmp_path}@{three.digest}" in ambiguous.value.hint
    with pytest.raises(StoreError) as absent:
        store.manifest("nope")
    assert "one, two" in absent.value.hint
    store.put_manifest(one, "two")
    assert store.manifest("two") == one


def test_what_is_no_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(StoreError, match="not an OCI layout"):
            Layout(path)
    (tmp_path / "precious").write_text("x")
    with pytest.raises(StoreError, match="not empty"):
        Layout.create(tmp_path)
    assert files(tmp_path) == {"precious": b"x"}
    with pytest.raises(StoreError, match=r"^/a/b: Permission denied$"), told(tmp_path):
        raise PermissionError(13, "Permission denied", f"/a/b/{NEW}12")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(StoreError, match="docker is not reached") as elsewhere:
        open_store(parse("docker-daemon:quay.io/a/b:1"), run)
    assert "DOCKER_HOST" in elsewhere.value.hint


@pytest.mark.parametrize(
    "index",
    [b"", b"[]", b"{}", b'{"schemaVersion":2,"manifests":[{"digest":"x"}]}', b'{"schemaVersion":2,"manifests":{}}',
     b'{"schemaVersion":2,"manifests":[],"manifests":[]}', b"\xff"],
)  # fmt: skip
def test_a_broken_index(tmp_path: Path, index: bytes) -> None:
    make_layout(tmp_path, LAYERS)
    (tmp_path / "index.json").write_bytes(index)
    with pytest.raises(ImageError, match=r"index\.json"):
        Layout(tmp_path).manifest()


def test_damage_is_seen(tmp_path: Path) -> None:
    made = make_layout(tmp_path, LAYERS)
    store = Layout(tmp_path)
    for digest in (made.digest, made.layers[0].digest):
        path = store.blob_path(digest)
        path.write_bytes(path.read_bytes().replace(b"a", b"b", 1).replace(b"\0", b"\1", 1))
    with pytest.raises(ImageError, match="digest"):
        store.manifest()
    with pytest.raises(ImageError, match="damaged"):
        read_blob(store, made.layers[0].digest)
    store.blob_path(made.config.digest).unlink()
    with pytest.raises(StoreError, match="not there"):
        read_blob(store, made.config.digest)
    os.mkfifo(store.blob_path(made.config.digest))
    with pytest.raises(StoreError, match="not a file"):
        read_blob(store, made.config.digest)


def test_the_size_in_the_index_counts(tmp_path: Path) -> None:
    made = make_layout(tmp_path, LAYERS)
    index = (tmp_path / "index.json").read_text()
    (tmp_path / "index.json").write_text(index.replace(f'"size": {made.size}', f'"size": {made.size + 1}'))
    with pytest.raises(ImageError, match="bytes"):
        Layout(tmp_path).manifest()


@pytest.mark.parametrize("digest", ["../../etc/passwd", "sha256:../../x", "sha256:" + "A" * 64, "md5:" + "a" * 32, ""])
def test_only_digests_become_paths(tmp_path: Path, digest: str) -> None:
    make_layout(tmp_path, LAYERS)
    with pytest.raises(ImageError, match="not a digest"):
        read_blob(Layout(tmp_path), digest)


@pytest.mark.parametrize("tag", ["", "a\nb", "sha256:" + "a" * 64])
def test_unsafe_tags(tmp_path: Path, tag: str) -> None:
    made = make_layout(tmp_path, LAYERS)
    with pytest.raises(BadReference):
        Layout(tmp_path).put_manifest(made, tag)
    assert Layout(tmp_path).tags() == ("latest",)


def test_a_tag_like_a_path_stays_in_the_index(tmp_path: Path) -> None:
    made = make_layout(tmp_path / "layout", LAYERS)
    Layout(tmp_path / "layout").put_manifest(made, "../../evil")
    assert Layout(tmp_path / "layout").manifest("../../evil") == made
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layout"]


def test_other_entries_keep_their_bytes(tmp_path: Path) -> None:
    old = make_layout(tmp_path, LAYERS, tag="one")
    odd = '{ "digest":"sha256:%s",\t"size": 7, "mediaType":"application/vnd.oci.image.manifest.v1+json", "x": 1e2 }'
    index = (tmp_path / "index.json").read_text()
    (tmp_path / "index.json").write_text(index.replace("]}", f", {odd % ('0' * 64)}]}}"))
    before = (tmp_path / "index.json").read_bytes()
    new = old.with_annotations({"a": "b"})
    Layout(tmp_path).put_manifest(new, "one", expect=old.digest)
    expected = before.replace(old.digest.encode(), new.digest.encode())
    assert (tmp_path / "index.json").read_bytes() == expected.replace(
        f'"size": {old.size}'.encode(), f'"size": {new.size}'.encode()
    )
    assert Layout(tmp_path).manifest("one") == new


def test_untagged_images_have_successors(tmp_path: Path) -> None:
    old = make_layout(tmp_path, LAYERS, tag=None)
    new, newer = old.with_annotations({"a": "b"}), old.with_annotations({"a": "c"})
    store = Layout(tmp_path)
    store.put_manifest(new, None)  # an index's child: the blob alone
    assert store.manifest() == old and store.manifest(new.digest) == new
    store.put_manifest(new, None, expect=old.digest)
    assert store.manifest() == new
    store.put_manifest(newer, None, expect=old.digest)  # not listed any more: nothing to replace
    assert [entry["digest"] for entry in json.loads((tmp_path / "index.json").read_bytes())["manifests"]] == [
        new.digest,
        newer.digest,
    ]


def test_a_moved_tag_is_left_alone(tmp_path: Path) -> None:
    old = make_layout(tmp_path, LAYERS)
    store = Layout(tmp_path)
    store.put_manifest(old.with_annotations({"by": "another"}), "latest")
    before = (tmp_path / "index.json").read_bytes()
    for tag in ("latest", "gone"):
        with pytest.raises(TagMoved, match=old.digest):
            store.put_manifest(old.with_annotations({"by": "me"}), tag, expect=old.digest)
    assert (tmp_path / "index.json").read_bytes() == before


def _write_tags(path: Path, name: str, manifest: Manifest) -> None:
    for number in range(12):
        Layout(path).put_manifest(manifest, f"{name}-{number}")


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    made = make_layout(tmp_path, LAYERS)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_tags, args=(tmp_path, name, made)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert set(Layout(tmp_path).tags()) == {"latest"} | {f"{name}-{number}" for name in "abc" for number in range(12)}


def _killed_at(step: int, path: Path, manifest: Manifest) -> bool:
    """Write in a child process that dies at its ``step``-th system call of ours; whether it got so far."""
    child = os.fork()
    if child == 0:
        count = 0

        def dying(real):  # type: ignore[no-untyped-def]
            def call(*arguments, **options):  # type: ignore[no-untyped-def]
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            return call

        os.open, os.fsync, os.fdopen, Path.replace = map(dying, (os.open, os.fsync, os.fdopen, Path.replace))  # type: ignore
        Layout(path).put_manifest(manifest, "latest")
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_any_moment(tmp_path: Path) -> None:
    old = make_layout(tmp_path, LAYERS)
    new = old.with_annotations({"a": "b"})
    seen = []
    for step in range(1, 60):
        killed = _killed_at(step, tmp_path, new)
        store = Layout(tmp_path)
        seen.append(store.manifest("latest"))
        assert seen[-1] in (old, new)
        if not killed:
            break
        store.put_manifest(old, "latest")
        store.blob_path(new.digest).unlink(missing_ok=True)
    assert old in seen and seen[-1] == new and 8 < len(seen) < 59


def test_creating(tmp_path: Path) -> None:
    store = Layout.create(tmp_path / "a" / "b")
    digest = store.put_blob(b"{}")
    assert Layout.create(tmp_path / "a" / "b").tags() == ()
    assert read_blob(store, digest) == b"{}"
    assert json.loads((store.path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    os.umask(mask := os.umask(0))
    assert (store.path / "index.json").stat().st_mode & 0o777 == 0o666 & ~mask
    store.blob_path(digest).write_bytes(b"xx")  # damaged, same length
    store.put_blob(b"{}")
    assert read_blob(store, digest) == b"{}"


@pytest.mark.parametrize("crosses", [False, True])
def test_absorb(tmp_path: Path, crosses: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    make_layout(ours, LAYERS[:1])
    made = make_layout(theirs, LAYERS)
    (theirs / "blobs" / "sha256" / "stranger").write_text("x")
    (theirs / "blobs" / "sha256" / ("e" * 64)).symlink_to("/etc/passwd")
    inode = (theirs / "blobs" / "sha256" / made.layers[1].digest[7:]).stat().st_ino
    index = (ours / "index.json").read_bytes()
    if crosses:

        def rename(_self: Path, _target: Path) -> Path:
            raise OSError(errno.EXDEV, "other file system")

        monkeypatch.setattr(layout_module.Path, "rename", rename)
    Layout(ours).absorb(Layout(theirs))
    assert (ours / "index.json").read_bytes() == index
    assert Layout(ours).manifest(made.digest) == made
    for descriptor in made.descriptors:
        assert digest_of(read_blob(Layout(ours), descriptor.digest)) == descriptor.digest
    moved = (ours / "blobs" / "sha256" / made.layers[1].digest[7:]).stat()
    assert (moved.st_ino == inode) is not crosses
    assert sorted(entry.name for entry in (theirs / "blobs" / "sha256").iterdir()) == ["e" * 64, "stranger"]
    assert not any(entry.name == "stranger" for entry in (ours / "blobs" / "sha256").iterdir())


def test_what_the_system_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_layout(tmp_path, LAYERS)
    before = files(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        Layout(tmp_path).put_manifest(made.with_annotations({"a": "b"}), "latest")
    assert files(tmp_path) == before


def test_ref_name_twice(tmp_path: Path) -> None:
    make_layout(tmp_path, LAYERS)
    make_layout(tmp_path, LAYERS[:1])
    with pytest.raises(ImageError, match="2 images"):
        Layout(tmp_path).manifest("latest")
    assert REF_NAME in (tmp_path / "index.json").read_text()
