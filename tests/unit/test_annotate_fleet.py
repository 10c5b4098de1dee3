"""A registry's images as a whole: names, shares, journals, and what is asked for."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc3build.errors import BadReference, InputError
from hpc3build.oci import Manifest
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.stores.access import Access
from hpc3build.stores.referrers import INTENT
from hpc3build.workflows.names import Names, Shard, tag_pattern
from tests.commands import ROOT, assert_one_message, hpc3build, started
from tests.fake_http import before, status
from tests.fake_registry import FakeRegistry
from tests.images import make_layout

ACCESS = Access(plain_http=True)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeRegistry]:
    make_layout(tmp_path / "layout", [{}])
    with FakeRegistry() as registry:
        yield registry


def fill(fake: FakeRegistry, layout: Path, tags: dict[str, list[str]]) -> None:
    for name, names in tags.items():
        fake.add(layout, name)
        raw = fake.raw("latest", name)
        for tag in names:
            fake.put(name, tag, raw, Manifest.parse(raw).media_type)
        del fake.tags[name]["latest"]


def texts(fake: FakeRegistry, *named: str, shard: Shard = Shard()) -> list[str]:  # noqa: B008
    names = Names([one.replace("HOST", fake.host) for one in named], parse, run, ACCESS, shard=shard)
    found = [(text, what) for text, what in names]
    assert names.expected() == len(found)
    return [
        (text if not isinstance(what, Exception) else f"{type(what).__name__} {text}").replace(fake.host, "HOST")
        for text, what in found
    ]


def test_names_of_a_registry(fake: FakeRegistry, tmp_path: Path) -> None:
    """Fallback tags of referrers, cosign's tags and intents of writers name no image."""
    hidden = ["sha256-" + "0" * 64, f"sha256-{'0' * 64}.sig", f"{INTENT}abc"]
    fill(fake, tmp_path / "layout", {"a/x": ["1", "2.0", *hidden], "a/y": ["1"], "b": ["1"], "c": hidden})
    assert texts(fake, "docker://HOST/a/x:*") == ["docker://HOST/a/x:1", "docker://HOST/a/x:2.0"]
    assert texts(fake, "HOST/a/x:2*", "HOST/b:1") == ["docker://HOST/a/x:2.0", "HOST/b:1"]
    everything = ["docker://HOST/a/x:1", "docker://HOST/a/x:2.0", "docker://HOST/a/y:1", "docker://HOST/b:1"]
    for page in (0, 1, 2):
        fake.page = page
        assert texts(fake, "docker://HOST/*") == everything
    assert texts(fake, "docker://HOST/a/*:1") == ["docker://HOST/a/x:1", "docker://HOST/a/y:1"]
    assert texts(fake, "docker://HOST/z*") == ["InputError docker://HOST/z*"]
    assert texts(fake, "docker://HOST/c:*", "HOST/b:1") == ["InputError docker://HOST/c:*", "HOST/b:1"]
    assert texts(fake, "docker://HOST/gone:*") == ["Refusal docker://HOST/gone:*"]


def test_repositories_without_images_are_passed_over(fake: FakeRegistry, tmp_path: Path) -> None:
    fill(fake, tmp_path / "layout", {"a": ["1"], "b": ["1"]})
    fake.fail("GET", "/v2/a/tags/", status(404))
    assert texts(fake, "docker://HOST/*") == ["docker://HOST/b:1"]
    fake.fail("GET", "/v2/a/tags/", status(403))
    assert texts(fake, "docker://HOST/*") == ["Refusal docker://HOST/a:*", "docker://HOST/b:1"]


def test_a_registry_without_a_catalog_is_told(fake: FakeRegistry) -> None:
    fake.catalog = False
    names = Names([f"docker://{fake.host}/*"], parse, run, ACCESS)
    ((_, error),) = list(names)
    assert isinstance(error, Exception) and "does not list its repositories" in str(error)


@pytest.mark.parametrize("text", ["docker://HO*T/x", "docker://host/x", "docker://r.example/*:", "r.example/*"])
def test_wildcards_that_mean_nothing(text: str) -> None:
    if text == "docker://host/x":  # no wildcard, and so no list
        assert tag_pattern(text) is None
        return
    ((_, error),) = list(Names([text], parse, run, ACCESS))
    assert isinstance(error, (InputError, BadReference))


