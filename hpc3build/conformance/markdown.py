"""The tables of docs/conformance.md: ``python -m hpc3build.conformance.markdown`` writes them anew into that page."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from hpc3build.conformance.rule import Level
from hpc3build.conformance.rules import RULES

_TITLES = {
    Level.CONFIG: "Of manifest and configuration (`--static config` looks at these alone and downloads no layer)",
    Level.LAYERS: "Of the files in the layers",
    Level.LIVE: "Of a run (`--run ENGINE`)",
}
BEGIN, END = "<!-- rules: generated -->", "<!-- rules: end -->"


def rules_markdown() -> str:
    """A table a level: id, sentence, severity, source, what mends it."""
    text = ""
    for level, title in _TITLES.items():
        text += f"\n### {title}\n\n| rule | a conformant image | | source | what mends it |\n|---|---|---|---|---|\n"
        for rule in RULES:
            if rule.level is level:
                cells = (f"`{rule.id}`", rule.sentence, rule.severity.value, rule.source, rule.mend)
                text += "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    return text + "\n"


def with_rules(page: str) -> str:
    """``page`` with the tables of today between its two marks."""
    return re.sub(rf"(?<={BEGIN}\n).*?(?={END})", lambda _: rules_markdown(), page, count=1, flags=re.DOTALL)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/conformance.md")
    target.write_text(with_rules(target.read_text(encoding="utf-8")), encoding="utf-8")
