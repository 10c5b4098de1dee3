"""What a rule says of an image on a host, and how the sayings of all rules add up."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from hpc3build.facts import Key
from hpc3build.findings import Finding, Outcome
from hpc3build.host.fingerprint import numbers

_ORDER = tuple(Outcome)


class Verdict(enum.Enum):
    """Of an image on a host, from best to worst."""

    RUN = "RUN"
    DEGRADED = "DEGRADED"
    UNKNOWN = "UNKNOWN"
    NO = "NO"


_VERDICTS = dict(zip(_ORDER, Verdict, strict=True))


@dataclass(frozen=True)
class Judgement:
    """One rule's findings. ``score`` ranks images of equal verdict, higher is nearer to the host."""

    findings: tuple[Finding, ...]
    score: int = 0

    @cached_property
    def severity(self) -> int:
        """0 for OK to 3 for FAILS: the worst of the findings."""
        return max((_ORDER.index(finding.outcome) for finding in self.findings), default=0)


def ok(rule: str, key: Key | None, message: str, hint: str = "") -> Finding:
    """A finding that hinders nothing."""
    return Finding(rule, Outcome.OK, message, hint, key.name if key else "")


def degraded(rule: str, key: Key | None, message: str, hint: str = "") -> Finding:
    """It runs, with less than it could have."""
    return Finding(rule, Outcome.DEGRADED, message, hint, key.name if key else "")


def unknown(rule: str, key: Key | None, message: str, hint: str = "") -> Finding:
    """Image or host do not say enough."""
    return Finding(rule, Outcome.UNKNOWN, message, hint, key.name if key else "")


def fails(rule: str, key: Key | None, message: str, hint: str = "") -> Finding:
    """It does not run."""
    return Finding(rule, Outcome.FAILS, message, hint, key.name if key else "")


def verdict(severity: int) -> Verdict:
    """The verdict of the worst severity."""
    return _VERDICTS[_ORDER[severity]]


def deciding(findings: Iterable[Finding]) -> Finding | None:
    """The finding that decided: the first of the worst."""
    found = list(findings)
    return max(found, key=lambda finding: _ORDER.index(finding.outcome), default=None)


def at_least(have: str, need: str) -> bool:
    """Whether version ``have`` is ``need`` or newer; trailing zeros mean nothing."""
    return _stripped(have) >= _stripped(need)


def _stripped(version: str) -> tuple[int, ...]:
    found = numbers(version)
    while found and found[-1] == 0:
        found = found[:-1]
    return found
