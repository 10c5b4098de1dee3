"""What ``check`` found: tables for people, JSON, and the two formats that CI systems read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

from hpc3build import __version__
from hpc3build.conformance import BY_ID
from hpc3build.findings import Finding, Outcome
from hpc3build.report import annotate_text, plain, table
from hpc3build.workflows.check import Checked
from hpc3build.workflows.mend import Mended

#: How the cells of the matrix read.
_CELLS = {Outcome.OK: "ok", Outcome.DEGRADED: "degraded", Outcome.UNKNOWN: "n/a", Outcome.FAILS: "FAILS"}
_LEVELS = {Outcome.FAILS: "error", Outcome.DEGRADED: "warning", Outcome.UNKNOWN: "note"}
_SARIF = "https://raw.githubusercontent.com/oasis-tcs/sarif-spec/main/sarif-2.1/schema/sarif-schema-2.1.0.json"


def verdict(findings: Iterable[Finding]) -> str:
    """CONFORMS or FAILS; what is unknown or only degraded does not fail."""
    return "FAILS" if any(finding.outcome is Outcome.FAILS for finding in findings) else "CONFORMS"


def as_json(checked: Checked) -> dict[str, Any]:
    """The document of ``check --json``."""
    return {
        "reference": str(checked.reference),
        "digest": checked.digest,
        "verdict": verdict(checked.findings),
        "findings": _findings(checked.findings),
        "bytes_not_downloaded": checked.bytes_not_downloaded,
    }


def _findings(findings: Iterable[Finding]) -> list[dict[str, str]]:
    return [
        {
            "rule": finding.rule,
            "outcome": finding.outcome.value,
            "message": finding.message,
            "hint": finding.hint,
            "key": finding.key,
            "where": finding.where,
        }
        for finding in findings
    ]


def mended_json(mended: Mended) -> dict[str, Any]:
    """The document of ``check --fix --json``: that of the image as it is now, and what was changed."""
    return {
        "reference": str(mended.result.reference),
        "digest": mended.result.new_digest,
        "verdict": verdict(mended.left),
        "findings": _findings(mended.left),
        "bytes_not_downloaded": 0,
        "old_digest": mended.result.old_digest,
        "changed": mended.result.changed,
        "changes": list(mended.changes),
        "warnings": list(mended.result.warnings),
    }


def mended_text(reference: str, mended: Mended, *, dry_run: bool) -> str:
    """The digests, what was changed, what is left and why."""
    text = plain(annotate_text(reference, mended.result, dry_run=dry_run).partition("\n")[0]) + "\n"
    text += "".join(f"  mended: {plain(words)}\n" for words in mended.changes)
    text += "".join(f"  warning: {plain(words)}\n" for words in mended.result.warnings)
    rows = [(one.outcome.value, one.rule, f"{_said(one)} ({one.hint})") for one in mended.left]
    if rows:
        text += "\n" + table(("outcome", "rule", "what a rewrite cannot mend"), rows)
    return text + f"\n{verdict(mended.left)}\n"


def as_text(checked: Checked) -> str:
    """A line a static rule, a matrix an engine, what is not in order once more in words, and the verdict."""
    static = [finding for finding in checked.findings if not finding.where]
    live = [finding for finding in checked.findings if finding.where]
    text = table(("outcome", "rule", "what was found"), [(one.outcome.value, one.rule, _said(one)) for one in static])
    text += "".join(_matrices(live))
    said: dict[tuple[str, str], dict[str, None]] = {}
    hints: dict[str, dict[str, None]] = {}
    for finding in checked.findings:
        if finding.outcome is Outcome.OK:
            continue
        if finding.where:
            cell = (_CELLS[finding.outcome], finding.message.removeprefix("n/a: "))
            said.setdefault(cell, {})[finding.rule] = None
        if finding.hint:
            hints.setdefault(finding.hint, {})[finding.rule] = None
    if said:
        rows = [(cell, ", ".join(rules), message) for (cell, message), rules in said.items()]
        text += "\n" + table(("outcome", "rules", "what was found"), rows)
    if hints:
        text += "\n" + table(("rules", "what mends it"), [(", ".join(rules), hint) for hint, rules in hints.items()])
    return text + f"\n{verdict(checked.findings)}\n"


def _said(finding: Finding) -> str:
    return f"{finding.key}: {finding.message}" if finding.key else finding.message


def _matrices(findings: Sequence[Finding]) -> Iterator[str]:
    cells: dict[str, dict[str, dict[str, Outcome]]] = {}
    for finding in findings:
        engine, _, user = finding.where.partition(", ")
        cells.setdefault(engine, {}).setdefault(finding.rule, {})[user] = finding.outcome
    for engine, rules in cells.items():
        users = list(dict.fromkeys(user for row in rules.values() for user in row))
        rows = [(rule, *(_CELLS[row[user]] if user in row else "" for user in users)) for rule, row in rules.items()]
        yield "\n" + table((engine, *users), rows)


def as_junit(checked: Checked) -> str:
    """JUnit XML, as GitLab and Jenkins read it: FAILS is a failure, UNKNOWN skipped, DEGRADED passes with its words."""
    suites = ElementTree.Element("testsuites", name="hpc3build check")
    groups: dict[str, list[Finding]] = {}
    for finding in checked.findings:
        groups.setdefault(finding.where.partition(", ")[0] or "static", []).append(finding)
    for name, findings in groups.items():
        counts = {outcome: sum(one.outcome is outcome for one in findings) for outcome in Outcome}
        suite = ElementTree.SubElement(
            suites, "testsuite", name=name, tests=str(len(findings)), errors="0",
            failures=str(counts[Outcome.FAILS]), skipped=str(counts[Outcome.UNKNOWN]),
        )  # fmt: skip
        for finding in findings:
            _case(suite, plain(str(checked.reference)), finding)
    text: str = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _case(suite: ElementTree.Element, reference: str, finding: Finding) -> None:
    name = " ".join(filter(None, [finding.rule, finding.key, finding.where.partition(", ")[2]]))
    case = ElementTree.SubElement(suite, "testcase", classname=reference, name=plain(name))
    message = plain(_said(finding) + (f" ({finding.hint})" if finding.hint else ""))
    if finding.outcome is Outcome.FAILS:
        ElementTree.SubElement(case, "failure", message=message, type=finding.rule)
    elif finding.outcome is Outcome.UNKNOWN:
        ElementTree.SubElement(case, "skipped", message=message)
    elif finding.outcome is Outcome.DEGRADED:
        ElementTree.SubElement(case, "system-out").text = message


def as_sarif(checked: Checked) -> dict[str, Any]:
    """SARIF 2.1.0 (OASIS): the rules that were not kept, and each case as a result."""
    told = [finding for finding in checked.findings if finding.outcome is not Outcome.OK]
    rules = [
        {
            "id": rule,
            "shortDescription": {"text": BY_ID[rule].sentence},
            "fullDescription": {"text": f"{BY_ID[rule].sentence} ({BY_ID[rule].source})"},
            "help": {"text": BY_ID[rule].mend},
        }
        for rule in dict.fromkeys(finding.rule for finding in told)
    ]
    driver = {"name": "hpc3build", "semanticVersion": __version__, "rules": rules}
    results = [
        {
            "ruleId": finding.rule,
            "level": _LEVELS[finding.outcome],
            "message": {"text": plain(" ".join(filter(None, [finding.where, _said(finding), finding.hint])))},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": plain(str(checked.reference))}}}],
            "partialFingerprints": {"digest/v1": checked.digest},
        }
        for finding in told
    ]
    return {"version": "2.1.0", "$schema": _SARIF, "runs": [{"tool": {"driver": driver}, "results": results}]}
