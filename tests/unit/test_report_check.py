"""What check found, for people and for CI systems."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from hpc3build import conformance, report_check
from hpc3build.findings import Finding, Outcome
from hpc3build.reference import parse
from hpc3build.workflows.check import Checked

DIGEST = f"sha256:{'0' * 64}"
FINDINGS = (
    Finding("entrypoint", Outcome.OK, "fine", "not told"),
    Finding("mandatory", Outcome.UNKNOWN, "not known", "find out", "org.supercontainers.mpi"),
    Finding("version", Outcome.DEGRADED, "no version", "say it"),
    Finding("labels", Outcome.FAILS, "<differ> \x1b[31m", "write both", "org.supercontainers.gpu"),
    Finding("stdin", Outcome.OK, "reaches it", "", "", "podman, root"),
    Finding("stdin", Outcome.FAILS, "lost", "exec", "", "podman, nobody"),
    Finding("scratch", Outcome.UNKNOWN, "n/a: podman lacks mounts", "", "", "podman, root"),
)


def checked(findings: tuple[Finding, ...]) -> Checked:
    return Checked(parse("oci:out/x:1"), DIGEST, findings, 7)


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [((), "CONFORMS"), (("OK", "DEGRADED", "UNKNOWN"), "CONFORMS"), (("OK", "FAILS", "OK"), "FAILS")],
)
def test_verdict(outcomes: tuple[str, ...], verdict: str) -> None:
    found = checked(tuple(Finding("user", Outcome[name], "m", "do", "k") for name in outcomes))
    assert report_check.verdict(found.findings) == verdict
    assert report_check.as_json(found)["verdict"] == verdict
    assert report_check.as_text(found).endswith(f"\n{verdict}\n")


def test_the_text_has_a_line_a_rule_a_matrix_an_engine_and_what_mends_it() -> None:
    lines = [" ".join(line.split()) for line in report_check.as_text(checked(FINDINGS)).splitlines()]
    assert "DEGRADED version no version" in lines and "podman root nobody" in lines
    assert "stdin ok FAILS" in lines and "scratch n/a" in lines
    assert "n/a scratch podman lacks mounts" in lines and "FAILS stdin lost" in lines
    assert "stdin exec" in lines and not any("not told" in line or "\x1b" in line for line in lines)


def test_json() -> None:
    document = report_check.as_json(checked(FINDINGS))
    assert (document["reference"], document["digest"], document["bytes_not_downloaded"]) == ("oci:out/x:1", DIGEST, 7)
    assert [one["where"] for one in document["findings"]][-1] == "podman, root"


def test_junit() -> None:
    """As GitLab reads it: counts that add up, a case a finding, text that is no markup."""
    root = ElementTree.fromstring(report_check.as_junit(checked(FINDINGS)))
    suites = {suite.get("name"): suite for suite in root}
    counts = {name: tuple(suite.get(key) for key in ("tests", "failures", "skipped")) for name, suite in suites.items()}
    assert counts == {"static": ("4", "1", "1"), "podman": ("3", "1", "1")}
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert len(cases) == len(FINDINGS)
    failure = cases["labels org.supercontainers.gpu"].find("failure")
    assert (
        failure is not None and "<differ>" in failure.get("message", "") and "write both" in failure.get("message", "")
    )
    assert cases["scratch root"].find("skipped") is not None and "no version" in cases["version"].findtext(
        "system-out", ""
    )


def test_sarif() -> None:
    document = report_check.as_sarif(checked(FINDINGS))
    (run,) = document["runs"]
    assert [(one["ruleId"], one["level"]) for one in run["results"]] == [
        ("mandatory", "note"), ("version", "warning"), ("labels", "error"), ("stdin", "error"), ("scratch", "note"),
    ]  # fmt: skip
    rules = {rule["id"]: rule for rule in run["tool"]["driver"]["rules"]}
    assert rules["stdin"]["help"]["text"] == conformance.BY_ID["stdin"].mend and "entrypoint" not in rules
    assert json.loads(json.dumps(document)) == document
