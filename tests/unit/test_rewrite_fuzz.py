"""Mutated manifests, indexes and configurations: an error of ours and no write, or a valid document in which nothing
but what was asked for differs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from hpc3build.errors import Hpc3BuildError
from hpc3build.oci import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, Manifest, digest_of
from hpc3build.reference import parse
from hpc3build.rewrite import DEFAULT, Target, apply, plan
from tests.images import descriptor_of, make_document, make_layout

REFERENCE = parse("oci:/nowhere:1")
PAIRS = {"k": "v", "org.supercontainers.gpu": "none"}
VALUES: list[Any] = [
    None, True, False, 0, -1, 2, 1.5, 1e300, 10**30, "", "x", "é\u2028", "a" * 5000, [], {}, [[]], {"a": None},
    "sha256:" + "0" * 64, "sha256:" + "G" * 64, "../../etc/passwd", "sha512:" + "0" * 128, DOCKER_MANIFEST,
    DOCKER_LIST, OCI_INDEX, "application/vnd.oci.image.layer.v1.tar+gzip", {"k": "old"}, {"k": 1}, ["PATH=/bin"],
]  # fmt: skip
KEYS = [
    "annotations", "Annotations", "k", "mediaType", "mediatype", "config", "Labels", "layers", "manifests", "\u212a",
    "subject", "platform", "data", "urls", "digest", "size", "Env", "rootfs", "vnd.docker.reference.digest", "",
]  # fmt: skip
SNIPPETS = [
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\ud800", b"\\u0000", b"\x00", b"\xff", b"\xef\xbb\xbf", b"NaN",
    b"-Infinity", b"1e999", b"0x1", b"//", b"'", b"\n", b" ", b'"k":"v",', b'"a":1,"a":2,', b"[" * 99,
]  # fmt: skip


class Memory:
    """A store of blobs by digest under one tag; it knows of no writes but these."""

    def __init__(self, blobs: dict[str, bytes], tag: str, media_type: str) -> None:
        self.blobs, self.tag, self.media_type = dict(blobs), tag, media_type
        self.written: list[bytes] = []

    def manifest(self, reference: str | None = None) -> Manifest:
        if reference in (None, "1"):
            return Manifest.parse(self.blobs[self.tag], self.media_type, self.tag)
        if reference not in self.blobs:
            raise Hpc3BuildError("no such manifest")
        return Manifest.parse(self.blobs[reference], None, reference)

    @contextlib.contextmanager
    def blob(self, digest: str) -> Iterator[BinaryIO]:
        if digest not in self.blobs:
            raise Hpc3BuildError("no such blob")
        yield io.BytesIO(self.blobs[digest])

    def put_blob(self, content: bytes, digest: str | None = None) -> str:
        self.written.append(content)
        self.blobs[digest_of(content)] = content
        return digest_of(content)

    def put_manifest(self, manifest: Manifest, tag: str | None, *, expect: str | None = None) -> None:
        self.put_blob(manifest.raw)
        if tag is not None:
            assert expect == self.tag
            self.tag, self.media_type = manifest.digest, manifest.media_type

    def tags(self) -> tuple[str, ...]:
        return ("1",)


def mutated(dice: random.Random, raw: bytes) -> bytes:
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        raw = _text(dice, raw) if dice.random() < 0.3 else _tree(dice, raw)
    return raw


def _text(dice: random.Random, raw: bytes) -> bytes:
    at = dice.randrange(len(raw) + 1)
    kind = dice.randrange(4)
    if kind == 0:
        return raw[:at] + dice.choice(SNIPPETS) + raw[at:]
    if kind == 1:
        return raw[:at] + raw[at + dice.randint(1, 9) :]
    if kind == 2:
        return raw[:at] + bytes([dice.randrange(256)]) + raw[at + 1 :]
    keys = [found.span(1) for found in re.finditer(rb'("(?:[^"\\]|\\.)*")\s*:', raw)]
    if not keys:
        return raw[:at]
    start, end = dice.choice(keys)  # the same key once more, or in another case, or written with an escape
    key = raw[start:end]
    new = dice.choice([key, key.upper(), key.swapcase(), b'"\\u%04x' % key[1] + key[2:] if len(key) > 2 else key])
    return raw[:start] + (new + b":" + dice.choice([b"null", b"{}", b'"x"']) + b"," if dice.random() < 0.5 else b"") + (
        key if dice.random() < 0.5 else new
    ) + raw[end:]  # fmt: skip


def _tree(dice: random.Random, raw: bytes) -> bytes:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key, member in value.items() if isinstance(value, dict) else enumerate(value):
            places.append((value, key))
            if isinstance(member, (dict, list)):
                walk(member)

    if not isinstance(document, (dict, list)):
        return raw
    walk(document)
    if places:
        where, key = dice.choice(places)
        kind = dice.randrange(4)
        if kind == 0:
            del where[key]
        elif kind == 1 and isinstance(where, dict):
            where[dice.choice(KEYS)] = dice.choice(VALUES)
        elif kind == 2 and isinstance(where, list):
            where.append(dice.choice([*VALUES, where[key]]))
        else:
            where[key] = dice.choice(VALUES)
    style = dice.choice([{}, {"indent": 3}, {"indent": "\t"}, {"separators": (",", ":")}, {"ensure_ascii": False}])
    return json.dumps(document, **style).encode("utf-8", "surrogatepass")


def originals(folder: Path) -> tuple[dict[str, bytes], list[Manifest]]:
    """Blobs by digest, and an image, a Docker image, an artifact, an attested index and a Docker list."""
    options: dict[str, Any] = {"labels": {"a": "b"}, "config": {"Env": ["PATH=/bin"], "StopTimeout": 7}, "indent": 3}
    image = make_layout(folder, [{"a": b"1"}, {"b": b"2"}], annotations={"k": "old", "z": "é"}, **options)
    docker = make_layout(folder, [{"a": b"1"}], docker=True, labels={"a": "b"})
    artifact = make_document(folder, {**image.json, "subject": descriptor_of(docker), "artifactType": "x/y", "v": 2e3})
    platform = {"os": "linux", "architecture": "amd64"}
    said = {"vnd.docker.reference.digest": image.digest, "vnd.docker.reference.type": "attestation-manifest"}
    entries = [
        descriptor_of(image, platform=platform, annotations={"m": "d"}),
        descriptor_of(artifact, annotations=said, platform={"os": "unknown", "architecture": "unknown"}),
    ]
    index = make_document(folder, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, indent=1)
    entries = [descriptor_of(docker, platform=platform)]
    listed = make_document(folder, {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries})
    blobs = [path.read_bytes() for path in (folder / "blobs" / "sha256").iterdir()]
    return {digest_of(blob): blob for blob in blobs}, [image, docker, artifact, index, listed]


def strict(raw: bytes) -> Any:
    """JSON with one meaning for every reader, or ValueError."""

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(members)) != len(members):
            raise ValueError("a key twice")
        return dict(members)

    def constant(name: str) -> None:
        raise ValueError(name)

    return json.loads(raw.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)


def assert_valid(raw: bytes) -> None:
    """A manifest or index by the image specification's rules, checked without the product."""
    document = strict(raw)
    assert document["schemaVersion"] == 2 and len({key.casefold() for key in document}) == len(document)
    listed = document["manifests"] if "manifests" in document else [document["config"], *(document["layers"] or ())]
    for entry in listed or ():
        assert re.fullmatch("sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", entry["digest"]) and entry["mediaType"]
        assert isinstance(entry["size"], int) and entry["size"] >= 0
    said = document.get("annotations") or {}
    assert all(isinstance(value, (str, type(None))) for value in said.values())
    if "docker" in (document.get("mediaType") or ""):
        assert "annotations" not in document


