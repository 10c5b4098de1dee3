"""Coordinated writers of one tag, in a world where every step may be the last and writes land late.

The world lets one writer take one step at a time, in an order drawn by a seed, and has a clock of its own.
"""

from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc3build.errors import ImageError, StoreError, TagMoved
from hpc3build.oci import Manifest
from hpc3build.reference import parse
from hpc3build.rewrite import Result
from hpc3build.rewrite.intent import Edits, Intent, KeyEdit, merged, read
from hpc3build.stores.referrers import names_no_image
from hpc3build.workflows.coordinate import Clocks, Posted, coordinate, deadline, edits_of

LEASE = 60.0
NAME = parse("docker://r.example/app:1")

# ---- values

EDITS = st.dictionaries(
    st.sampled_from("abc"),
    st.builds(
        KeyEdit, st.one_of(st.none(), st.sampled_from(["1", "2"])), st.integers(0, 2), st.sampled_from(["v", "w"])
    ),
)


@given(EDITS, EDITS, EDITS)
def test_merging_is_a_join(a: Edits, b: Edits, c: Edits) -> None:
    assert merged([a, b]) == merged([b, a])
    assert merged([a, merged([b, c])]) == merged([merged([a, b]), c]) == merged([c, b, a])
    assert merged([a, a]) == merged([a]) == a
    assert set(merged([a, b])) == set(a) | set(b)


def test_the_later_start_counts_then_the_name() -> None:
    early, late = KeyEdit("early", 1, "z"), KeyEdit(None, 2, "a")
    assert merged([{"k": late}, {"k": early}])["k"] == late
    assert merged([{"k": KeyEdit("v", 1, "v")}, {"k": early}])["k"] == early


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20)


@given(
    st.dictionaries(st.from_regex(r"[a-z]([a-z.]{0,8}[a-z])?", fullmatch=True), st.one_of(st.none(), TEXTS)),
    st.sets(st.sampled_from(["v", "w"])),
    st.booleans(),
)
def test_an_intent_is_read_as_it_was_written(pairs: dict[str, str | None], seen: set[str], done: bool) -> None:
    edits = {key: KeyEdit(value, 17, "me") for key, value in pairs.items()}
    intent = Intent("1", "me", "slot", 60.0, 1.5, "sha256:0", MappingProxyType(edits), frozenset(seen), done)
    assert read(Manifest.parse(intent.manifest().raw)) == intent
    assert names_no_image(intent.place) and len(intent.place) <= 128


@pytest.mark.parametrize(
    "change",
    [
        {"tag": 1}, {"lease": "x"}, {"lease": 0}, {"lease": 1e9}, {"writer": "../x"}, {"edits": []}, {"done": 0},
        {"edits": {"k": ["v", 1]}}, {"edits": {"k": ["v", "1", "w"]}}, {"edits": {"k": [1, 1, "w"]}}, {"seen": [1]},
        {"edits": {"k": ["a\nb", 1, "w"]}}, {"edits": {"com.hooks.x/": ["v", 1, "w"]}},
        {"at": 10**400}, {"at": float("nan")}, {"at": float("inf")}, {"at": "-inf"}, {"lease": 10**400},
    ],
)  # fmt: skip
def test_what_is_no_intent(change: dict[str, object]) -> None:
    with pytest.raises(ImageError, match="malformed"):
        read(changed(change))


def changed(change: Mapping[str, object]) -> Manifest:
    """An intent of which some members are others."""
    document = json.loads(Intent("1", "me", "slot", 60.0, 1.5).manifest().raw)
    said = json.loads(document["annotations"]["io.github.hpc3build.intent"])
    document["annotations"]["io.github.hpc3build.intent"] = json.dumps({**said, **change})
    return Manifest.parse(json.dumps(document).encode())


NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -(10**400), True, "1e400", "nan", None]))
STRANGE = st.one_of(st.sampled_from(["me", "", "\ud800", "x" * 100]), NUMBERS, st.lists(st.text()))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("tag", "writer", "slot", "base", "done"), STRANGE),
            **dict.fromkeys(("at", "lease"), NUMBERS),
            "seen": STRANGE | st.lists(STRANGE),
            "edits": STRANGE
            | st.dictionaries(st.sampled_from(["k", "\ud800"]), STRANGE | st.tuples(STRANGE, NUMBERS, STRANGE)),
        },
    )
)
def test_whatever_is_left_there_stops_nobody(change: dict[str, object]) -> None:
    """Anybody who may push a tag may leave it: it is refused in words, or can be reckoned with and left again."""
    try:
        intent = read(changed(change))
    except ImageError:
        return
    assert math.isfinite(intent.at) and 0 < intent.lease <= 86400
    assert merged([intent.edits]) == intent.edits
    assert read(intent.manifest()) == intent


# ---- the world


class Killed(BaseException):
    """SIGKILL: nothing of ours runs after it."""


@dataclass
class Fate:
    """``at`` which step a writer is killed, and whether what it then does was done, not done, or lands late."""

    at: int = -1
    done: str = "not"


class World:
    def __init__(self, seed: int, *, deletes: bool = True) -> None:
        self.rng = random.Random(seed)
        self.deletes = deletes
        self.now = 0.0
        self.tag: dict[str, str] = {"base": "0"}
        self.intents: dict[str, Posted] = {}
        self.late: list[tuple[float, Callable[[], None]]] = []
        self.steps = 0
        self.turn = threading.Condition()
        self.running: str | None = None
        self.waiting: dict[str, float] = {}  # who wants to go on, and from when
        self.landed: dict[str, float] = {}  # when a writer's intent was first there
        self.ended: dict[str, float] = {}
        self.errors: list[BaseException] = []

    def run(self, writers: dict[str, Callable[[], None]]) -> None:
        """All to their ends, one step of one of them after the other."""
        threads = []
        for name, work in writers.items():
            self.waiting[name] = self.now
            threads.append(threading.Thread(target=self._live, args=(name, work), daemon=True))
        for thread in threads:
            thread.start()
        with self.turn:
            while self.waiting:
                self._choose()
                self.turn.notify_all()
                assert self.turn.wait_for(lambda: self.running is None, 30)
        for thread in threads:
            thread.join(30)
        if self.errors:
            raise self.errors[0]
        self._land(float("inf"))

    def _choose(self) -> None:
        self.now += self.rng.random() * 0.05
        ready = [name for name, when in self.waiting.items() if when <= self.now]
        if not ready:
            self.now = min(self.waiting.values())
            ready = [name for name, when in self.waiting.items() if when <= self.now]
        self._land(self.now)
        self.running = self.rng.choice(sorted(ready))
        del self.waiting[self.running]

    def _land(self, until: float) -> None:
        for due, effect in sorted((one for one in self.late if one[0] <= until), key=lambda one: one[0]):
            effect()
            self.late = [one for one in self.late if one[1] is not effect]
            assert due <= until

    def _live(self, name: str, work: Callable[[], None]) -> None:
        try:
            self._rest(name)
            work()
            self.ended[name] = self.now
        except Killed:
            pass
        except BaseException as error:
            self.errors.append(error)
        with self.turn:
            self.running = None
            self.turn.notify_all()

    def _rest(self, name: str) -> None:
        with self.turn:
            assert self.turn.wait_for(lambda: self.running == name, 30)

    def pause(self, name: str, seconds: float = 0.0) -> None:
        """Let others go on."""
        with self.turn:
            self.waiting[name] = self.now + seconds
            self.running = None
            self.turn.notify_all()
        self._rest(name)


