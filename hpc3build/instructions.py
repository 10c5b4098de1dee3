"""Lines for Containerfiles and Apptainer definitions that a recipe brings: they must stay where they are put."""

from __future__ import annotations

import re


def instruction_fault(text: str) -> tuple[str, str] | None:
    """What is wrong with Containerfile instructions that a person gave, and a hint; None for nothing."""
    if re.search(r"^\s*FROM\s", text, re.MULTILINE | re.IGNORECASE):
        return "FROM starts another stage and can't stand here", ""
    if text.rstrip().endswith("\\"):
        return "the last line ends with a backslash and would swallow the next one", ""
    if re.search(r"<<-?\s*[\"']?\w", text):
        return "heredocs are not known to buildah 1.28 and docker 20.10", "printf, or a script among the recipe's files"
    return None


def section_fault(text: str) -> tuple[str, str] | None:
    """The same for the text of a section of an Apptainer definition."""
    if found := re.search(r"^\s*(%\w+|Bootstrap\s*:)", text, re.MULTILINE | re.IGNORECASE):
        return f"{found.group(1)} starts another section of the definition and can't stand here", ""
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text):
        return "control characters can't stand here", ""
    return None
