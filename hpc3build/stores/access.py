"""How registries are reached: what the command line gives, without anything that is slow to import."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from hpc3build.reference import Reference

HUB = "docker.io"
HUB_API = "registry-1.docker.io"
_LOOPBACK = re.compile(r"localhost|127(?:\.\d{1,3}){3}|::1")


@dataclass(frozen=True)
class Access:
    """Options of a connection; ``password`` came by standard input and is shown nowhere."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    plain_http: bool = False
    tls_verify: bool = True
    ca_file: Path | None = None

    def verifies(self, reference: Reference) -> bool:
        """Whether a registry must prove who it is: not where the options say so, and not on this machine."""
        return not self.plain_http and self.tls_verify and not is_loopback(reference.host)


@dataclass(frozen=True)
class Limits:
    """Seconds, and how often a request is sent at most. ``total`` holds for one request with all its repetitions.

    With ``strict`` it holds for what a registry asks all to wait, too. A blob's stream has no total: it may rest
    ``read`` seconds, and must bring ``slowest`` bytes a second on average.
    """

    connect: float = 10.0
    read: float = 30.0
    total: float = 90.0
    attempts: int = 6
    backoff: float = 0.2
    slowest: int = 1024
    strict: bool = False


def is_loopback(host: str) -> bool:
    """Whether ``host`` (without port and brackets) is this machine: localhost, 127.0.0.0/8, ::1."""
    return _LOOPBACK.fullmatch(host.lower()) is not None