@given(st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), max_size=30), st.integers(1, 7))
def test_shares_are_all_and_never_two(tags: list[str], of: int) -> None:
    for tag in tags:
        reference = parse(f"docker://r.example/app:{tag}")
        mine = [number for number in range(1, of + 1) if Shard(number, of).has("as it was typed", reference)]
        assert len(mine) == 1
        # However it is written, with a digest or without the prefix: whoever has the tag has it.
        other = parse(f"r.example/app:{tag}@sha256:{'1' * 64}")
        assert Shard(mine[0], of).has("otherwise", other)


def test_shares_stay_what_they_are() -> None:
    """Runners of several releases may share a work: a change of the rule would leave images out."""
    first = [n for n in range(20) if Shard(1, 3).has("", parse(f"docker://r.example/app:{n}"))]
    assert first == [2, 3, 4, 5, 6, 7, 10, 13, 15, 18, 19]
    assert Shard.parse("2/3") == Shard(2, 3)
    for text in ("0/3", "4/3", "1", "1/0", "-1/3", "a/b", "1/3/5", "٣/4"):
        with pytest.raises(InputError, match="--shard"):
            Shard.parse(text)


# ---- the command


def puts(fake: FakeRegistry) -> Counter[str]:
    return Counter(request.path for request in fake.requests if request.method == "PUT" and request.status == 201)


def test_three_shares_of_300_images(fake: FakeRegistry, tmp_path: Path) -> None:
    tags = [f"t{number}" for number in range(100)]
    fill(fake, tmp_path / "layout", {"a": tags, "b": tags, "team/c": tags})
    said = []
    for number in (1, 2, 3):
        argv = ["annotate", f"docker://{fake.host}/*", "-a", "k=v", "--shard", f"{number}/3", "--referrers", "ignore"]
        done = hpc3build(*argv)
        assert done.status == 0, done.err
        said.append(done.out.count(" -> "))
    assert sum(said) == 300 and min(said) > 60
    assert len(puts(fake)) == 300 and set(puts(fake).values()) == {1}


