"""Answers that no registry should give: an error of ours each time, never a traceback, and the tag stays whole."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hpc3build.errors import Hpc3BuildError
from hpc3build.reference import parse
from hpc3build.stores import read_blob
from hpc3build.stores.access import Access, Limits
from hpc3build.stores.registry import Registry
from hpc3build.stores.transport import Client
from tests.fake_http import Answer, altered
from tests.fake_registry import NAME, FakeRegistry
from tests.images import make_layout

TEXTS = ["", " ", "0", "-1", "99999999999", "abc", "é", "sha256:", "sha256:" + "0" * 64, "a" * 5000, '"', "\t", "<>;,="]
TEXTS += ['Bearer realm="http://127.0.0.1:1/t"', "Basic", "Bearer", '<//[>; rel="next"', "/v2/", "//[", "bytes 0-1/2"]
HEADERS = ["Content-Length", "Content-Type", "Docker-Content-Digest", "ETag", "Link", "Location", "Retry-After"]
HEADERS += ["WWW-Authenticate", "Transfer-Encoding", "Content-Encoding", "Content-Range", "OCI-Subject", "Connection"]
BODIES = [b"", b"{", b"[]", b"null", b'{"errors":{}}', b'{"errors":[null]}', b'{"errors":[{"code":[],"message":{}}]}']
BODIES += [
    b'{"tags":[1]}',
    b'{"tags":{}}',
    b'{"token":1}',
    b"[" * 9000,
    b"\xff\x00",
    b'{"manifests":null}',
    b"7" * 9000,
]
STATUSES = [
    200,
    201,
    202,
    204,
    206,
    301,
    304,
    307,
    308,
    400,
    401,
    403,
    404,
    405,
    412,
    413,
    416,
    418,
    429,
    500,
    503,
    599,
]


def spoil(dice: random.Random, answer: Answer, chance: float) -> None:
    for _ in range(dice.randint(1, 3) if dice.random() < chance else 0):
        kind = dice.choice(["status", "header", "header", "body", "cut"])
        if kind == "status":
            answer.status = dice.choice(STATUSES)
        elif kind == "header":
            answer.headers[dice.choice(HEADERS)] = dice.choice(TEXTS)
        elif kind == "body":
            answer.body = dice.choice([*BODIES, answer.body[:-1], answer.body + b" "])
        else:
            answer.cut_after = dice.randint(0, 50)


@pytest.mark.parametrize("seed", range(6))
def test_nonsense(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    dice = random.Random(seed)
    image = make_layout(tmp_path / "layout", [{"a": b"1" * 1000}])
    with FakeRegistry() as fake:
        fake.add(tmp_path / "layout")
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            fake.fail(method, "", altered(lambda answer: spoil(dice, answer, 0.4)), -1)
        told = 0
        for number in range(60):
            client = Client(
                Access(plain_http=True, username="a", password="b"),
                Limits(read=0.3, total=0.6, attempts=3),
                sleep=lambda seconds: None,
            )
            store = Registry(parse(f"{fake.host}/{NAME}:latest"), client=client)
            try:
                old = store.manifest()
                read_blob(store, old.config.digest)
                store.put_blob(b"%d" % number)
                store.put_manifest(old.with_annotations({"n": str(number)}), "latest", expect=old.digest)
                store.tags()
                store.referrers(old.digest)
                store.signature_tags(old.digest)
                store.mount(old.config.digest, NAME)
            except Hpc3BuildError as error:
                told += 1
                assert str(error).isprintable() and len(str(error)) < 6000
            finally:
                client.close()
            now = fake.raw("latest")
            assert b'"config"' in now and image.config.digest.encode() in now
        assert told > 10