def assert_only(old: bytes, new: bytes, *, docker: bool, inside: bool) -> None:
    """Nothing but annotations differs, down to the byte; ``inside``: and descriptors that follow their images."""
    before, after = strict(old), strict(new)
    kept = {key: value for key, value in (before.pop("annotations", None) or {}).items() if key not in PAIRS}
    said = after.pop("annotations", None) or {}
    assert {key: value for key, value in said.items() if key not in PAIRS} == kept
    assert PAIRS.items() <= said.items() or inside
    if docker or inside:
        return
    assert before == after and list(before) == list(after)
    text, other = old.decode(), new.decode()
    start = len(os.path.commonprefix([text, other]))  # noqa: RUF071
    end = len(os.path.commonprefix([text[start:][::-1], other[start:][::-1]]))  # noqa: RUF071
    changed = text[start : len(text) - end]
    keys = re.finditer(r'"(?:a|\\u0061)nnotations"\s*:\s*', text)
    spans = [(key.end(), json.JSONDecoder().raw_decode(text, key.end())[1]) for key in keys]
    assert not changed or any(low <= start and len(text) - end <= high for low, high in spans), changed


def one(dice: random.Random, blobs: dict[str, bytes], kinds: list[Manifest]) -> bool:
    """One mutated document; whether it was written."""
    manifest = dice.choice(kinds)
    of_config = not manifest.is_index and dice.random() < 0.4
    blobs = dict(blobs)
    if of_config:
        config = mutated(dice, blobs[manifest.config.digest])
        blobs[digest_of(config)] = config
        manifest = manifest.with_config(digest_of(config), len(config))
        raw = manifest.raw
    else:
        raw = mutated(dice, manifest.raw)
    blobs[digest_of(raw)] = raw
    store = Memory(blobs, digest_of(raw), manifest.media_type)
    target = dice.choice([DEFAULT, Target(all_children=True), Target(index_only=True)])
    labels = PAIRS if of_config else None
    try:
        done = apply(store, plan(store, REFERENCE, annotations=PAIRS, labels=labels, target=target))
    except Hpc3BuildError as error:
        assert store.written == [] and store.tag == digest_of(raw)
        assert len(error.message) <= 1200
        return False
    new = store.blobs[store.tag]
    assert store.tag == done.new_digest == digest_of(new)
    assert_valid(new)
    assert_only(raw, new, docker=manifest.is_docker, inside=manifest.is_index or of_config)
    if of_config:
        was, now = strict(config), strict(store.blobs[strict(new)["config"]["digest"]])
        assert now["config"].pop("Labels").items() >= PAIRS.items()
        was["config"] = {key: value for key, value in (was.get("config") or {}).items() if key != "Labels"}
        assert was == now
    assert plan(store, REFERENCE, annotations=PAIRS, labels=labels, target=target).is_empty
    return True


@pytest.mark.parametrize(("count", "seed"), [(2_000, 1), pytest.param(20_000, 2, marks=pytest.mark.long)])
def test_mutations(tmp_path: Path, count: int, seed: int) -> None:
    dice = random.Random(seed)
    blobs, kinds = originals(tmp_path)
    written = 0
    for number in range(count):
        state = dice.getstate()
        try:
            written += one(dice, blobs, kinds)
        except Exception as error:
            raise AssertionError(f"mutation {number} of seed {seed}, {hash(state)}") from error
    assert count // 10 < written < count * 9 // 10