def test_kill_9_at_ten_moments(fake: FakeRegistry, tmp_path: Path) -> None:
    """After each kill the same command goes on; every tag is written once, and hardly anything is asked for twice."""
    tags = [f"t{number}" for number in range(200)]
    fill(fake, tmp_path / "layout", {"a": tags})
    argv = ["annotate", f"docker://{fake.host}/a:*", "-a", "k=v", "--journal", str(tmp_path / "journal"), "-q"]
    argv += ["--referrers", "ignore", "--jobs", "4"]
    rng = random.Random(9)
    for _ in range(10):
        running: list[subprocess.Popen[bytes]] = []
        left, lock = [rng.randrange(1, 60)], threading.Lock()

        def count(
            running: list[subprocess.Popen[bytes]] = running, left: list[int] = left, lock: threading.Lock = lock
        ) -> None:
            with lock:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(running[0].pid, signal.SIGKILL)

        for method in ("GET", "HEAD", "PUT"):
            fake.fail(method, "/manifests/", before(count), -1)
        command = [sys.executable, "-m", "hpc3build", *argv]
        running.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        assert running[0].wait(120) == -signal.SIGKILL
        fake._rules.clear()
    done = hpc3build(*argv[:-4], "--referrers", "ignore")
    assert done.status == 0, done.err
    assert len(puts(fake)) == 200 and set(puts(fake).values()) == {1}
    asked = Counter(request.path for request in fake.requests if request.method == "GET")
    again = sum(count - 1 for path, count in asked.items() if "/manifests/" in path)
    assert again <= 10 * 4  # what the threads had in hand
    fake.seen()
    last = hpc3build(*argv)
    assert last.status == 0 and fake.seen() == ["GET tags"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_nothing_untold(number: signal.Signals, fake: FakeRegistry, tmp_path: Path) -> None:
    """The first reference is slow, so that others end behind it; they come late in their order, but they come."""
    tags = [f"t{number:02}" for number in range(40)]
    fill(fake, tmp_path / "layout", {"a": tags})
    old = dict(fake.tags["a"])
    receipt = tmp_path / "receipt"
    (tmp_path / "list").write_text("".join(f"docker://{fake.host}/a:{tag}\n" for tag in tags))
    argv = ["annotate", "--batch", str(tmp_path / "list"), "-a", "k=v", "--receipt", str(receipt), "--jobs", "3"]
    left, lock, sent = [9], threading.Lock(), threading.Event()

    def count() -> None:
        with lock:
            left[0] -= 1
            if left[0] == 0:
                os.killpg(process.pid, number)
                os.killpg(process.pid, number)  # timeout(1) sends it to the process and to its group
                sent.set()

    fake.fail("PUT", "/manifests/", before(count), -1)
    fake.fail("GET", "/manifests/t00", before(lambda: sent.wait(60)))
    with started(*argv, "--plain-http", "--referrers", "ignore") as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number and "interrupted" in err and "Traceback" not in err, err
    changed = {tag for tag, digest in fake.tags["a"].items() if digest != old[tag]}
    entries = json.loads(receipt.read_text())["entries"]
    assert 8 <= len(changed) < 40 and {entry["tag"] for entry in entries} == changed
    assert {tag for tag in tags if f"/a:{tag}" in out} == changed
    assert hpc3build("annotate", "--undo", receipt, "--plain-http").status == 0 and fake.tags["a"] == old


def test_a_journal_of_other_pairs(fake: FakeRegistry, tmp_path: Path) -> None:
    fill(fake, tmp_path / "layout", {"a": ["1"]})
    argv = ["annotate", f"docker://{fake.host}/a:*", "--journal", str(tmp_path / "journal")]
    assert hpc3build(*argv, "-a", "k=v").status == 0
    fake.seen()
    message = assert_one_message(hpc3build(*argv, "-a", "k=w"), 2)
    assert "another wish: pairs" in message and fake.seen() == []


def test_failures_are_tried_again(fake: FakeRegistry, tmp_path: Path) -> None:
    fill(fake, tmp_path / "layout", {"a": ["1", "2"]})
    argv = ["annotate", f"docker://{fake.host}/a:*", "-a", "k=v", "--journal", str(tmp_path / "journal")]
    fake.fail("PUT", "/manifests/2", status(403))
    assert hpc3build(*argv).status == 4
    done = hpc3build(*argv)
    assert done.status == 0 and "1 changed, 0 unchanged, 0 failed, 1 done before" in done.err


def test_one_list_and_little_memory(fake: FakeRegistry, tmp_path: Path) -> None:
    """References are taken as they are needed: the last repository is listed when the first is done."""
    fill(fake, tmp_path / "layout", {"a": [f"t{number}" for number in range(600)], "b": ["1"]})
    assert hpc3build("annotate", f"docker://{fake.host}/*", "-a", "k=v", "--referrers", "ignore").status == 0
    seen = [request.path for request in fake.requests]
    place = seen.index("/v2/b/tags/list?n=1000")
    assert sum(path.startswith("/v2/a/manifests/") for path in seen[:place]) >= 80


PEAK = """
import sys
from hpc3build.cli import main
assert main(sys.argv[1:]) == 0
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak, file=sys.stderr)
"""


def test_nothing_is_kept_of_what_is_done(fake: FakeRegistry, tmp_path: Path) -> None:
    """A manifest kept for each image would be 4 MB of 1,000."""
    peaks = []
    for name, count in (("few", 100), ("many", 100), ("few", 1000), ("many", 1000)):
        fill(
            fake,
            tmp_path / "layout",
            {f"{name}{count}/{n}": [f"t{tag}" for tag in range(count // 10)] for n in range(10)},
        )
        argv = ["annotate", "-q", "-a", "k=v", "--referrers", "ignore", f"docker://{fake.host}/{name}{count}/*"]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *argv, "--journal", str(tmp_path / f"{name}{count}")],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(done.stderr.split()[-1]))
    # kB; the least of two each: on a loaded machine one run may take 2 MB more than another of the same.
    assert min(peaks[2:]) - min(peaks[:2]) < 3072


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["oci:a", "--shard", "0/2"], "--shard 0/2"),
        (["oci:a", "--rate", "0"], "--rate"),
        (["oci:a", "--rate", "nan"], "--rate"),
        (["oci:a", "--journal", "j", "--dry-run"], "--dry-run"),
        (["docker://r.example/a:*", "--to", "oci:b:1"], "--to"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, arguments: list[str], told: str) -> None:
    assert told in assert_one_message(hpc3build("annotate", "-a", "k=v", *arguments, cwd=tmp_path), 2)
    assert not (tmp_path / "j").exists()
