"""The registry store against a registry in this process: what is read, written, checked, and with how many requests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc3build.errors import BadReference, ImageError, StoreError, TagMoved
from hpc3build.oci import OCI_INDEX, OCI_MANIFEST, Manifest, digest_of
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.stores import open_store, read_blob
from hpc3build.stores.access import Access
from hpc3build.stores.layout import Layout
from hpc3build.stores.refusals import Refusal
from hpc3build.stores.registry import Registry
from hpc3build.stores.transport import Client
from tests.fake_http import Answer, altered, before, error, status
from tests.fake_registry import NAME, FakeRegistry
from tests.images import make_index, make_layout

PLAIN = Access(plain_http=True)
PAIRS = {"org.opencontainers.image.title": "app"}


@pytest.fixture
def opened(fake: FakeRegistry) -> Iterator[Callable[..., Registry]]:
    clients: list[Client] = []

    def opened(name: str = f"{NAME}:latest") -> Registry:
        clients.append(Client(PLAIN, sleep=lambda seconds: None))
        return Registry(parse(f"{fake.host}/{name}"), client=clients[-1])

    yield opened
    for client in clients:
        client.close()


# ---- the floor


def test_three_requests_and_the_configuration(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    with opened() as store:
        old = store.manifest()
        read_blob(store, old.config.digest)
        new = old.with_annotations(PAIRS)
        store.put_manifest(new, "latest", expect=old.digest)
    assert fake.raw("latest") == new.raw
    put, head = fake.requests[-1], fake.requests[-2]
    assert fake.seen() == ["GET manifests", "GET blobs", "HEAD manifests", "PUT manifests"]
    assert put.headers["if-match"] == f'"{old.digest}"' and put.headers["content-type"] == OCI_MANIFEST
    assert put.body == new.raw and head.headers["accept"].count(",") == 3


def test_one_connection_serves_them_all(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    with opened() as store:
        for _ in range(3):
            store.manifest()
            store.tags()
            store.current("latest")
        assert sum(map(len, store._client._connections._idle.values())) == 1


def test_importing_it_imports_no_client() -> None:
    code = "import sys, hpc3build.stores.registry; print([n for n in sys.modules if n in sys.argv[1:]])"
    done = subprocess.run(
        [sys.executable, "-c", code, "oras", "requests", "urllib3", "logging", "docker"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_open_store(fake: FakeRegistry) -> None:
    """HTTPS is not answered there, so plain HTTP is tried, once for the process."""
    with open_store(parse(f"docker://{fake.host}/{NAME}:latest"), run) as store:
        assert store.tags() == ("latest",)
    with open_store(parse(f"{fake.host}/{NAME}:latest"), run, Access()) as store:
        assert store.manifest().digest == fake.tags[NAME]["latest"]
    assert fake.seen() == ["GET tags", "GET manifests"]


# ---- reading


@pytest.mark.parametrize("docker", [False, True])
def test_every_media_type(fake: FakeRegistry, opened: Callable[..., Registry], tmp_path: Path, docker: bool) -> None:
    folder = tmp_path / "more"
    child = make_layout(folder, [{"a": b"1"}], docker=docker, tag=None)
    kind = {"mediaType": "application/vnd.docker.distribution.manifest.list.v2+json"} if docker else {}
    index = make_index(folder, [child], tag="index", **kind)
    fake.add(folder)
    if docker:
        fake.put(NAME, "index", index.raw, index.media_type)
    with opened() as store:
        read = store.manifest("index")
        assert read.raw == index.raw and read.is_index
        assert store.manifest(child.digest).raw == child.raw


def test_altered_body_is_refused(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    def alter(answer: Answer) -> None:
        answer.body = answer.body.replace(b'"size"', b'"sizE"', 1)

    fake.fail("GET", "/manifests/", altered(alter), times=-1)
    with opened() as store:
        for reference in (None, fake.tags[NAME]["latest"]):
            with pytest.raises(ImageError, match="digest"):
                store.manifest(reference)


def test_altered_body_with_the_header_of_another(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    def alter(answer: Answer) -> None:
        answer.body += b" "
        answer.headers["Docker-Content-Digest"] = digest_of(answer.body)
        answer.headers.pop("Content-Length", None)

    fake.fail("GET", "/manifests/", altered(alter), times=-1)
    with opened() as store, pytest.raises(ImageError, match="digest"):
        store.manifest(fake.tags[NAME]["latest"])


@pytest.mark.parametrize("header", ["sha256:" + "0" * 64, "nonsense", "sha256:../../x"])
def test_wrong_digest_header(fake: FakeRegistry, opened: Callable[..., Registry], header: str) -> None:
    fake.fail("GET", "/manifests/", altered(lambda answer: answer.headers.update({"Docker-Content-Digest": header})))
    with opened() as store, pytest.raises(ImageError):
        store.manifest()


def test_lying_content_type(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    fake.fail("GET", "/manifests/", altered(lambda answer: answer.headers.update({"Content-Type": OCI_INDEX})))
    with opened() as store, pytest.raises(ImageError, match="but the store says"):
        store.manifest()


def test_manifest_that_is_too_large(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    fake.put(NAME, "big", b"{" + b" " * (5 << 20) + b"}", OCI_MANIFEST)
    with opened() as store, pytest.raises(ImageError, match="larger than 4 MiB"):
        store.manifest("big")


def test_what_is_not_there(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    with opened() as store:
        with pytest.raises(
            Refusal, match=rf"{NAME}:none: .* 404 to GET \(MANIFEST_UNKNOWN: manifest unknown\)"
        ) as told:
            store.manifest("none")
        assert told.value.status == 404 and told.value.code == "MANIFEST_UNKNOWN" and told.value.hint
        with pytest.raises(StoreError, match="404"), store.blob("sha256:" + "0" * 64):
            pass
        assert store.current("none") is None and not store.exists("sha256:" + "0" * 64)
        with pytest.raises(BadReference):
            store.manifest("no tag")
    with opened("nobody/nothing:1") as store, pytest.raises(StoreError, match="NAME_UNKNOWN"):
        store.tags()


def test_blob_is_verified_at_its_end(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    with opened() as store:
        layer = store.manifest().layers[0].digest
        fake.blobs[NAME][layer] = fake.blobs[NAME][layer][:-1] + b"!"
        with pytest.raises(ImageError, match="damaged"):
            read_blob(store, layer)


def test_tags_page_by_page(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    raw = fake.raw("latest")
    for number in range(7):
        fake.put(NAME, f"v{number}", raw, OCI_MANIFEST)
    fake.page = 3
    with opened() as store:
        assert store.tags() == ("latest", *(f"v{number}" for number in range(7)))
    assert fake.seen() == ["GET tags"] * 3
    fake.tags[NAME].clear()
    with opened() as store:
        assert store.tags() == ()


def test_list_that_does_not_end(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    link = {"Link": f'</v2/{NAME}/tags/list?n=1000>; rel="next"'}
    fake.fail("GET", "/tags/", altered(lambda answer: answer.headers.update(link)), times=-1)
    with opened() as store, pytest.raises(StoreError, match="does not end"):
        store.tags()


def test_list_at_another_host(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    link = {"Link": '<http://elsewhere.invalid/v2/x/tags/list>; rel="next"'}
    fake.fail("GET", "/tags/", altered(lambda answer: answer.headers.update(link)), times=-1)
    with opened() as store, pytest.raises(StoreError, match="another host"):
        store.tags()


# ---- writing


def test_moved_before_the_head(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    with opened() as store:
        old = store.manifest()
        other = old.with_annotations({"by": "another"})
        fake.put(NAME, "latest", other.raw, OCI_MANIFEST)
        with pytest.raises(TagMoved, match=other.digest):
            store.put_manifest(old.with_annotations(PAIRS), "latest", expect=old.digest)
        fake.tags[NAME].clear()
        with pytest.raises(TagMoved, match="gone"):
            store.put_manifest(old.with_annotations(PAIRS), "latest", expect=old.digest)
    assert "PUT manifests" not in fake.seen()


def test_moved_between_head_and_put(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    """Only a registry that heeds If-Match can tell (none that was measured does); what is lost is documented."""
    with opened() as store:
        old = store.manifest()
        other = old.with_annotations({"by": "another"})
        fake.heeds_if_match = True
        fake.fail("PUT", "/manifests/", before(lambda: fake.put(NAME, "latest", other.raw, OCI_MANIFEST)))
        with pytest.raises(TagMoved):
            store.put_manifest(old.with_annotations(PAIRS), "latest", expect=old.digest)
    assert fake.tags[NAME]["latest"] == other.digest


def test_without_digest_header_it_is_asked_for(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    fake.digest_header = fake.etag = False
    with opened() as store:
        old = store.manifest()
        store.put_manifest(old.with_annotations(PAIRS), "latest", expect=old.digest)
    reading = ["HEAD manifests", "GET manifests"]
    assert fake.seen() == ["GET manifests", *reading, "PUT manifests", *reading]


def test_registry_that_stores_something_else(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    wrong = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    fake.fail("PUT", "/manifests/", altered(lambda answer: answer.headers.update(wrong)))
    with opened() as store, pytest.raises(StoreError, match="stored sha256:000"):
        store.put_manifest(store.manifest().with_annotations(PAIRS), "latest")


def test_read_back(fake: FakeRegistry) -> None:
    with Registry(parse(f"{fake.host}/{NAME}:latest"), PLAIN, read_back=True) as store:
        store.put_manifest(store.manifest().with_annotations(PAIRS), "latest")
    assert fake.seen() == ["GET manifests", "PUT manifests", "GET manifests"]


def test_children_go_by_digest(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    with opened() as store:
        new = store.manifest().with_annotations(PAIRS)
        store.put_manifest(new, None)
    assert fake.requests[-1].path.endswith(new.digest) and new.digest in fake.manifests[NAME]
    assert fake.seen() == ["GET manifests", "PUT manifests"]


def test_four_mebibytes(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    with opened() as store:
        old = store.manifest()
        fake.seen()
        large = Manifest(OCI_MANIFEST, old.raw[:-1] + b" " * (4 << 20) + b"}")
        with pytest.raises(StoreError, match="bytes, more than the 4194304"):
            store.put_manifest(large, "latest")
        assert fake.seen() == []
        fake.fail("PUT", "/manifests/", status(400, name="MANIFEST_INVALID"))
        with pytest.raises(Refusal, match=r"400 to PUT \(MANIFEST_INVALID: perhaps for its size of 2"):
            store.put_manifest(Manifest(OCI_MANIFEST, old.raw[:-1] + b" " * (2 << 20) + b"}"), "latest")


@pytest.mark.parametrize(
    ("code", "hint"),
    [(401, "no credentials"), (403, "no credentials"), (413, "size"), (405, "allow"), (302, "redirects")],
)
def test_refusals_are_told(fake: FakeRegistry, opened: Callable[..., Registry], code: int, hint: str) -> None:
    headers = {"WWW-Authenticate": 'Basic realm="x"', "Location": "/elsewhere"}
    fake.fail("PUT", "/manifests/", lambda request, right: error(code, "DENIED", headers), times=-1)
    with opened() as store:
        manifest = store.manifest()
        with pytest.raises(Refusal, match=rf"{fake.host}/{NAME}:latest: the registry answers {code} to PUT") as told:
            store.put_manifest(manifest.with_annotations(PAIRS), "latest")
    assert told.value.code == "DENIED" and hint in told.value.hint and told.value.exit_code == 4
    assert fake.seen() == ["GET manifests", "PUT manifests"]


def test_wrong_tag_asks_nothing(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    with opened() as store:
        manifest = store.manifest()
        for tag in ("", "a/b", "../x", "a?b", "x" * 129, manifest.digest):
            with pytest.raises(BadReference):
                store.put_manifest(manifest, tag)
    assert fake.seen() == ["GET manifests"]


def test_blob_is_sent_once(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    with opened() as store:
        assert store.put_blob(b"new") == digest_of(b"new") == store.put_blob(b"new")
    assert fake.blobs[NAME][digest_of(b"new")] == b"new"
    assert fake.seen() == ["HEAD blobs", "POST uploads", "PUT uploads", "HEAD blobs"]


def test_mount_and_copy(fake: FakeRegistry, opened: Callable[..., Registry], tmp_path: Path) -> None:
    with opened() as source, opened("hpc/other:1") as store:
        layer = source.manifest().layers[0]
        fake.seen()
        store.copy_blob(layer, source)
        assert fake.seen() == ["HEAD blobs", "POST uploads"]
        assert store.exists(layer.digest) and store.mount(layer.digest, NAME)
        fake.mounts, fake.blobs["hpc/other"] = False, {}
        assert not store.mount(layer.digest, NAME)
        fake.seen()
        store.copy_blob(layer, source)
        assert fake.seen() == ["HEAD blobs", "POST uploads", "GET blobs", "PUT uploads"]
        content = Layout(tmp_path / "layout").blob_path(layer.digest).read_bytes()
        assert fake.blobs["hpc/other"][layer.digest] == content


def test_copy_from_a_layout(fake: FakeRegistry, opened: Callable[..., Registry], tmp_path: Path) -> None:
    manifest = make_layout(tmp_path / "big", [{"data": bytes(range(256)) * 8192}], compression="tar")
    with opened("new/app:1") as store, Layout(tmp_path / "big") as source:
        for blob in manifest.descriptors:
            store.copy_blob(blob, source)
        store.put_manifest(manifest, "1")
    assert fake.raw("1", "new/app") == manifest.raw


# ---- referrers


def referrer(subject: Manifest, **pairs: str) -> Manifest:
    about = {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size}
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/x", "config": config}
    return Manifest.parse(json.dumps(document | {"layers": [], "subject": about, "annotations": pairs}).encode())


def test_referrers_by_the_api(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    fake.referrers_api = fake.subject_header = True
    with opened() as store:
        image = store.manifest()
        assert store.referrers(image.digest) == ()
        store.put_blob(b"{}")
        about = referrer(image)
        store.put_manifest(about, None)
        assert store.list_referrer(about) is None
        (found,) = store.referrers(image.digest)
        assert (found.digest, found.artifact_type) == (about.digest, "application/x")
    assert list(fake.tags[NAME]) == ["latest"]


def test_referrers_by_their_tag(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    with opened() as store:
        image = store.manifest()
        assert store.referrers(image.digest) == ()
        fake.seen()
        assert store.referrers(image.digest) == ()
        assert fake.seen() == ["GET manifests"], "a registry without the API is not asked again"
        store.put_blob(b"{}")
        one, two = referrer(image, n="1"), referrer(image, n="2")
        for about in (one, two):
            store.put_manifest(about, None)
        assert store.list_referrer(one) and not store.list_referrer(one)
        assert store.list_referrer(two, replaces=one.digest)
        assert [found.digest for found in store.referrers(image.digest)] == [two.digest]
        with pytest.raises(ValueError, match="subject"):
            store.list_referrer(image)


def test_two_writers_of_the_list(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    with opened() as store, opened() as other:
        image = store.manifest()
        store.put_blob(b"{}")
        several = [referrer(image, n=str(number)) for number in range(3)]
        for about in several:
            store.put_manifest(about, None)
        store.list_referrer(several[0])
        fake.fail("HEAD", "/manifests/sha256-", before(lambda: other.list_referrer(several[1])))
        store.list_referrer(several[2])
        assert {found.digest for found in store.referrers(image.digest)} == {about.digest for about in several}


def test_signature_tags(fake: FakeRegistry, opened: Callable[..., Registry]) -> None:
    raw, digest = fake.raw("latest"), fake.tags[NAME]["latest"]
    fake.put(NAME, digest.replace(":", "-") + ".sig", raw, OCI_MANIFEST)
    with opened() as store:
        fake.seen()
        assert store.signature_tags(digest) == (digest.replace(":", "-") + ".sig",)
        assert fake.seen() == ["GET tags"]
        fake.page = 1
        assert store.signature_tags(digest) == (digest.replace(":", "-") + ".sig",)
        assert fake.seen() == ["GET tags"] * 2 + ["HEAD manifests"] * 3
