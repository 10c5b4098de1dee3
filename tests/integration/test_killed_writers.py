"""Coordinated writers as processes, some of them killed at any moment, on real registries."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpc3build.oci import OCI_MANIFEST
from hpc3build.stores.referrers import INTENT
from tests.images import make_layout
from tests.integration.registries import push
from tests.integration.support import ROOT

pytestmark = pytest.mark.engine


def writer(name: str, pair: str, lease: str = "6") -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "hpc3build", "annotate", name, "-q", "--coordinate", "--lease", lease, "-a", pair]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def asked(host: str, path: str) -> Any:
    """JSON, None for what is not there. Distribution 2.8 answers 500 while it writes a tag: asked again."""
    status, content = 500, b""
    for _ in range(100):
        with contextlib.closing(http.client.HTTPConnection(host, timeout=30)) as link:
            link.request("GET", f"/v2/app/{path}", headers={"Accept": OCI_MANIFEST})
            response = link.getresponse()
            status, content = response.status, response.read()
        if status < 500:
            break
        time.sleep(0.05)
    assert status in (200, 404), (path, status, content)
    return json.loads(content) if status == 200 else None


def posted(host: str) -> set[str]:
    """The keys that intents in the repository hold; one that goes between two questions holds none."""
    keys: set[str] = set()
    for tag in asked(host, "tags/list")["tags"]:
        if tag.startswith(INTENT) and (manifest := asked(host, f"manifests/{tag}")) is not None:
            keys |= set(json.loads(manifest["annotations"]["io.github.hpc3build.intent"])["edits"])
    return keys


@pytest.mark.parametrize("rounds", [1, pytest.param(12, marks=pytest.mark.long)])
def test_killed_writers_lose_nothing(registry: str, tmp_path: Path, rounds: int) -> None:
    """Who was killed is in the tag if its intent was there; who ended well is in any case."""
    name = f"{registry}/app:1"
    push(tmp_path / "layout", make_layout(tmp_path / "layout", [{"a": b"1"}], tag="1"), name)
    rng = random.Random(4)
    expected: set[str] = set()  # their intents were there
    ended: set[str] = set()
    for number in range(rounds):
        writers = {key: writer(name, f"{key}=1") for key in (f"w{one}.r{number}" for one in range(4))}
        killed = rng.sample(sorted(writers), 2)
        while not posted(registry) and any(one.poll() is None for one in writers.values()):
            time.sleep(0.02)  # however long they take to begin
        time.sleep(rng.random() * 0.8)
        for key in killed:
            writers[key].send_signal(signal.SIGKILL)
            writers[key].wait()
        expected |= posted(registry)
        for key, process in writers.items():
            said = process.communicate(timeout=120)[1].decode()
            # On a busy machine a request, or its repetition after a 500, may take longer than a sixth of so short a
            # lease: told, and left to others.
            assert process.returncode in (0, 4) or key in killed, said
            assert "Traceback" not in said, said
            assert process.returncode != 4 or re.search("no answer|time|answers 5", said), said
            if process.returncode == 0:
                ended.add(key)
        assert set(asked(registry, "manifests/1")["annotations"]) >= ended
    # Hears who was killed when all others had gone. Its requests have ten seconds each; its end is no matter of luck.
    last = writer(name, "last=1", lease="60")
    said = last.communicate(timeout=120)[1].decode()
    assert last.returncode == 0, said
    assert set(asked(registry, "manifests/1")["annotations"]) >= expected | ended | {"last"}
    assert posted(registry) == set()
