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


@dataclass(frozen=True)
class _Entry:
    """``layer`` tells whether it made one."""

    command: str
    comment: str
    layer: bool


def read_history(config: ImageConfig, layers: Sequence[str]) -> History:
    """What ``config`` tells of its ``layers``, the digests of the manifest, oldest first."""
    entries = [
        _Entry(_text(entry, "created_by"), _text(entry, "comment"), entry.get("empty_layer") is not True)
        for entry in config.history
    ]
    made = [entry.command for entry in entries if entry.layer]
    # Layers that were joined, and ones of equal content, cannot be told apart.
    whole = len(made) == len(layers) == len(set(layers))
    commands = dict(zip(layers, made, strict=True)) if whole else {}
    return History(MappingProxyType(commands), _base(config, entries), entries[-1].command if entries else "")


def _base(config: ImageConfig, entries: Sequence[_Entry]) -> str | None:
    """The image of the last ``FROM``, unless something else may have added to it since.

    A build on an image that is named by its ID leaves no name, and looks like the next layer of the same build: so
    there is one layer at most.
    """
    start = max((at for at, entry in enumerate(entries) if "FROM " in entry.comment), default=None)
    if start is None or config.json.get("docker_version"):
        return None
    first, *others = entries[start:]
    if any(entry.comment for entry in others) or sum(entry.layer for entry in entries[start:]) > 1:
        return None
    match = _QUALIFIED.fullmatch(first.comment)
    return match[1] if match and all(_BUILDAH.match(entry.command) for entry in (first, *others)) else None


def _text(entry: Mapping[str, object], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""
