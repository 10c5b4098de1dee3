"""Coordinated writers as processes, some of them killed at any moment, on real registries."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc3build.stores.referrers import INTENT
from tests.images import make_layout
from tests.integration.registries import fetched, push
from tests.integration.support import ROOT

pytestmark = pytest.mark.engine
LEASE = "6"


def writer(name: str, pair: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "hpc3build", "annotate", name, "-q", "--coordinate", "--lease", LEASE, "-a", pair]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def posted(host: str, seen: set[str]) -> None:
    """Add the keys that intents in the repository hold."""
    import http.client

    link = http.client.HTTPConnection(host, timeout=30)
    link.request("GET", "/v2/app/tags/list")
    for tag in json.loads(link.getresponse().read())["tags"]:
        if tag.startswith(INTENT):
            annotations = json.loads(fetched(f"{host}/app:{tag}"))["annotations"]
            seen |= set(json.loads(annotations["io.github.hpc3build.intent"])["edits"])
    link.close()


@pytest.mark.parametrize("rounds", [1, pytest.param(12, marks=pytest.mark.long)])
def test_killed_writers_lose_nothing(registry: str, tmp_path: Path, rounds: int) -> None:
    """Who was killed is in the tag if its intent was there; who ended well is in any case."""
    name = f"{registry}/app:1"
    push(tmp_path / "layout", make_layout(tmp_path / "layout", [{"a": b"1"}], tag="1"), name)
    rng = random.Random(4)
    expected: set[str] = set()
    for number in range(rounds):
        writers = {f"w{one}.r{number}": writer(name, f"w{one}.r{number}=1") for one in range(4)}
        killed = rng.sample(sorted(writers), 2)
        time.sleep(0.2 + rng.random() * 0.8)
        for key in killed:
            writers[key].send_signal(signal.SIGKILL)
            writers[key].wait()
        posted(registry, expected)
        for key, process in writers.items():
            code = process.wait(120)
            assert code == 0 or key in killed
            if code == 0:
                expected.add(key)
        assert set(json.loads(fetched(name))["annotations"]) >= {key for key in expected if key not in killed}
    last = writer(name, "last=1")  # hears who was killed when all others had gone
    assert last.wait(120) == 0
    assert set(json.loads(fetched(name))["annotations"]) >= expected | {"last"}
    left: set[str] = set()
    posted(registry, left)
    assert left == set()
