"""How fast a registry is asked by several threads together; the clock is made up."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hpc3build.oci import Manifest
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.stores.access import Access, Limits
from hpc3build.stores.pace import PATIENCE, Pace
from hpc3build.stores.registry import Registry
from hpc3build.stores.transport import Client
from hpc3build.workflows.annotate import Wish
from hpc3build.workflows.batch import Outcome, annotate_all
from tests.fake_http import status
from tests.fake_registry import NAME, FakeRegistry
from tests.images import make_layout

HERE, THERE = ("https", "a", 443), ("https", "b", 443)


class Clock:
    """Sleeping is what moves it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.now += seconds


def test_a_rate_is_of_one_registry() -> None:
    clock = Clock()
    pace = Pace(4, clock=clock, sleep=clock.sleep)
    sent = []
    for _ in range(5):
        pace.wait(HERE)
        sent.append(clock.now - 100)
    assert sent == [0, 0.25, 0.5, 0.75, 1.0]
    assert pace.wait(THERE) == 0


def test_without_a_rate_nobody_waits_until_the_registry_asks() -> None:
    clock = Clock()
    pace = Pace(clock=clock, sleep=clock.sleep)
    assert pace.wait(HERE) == 0
    assert pace.hold(HERE, 7) and pace.hold(HERE, 3)
    assert pace.wait(THERE) == 0 and pace.wait(HERE) == 7 and pace.wait(HERE) == 0


def test_nobody_waits_for_ever() -> None:
    clock = Clock()
    pace = Pace(clock=clock, sleep=clock.sleep)
    assert not pace.hold(HERE, PATIENCE + 1)
    assert pace.wait(HERE) == 0


@pytest.mark.parametrize("code", [429, 503])
def test_a_wait_holds_for_other_clients_and_takes_nothing_of_a_request_s_time(tmp_path: Path, code: int) -> None:
    """120 s are asked for, more than the 90 that a request has; the second client is not refused in between."""
    make_layout(tmp_path / "layout", [{}])
    clock = Clock()
    pace = Pace(clock=clock, sleep=clock.sleep)
    with FakeRegistry() as fake:
        fake.add(tmp_path / "layout")
        fake.fail("GET", "/manifests/", status(code, retry_after="120"))
        clients = [Client(Access(plain_http=True), Limits(), pace=pace, sleep=clock.sleep) for _ in range(2)]
        began = clock.now
        for client in clients:
            with Registry(parse(f"{fake.host}/{NAME}"), client=client) as registry:
                registry.manifest("latest")
            client.close()
        assert clock.now - began == 120 and fake.seen() == ["GET manifests"] * 3


def test_one_wait_is_of_all_threads(tmp_path: Path) -> None:
    """Of 8 threads that start at once, none asks between the answer 429 and the end of what it asks for."""
    make_layout(tmp_path / "layout", [{}])
    with FakeRegistry() as fake:
        fake.add(tmp_path / "layout")
        raw = fake.raw("latest")
        tags = [f"t{number}" for number in range(24)]
        for tag in tags:
            fake.put(NAME, tag, raw, Manifest.parse(raw).media_type)
        held: list[float] = []

        class Watched(Pace):
            def hold(self, place: tuple[str, str, int], seconds: float) -> bool:
                held.append(seconds)
                return super().hold(place, seconds)

        fake.fail("PUT", "/manifests/t3", status(429, retry_after="1"))
        named = [(tag, parse(f"{fake.host}/{NAME}:{tag}")) for tag in tags]
        told: list[Outcome] = []
        wish = Wish(pairs={"a": "b"}, referrers="ignore")
        annotate_all(named, wish, run, Access(plain_http=True), done=told.append, pace=Watched())
        assert held == [1.0] and all(outcome.error is None for outcome in told)
