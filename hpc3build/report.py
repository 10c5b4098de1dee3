"""Formats for people: text tables, and the JSON documents of the command line."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hpc3build.reference import parse

if TYPE_CHECKING:
    from hpc3build.facts import Facts
    from hpc3build.oci import Descriptor
    from hpc3build.rewrite import Result
    from hpc3build.workflows.candidates import Candidate
    from hpc3build.workflows.inspect import Inspected


def dumps(document: Any) -> str:
    """One JSON document, as a line-ended text; escapes where standard output cannot hold more than ASCII."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(document, indent=2, ensure_ascii=not unicode) + "\n"


def record(candidate: Candidate) -> dict[str, Any]:
    """An image record (docs/match.md): what pipelines publish, and ``pick`` reads."""
    reference = parse(candidate.reference)
    return {
        "reference": str(reference.with_tag(reference.tag) if reference.tag else reference),
        "digest": candidate.digest,
        "size": candidate.size,
        "platform": dict(candidate.platform),
        "annotations": dict(candidate.pairs),
    }


def plain(text: str) -> str:
    """Text from an image or recipe made safe for a terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None = None) -> str:
    """Columns side by side; on a terminal the last one is wrapped, elsewhere a row is one line."""
    rows = [[plain(cell) for cell in row] for row in rows]
    width = width or (max(shutil.get_terminal_size().columns, 60) if sys.stdout.isatty() else 1 << 20)
    widths = [max(len(row[column]) for row in [list(head), *rows]) for column in range(len(head) - 1)]
    last = max(24, width - sum(widths) - 2 * len(widths))
    lines = []
    for row in [list(head), ["-" * len(name) for name in head], *rows]:
        pieces = textwrap.wrap(row[-1], last, break_on_hyphens=False) or [""]
        left = "".join(cell.ljust(size + 2) for cell, size in zip(row[:-1], widths, strict=True))
        lines.append((left + pieces[0]).rstrip())
        lines += [" " * len(left) + piece for piece in pieces[1:]]
    return "\n".join(lines) + "\n"


def facts_json(subject: str, facts: Facts) -> dict[str, Any]:
    """The document of ``facts --json`` (schemas/facts.json)."""
    return {
        "subject": subject,
        "annotations": facts.annotations(),
        "facts": [_fact(fact) for fact in sorted(facts.values(), key=lambda fact: fact.key.name)],
        "conflicts": [
            {
                "key": conflict.key.name,
                "message": conflict.message,
                "values": [
                    {"value": fact.value, "source": fact.source.name.lower(), "evidence": fact.evidence}
                    for fact in conflict.values
                ],
            }
            for conflict in sorted(facts.conflicts, key=lambda conflict: conflict.key.name)
        ],
        "notes": [{"key": note.key.name, "message": note.message, "evidence": note.evidence} for note in facts.notes],
    }


def _fact(fact: Any) -> dict[str, str]:
    return {"key": fact.key.name, "value": fact.value, "source": fact.source.name.lower(), "evidence": fact.evidence}


def facts_text(facts: Facts) -> str:
    """A table of facts, then conflicts and notes."""
    rows = [
        (fact.key.name, shorten(fact.value), fact.source.name.lower(), fact.evidence)
        for fact in sorted(facts.values(), key=lambda fact: fact.key.name)
    ]
    text = table(("key", "value", "source", "evidence"), rows) if rows else "nothing is known\n"
    for conflict in facts.conflicts:
        told = "; ".join(f"{fact.value} ({fact.evidence})" for fact in conflict.values)
        text += plain(f"conflict: {conflict.key.name}: {conflict.message.removesuffix(f': {told}')}: {told}") + "\n"
    for note in facts.notes:
        text += plain(f"note: {note.key.name}: {note.message} ({note.evidence})") + "\n"
    return text


def shorten(value: str, limit: int = 44) -> str:
    """A value for a table; JSON has it whole."""
    return value if len(value) <= limit else value[: limit - 1] + "…"


def annotate_json(
    results: Sequence[tuple[str, Result | None, str | None]], counts: Mapping[str, int]
) -> dict[str, Any]:
    """The document of ``annotate --json``: one entry a reference, its result or its error."""
    return {
        "results": [
            {
                "reference": reference,
                "old_digest": result.old_digest if result else None,
                "new_digest": result.new_digest if result else None,
                "changed": result.changed if result else False,
                "written": list(result.written) if result else [],
                "converted": result.converted if result else False,
                "warnings": list(result.warnings) if result else [],
                "error": error,
                "changes": list(result.changes) if result else [],
                "undecided": list(result.undecided) if result else [],
                "attached": list(result.attached) if result else [],
            }
            for reference, result, error in results
        ],
        "summary": dict(counts),
    }


def annotate_summary(counts: Mapping[str, int]) -> str:
    """One line of several references."""
    total = sum(counts.values())
    return f"{total} reference{'s'[: total != 1]}: " + ", ".join(f"{count} {what}" for what, count in counts.items())


def annotate_text(reference: str, result: Result, *, dry_run: bool) -> str:
    """One line a reference, and in a dry run what would change."""
    if not result.changed:
        return f"{reference}: unchanged, {result.old_digest}\n"
    changes = "".join(f"  {plain(change)}\n" for change in result.changes) if dry_run else ""
    place = "" if str(result.reference) == reference or parse(reference) == result.reference else f" {result.reference}"
    if result.attached:
        done = "would attach" if dry_run else "attached"
        return f"{reference}: {result.old_digest} stays, {done} {', '.join(result.attached)}\n"
    if result.old_digest == result.new_digest:
        return f"{reference}: {result.old_digest} {'would be' if dry_run else 'is'} at{place}\n{changes}"
    verb = "would become" if dry_run else "->"
    return f"{reference}: {result.old_digest} {verb}{place} {result.new_digest}\n{changes}"


class Progress:
    """A bar on standard error while several references are worked on, with rate and time left; on a terminal only.

    ``expected`` says how many there are, as far as is known by then.
    """

    WIDTH = 30
    FIRST = 5.0  # seconds before a rate is told

    def __init__(
        self, expected: Callable[[], int], *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._expected = expected
        self._done = self._failed = 0
        self._clock = clock
        self._began = clock()
        self._shown = expected() != 1 and not quiet and sys.stderr.isatty()

    @contextmanager
    def step(self, *, failed: bool) -> Iterator[None]:
        """One is done; what is printed in the block stands above the bar."""
        self._clear()
        self._done += 1
        self._failed += failed
        try:
            yield
        finally:
            sys.stdout.flush()
            self._draw()

    def close(self) -> None:
        """Take the bar away."""
        self._clear()
        self._shown = False

    def _draw(self) -> None:
        if self._shown:
            count = max(self._expected(), self._done)
            bar = ("#" * (self.WIDTH * self._done // count)).ljust(self.WIDTH, ".")
            failed = f", {self._failed} failed" if self._failed else ""
            sys.stderr.write(f"\r[{bar}] {self._done}/{count}{failed}{self._speed(count)}")
            sys.stderr.flush()

    def _speed(self, count: int) -> str:
        seconds = self._clock() - self._began
        if seconds < self.FIRST:
            return ""
        rate = self._done / seconds
        left = round((count - self._done) / rate)
        told = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        return f", {rate:.1f}/s, {told} left" if rate >= 0.1 else f", {rate * 3600:.0f}/h, {told} left"

    def _clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")


def inspect_json(found: Inspected) -> dict[str, Any]:
    """The document of ``inspect --json``."""
    return {
        "reference": str(found.reference),
        "digest": found.manifest.digest,
        "media_type": found.manifest.media_type,
        "annotations": dict(found.manifest.annotations),
        "labels": dict(found.config.labels) if found.config else {},
        "manifests": [
            {
                "digest": child.digest,
                "media_type": child.media_type,
                "size": child.size,
                "platform": dict(child.platform or {}),
                "annotations": dict(child.annotations or {}),
            }
            for child in (found.manifest.descriptors if found.manifest.is_index else ())
        ],
        "referrers": None
        if found.referrers is None
        else [
            {
                "digest": one.digest,
                "media_type": one.media_type,
                "artifact_type": one.artifact_type,
                "size": one.size,
                "annotations": dict(one.annotations),
            }
            for one in found.referrers
        ],
    }


def inspect_text(found: Inspected) -> str:
    """Annotations and labels side by side; for an index one line a platform, and what refers to it."""
    lines = f"{found.reference}\ndigest {found.manifest.digest}\n\n"
    if found.manifest.is_index:
        rows = []
        for child in found.manifest.descriptors:
            platform = dict(child.platform or {})
            name = "/".join(str(platform[part]) for part in ("os", "architecture", "variant") if platform.get(part))
            rows.append((name or "-", child.digest, _pairs(child)))
        lines += table(("platform", "digest", "annotations"), rows) + "\n"
    labels = found.config.labels if found.config else {}
    names = sorted({*found.manifest.annotations, *labels})
    rows = [
        (
            name,
            _where(name, found.manifest.annotations, labels),
            shorten(found.manifest.annotations.get(name, labels.get(name, "")), 120),
        )
        for name in names
    ]
    lines += table(("key", "in", "value"), rows) if rows else "no annotations, no labels\n"
    if found.unlisted:
        return lines + "\n" + plain(f"what refers to it could not be listed: {found.unlisted}") + "\n"
    rows = [(one.digest, one.artifact_type or "-", _pairs(one)) for one in found.referrers or ()]
    return lines + ("\n" + table(("referrer", "artifact type", "annotations"), rows) if rows else "")


def _pairs(descriptor: Descriptor) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(descriptor.annotations.items()))


def _where(name: str, annotations: Any, labels: Any) -> str:
    if name in annotations and name in labels:
        return "both" if annotations[name] == labels[name] else "both, differing"
    return "annotation" if name in annotations else "label"
