"""How fast a registry is asked, by all threads of a run together: a rate, and the waiting that it asks for.

Source: RFC 9110 §10.2.3 (Retry-After), RFC 6585 §4 (429).
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable

from hpc3build.stores.connection import Origin

#: Seconds that a registry may ask all of a run to wait; what asks for more is refused as it stands.
PATIENCE = 900.0


class Pace:
    """Shared by the clients of a run. ``rate`` is requests a second to one registry, None for as fast as it goes."""

    def __init__(
        self,
        rate: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._free: defaultdict[Origin, float] = defaultdict(float)  # when the next request may go
        self._held: defaultdict[Origin, float] = defaultdict(float)  # until when none may

    def wait(self, place: Origin) -> float:
        """Return when a request may be sent, with the seconds that this took."""
        began = self._clock()
        with self._lock:
            turn = max(began, self._free[place])
            self._free[place] = turn + self._gap
        # Who waits already waits on where others are asked to wait meanwhile.
        while (left := max(turn, self._held[place]) - self._clock()) > 0:
            self._sleep(left)
        return self._clock() - began

    def hold(self, place: Origin, seconds: float) -> bool:
        """Let nobody ask for so long; False where that is more than anybody should wait."""
        if seconds > PATIENCE:
            return False
        with self._lock:
            until = self._clock() + seconds
            self._held[place] = max(self._held[place], until)
            self._free[place] = max(self._free[place], until)
        return True
