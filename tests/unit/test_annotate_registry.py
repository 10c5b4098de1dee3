"""``annotate`` of images in a registry: how many requests, what follows, what is kept, and tags that move meanwhile."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc3build.cli import main
from hpc3build.errors import InputError, StoreError, TagMoved
from hpc3build.oci import OCI_INDEX, OCI_MANIFEST, Manifest, digest_of
from hpc3build.reference import parse
from hpc3build.rewrite import Result
from hpc3build.run import run
from hpc3build.stores.access import Access
from hpc3build.stores.referrers import fallback_tag
from hpc3build.stores.transport import Client
from hpc3build.workflows.annotate import TRIES, Wish, annotate
from tests.fake_http import Answer, Recorded
from tests.fake_registry import NAME, FakeRegistry
from tests.images import descriptor_of, make_document, make_index, make_layout

PLAIN = Access(plain_http=True)
KEY = "org.example.key"
SBOM, SIGNATURE = "application/spdx+json", "application/vnd.dev.cosign.artifact.sig.v1+json"


def annotated(fake: FakeRegistry, wish: Wish | None = None, *, at: str = ":latest", **options: Any) -> Result:
    wish = replace(wish or Wish(pairs={KEY: "1"}), **options)
    client = Client(PLAIN, sleep=lambda seconds: None)
    try:
        return annotate(parse(f"{fake.host}/{NAME}{at}"), wish, run, PLAIN, client)
    finally:
        client.close()


def refer(fake: FakeRegistry, subject: Manifest, kind: str, name: str = NAME) -> Manifest:
    """An artifact about ``subject``, and its place in the list under the tag."""
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
    fake.blobs[name][str(empty["digest"])] = b"{}"
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": empty,
        "layers": [empty],
        "subject": descriptor_of(subject),
    }
    made = Manifest.parse(json.dumps(document).encode())
    fake.manifests[name][made.digest] = (OCI_MANIFEST, made.raw)
    tag = fallback_tag(subject.digest)
    entries = json.loads(fake.raw(tag, name))["manifests"] if tag in fake.tags[name] else []
    entries.append(descriptor_of(made, artifactType=kind))
    listed = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    fake.put(name, tag, json.dumps(listed).encode(), OCI_INDEX)
    return made


def now(fake: FakeRegistry, tag: str = "latest", name: str = NAME) -> Manifest:
    return Manifest.parse(fake.raw(tag, name))


# ---- requests


def test_three_requests_for_the_manifest_and_the_configuration_for_its_labels(fake: FakeRegistry) -> None:
    assert annotated(fake, referrers="ignore").changed
    assert fake.seen() == ["GET manifests", "GET blobs", "HEAD manifests", "PUT manifests"]


def test_the_configuration_is_read_only_where_a_label_could_contradict(fake: FakeRegistry) -> None:
    annotated(fake, referrers="ignore")
    fake.seen()
    assert not annotated(fake).changed
    assert fake.seen() == ["GET manifests"], "what is there already needs no comparison, and nothing is looked for"
    assert annotated(fake, Wish(remove=(KEY,), referrers="ignore")).changed
    assert fake.seen() == ["GET manifests", "HEAD manifests", "PUT manifests"]


@pytest.mark.parametrize("api", [True, False])
def test_at_most_three_more_look_for_referrers(fake: FakeRegistry, layout: Path, api: bool) -> None:
    fake.referrers_api = api
    annotated(fake)
    more = Counter(fake.seen()) - Counter(["GET manifests", "GET blobs", "HEAD manifests", "PUT manifests"])
    assert more == Counter(["GET referrers", "GET tags"])
    refer(fake, now(fake), SBOM)
    assert "1 referrer" in " ".join(annotated(fake, pairs={KEY: "2"}).warnings)
    more = Counter(fake.seen()) - Counter(["GET manifests", "GET blobs", "HEAD manifests", "PUT manifests"])
    assert more == Counter(["GET referrers", "GET tags", *([] if api else ["GET manifests"])])


def test_a_fault_of_the_survey_stops_the_run_before_anything_is_written(fake: FakeRegistry) -> None:
    before = fake.raw("latest")
    fake.fail("GET", "/referrers/", lambda request, right: Answer(403), -1)
    with pytest.raises(StoreError, match="403"):
        annotated(fake)
    assert fake.raw("latest") == before


def test_labels_that_are_missing_are_told_with_who_reads_labels_only(fake: FakeRegistry) -> None:
    warning = " ".join(annotated(fake).warnings)
    assert KEY in warning and "Sarus, Apptainer and Shifter" in warning
    assert annotated(fake, pairs={"a": "b"}).warnings == (), "the label says it"
    assert annotated(fake, pairs={KEY: "3"}, labels=True).warnings == ()


# ---- what refers to it


@pytest.mark.parametrize("api", [True, False])
def test_all_but_signatures_follow(fake: FakeRegistry, api: bool) -> None:
    fake.referrers_api = fake.subject_header = api
    old = now(fake)
    sbom, _ = refer(fake, old, SBOM), refer(fake, old, SIGNATURE)
    fake.put(NAME, fallback_tag(old.digest) + ".sig", old.raw, OCI_MANIFEST)
    result = annotated(fake, referrers="move")
    subjects = {}
    for digest, (_, raw) in fake.manifests[NAME].items():
        if subject := json.loads(raw).get("subject"):
            subjects[digest] = (json.loads(raw)["artifactType"], subject["digest"])
    assert sorted(subjects.values()) == sorted([(SBOM, old.digest), (SBOM, result.new_digest), (SIGNATURE, old.digest)])
    moved = next(digest for digest, found in subjects.items() if found == (SBOM, result.new_digest))
    follower = Manifest.parse(fake.manifests[NAME][moved][1])
    assert follower.descriptors == sbom.descriptors and moved in result.written
    assert result.written.index(moved) < result.written.index(result.new_digest), "the tag is last"
    if not api:
        listed = json.loads(fake.raw(fallback_tag(result.new_digest)))["manifests"]
        assert [(entry["digest"], entry["artifactType"]) for entry in listed] == [(moved, SBOM)]
    warning = " ".join(result.warnings)
    assert "1 referrer that follow" in warning and "1 referrer (1 application/vnd.dev.cosign" in warning
    assert "1 tag of cosign's" in warning


# ---- moved tags


def other_writer(fake: FakeRegistry, times: int) -> Any:
    """Moves the tag just before the HEAD, so often."""
    done = []

    def fault(request: Recorded, right: Any) -> Answer:
        if len(done) < times:
            done.append(1)
            theirs = now(fake).with_annotations({f"theirs.{len(done)}": "1"})
            fake.put(NAME, "latest", theirs.raw, theirs.media_type)
        answer: Answer = right()
        return answer

    fake.fail("HEAD", "/manifests/latest", fault, -1)
    return done


def test_a_tag_that_moved_is_read_and_annotated_again(fake: FakeRegistry) -> None:
    other_writer(fake, TRIES - 1)
    result = annotated(fake)
    assert set(now(fake).annotations) == {KEY, *(f"theirs.{number}" for number in range(1, TRIES))}
    assert result.new_digest == now(fake).digest


def test_a_tag_that_keeps_moving_is_given_up(fake: FakeRegistry) -> None:
    moves = other_writer(fake, 1000)
    with pytest.raises(TagMoved) as told:
        annotated(fake)
    assert len(moves) == TRIES and told.value.exit_code == 5 and KEY not in now(fake).annotations


def test_an_expected_digest_is_never_passed_over(fake: FakeRegistry) -> None:
    moves = other_writer(fake, 1)
    with pytest.raises(TagMoved):
        annotated(fake, expect_digest=now(fake).digest)
    assert len(moves) == 1 and KEY not in now(fake).annotations


def test_verify_sees_what_came_after_our_write(fake: FakeRegistry) -> None:
    """Who had read the old tag overwrites ours within its own round trip; read back, ours is put on top of it."""
    theirs = now(fake).with_annotations({"theirs": "1"})

    def overwritten(request: Recorded, right: Any) -> Answer:
        answer: Answer = right()
        fake.put(NAME, "latest", theirs.raw, theirs.media_type)
        return answer

    fake.fail("PUT", "/manifests/latest", overwritten, 1)
    assert annotated(fake, verify=True, referrers="ignore").changed
    assert set(now(fake).annotations) == {KEY, "theirs"}


# ---- what is kept


def test_a_backup_tag_keeps_the_old_image(fake: FakeRegistry) -> None:
    old = now(fake)
    result = annotated(fake, backup_tag="")
    tag = f"latest-before-{old.digest[7:19]}"
    assert now(fake, tag).raw == old.raw and result.undo is not None and result.undo.backup_tag == tag
    with pytest.raises(StoreError, match="cannot keep"):
        annotated(fake, pairs={KEY: "2"}, backup_tag=tag)
    assert now(fake).annotations == {KEY: "1"}
    annotated(fake, pairs={KEY: "1"}, backup_tag="unused")
    assert "unused" not in fake.tags[NAME], "nothing was changed, so nothing is kept"
    before = now(fake).raw
    with pytest.raises(InputError, match="is the image's own tag"):
        annotated(fake, pairs={KEY: "3"}, backup_tag="latest")
    assert now(fake).raw == before


# ---- elsewhere


def test_to_another_repository_mounts(fake: FakeRegistry, layout: Path) -> None:
    to = parse(f"{fake.host}/other/app:2")
    result = annotated(fake, to=to)
    kinds = Counter(fake.seen())
    assert kinds["PUT uploads"] == 0 and kinds["POST uploads"] == 2 and kinds["HEAD blobs"] == 2
    assert now(fake, "2", "other/app").annotations == {KEY: "1"} and KEY not in now(fake).annotations
    assert result.reference == to and result.changed
    assert not annotated(fake, to=to).changed
    assert "PUT manifests" not in fake.seen()


def test_to_another_tag_moves_no_blob(fake: FakeRegistry) -> None:
    annotated(fake, to=parse(f"{fake.host}/{NAME}:new"), referrers="ignore")
    kinds = Counter(fake.seen())
    assert kinds == Counter({"GET manifests": 2, "GET blobs": 1, "PUT manifests": 1})
    assert now(fake, "new").annotations == {KEY: "1"}


def test_an_index_goes_with_all_that_it_lists(tmp_path: Path) -> None:
    path = tmp_path / "index"
    children = [make_layout(path, [{name: b"1"}], tag=None, architecture=name) for name in ("amd64", "arm64")]
    inner = make_index(path, children[1:], tag=None)
    (path / "index.json").unlink()
    index = make_document(
        path,
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor_of(children[0]), descriptor_of(inner)]},
        tag="latest",
    )
    with FakeRegistry() as fake:
        fake.add(path)
        result = annotated(fake, to=parse(f"{fake.host}/other/app:1"))
        new = now(fake, "1", "other/app")
        assert new.annotations == {KEY: "1"} and new.descriptors == index.descriptors
        assert set(fake.manifests["other/app"]) == {new.digest, inner.digest, *(child.digest for child in children)}
        assert result.written[-1] == new.digest
        order = [request.path.rpartition("/")[2] for request in fake.requests if request.kind == "PUT manifests"]
        assert order[-1] == "1" and order.index(children[1].digest) < order.index(inner.digest)


def test_a_place_that_moved_meanwhile_is_not_overwritten(fake: FakeRegistry) -> None:
    """The tag of --to is written against what it named before."""
    theirs = now(fake).with_annotations({"theirs": "1"})
    fake.put(NAME, "new", now(fake).raw, OCI_MANIFEST)

    def moved(request: Recorded, right: Any) -> Answer:
        fake.put(NAME, "new", theirs.raw, OCI_MANIFEST)
        answer: Answer = right()
        return answer

    fake.fail("HEAD", "/manifests/new", moved, 1)
    result = annotated(fake, to=parse(f"{fake.host}/{NAME}:new"))
    assert result.undo is not None and result.undo.before == theirs.digest, "the second try knows what it replaces"


def test_a_digest_is_no_place(fake: FakeRegistry) -> None:
    with pytest.raises(InputError, match="--to"):
        annotated(fake, to=parse(f"{fake.host}/other/app@{now(fake).digest}"))


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_no_tag_names_is_told_with_its_digest_and_the_way_to_a_name(fake: FakeRegistry, dry_run: bool) -> None:
    old = now(fake).digest
    done = annotated(fake, at=f"@{old}", dry_run=dry_run, referrers="ignore")
    (told,) = (one for one in done.warnings if "no tag" in one)
    assert f"no tag names the result, {done.new_digest}" in told
    assert f"--to docker://{fake.host}/{NAME}:TAG" in told
    assert now(fake).digest == old


def test_what_a_tag_names_needs_no_word_of_it(fake: FakeRegistry) -> None:
    old = now(fake).digest
    named = parse(f"{fake.host}/{NAME}:new")
    assert not any("no tag" in one for one in annotated(fake, at=f"@{old}", to=named).warnings)
    done = annotated(fake, at=f":latest@{old}")
    assert now(fake).digest == done.new_digest != old and not any("no tag" in one for one in done.warnings)
    assert not any("no tag" in one for one in annotated(fake, at=f"@{done.new_digest}").warnings)  # says it already


def test_of_several_it_is_told_once(fake: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    one = now(fake).digest
    other = annotated(fake, to=parse(f"{fake.host}/{NAME}:other")).new_digest
    assert main(["annotate", *(f"{fake.host}/{NAME}@{each}" for each in (one, other)), "-a", "org.example.x=2"]) == 0
    err = capsys.readouterr().err
    assert err.count("no tag names the result") == 1 and "warnings repeated and not shown" in err
