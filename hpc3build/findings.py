"""One rule's outcome, used by conformance and by match alike."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Outcome(enum.Enum):
    """Ordered from best to worst by definition order."""

    OK = "OK"
    DEGRADED = "DEGRADED"
    UNKNOWN = "UNKNOWN"
    FAILS = "FAILS"


@dataclass(frozen=True)
class Finding:
    """``rule`` is the rule's id, ``key`` the annotation that decided, where there is one.

    ``where`` tells the cases of one rule apart, such as the engine and the user of a run.
    """

    rule: str
    outcome: Outcome
    message: str
    hint: str = ""
    key: str = ""
    where: str = ""
