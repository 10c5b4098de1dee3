"""How fingerprints, verdicts and choices are shown, and their JSON documents (schemas/)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpc3build.findings import Finding, Outcome
from hpc3build.report import plain, table

if TYPE_CHECKING:
    from hpc3build.host.fingerprint import Fingerprint
    from hpc3build.workflows.index import Indexed
    from hpc3build.workflows.match import Choice, Judged


def fingerprint_text(host: Fingerprint) -> str:
    """A line a value, with where it was read."""
    rows: list[tuple[str, str, str]] = []
    for section, found in host.to_json().items():
        if section == "schema":
            continue
        for position, entry in enumerate(found if isinstance(found, list) else [found]):
            if entry is None:
                rows.append((section, "unknown", ""))
                continue
            name = f"{section}[{position}]" if isinstance(found, list) else section
            rows += [(f"{name}.{key}", _cell(value), entry["sources"].get(key, ""))
                     for key, value in entry.items() if key != "sources"]  # fmt: skip
        if found == []:
            rows.append((section, "none", ""))
    return table(("what", "value", "read from"), rows)


def _cell(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        shown = ", ".join(value[:6])
        return f"{shown}, … ({len(value)})" if len(value) > 6 else shown or "none"
    return str(value)


def _finding(finding: Finding) -> dict[str, str]:
    return {
        "rule": finding.rule,
        "outcome": finding.outcome.value,
        "message": finding.message,
        "hint": finding.hint,
        "key": finding.key,
    }


def match_json(choice: Choice) -> dict[str, Any]:
    """The document of ``match --json`` (schemas/match.json): of an index, the verdict of its best image."""
    best = choice.best
    deciding = best.match.deciding
    return {
        "reference": best.candidate.reference,
        "digest": best.candidate.digest,
        "verdict": best.match.verdict.value,
        "deciding": _finding(deciding) if deciding else None,
        "findings": [_finding(finding) for finding in best.match.findings],
        "candidates": len(choice.ranked),
        "bytes_not_downloaded": choice.bytes_not_downloaded,
    }


def match_text(choice: Choice, *, verbose: bool) -> str:
    """The verdict with what decided, of a RUN what each rule says first; all findings when it is not RUN, or asked."""
    best = choice.best
    verdict, deciding = best.match.verdict.value, best.match.deciding
    why = f": {deciding.message}" if deciding and deciding.outcome is not Outcome.OK else ""
    if verdict == "RUN":
        why = ": " + "; ".join(finding.message for judged in best.match.judged for finding in judged.findings[:1])
    text = plain(f"{verdict}{why}") + "\n"
    if len(choice.ranked) > 1:
        text += plain(f"of {len(choice.ranked)} images the best is {best.candidate.digest}") + "\n"
    if verdict != "RUN" or verbose:
        text += "\n" + findings_text(best.match.findings)
    saved = choice.bytes_not_downloaded
    return text + (f"\n{saved / 1e6:.1f} MB of layers were not downloaded to know this\n" if saved else "")


def findings_text(findings: tuple[Finding, ...]) -> str:
    """One line a finding."""
    rows = [
        (finding.outcome.value, finding.rule, finding.message + (f" ({finding.hint})" if finding.hint else ""))
        for finding in findings
    ]
    return table(("outcome", "rule", "what was found"), rows)


def pick_json(choice: Choice, picked: Judged | None, name: str) -> dict[str, Any]:
    """The document of ``pick --json`` (schemas/pick.json), the best candidate first; ``name`` is what was picked."""
    return {
        "picked": None
        if picked is None
        else {
            "reference": name,
            "digest": picked.candidate.digest,
            "verdict": picked.match.verdict.value,
        },
        "candidates": [
            {
                "reference": judged.candidate.reference,
                "digest": judged.candidate.digest,
                "platform": dict(judged.candidate.platform),
                "verdict": judged.match.verdict.value,
                "score": judged.match.score,
                "findings": [_finding(finding) for finding in judged.match.findings],
            }
            for judged in choice.ranked
        ],
        "bytes_not_downloaded": choice.bytes_not_downloaded,
    }


def explain_text(choice: Choice) -> str:
    """The ranking as a table, with what decided each verdict."""
    from hpc3build.rewrite.plan import platform_name  # slow to load, and only tables need it

    rows = []
    for judged in choice.ranked:
        candidate, deciding = judged.candidate, judged.match.deciding
        platform = platform_name(candidate.platform)
        told = (
            f"{deciding.message} ({deciding.hint})"
            if deciding and deciding.hint
            else deciding.message
            if deciding
            else ""
        )
        rows.append((judged.match.verdict.value, candidate.digest[:19], platform, candidate.reference, told))
    return table(("verdict", "digest", "platform", "reference", "why"), rows)


def index_text(done: Indexed, *, dry_run: bool) -> str:
    """The entries in their order, then the index's digest."""
    from hpc3build.rewrite.plan import platform_name  # slow to load, and only tables need it

    rows = []
    for position, entry in enumerate(done.manifest.descriptors):
        told = " ".join(f"{key.rpartition('supercontainers.')[2]}={value}" for key, value in entry.annotations.items())
        rows.append((str(position), platform_name(entry.platform or {}), entry.digest[:19], told))
    verb = "unchanged" if not done.changed else "would be" if dry_run else "is"
    return (
        table(("entry", "platform", "digest", "annotations"), rows)
        + f"\n{done.reference}: {verb} {done.manifest.digest}\n"
    )
