"""A blob of a registry as one stream, however often the connection is cut."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

from hpc3build.stores.connection import Reply
from hpc3build.stores.refusals import Interrupted
from hpc3build.stores.transport import Cut

RESUMES = 5


class Resumed(io.RawIOBase):
    """A blob, taken up again where a connection was cut."""

    def __init__(self, opened: Callable[[int], Reply]) -> None:
        self._opened = opened
        self._reply = opened(0)
        self._position = 0
        self._resumes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            try:
                part = self._reply.read(len(buffer))
            except Cut as error:
                self._resumes += 1
                if self._resumes > RESUMES:
                    raise Interrupted(f"{self._position} bytes of a blob came, then: {error}") from error
                with contextlib.suppress(Cut):
                    self._reply = self._opened(self._position)
                continue
            buffer[: len(part)] = part
            self._position += len(part)
            return len(part)

    def close(self) -> None:
        self._reply.close()
        super().close()
