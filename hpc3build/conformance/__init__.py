"""What HPC3 expects of an image: a table of rules, static ones over what it is, live ones over how it runs."""

from __future__ import annotations

from collections.abc import Iterable

from hpc3build.conformance.files import wanted
from hpc3build.conformance.live import live, prove, starts_nothing
from hpc3build.conformance.rule import Image, Level, Rule, Severity
from hpc3build.conformance.rules import BY_ID, RULES
from hpc3build.findings import Finding, Outcome

__all__ = [
    "BY_ID", "RULES", "Image", "Level", "Rule", "Severity", "live", "prove", "proven", "starts_nothing", "static",
    "wanted",
]  # fmt: skip


def static(image: Image) -> tuple[Finding, ...]:
    """All static rules that what was read can decide: those over files need ``image.files``."""
    levels = {Level.CONFIG} if image.files is None else {Level.CONFIG, Level.LAYERS}
    return tuple(finding for rule in RULES if rule.level in levels for finding in rule.findings(image))


#: What the annotation io.github.hpc3build.conformance claims, and the rule and user whose runs prove it.
CLAIMS = (
    ("any-uid", "arguments", "an unknown user"),
    ("env-baked", "bypassed", ""),
    ("exec-args", "quoting", ""),
    ("exit-code", "exit-status", ""),
    ("login", "login-shell", ""),
    ("nobody", "arguments", "nobody"),
)


def proven(findings: Iterable[Finding]) -> tuple[str, ...]:
    """The claims that live findings prove: at least one run of each kind, and none that did not do it."""
    live_ones = list(findings)
    claims = []
    for claim, rule, user in CLAIMS:
        seen = [
            finding.outcome
            for finding in live_ones
            if finding.rule == rule and finding.where.endswith(f", {user}" if user else "")
        ]
        told = [outcome for outcome in seen if outcome is not Outcome.UNKNOWN]
        if told and all(outcome is Outcome.OK for outcome in told):
            claims.append(claim)
    return tuple(claims)
