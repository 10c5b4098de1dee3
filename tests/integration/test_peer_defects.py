"""What other tools break when they annotate an image (docs/peers.md): each row right here, on real registries.

Every check reads the registry by plain HTTP, and every edit is made by the command.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc3build.cli import main
from hpc3build.oci import DOCKER_LIST, DOCKER_TO_OCI, OCI_INDEX, OCI_MANIFEST, Manifest, digest_of
from hpc3build.reference import parse
from hpc3build.stores.registry import Registry
from tests.fake_http import Answer, Recorded, altered, before
from tests.images import descriptor_of, make_document, make_layout
from tests.integration.registries import fetched, push
from tests.integration.support import missing, sh
from tests.proxy import Proxy

pytestmark = pytest.mark.engine


REFERENCE, TYPE = "vnd.docker.reference.digest", "vnd.docker.reference.type"
AMD64, ARM64 = ({"architecture": name, "os": "linux"} for name in ("amd64", "arm64"))
UNKNOWN = {"architecture": "unknown", "os": "unknown"}


@pytest.fixture
def proxy(registry: str) -> Iterator[Proxy]:
    with Proxy(registry) as proxy:
        yield proxy


class Place:
    """One image in a registry; commands go through the proxy, ``raw`` asks the registry itself."""

    def __init__(self, proxy: Proxy, folder: Path, manifest: Manifest) -> None:
        self.proxy, self.old = proxy, manifest
        self.name = f"peers/{uuid.uuid4().hex[:8]}:1"
        push(folder, manifest, f"{proxy.upstream}/{self.name}")

    def annotate(self, *options: str, status: int = 0) -> None:
        done = main(["annotate", f"{self.proxy.host}/{self.name}", *options])
        assert done == status, options

    def raw(self, digest: str = "") -> bytes:
        name = f"{self.proxy.upstream}/{self.name}"
        return fetched(f"{name.rpartition(':')[0]}@{digest}" if digest else name)

    def blob(self, digest: str) -> bytes:
        return fetched(f"{self.proxy.upstream}/{self.name.rpartition(':')[0]}@{digest}", "blobs")

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.raw()))

    def writes(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.proxy.requests if request.method != "GET"]

    def assert_whole(self) -> None:
        """Everything that the tag needs is there, and a plain client pulls it."""
        if missing("skopeo"):
            return
        options = ("--all", "--src-tls-verify=false", "--dest-oci-accept-uncompressed-layers", "--quiet")
        folder = Path(os.environ["HOME"]) / uuid.uuid4().hex
        sh("skopeo", "copy", *options, f"docker://{self.proxy.upstream}/{self.name}", f"oci:{folder}:1")


@pytest.fixture
def place(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Place]:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    return lambda manifest: Place(proxy, tmp_path / "layout", manifest)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "layout"


def image(folder: Path, name: str = "a", **options: Any) -> Manifest:
    return make_layout(folder, [{name: name.encode() * 5000}], **options)


def index(folder: Path, *, docker: bool = False, attested: bool = False) -> tuple[Manifest, list[Manifest]]:
    images = [image(folder, name, architecture=name, docker=docker, tag=None) for name in ("amd64", "arm64")]
    entries = [
        descriptor_of(made, platform=platform, **({} if docker else {"annotations": {"mdesc": "kept"}}))
        for made, platform in zip(images, (AMD64, ARM64), strict=True)
    ]
    for made in images if attested else ():
        said = {REFERENCE: made.digest, TYPE: "attestation-manifest"}
        statement = image(folder, made.digest, tag=None)
        entries.append(descriptor_of(statement, annotations=said, platform=UNKNOWN))
    (folder / "index.json").unlink(missing_ok=True)
    more = {} if docker else {"annotations": {"vendor": "x"}}
    kind = DOCKER_LIST if docker else OCI_INDEX
    document = {"schemaVersion": 2, "mediaType": kind, "manifests": entries, **more}
    return make_document(folder, document, tag="1"), images


def test_docker_schema_2_becomes_oci(place: Callable[..., Place], folder: Path) -> None:
    """crane, regctl and oras write annotations into Docker's type; imagetools drops them; oras-py fails."""
    there = place(image(folder, docker=True))
    there.annotate("-a", "k=v")
    new, old = there.json, there.old.json
    assert new["annotations"] == {"k": "v"}
    assert new["mediaType"] == OCI_MANIFEST
    for one, other in zip((new["config"], *new["layers"]), (old["config"], *old["layers"]), strict=True):
        assert one == {**other, "mediaType": DOCKER_TO_OCI[other["mediaType"]]}
    there.assert_whole()


