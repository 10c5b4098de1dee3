"""Limits of time that hold on a machine that is slow, or busy with something else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


@contextlib.contextmanager
def in_a_moment(seconds: float = 10.0) -> Iterator[None]:
    """Fails a block that takes more of the CPU's time, which no other process can use up; most take milliseconds."""
    began = time.process_time()
    yield
    assert time.process_time() - began < seconds
