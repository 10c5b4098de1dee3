"""A call in a thread of its own: requests that need not wait for one another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Later(Generic[_T]):
    """Begins ``call`` at once; ``result`` waits for it, and raises what it raised."""

    def __init__(self, call: Callable[[], _T]) -> None:
        self._call = call
        self._value: _T | None = None
        self._error: BaseException | None = None
        # threading alone: concurrent.futures takes 10 ms to import.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> _T:
        """What the call returned."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:  # told where the result is asked for
            self._error = error
