"""Several references in one run: threads with connections of their own, and no two at one tag at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hpc3build.errors import Hpc3BuildError, InputError
from hpc3build.interrupts import Interrupts
from hpc3build.reference import DOCKER, Reference
from hpc3build.rewrite import Result
from hpc3build.run import Runner
from hpc3build.stores.access import Access, Limits
from hpc3build.stores.pace import Pace
from hpc3build.stores.transport import Client
from hpc3build.workflows.annotate import Wish, annotate, prepare
from hpc3build.workflows.names import Named

#: Requests wait for the network far longer than they compute; more would only annoy registries.
JOBS = 8
MAX_JOBS = 64
#: How many references may be ahead of the first that is not done, since they are told in order.
WINDOW = 512


@dataclass(frozen=True)
class Outcome:
    """How one reference ended: with a result or an error."""

    reference: str
    result: Result | None = None
    error: Hpc3BuildError | None = None


def read_list(text: str, what: str) -> tuple[str, ...]:
    """References, one a line; what follows # at a line's start or after a blank is a comment. Raises InputError."""
    lines = (f" {line}".split(" #", 1)[0].strip() for line in text.replace("\t", " ").splitlines())
    references = tuple(line for line in lines if line)
    if not references:
        raise InputError(f"{what}: no references in it", hint="one reference a line, # begins a comment")
    return references


def annotate_all(
    references: Iterable[Named],
    wish: Wish,
    runner: Runner,
    access: Access,
    *,
    jobs: int = JOBS,
    done: Callable[[Outcome], None] = lambda _: None,
    ended: Callable[[Outcome], None] = lambda _: None,
    pace: Pace | None = None,
    interrupts: Interrupts | None = None,
) -> None:
    """Annotate each; one failure does not stop the others. Raises only what concerns all of them (``prepare``).

    ``references`` are taken as they are needed; ``ended`` is called with an outcome at once, ``done`` in their order.
    Nothing is kept of what was told. A text that is no reference is given with its error. Two references to one tag are
    worked on one after the other, in their order. All threads keep to ``pace``. Once ``interrupts`` came, what is being
    written is finished and told, and nothing else is begun.
    """
    work = _Work(references, prepare(wish, runner), runner, access, (ended, done), pace or Pace())
    work.interrupts = interrupts or work.interrupts
    threads = [threading.Thread(target=work.run) for _ in range(jobs - 1)]
    for thread in threads:
        thread.start()
    work.run()
    for thread in threads:
        thread.join()
    work.tell_rest()
    if work.defect is not None:
        raise work.defect


def _limits(wish: Wish) -> Limits | None:
    """Those of coordinated writers, where they are meant."""
    if wish.coordinate is None:
        return None
    from hpc3build.workflows.board import limits

    return limits(wish.lease)


def _key(reference: Reference | Hpc3BuildError, place: int) -> object:
    """What must not be written by two at once: a tag, a layout or archive, a local store."""
    if not isinstance(reference, Reference):
        return place
    if reference.transport == DOCKER:
        return reference.registry, reference.name, reference.tag or reference.digest
    return reference.transport, Path(reference.name).resolve() if reference.is_path else reference.storage


@dataclass(frozen=True)
class _Job:
    place: int
    named: Named
    key: object


class _Given(Exception):
    """A reference was given up, as the run ends, before anything of it was written."""


class _Work:
    def __init__(
        self,
        references: Iterable[Named],
        wish: Wish,
        runner: Runner,
        access: Access,
        told: tuple[Callable[[Outcome], None], Callable[[Outcome], None]],
        pace: Pace,
    ) -> None:
        self._references = iter(references)
        self._wish, self._runner, self._access, self._pace = wish, runner, access, pace
        self._ended, self._done = told
        self.interrupts = Interrupts()  # not entered: nothing is held back
        self._busy: dict[object, deque[_Job]] = {}  # what waits for a key that is worked on
        self._ready: dict[int, Outcome] = {}  # not told yet
        self._given = self._told = 0
        self._stopped = False
        self._room = threading.Condition()
        self.defect: BaseException | None = None

    def run(self) -> None:
        """Work until nothing is left; in each thread."""
        client = Client(self._access, _limits(self._wish), pace=self._pace)
        try:
            job = self._next(None)
            while job is not None:
                self._tell(job, self._one(job.named, client))
                job = self._next(job)
        except BaseException as defect:
            if not (self.interrupts.came and isinstance(defect, (KeyboardInterrupt, _Given))):
                self.defect = self.defect or defect
            with self._room:
                self._stopped = True
                self._room.notify_all()
        finally:
            client.close()

    def tell_rest(self) -> None:
        """What is done, but stands behind what was never done. For the end, where no thread works any longer."""
        for _, outcome in sorted(self._ready.items()):
            try:
                self._done(outcome)
            except BaseException as defect:  # the others are told first
                self.defect = self.defect or defect

    @property
    def _over(self) -> bool:
        return self._stopped or self.interrupts.came

    def _begin(self) -> None:
        """Before a tag is written: from there on it is finished."""
        self.interrupts.wait()
        if self._over:
            raise _Given

    def _next(self, ended: _Job | None) -> _Job | None:
        """What waited for the job that ended, else the next whose key is free; None at the end."""
        with self._room:
            if ended is not None and (job := self._waiting(ended.key)) is not None:
                return job
            while not self._over:
                if self._given - self._told >= WINDOW:
                    self._room.wait()
                    continue
                with self.interrupts.prompt():
                    named = next(self._references, None)
                if named is None:
                    return None
                job = _Job(self._given, named, _key(named[1], self._given))
                self._given += 1
                if job.key not in self._busy:
                    self._busy[job.key] = deque()
                    return job
                self._busy[job.key].append(job)
        return None

    def _waiting(self, key: object) -> _Job | None:
        if self._busy[key] and not self._over:
            return self._busy[key].popleft()
        del self._busy[key]
        return None

    def _one(self, named: Named, client: Client) -> Outcome:
        text, reference = named
        if not isinstance(reference, Reference):
            return Outcome(text, error=reference)
        try:
            with self.interrupts.prompt():
                done = annotate(reference, self._wish, self._runner, self._access, client, begin=self._begin)
            return Outcome(text, done)
        except Hpc3BuildError as error:
            return Outcome(text, error=error)

    def _tell(self, job: _Job, outcome: Outcome) -> None:
        with self._room:
            self._ready[job.place] = outcome
            self._ended(outcome)
            while (ready := self._ready.pop(self._told, None)) is not None:
                self._told += 1
                self._done(ready)
            self._room.notify_all()


@dataclass
class Tally:
    """How a run went: how many references ended how, and its exit code.

    That is the highest of the errors'; else 1 where a key was left undecided, 0 without any.
    """

    changed: int = 0
    unchanged: int = 0
    failed: int = 0
    exit_code: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        if outcome.error is not None:
            self.failed += 1
            self.exit_code = max(self.exit_code, outcome.error.exit_code)
            return
        changed = outcome.result is not None and outcome.result.changed
        self.changed += changed
        self.unchanged += not changed
        if outcome.result is not None and outcome.result.undecided:
            self.exit_code = max(self.exit_code, 1)