def test_an_image_stays_an_image(place: Callable[..., Place], folder: Path) -> None:
    """imagetools and podman make an index of one of it; buildah and crane change the image ID; most move layers."""
    there = place(image(folder))
    there.annotate("-a", "k=v")
    assert there.json == {**there.old.json, "annotations": {"k": "v"}}
    asked = [request.path for request in there.proxy.requests]
    assert not any(layer.digest in path for path in asked for layer in there.old.layers)
    assert there.proxy.received < 4096
    there.assert_whole()


def test_an_index_keeps_what_it_says(place: Callable[..., Place], folder: Path) -> None:
    """imagetools and podman lose the index's annotations, buildah all platforms but one; crane refuses an index."""
    manifest, _ = index(folder)
    there = place(manifest)
    there.annotate("-a", "k=v")
    assert there.json == {**manifest.json, "annotations": {"vendor": "x", "k": "v"}}
    there.annotate("-a", "only=arm64", "--platform", "linux/arm64")
    new = there.json
    assert new["annotations"] == {"vendor": "x", "k": "v"}
    assert new["manifests"][0] == manifest.json["manifests"][0]
    assert new["manifests"][1]["annotations"] == {"mdesc": "kept"}
    child = json.loads(there.raw(new["manifests"][1]["digest"]))
    assert child["annotations"] == {"only": "arm64"}
    there.assert_whole()


@pytest.mark.parametrize("options", [(), ("--all-children",)])
def test_a_docker_list_becomes_an_index(place: Callable[..., Place], folder: Path, options: tuple[str, ...]) -> None:
    """regctl and oras write annotations into Docker's list; imagetools annotates nothing and exits with 0."""
    manifest, images = index(folder, docker=True)
    there = place(manifest)
    there.annotate("-a", "k=v", *options)
    new = there.json
    assert new["mediaType"] == OCI_INDEX and new["annotations"] == {"k": "v"}
    for entry, old in zip(new["manifests"], images, strict=True):
        child = json.loads(there.raw(entry["digest"]))
        assert entry["mediaType"] == child["mediaType"] and child["config"]["digest"] == old.config.digest
        assert ("annotations" in child) is bool(options)
        assert "docker" not in child["mediaType"] or "annotations" not in child
    there.assert_whole()


