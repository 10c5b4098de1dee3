"""The registry store against a real registry: Debian's docker-registry (distribution 2.8)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc3build import rewrite
from hpc3build.errors import StoreError, TagMoved
from hpc3build.oci import Manifest
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.stores import open_store
from hpc3build.stores.access import Access
from hpc3build.stores.layout import Layout
from hpc3build.stores.refusals import Refusal
from hpc3build.stores.registry import Registry
from hpc3build.stores.transport import Client, Exchange
from tests.images import make_index, make_layout
from tests.integration.registries import KINDS, push, running
from tests.integration.support import missing, sh

pytestmark = [pytest.mark.engine, pytest.mark.skipif(not KINDS, reason="not installed: docker-registry")]

PAIRS = {"org.opencontainers.image.title": "app"}
USER, PASSWORD = "alice", "s3cret-5d1c"
#: htpasswd -nbB alice s3cret-5d1c
HTPASSWD = "alice:$2y$05$ZxQw6Wuww8k20CIc7PSGLO0ss6UkYHqUH54DBfWKy8NFmRLDhJPlC"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(KINDS[0], tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """A registry with a password."""
    (tmp_path / "htpasswd").write_text(f"{HTPASSWD}\n")
    auth = f"auth: {{htpasswd: {{realm: basic-realm, path: {tmp_path}/htpasswd}}}}\n"
    with running(KINDS[0], tmp_path / "guarded", auth) as host:
        yield host


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "home"


@pytest.mark.parametrize("docker", [False, True])
@pytest.mark.parametrize("compression", ["gzip", "tar"])
def test_push_and_annotate(host: str, tmp_path: Path, docker: bool, compression: str) -> None:
    name = f"{host}/push/{'docker' if docker else 'oci'}-{compression}:1"
    data = {"data": bytes(range(256)) * 40_000}
    old = make_layout(tmp_path, [data, {"a": b"1"}], docker=docker, compression=compression, labels={"a": "b"}, tag="1")
    push(tmp_path, old, name)
    with open_store(parse(name), run) as store:
        assert store.manifest().raw == old.raw
        for blob in old.descriptors:
            with store.blob(blob.digest) as stream:
                assert len(stream.read()) == blob.size
        done = rewrite.apply(store, rewrite.plan(store, parse(name), annotations=PAIRS))
        assert done.changed and done.old_digest == old.digest and store.tags() == ("1",)
        new = store.manifest()
        assert new.digest == done.new_digest and dict(new.annotations) == PAIRS
        assert new.config.digest == old.config.digest and [x.digest for x in new.layers] == [
            x.digest for x in old.layers
        ]
        assert not rewrite.apply(store, rewrite.plan(store, parse(name), annotations=PAIRS)).changed
    if not missing("skopeo"):
        options = ("--src-tls-verify=false", "--dest-oci-accept-uncompressed-layers")
        sh("skopeo", "copy", *options, f"docker://{name}", f"oci:{tmp_path}/pulled:1")
        assert Layout(tmp_path / "pulled").manifest("1").digest == new.digest


def test_requests_of_the_floor(host: str, tmp_path: Path) -> None:
    old = make_layout(tmp_path, [{"a": b"2"}], tag="1")
    push(tmp_path, old, f"{host}/floor:1")
    sent: list[Exchange] = []
    client = Client(Access(plain_http=True), observe=sent.append)
    with Registry(parse(f"{host}/floor:1"), client=client) as store:
        store.put_manifest(store.manifest().with_annotations(PAIRS), "1", expect=old.digest)
    client.close()
    assert [(exchange.method, exchange.status) for exchange in sent] == [("GET", 200), ("HEAD", 200), ("PUT", 201)]


def test_index_and_mount(host: str, tmp_path: Path) -> None:
    children = [make_layout(tmp_path, [{arch: b"3"}], architecture=arch, tag=None) for arch in ("amd64", "arm64")]
    index = make_index(tmp_path, children, tag="1")
    push(tmp_path, index, f"{host}/index/one:1")
    sent: list[Exchange] = []
    client = Client(observe=sent.append)
    with (
        Registry(parse(f"{host}/index/one:1"), client=client) as source,
        Registry(parse(f"{host}/index/two:1"), client=client) as store,
    ):
        assert source.manifest().raw == index.raw
        for child in children:
            for blob in child.descriptors:
                store.copy_blob(blob, source)
            store.put_manifest(child, None)
        store.put_manifest(index, "1")
        assert store.manifest("1").digest == index.digest
        assert not any(exchange.method in ("GET", "PUT") and "/blobs/" in exchange.url for exchange in sent)
    client.close()


def test_what_is_not_there(host: str) -> None:
    with Registry(parse(f"{host}/nothing:1")) as store:
        with pytest.raises(Refusal, match=r"404 to GET \(MANIFEST_UNKNOWN"):
            store.manifest()
        with pytest.raises(StoreError, match="NAME_UNKNOWN"):
            store.tags()
        assert store.current("1") is None and not store.exists("sha256:" + "0" * 64)


def test_manifest_of_missing_blobs(host: str, tmp_path: Path) -> None:
    manifest = make_layout(tmp_path, [{"a": b"4"}])
    with Registry(parse(f"{host}/blobless:1")) as store, pytest.raises(Refusal, match=r"400 to PUT .*BLOB_UNKNOWN"):
        store.put_manifest(manifest, "1")


def test_referrers(host: str, tmp_path: Path) -> None:
    """This registry has no referrers API: the tag stands in."""
    image = make_layout(tmp_path, [{"a": b"5"}], tag="1")
    push(tmp_path, image, f"{host}/about:1")
    about = {"mediaType": image.media_type, "digest": image.digest, "size": image.size}
    with Registry(parse(f"{host}/about:1")) as store:
        assert store.referrers(image.digest) == () and store.signature_tags(image.digest) == ()
        referrer = Manifest.parse(image.raw[:-1] + b',"subject":' + str(about).replace("'", '"').encode() + b"}")
        store.put_manifest(referrer, None)
        assert store.list_referrer(referrer)
        assert [found.digest for found in store.referrers(image.digest)] == [referrer.digest]
        store.put_manifest(image, f"{image.digest.replace(':', '-')}.sig")
        assert store.signature_tags(image.digest) == (f"{image.digest.replace(':', '-')}.sig",)


def test_basic_login(guarded: str, tmp_path: Path, home: Path) -> None:
    image = make_layout(tmp_path / "layout", [{"a": b"6"}], tag="1")
    name = f"{guarded}/secret/app:1"
    for access in (Access(), Access(USER, "wrong")):
        with pytest.raises(Refusal, match="401"):
            push(tmp_path / "layout", image, name, access)
    push(tmp_path / "layout", image, name, Access(USER, PASSWORD))
    if missing("podman"):
        pytest.skip("not installed: podman")
    for file in (home / ".docker" / "config.json", tmp_path / "run" / "containers" / "auth.json"):
        argv = ("podman", "login", "--tls-verify=false", "-u", USER, "--password-stdin", "--authfile", file, guarded)
        sh(*argv, input=PASSWORD)
        with open_store(parse(name), run) as store:
            old = store.manifest()
            rewrite.apply(store, rewrite.plan(store, parse(name), annotations={"n": str(len(old.raw))}))
            assert store.manifest().digest != old.digest
        file.unlink()


def race(host: str, name: str, updates: int, *, read_back: bool) -> set[str]:
    """Two writers without a pause, the worst case; the updates that were believed to be written and are not there."""
    applied: list[str] = []

    def write(who: str) -> None:
        with Registry(parse(f"{host}/{name}:1"), Access(plain_http=True), read_back=read_back) as store:
            for number in range(updates // 2):
                while True:
                    old = store.manifest()
                    new = old.with_annotations({f"{who}.{number}": "1"})
                    with contextlib.suppress(TagMoved):
                        store.put_manifest(new, "1", expect=old.digest)
                        break
                applied.append(f"{who}.{number}")

    threads = [threading.Thread(target=write, args=(who,)) for who in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(applied) == updates
    with Registry(parse(f"{host}/{name}:1")) as store:
        return set(applied) - set(store.manifest().annotations)


def test_race(host: str, tmp_path: Path) -> None:
    """Updates are lost only within the round trip between HEAD and PUT, which no client can close on this registry;
    reading back after another sees those too."""
    lost = {}
    for read_back in (False, True):
        name = f"race/{read_back}".lower()
        push(tmp_path, make_layout(tmp_path, [{"a": b"7"}], tag=None), f"{host}/{name}:1")
        lost[read_back] = len(race(host, name, 200, read_back=read_back))
    print(f"of 200 updates {lost[False]} were lost unseen, {lost[True]} with the read-back")
    # 40 to 80 without it; a writer that a loaded machine holds up within that round trip overwrites some in any case.
    assert lost[True] <= 10