class WorldBoard:
    """What one writer sees of the world."""

    def __init__(self, world: World, name: str, fate: Fate) -> None:
        self.world, self.name, self.fate = world, name, fate
        self.step = 0

    def clocks(self) -> Clocks:
        drift = self.world.rng.random() * 1000  # clocks do not agree
        return Clocks(
            lambda: self.world.now + drift,
            lambda: self.world.now + drift,
            lambda seconds: self.world.pause(self.name, seconds),
        )

    def do(self, effect: Callable[[], None] = lambda: None, *, late: float = 0.0) -> None:
        """One request."""
        self.world.pause(self.name)
        self.step += 1
        self.world.steps += 1
        if self.step == self.fate.at:
            if self.fate.done == "done":
                effect()
            elif self.fate.done == "late" and late:
                self.world.late.append((self.world.now + self.world.rng.random() * late, effect))
            raise Killed
        effect()

    def others(self) -> list[Posted]:
        slots: list[str] = []
        self.do(lambda: slots.extend(sorted(self.world.intents)))
        found: list[Posted] = []

        def get(slot: str) -> None:
            if slot in self.world.intents:
                found.append(self.world.intents[slot])

        for slot in slots:
            if slot != self.name:
                self.do(lambda slot=slot: get(slot))  # type: ignore[misc]
        return [one for one in found if not one.intent.done]

    def post(self, intent: Intent) -> str:
        posted = Posted(intent.manifest().digest, intent)

        def put() -> None:
            self.world.intents[self.name] = posted
            self.world.landed.setdefault(self.name, self.world.now)

        self.do(put, late=deadline(LEASE))
        return posted.digest

    def remove(self, posted: Posted) -> None:
        slot = posted.intent.slot

        def delete() -> None:
            if self.world.intents.get(slot) == posted:
                del self.world.intents[slot]

        def empty() -> None:
            self.world.intents[slot] = Posted("", replace(posted.intent, edits={}, seen=frozenset(), done=True))

        self.do(delete if self.world.deletes else empty)

    def write(self, edits: Edits, ready: Callable[[], None]) -> Result:
        base: dict[str, str] = {}
        self.do(lambda: base.update(self.world.tag))
        new = {**base, **{key: edit.value for key, edit in edits.items() if edit.value is not None}}
        new = {key: value for key, value in new.items() if key not in edits or edits[key].value is not None}
        changed = new != base
        if changed:
            ready()
            now: dict[str, str] = {}
            self.do(lambda: now.update(self.world.tag))
            if now != base:
                raise TagMoved("moved")

            def put() -> None:
                self.world.tag = new

            if self.world.rng.random() < 0.1:  # no answer, and it lands when it lands
                self.world.late.append((self.world.now + self.world.rng.random() * deadline(LEASE), put))
                raise StoreError("no answer")
            self.do(put, late=deadline(LEASE))
        return Result(NAME, "", "", changed, ("sha256:1",) if changed else (), False, ())


def writer(world: World, name: str, fate: Fate) -> Callable[[], None]:
    def work() -> None:
        world.pause(name, world.rng.random() * 3)
        board = WorldBoard(world, name, fate)
        start = int(world.now * 1000)
        edits = edits_of({f"of.{name}": "1", "shared": name}, ("base",) if name == "w0" else (), start, name)
        STARTS[name] = start
        coordinate(board, Intent("1", name, name, LEASE, 0.0, "", edits), board.clocks())

    return work


STARTS: dict[str, int] = {}


def check(world: World, names: list[str]) -> None:
    """Nothing is lost: what was left as an intent is in the tag, or still in an intent for the next writer."""
    left = merged(one.intent.edits for one in world.intents.values())
    for name in names:
        if name in world.ended:
            assert world.tag.get(f"of.{name}") == "1", f"{name} ended, and the tag does not say so"
        if name in world.landed:
            assert f"of.{name}" in world.tag or f"of.{name}" in left, f"{name} is lost"
        if name in world.ended:
            assert name not in {one.intent.slot for one in world.intents.values() if not one.intent.done}


def check_the_last_word(world: World) -> None:
    """Of one key the later start counts, but for who came when the other had gone."""
    said = world.tag["shared"]
    for name, ended in world.ended.items():
        if (STARTS[name], name) > (STARTS[said], said):
            assert world.landed[said] >= ended


