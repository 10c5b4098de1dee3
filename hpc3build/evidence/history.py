"""An image's history as its builder wrote it: the weakest evidence there is, and only where it is plain.

Sources: the OCI image specification (``history`` of the configuration); for the name of the base, buildah's image.go,
which writes ``FROM NAME`` as the comment of the first entry that it adds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from hpc3build.imageconfig import ImageConfig

#: A name that says where the image comes from; buildah also writes ``localhost/…``, which means nothing elsewhere.
_QUALIFIED = re.compile(r"FROM ((?!localhost[:/]|127\.)(?:[\w-]+\.[\w.-]+(?::\d+)?|[\w-]+:\d+)/[^\s@]+)")
#: How buildah writes an instruction and a RUN. Docker's old builder has two spaces behind ``(nop)``, BuildKit neither.
_BUILDAH = re.compile(r"/bin/sh(?: -c (?:#\(nop\) \S|(?!#\(nop\)))|$)")


@dataclass(frozen=True)
class History:
    """``commands`` made the layers, by the layer's digest; ``base`` is the image that it was built on.

    ``last`` is the last instruction of all, empty where there is none.
    """

    commands: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    base: str | None = None
    last: str = ""


def read_history(config: ImageConfig, layers: Sequence[str]) -> History:
    """What ``config`` tells of its ``layers``, the digests of the manifest, oldest first."""
    entries = [(_text(entry, "created_by"), _text(entry, "comment")) for entry in config.history]
    made = [_text(entry, "created_by") for entry in config.history if entry.get("empty_layer") is not True]
    # Layers that were joined, and ones of equal content, cannot be told apart.
    whole = len(made) == len(layers) == len(set(layers))
    commands = dict(zip(layers, made, strict=True)) if whole else {}
    return History(MappingProxyType(commands), _base(config, entries), entries[-1][0] if entries else "")


def _base(config: ImageConfig, entries: Sequence[tuple[str, str]]) -> str | None:
    """The image of the last ``FROM``, unless something that is not buildah may have added to it since."""
    if config.json.get("docker_version"):
        return None
    start = max((at for at, (_, comment) in enumerate(entries) if "FROM " in comment), default=None)
    if start is None or not all(_BUILDAH.match(command) for command, _ in entries[start:]):
        return None
    if any(comment for _, comment in entries[start + 1 :]):
        return None
    match = _QUALIFIED.fullmatch(entries[start][1])
    return match[1] if match else None


def _text(entry: Mapping[str, object], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""
