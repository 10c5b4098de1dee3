"""Interrupts that wait: what was begun is finished and told before SIGINT, SIGTERM or SIGHUP ends the run."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Once:
    """A handler that raises: of the signals that come within seconds of one another, the first alone.

    ``timeout`` signals a command and then its group, and impatient people press Ctrl-C again: what is removed on the
    way out would stay.
    """

    SECONDS = 10.0

    def __init__(self, make: Callable[[int], KeyboardInterrupt]) -> None:
        self._make = make
        self._last: float | None = None

    def __call__(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self._last is None or now - self._last > self.SECONDS:
            self._last = now
            raise self._make(number)


class Interrupts:
    """A context manager: of the signals that come in its block, the first does its work at the block's end.

    ``came`` is true from the first on. In a block of ``prompt`` the main thread is interrupted at once, but only once:
    ``timeout`` and impatient people send more signals while the rest is still finished. In another thread than the main
    one it does nothing, as signals are the main thread's.
    """

    def __init__(self) -> None:
        self.came = False
        self._first: tuple[int, FrameType | None] | None = None
        self._prompt = False
        self._before: dict[int, Any] = {}

    @contextmanager
    def prompt(self) -> Iterator[None]:
        """What the main thread does in the block is given up at once, by KeyboardInterrupt; ``wait`` ends it early."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._prompt = not self.came
        try:
            yield
        finally:
            self._prompt = False

    def wait(self) -> None:
        """From here on the main thread finishes what it does."""
        if threading.current_thread() is threading.main_thread():
            self._prompt = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._first = self._first or (number, frame)
        self.came = True
        if self._prompt:
            self._prompt = False
            raise KeyboardInterrupt

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _NUMBERS:
                if (before := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if self._first is not None:
            number, frame = self._first
            before = self._before[number]
            if not callable(before):
                raise KeyboardInterrupt
            before(number, frame)  # where a block around this one holds it back, too, that one's end is its time