def play(seed: int, *, kills: int, deletes: bool = True) -> World:
    world = World(seed, deletes=deletes)
    names = [f"w{number}" for number in range(4)]
    rng = random.Random(seed * 7 + kills)
    killed = rng.sample(names, kills)
    fates = {
        name: Fate(rng.randint(1, 30), rng.choice(["not", "done", "late"])) if name in killed else Fate()
        for name in names
    }
    world.run({name: writer(world, name, fates[name]) for name in names})
    check(world, names)
    if "shared" in world.tag and world.ended:
        check_the_last_word(world)
    # One more finds all that was left, and cleans up.
    world.run({"w9": writer(world, "w9", Fate())})
    check(world, [*names, "w9"])
    for name in world.landed:
        assert world.tag[f"of.{name}"] == "1"
    assert world.tag["shared"] == "w9" and ("base" not in world.tag) == ("w0" in world.landed)
    assert all(one.intent.done for one in world.intents.values()) and (deletes is False or not world.intents)
    return world


@pytest.mark.parametrize("deletes", [True, False])
@pytest.mark.parametrize("kills", [0, 1, 3, 4])
def test_nothing_is_lost(kills: int, deletes: bool) -> None:
    for seed in range(6):
        play(seed, kills=kills, deletes=deletes)


@pytest.mark.long
@pytest.mark.parametrize("kills", [1, 2, 3, 4])
def test_nothing_is_lost_200_times(kills: int) -> None:
    for seed in range(100, 300):
        play(seed, kills=kills, deletes=seed % 4 != 0)


@pytest.mark.long
def test_killed_at_every_step() -> None:
    """Of four writers one is killed at each of its steps, in each way."""
    for done in ("not", "done", "late"):
        for step in range(1, 34):
            world = World(step)
            names = [f"w{number}" for number in range(4)]
            fates = {name: Fate() for name in names} | {"w1": Fate(step, done)}
            world.run({name: writer(world, name, fates[name]) for name in names})
            check(world, names)
            assert set(world.ended) >= {"w0", "w2", "w3"}


def test_without_looking_again_the_world_loses_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """The world is as bad as it should be: writers that go without being known to the others lose updates."""
    monkeypatch.setattr("hpc3build.workflows.coordinate._Writer._may_go", lambda self, others: True)
    lost = 0
    for seed in range(30):
        try:
            play(seed, kills=1)
        except AssertionError:
            lost += 1
    assert lost


def test_a_writer_alone_waits_for_nobody() -> None:
    world = World(1)
    world.run({"w1": writer(world, "w1", Fate())})
    assert world.now < 5 and not world.intents and world.steps <= 8


def test_a_dead_writer_is_waited_for_no_longer_than_its_lease() -> None:
    world = World(2)
    dead = Intent("1", "dead", "dead", LEASE, 0.0, "", edits_of({"of.dead": "1"}, (), 5, "dead"))
    world.intents["dead"] = Posted("sha256:dead", dead)
    world.run({"w1": writer(world, "w1", Fate())})
    assert world.tag["of.dead"] == "1" and not world.intents and LEASE <= world.now < LEASE + 10


def test_who_was_held_up_leaves_a_new_intent_before_it_writes() -> None:
    """Half of the lease goes by while the tag is read: what others know of this writer may soon be over."""
    world = World(3)
    did: list[str] = []

    class Slow(WorldBoard):
        def post(self, intent: Intent) -> str:
            did.append("post")
            return super().post(intent)

        def write(self, edits: Edits, ready: Callable[[], None]) -> Result:
            if "held up" not in did:
                did.append("held up")
                world.now += LEASE * 0.6
            result = super().write(edits, ready)
            did.append("write" if result.changed else "look")
            return result

    def work() -> None:
        board = Slow(world, "w1", Fate())
        edits = edits_of({"of.w1": "1"}, (), 1, "w1")
        while not did or did[-1] != "look":
            coordinate(board, Intent("1", "w1", "w1", LEASE, 0.0, "", edits), board.clocks())

    world.rng.random = lambda: 0.5  # type: ignore[method-assign] # every answer comes
    world.run({"w1": work})
    assert did == ["post", "held up", "post", "write", "look"]


@pytest.fixture(autouse=True)
def starts() -> Iterator[None]:
    STARTS.clear()
    yield
