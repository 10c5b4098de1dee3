"""What a registry refuses, told in words: request, reference, status, the registry's own code, and what to do."""

from __future__ import annotations

import json
import re

from hpc3build.errors import StoreError
from hpc3build.reference import Reference
from hpc3build.stores.connection import Reply

HINTS = {
    400: "the registry holds the manifest for invalid, or lacks a blob that it names",
    404: "look for a typing error in the name; a registry may also hide what you may not read: podman login",
    405: "the registry does not allow this",
    408: "the registry was too slow; try again later",
    413: "the registry, or a proxy before it, takes no content of this size; its limit must be raised",
    429: "the registry limits how often it is asked: log in, or try again later",
}


class Refusal(StoreError):
    """An answer of a registry other than what was asked for. ``code`` is of the distribution specification."""

    status: int

    def __init__(self, message: str, *, hint: str = "", status: int = 0, code: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code


class Interrupted(StoreError):
    """No answer, or only a part of one; what was asked for may have been done."""

    status = 0


def refusal(
    method: str,
    reference: Reference,
    reply: Reply | None,
    *,
    hint: str = "",
    what: str = "the registry",
    told: str = "",
) -> Refusal:
    """The error for a reply; ``told`` takes the place of the registry's own words."""
    status = reply.status if reply is not None else 0
    code, words = problem(reply)
    words = told or words
    detail = ": ".join(part for part in (code, words) if part)
    hint = hint or HINTS.get(status) or ("the registry has a fault; try again later" if status >= 500 else "")
    if reply is not None and 300 <= status < 400:
        hint = hint or "the registry redirects writes, which is not followed; name it as it names itself"
    wait = reply.header("Retry-After") if reply is not None else ""
    if status in (429, 503) and wait.isdigit():
        hint = f"{hint}; it asks to wait {wait} s"
    message = f"{reference}: {what} answers {status} to {method}" + (f" ({detail})" if detail else "")
    return Refusal(message, hint=hint, status=status, code=code)


def problem(reply: Reply | None) -> tuple[str, str]:
    """Code and message of the registry's error, short and printable."""
    if reply is None:
        return "", ""
    try:
        errors = json.loads(reply.content)["errors"]
        first = errors[0]
        code, words = str(first.get("code") or ""), str(first.get("message") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return "", ""
    return _short(code, 60), _short(words, 300)


def _short(text: str, length: int) -> str:
    # A blob store repeats the signed URL that it refuses; what is signed, and who asks, is nobody's business.
    text = re.sub(r"//[^\s/@'\"]*@", "//…@", re.sub(r"\?[^\s'\"<>]+", "?…", text))
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= length else text[:length] + "…"