def test_attestations_stay_linked(
    place: Callable[..., Place], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """regctl annotates the attestations as well, and leaves their links at the images' old digests."""
    manifest, _ = index(folder, attested=True)
    there = place(manifest)
    there.annotate("-a", "k=v")
    assert there.json["manifests"] == manifest.json["manifests"]
    there.annotate("-a", "k=w", "--all-children")
    first, second, *statements = there.json["manifests"]
    assert {first["digest"], second["digest"]}.isdisjoint(entry.digest for entry in manifest.descriptors)
    assert [entry["annotations"][REFERENCE] for entry in statements] == [first["digest"], second["digest"]]
    assert [entry["digest"] for entry in statements] == [entry.digest for entry in manifest.descriptors[2:]]
    assert "2 attestations of BuildKit re-linked" in capsys.readouterr().err
    there.assert_whole()


def test_unknown_members_and_bytes_stay(place: Callable[..., Place], folder: Path) -> None:
    """crane and regctl drop unknown members; jq and oras-py write numbers and spaces anew."""
    base = image(folder, config={"StopTimeout": 7}, tag=None)
    document = {**base.json, "annotations": {"b": "é", "z": "\u2028"}, "vendor.x": {"n": 2e3, "f": 1.50, "é": None}}
    document["layers"] = [{**document["layers"][0], "vendor.y": [1, 2.0]}]
    raw = json.dumps(document, indent=3, ensure_ascii=False).replace("2000.0", "2e3").replace("1.5", "1.50").encode()
    blob = folder / "blobs" / "sha256" / digest_of(raw)[7:]
    blob.write_bytes(raw)
    there = place(Manifest.parse(raw))
    assert there.raw() == raw
    there.annotate("-a", "k=v")
    new = there.raw()
    at = next(place for place in range(len(new)) if new[place : place + 1] != raw[place : place + 1])
    added = len(new) - len(raw)
    assert new[:at] + new[at + added :] == raw and b'"k": "v"' in new[at - 2 : at + added + 2]
    there.annotate("--remove", "k")
    assert there.raw() == raw


def test_the_configuration_stays(place: Callable[..., Place], folder: Path) -> None:
    """crane and buildah drop members of it that they do not know, such as StopTimeout; the image ID changes."""
    there = place(image(folder, config={"StopTimeout": 7, "moby.buildkit.x": {"n": 1e2}}, labels={"a": "b"}))
    config = there.blob(there.old.config.digest)
    there.annotate("-a", "k=v")
    assert there.json["config"] == there.old.json["config"]
    there.annotate("-a", "k=v", "--labels")
    new = there.blob(there.json["config"]["digest"])
    assert new.replace(b', "k": "v"', b"") == config and json.loads(new)["config"]["Labels"] == {"a": "b", "k": "v"}
    there.assert_whole()


def test_a_subject_stays(place: Callable[..., Place], folder: Path) -> None:
    """crane removes it."""
    about = image(folder, tag=None)
    there = place(about)
    document = {**about.json, "subject": descriptor_of(about), "artifactType": "x/y"}
    artifact = make_document(folder, document, tag="artifact")
    name = f"{there.proxy.upstream}/{there.name.replace(':1', ':artifact')}"
    push(folder, artifact, name)
    assert main(["annotate", f"{there.proxy.host}/{there.name.replace(':1', ':artifact')}", "-a", "k=v"]) == 0
    new = Manifest.parse(fetched(name))
    assert new.json == {**artifact.json, "annotations": {"k": "v"}}
    with Registry(parse(name)) as store:
        assert new.digest in {found.digest for found in store.referrers(about.digest)}


@pytest.mark.parametrize("annotations", [None, {}, {"null": None}])
def test_annotations_that_are_nothing(place: Callable[..., Place], folder: Path, annotations: Any) -> None:
    """crane and regctl make an empty text of null; scripts upon oras-py fail with a TypeError."""
    document = {**image(folder, tag=None).json, "annotations": annotations}
    there = place(make_document(folder, document, tag="1"))
    there.annotate("-a", "k=v")
    assert there.json["annotations"] == {**(annotations or {}), "k": "v"}


def test_what_refers_to_it_is_told(
    place: Callable[..., Place], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but regctl lose referrers, and all leave cosign's tags behind, without a word."""
    there = place(old := image(folder, tag="1"))
    document = {**old.json, "subject": descriptor_of(old), "artifactType": "example/sbom"}
    repository = f"{there.proxy.upstream}/{there.name.rpartition(':')[0]}"
    sbom = make_document(folder, document, tag="sbom")
    push(folder, sbom, f"{repository}:sbom")
    with Registry(parse(f"{repository}:1")) as store:
        if sbom.digest not in {found.digest for found in store.referrers(old.digest)}:
            store.list_referrer(sbom)
    push(folder, old, f"{repository}:{old.digest.replace(':', '-')}.sig")
    there.annotate("-a", "k=v")
    told = capsys.readouterr().err
    assert "1 referrer (1 example/sbom)" in told and "1 tag of cosign's" in told and old.digest in told


@pytest.mark.parametrize("expected", [False, True])
def test_another_writer_is_not_overwritten(
    place: Callable[..., Place], folder: Path, expected: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """All lose the other's update with exit code 0. Here only between HEAD and PUT (docs/peers.md)."""
    there = place(image(folder, tag="1"))
    name = f"{there.proxy.upstream}/{there.name}"
    other = make_document(folder, {**there.old.json, "annotations": {"by": "another"}}, tag="other")
    there.proxy.fail("HEAD", "/manifests/", before(lambda: push(folder, other, name)))
    argv = ["annotate", f"{there.proxy.host}/{there.name}", "-a", "k=v"]
    if main([*argv, "--expect-digest", there.old.digest] if expected else argv) == 5:
        assert there.raw() == other.raw and other.digest in capsys.readouterr().err
    else:
        assert not expected and there.json["annotations"] == {"by": "another", "k": "v"}


def test_twice_is_once(place: Callable[..., Place], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """buildah has a new digest each run; none says that nothing changed."""
    there = place(image(folder))
    there.annotate("-a", "k=v")
    once = there.raw()
    there.proxy.requests.clear()
    there.annotate("-a", "k=v")
    assert there.raw() == once and there.writes() == []
    assert "unchanged" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(
    place: Callable[..., Place], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """None shows what would change."""
    there = place(image(folder))
    there.annotate("-a", "k=v", "--dry-run")
    assert there.raw() == there.old.raw
    assert not [line for line in there.writes() if not line.startswith("HEAD")]
    told = capsys.readouterr().out
    assert "+ k=v" in told or "k: None would become 'v'" in told


@pytest.mark.parametrize("key", ["sizE", "siz3", "size"])
def test_an_altered_body_is_refused(
    place: Callable[..., Place], folder: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """crane and oras-py push what was altered on the way."""
    there = place(image(folder))

    def alter(answer: Answer) -> None:
        answer.body = answer.body.replace(b'"size"', b'"%s"' % key.encode(), 1)
        if key == "size":
            answer.body = answer.body.replace(b"amd", b"amf").replace(b"config", b"cOnfig", 1)

    there.proxy.fail("GET", "/manifests/", altered(alter), -1)
    there.annotate("-a", "k=v", status=4)
    assert there.raw() == there.old.raw and there.writes() == []
    assert "digest" in capsys.readouterr().err


@pytest.mark.parametrize("more", ['"Config": {}', '"annotations": {}, "annotations": {}', '"mediatype": "x"'])
def test_keys_that_readers_take_differently(
    place: Callable[..., Place], folder: Path, more: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Go's readers take the last of two keys, and keys of another case: what is meant depends on the tool."""
    there = place(image(folder))
    raw = there.old.raw[:-1] + b", " + more.encode() + b"}"

    def instead(request: Recorded, right: Callable[[], Answer]) -> Answer:
        answer = right()
        answer.body = raw
        answer.headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest_of(raw)}
        return answer

    there.proxy.fail("GET", "/manifests/", instead, -1)
    there.annotate("-a", "k=v", status=4)
    assert there.raw() == there.old.raw and there.writes() == []
    assert "stands twice" in (told := capsys.readouterr().err) or "differ only in case" in told


def test_a_layout_changes_the_same_way_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """umoci changes the configuration and refuses an index; regctl writes the time into index.json; oras leaves the old
    manifest as an entry of its own."""
    seen = set()
    for name in ("one", "two"):
        image(tmp_path / name, tag="1")
        assert main(["annotate", f"oci:{tmp_path / name}:1", "-a", "k=v"]) == 0
        listed = (tmp_path / name / "index.json").read_bytes()
        assert len(json.loads(listed)["manifests"]) == 1
        seen.add(listed)
    assert len(seen) == 1
    index(tmp_path / "index")
    assert main(["annotate", f"oci:{tmp_path / 'index'}:1", "-a", "k=v"]) == 0
