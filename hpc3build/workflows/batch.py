"""Several references in one run: threads with connections of their own, and no two at one tag at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpc3build.errors import Hpc3BuildError, InputError
from hpc3build.reference import DOCKER, Reference
from hpc3build.rewrite import Result
from hpc3build.run import Runner
from hpc3build.stores.access import Access
from hpc3build.workflows.annotate import Wish, annotate, prepare

if TYPE_CHECKING:
    from hpc3build.stores.transport import Client

#: Requests wait for the network far longer than they compute; more would only annoy registries.
JOBS = 8
MAX_JOBS = 64


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
    references: Sequence[tuple[str, Reference | Hpc3BuildError]],
    wish: Wish,
    runner: Runner,
    access: Access,
    *,
    jobs: int = JOBS,
    done: Callable[[Outcome], None] = lambda _: None,
) -> tuple[Outcome, ...]:
    """Annotate each; one failure does not stop the others. Raises only what concerns all of them (``prepare``).

    The outcomes are in the order of ``references``, and ``done`` is called in that order, too. A text that is no
    reference is given with its error. Two references to one tag are worked on one after the other, in their order.
    """
    wish = prepare(wish, runner)
    work = _Work(references, wish, runner, access, done)
    groups: dict[object, list[int]] = {}
    for place, (_, reference) in enumerate(references):
        groups.setdefault(_key(reference, place), []).append(place)
    work.queue.extend(groups.values())
    threads = [threading.Thread(target=work.run) for _ in range(min(jobs, len(groups)) - 1)]
    for thread in threads:
        thread.start()
    try:
        work.run()
    except BaseException:
        work.queue.clear()  # what is being written is finished, nothing else is begun
        raise
    finally:
        for thread in threads:
            thread.join()
    if work.defect is not None:
        raise work.defect
    return tuple(outcome for outcome in work.outcomes if outcome is not None)


def _key(reference: Reference | Hpc3BuildError, place: int) -> object:
    """What must not be written by two at once: a tag, a layout or archive, a local store."""
    if not isinstance(reference, Reference):
        return place
    if reference.transport == DOCKER:
        return reference.registry, reference.name, reference.tag or reference.digest
    return reference.transport, Path(reference.name).resolve() if reference.is_path else reference.storage


class _Work:
    def __init__(
        self,
        references: Iterable[tuple[str, Reference | Hpc3BuildError]],
        wish: Wish,
        runner: Runner,
        access: Access,
        done: Callable[[Outcome], None],
    ) -> None:
        self._references = tuple(references)
        self._wish, self._runner, self._access, self._done = wish, runner, access, done
        self.queue: deque[list[int]] = deque()
        self.outcomes: list[Outcome | None] = [None] * len(self._references)
        self.defect: BaseException | None = None
        self._told = 0
        self._lock = threading.Lock()

    def run(self) -> None:
        """Work until nothing is left; in each thread."""
        from hpc3build.stores.transport import Client

        client = Client(self._access)
        try:
            while True:
                try:
                    group = self.queue.popleft()
                except IndexError:
                    return
                for place in group:
                    self._tell(place, self._one(place, client))
        except BaseException as defect:
            self.defect = self.defect or defect
            self.queue.clear()
            if threading.current_thread() is threading.main_thread():
                raise
        finally:
            client.close()

    def _one(self, place: int, client: Client) -> Outcome:
        text, reference = self._references[place]
        if not isinstance(reference, Reference):
            return Outcome(text, error=reference)
        try:
            return Outcome(text, annotate(reference, self._wish, self._runner, self._access, client))
        except Hpc3BuildError as error:
            return Outcome(text, error=error)

    def _tell(self, place: int, outcome: Outcome) -> None:
        with self._lock:
            self.outcomes[place] = outcome
            while self._told < len(self.outcomes) and (ready := self.outcomes[self._told]) is not None:
                self._told += 1
                self._done(ready)


def worst(outcomes: Iterable[Outcome]) -> int:
    """The exit code of a run: the highest of its errors'; else 1 where a key was left undecided, 0 without any."""
    outcomes = tuple(outcomes)
    undecided = any(outcome.result.undecided for outcome in outcomes if outcome.result)
    return max((outcome.error.exit_code for outcome in outcomes if outcome.error), default=int(undecided))
