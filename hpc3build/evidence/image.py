"""All that was found inside one image, as the subjects of ``facts`` take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from hpc3build.evidence.applications import Applications
from hpc3build.evidence.history import History
from hpc3build.evidence.layers import ImageFiles
from hpc3build.evidence.packages import Installed


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """``complete`` is False when layers were left unread: then nothing can be said to be absent.

    ``unread`` are paths of package managers' records that could not be read, each with why.
    """

    files: ImageFiles
    applications: Applications = field(default_factory=Applications)
    packages: tuple[Installed, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    history: History = field(default_factory=History)
    complete: bool = True
