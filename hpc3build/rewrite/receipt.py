"""What was written, so that it can be taken back: old manifests and configurations are kept in full, since registries
collect what no tag names and containers-storage keeps one manifest of an image."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc3build import jsonedit
from hpc3build.errors import Hpc3BuildError, InputError
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import Manifest, check_digest
from hpc3build.reference import Reference, parse

VERSION = 1
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Entry:
    """One tag that moved from ``before`` to ``after``. ``before`` is None where there was no such tag.

    ``manifests`` are the old ones, children first, and ``configs`` the old configurations.
    """

    reference: Reference
    tag: str | None
    before: str | None
    after: str
    backup_tag: str | None = None
    manifests: tuple[Manifest, ...] = ()
    configs: tuple[ImageConfig, ...] = ()


def document(entries: Iterable[Entry]) -> dict[str, Any]:
    """The JSON document (schemas/receipt.json). Paths are absolute, so that it holds from any folder."""
    return {"receipt": VERSION, "entries": [_as_json(entry) for entry in entries]}


def read(content: bytes, what: str) -> tuple[Entry, ...]:
    """The entries of a receipt; contents are checked against their digests. Raises InputError."""
    try:
        fields = json.loads(content)
        if fields["receipt"] != VERSION:
            raise InputError(f"{what}: a receipt of version {fields['receipt']!r}, not {VERSION}")
        return tuple(_from_json(entry, f"{what}: entries[{place}]") for place, entry in enumerate(fields["entries"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{what} is no receipt of hpc3build", hint="annotate --receipt FILE writes one") from error


def _as_json(entry: Entry) -> dict[str, Any]:
    reference = entry.reference
    if reference.is_path:
        reference = dataclasses.replace(reference, name=str(Path(reference.name).absolute()))
    return {
        "reference": str(reference),
        "tag": entry.tag,
        "before": entry.before,
        "after": entry.after,
        "backup_tag": entry.backup_tag,
        "manifests": [
            {"digest": manifest.digest, "media_type": manifest.media_type, "text": manifest.raw.decode()}
            for manifest in entry.manifests
        ],
        "configs": [{"digest": config.digest, "text": config.raw.decode()} for config in entry.configs],
    }


def _from_json(fields: Any, what: str) -> Entry:
    try:
        before = fields["before"]
        configs = tuple(ImageConfig.parse(one["text"].encode(), one["digest"]) for one in fields["configs"])
        manifests = tuple(
            Manifest.parse(one["text"].encode(), one["media_type"], one["digest"]) for one in fields["manifests"]
        )
        if before is not None and (not manifests or manifests[-1].digest != before):
            raise InputError(f"{what}: the old manifest {before} is not in it")
        return Entry(
            parse(_text(fields["reference"])),
            None if fields["tag"] is None else _text(fields["tag"]),
            None if before is None else check_digest(before, f"{what}.before"),
            check_digest(fields["after"], f"{what}.after"),
            fields.get("backup_tag"),
            manifests,
            configs,
        )
    except AttributeError as error:
        raise TypeError from error
    except InputError:
        raise
    except Hpc3BuildError as error:
        raise InputError(f"{what}: {error.message}", hint="the receipt was altered") from error


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > jsonedit.MAX_BYTES:
        raise TypeError
    return value
