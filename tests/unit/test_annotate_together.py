"""``annotate --coordinate`` against a registry: what lies there meanwhile and afterwards, and who sees it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hpc3build.errors import Contradiction, Hpc3BuildError, StoreError
from hpc3build.oci import Manifest
from hpc3build.reference import parse
from hpc3build.rewrite.attach import EMPTY_BLOB
from hpc3build.rewrite.intent import Intent
from hpc3build.run import run
from hpc3build.stores.access import Access
from hpc3build.stores.referrers import INTENT
from hpc3build.workflows.annotate import Wish, annotate
from hpc3build.workflows.candidates import Reading, candidates
from hpc3build.workflows.coordinate import edits_of
from tests.commands import assert_one_message, hpc3build
from tests.fake_http import digest_of, status
from tests.fake_registry import NAME, FakeRegistry
from tests.images import make_layout

ACCESS = Access(plain_http=True)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeRegistry]:
    make_layout(tmp_path / "layout", [{}], labels={"said": "1"})
    with FakeRegistry() as registry:
        registry.add(tmp_path / "layout")
        yield registry


def leave(fake: FakeRegistry, intent: Intent) -> None:
    """As a writer that was killed."""
    fake.blobs[NAME][digest_of(EMPTY_BLOB)] = EMPTY_BLOB
    manifest = intent.manifest()
    fake.put(NAME, intent.place, manifest.raw, manifest.media_type)


def together(fake: FakeRegistry, lease: float = 60, **pairs: str) -> None:
    wish = Wish(pairs=pairs, coordinate="", lease=lease)
    annotate(parse(f"{fake.host}/{NAME}:latest"), wish, run, ACCESS)


def said(fake: FakeRegistry) -> dict[str, str]:
    return dict(Manifest.parse(fake.raw("latest")).annotations)


@pytest.mark.parametrize("deletes", [True, False])
def test_four_at_once(fake: FakeRegistry, deletes: bool) -> None:
    """Without deletion one tag a writer stays, and the next writer of that name has it again."""
    fake.deletes = deletes
    for number in range(3):
        errors: list[Hpc3BuildError] = []

        def write(who: str, number: int = number, errors: list[Hpc3BuildError] = errors) -> None:
            wish = Wish(pairs={f"{who}.{number}": "1", "last": f"{number}"}, coordinate=who, lease=20)
            try:
                annotate(parse(f"{fake.host}/{NAME}:latest"), wish, run, ACCESS)
            except Hpc3BuildError as error:
                errors.append(error)

        threads = [threading.Thread(target=write, args=(who,)) for who in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert (
            said(fake).items() >= {f"{who}.{number}": "1" for who in "abcd"}.items()
            and said(fake)["last"] == f"{number}"
        )
    left = [tag for tag in fake.tags[NAME] if tag.startswith(INTENT)]
    assert sorted(tag[-1] for tag in left) == ([] if deletes else ["a", "b", "c", "d"])
    manifests = [json.loads(raw) for _, raw in fake.manifests[NAME].values()]
    assert deletes is False or not any("intent" in manifest.get("artifactType", "") for manifest in manifests)


def test_the_dead_are_heard(fake: FakeRegistry) -> None:
    dead = Intent("latest", "dead", "dead", 0.5, 1e9, "", edits_of({"of.dead": "1", "both": "old"}, (), 1, "dead"))
    leave(fake, dead)
    together(fake, mine="1", both="new")
    assert said(fake) == {"of.dead": "1", "both": "new", "mine": "1"}
    assert list(fake.tags[NAME]) == ["latest"]


def test_intents_name_no_image(fake: FakeRegistry) -> None:
    leave(fake, Intent("latest", "dead", "dead", 60, 1e9, "", edits_of({"a": "1"}, (), 1, "dead")))
    found = list(candidates(f"{fake.host}/{NAME}:*", Reading(run, ACCESS)))
    assert [one.reference for one in found] == [f"docker://{fake.host}/{NAME}:latest"]
    done = hpc3build("annotate", f"{fake.host}/{NAME}:*", "-a", "k=v", "--json")
    assert len(json.loads(done.out)["results"]) == 1


def test_what_is_no_good_intent_is_passed_over(fake: FakeRegistry) -> None:
    """Others' intents are no leave to write what a user may not, or what is meant for another tag."""
    bad = Intent("latest", "bad", "bad", 60, 1e9, "", edits_of({"com.hooks.x": "1"}, (), 1, "bad"))
    elsewhere = replace(bad, tag="other", slot="elsewhere")
    leave(fake, replace(bad, edits=edits_of({"org.x": "a\nb"}, (), 1, "bad")))
    fake.put(NAME, replace(bad, slot="moved").place, elsewhere.manifest().raw, elsewhere.manifest().media_type)
    together(fake, mine="1")
    assert said(fake) == {"mine": "1"}


def test_what_a_tag_says_already_takes_one_request(fake: FakeRegistry) -> None:
    together(fake, mine="1")
    fake.seen()
    together(fake, mine="1")
    assert fake.seen() == ["GET manifests"]


def test_what_cannot_be_written_is_left_to_nobody(fake: FakeRegistry) -> None:
    with pytest.raises(Contradiction):
        together(fake, said="2")
    assert list(fake.tags[NAME]) == ["latest"]
    fake.fail("PUT", "/manifests/latest", status(403), -1)
    with pytest.raises(StoreError, match="403"):
        together(fake, mine="1")
    assert list(fake.tags[NAME]) == ["latest"]


def test_a_write_that_fails_is_left_to_others(fake: FakeRegistry) -> None:
    fake.fail("PUT", "/manifests/latest", status(500), -1)
    with pytest.raises(StoreError, match="500"):
        together(fake, lease=3, mine="1")  # which the next one waits for
    fake._rules.clear()
    together(fake, other="1")
    assert said(fake) == {"mine": "1", "other": "1"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--lease", "5"], "--coordinate"),
        (["--coordinate", "--lease", "0.1"], "--lease"),
        (["--coordinate", "--writer", "a/b"], "--writer"),
        (["--coordinate", "--labels"], "--labels"),
        (["--coordinate", "--receipt", "r.json"], "receipt"),
        (["--coordinate", "--all-children"], "parts of an index"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, arguments: list[str], told: str) -> None:
    make_layout(tmp_path / "a", [{}])
    assert told in assert_one_message(hpc3build("annotate", "oci:a", "-a", "k=v", *arguments, cwd=tmp_path), 2)


def test_other_stores_have_one_writer(tmp_path: Path) -> None:
    make_layout(tmp_path / "a", [{}])
    done = hpc3build("annotate", "oci:a:latest", "-a", "k=v", "--coordinate", cwd=tmp_path)
    assert "only a tag of a registry has several writers" in assert_one_message(done, 4)
