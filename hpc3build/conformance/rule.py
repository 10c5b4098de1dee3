"""What a rule is, what it looks at, and how its remarks become findings."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from hpc3build.evidence.layers import ImageFiles
from hpc3build.facts.labels import declared
from hpc3build.findings import Finding, Outcome
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import Manifest


@dataclass(frozen=True)
class Image:
    """What the static rules look at. ``files`` is None where no layer was read."""

    manifest: Manifest
    config: ImageConfig
    files: ImageFiles | None = None

    @property
    def declared(self) -> Mapping[str, str]:
        """What it says of itself."""
        return declared(self.manifest.annotations, self.config.labels)


class Severity(enum.Enum):
    """What a rule that is not kept means: MUST fails the image, SHOULD only degrades it."""

    MUST = "must"
    SHOULD = "should"


class Level(enum.Enum):
    """What a rule needs to be checked."""

    CONFIG = "manifest and configuration"
    LAYERS = "files in the layers"
    LIVE = "a run under an engine"


@dataclass(frozen=True)
class Remark:
    """What a check has to say: a fault of the rule's severity, or of another ``outcome`` than that.

    ``hint`` mends this very fault; without one the rule's own ``mend`` is told.
    """

    message: str
    key: str = ""
    hint: str = ""
    outcome: Outcome | None = None


Check = Callable[[Image], Iterator[Remark]]


@dataclass(frozen=True)
class Rule:
    """One row of the table of rules; ``sentence`` is what a conformant image does, ``mend`` how one becomes so."""

    id: str
    sentence: str
    source: str
    severity: Severity
    level: Level
    mend: str
    check: Check | None = field(default=None, compare=False)

    def fault(self, remark: Remark, where: str = "") -> Finding:
        """The remark as a finding of this rule."""
        outcome = remark.outcome or (Outcome.FAILS if self.severity is Severity.MUST else Outcome.DEGRADED)
        broken = outcome in (Outcome.FAILS, Outcome.DEGRADED)
        hint = remark.hint or (self.mend if broken else "")
        return Finding(self.id, outcome, remark.message, hint, remark.key, where)

    def findings(self, image: Image) -> Iterator[Finding]:
        """A finding per remark of the static check; without any, one that says that the rule is kept."""
        remarks = list(self.check(image)) if self.check else []
        for remark in remarks or [Remark(self.sentence, outcome=Outcome.OK)]:
            yield self.fault(remark)
