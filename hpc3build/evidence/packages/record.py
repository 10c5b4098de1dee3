"""One installed package, as any manager records it."""

from __future__ import annotations

from dataclasses import dataclass

#: Of one record file: Debian's status of a large image is 4 MiB.
MAX_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Installed:
    """``version`` as the manager writes it, ``upstream`` without its own revision; ``path`` the record it stands in."""

    manager: str
    name: str
    version: str
    upstream: str
    path: str

    @property
    def origin(self) -> str:
        """For evidence texts."""
        return f"{self.path}: {self.name} {self.version}"
