"""Typed access to the JSON that Spack writes: the value, or an InputError that names the file and the place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hpc3build.errors import InputError

MAX_BYTES = 256 << 20


class Document:
    """One parsed file. ``origin`` is its name for messages, ``label`` its short name for evidence."""

    def __init__(self, text: str, origin: str) -> None:
        self.origin = origin
        self.label = origin.rsplit("/", 1)[-1]
        try:
            self.data = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{origin}:{error.lineno}: not valid JSON: {error.msg}",
                hint="a file that Spack wrote; is it truncated?",
            ) from error
        except (RecursionError, ValueError) as error:
            raise InputError(f"{origin}: not valid JSON: nested too deeply, or a number too long") from error

    def fail(self, what: str, expected: str) -> InputError:
        """The error for ``what`` that should have been ``expected``."""
        what = "".join(character if character.isprintable() else "?" for character in what)[:300]
        return InputError(f"{self.origin}: {what}: expected {expected}", hint="the file is not as Spack writes it")

    def mapping(self, value: Any, what: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(what, "a mapping")
        return value

    def text(self, value: Any, what: str) -> str:
        if not isinstance(value, str) or not value or not value.isprintable():
            raise self.fail(what, "one line of text")
        return value

    def items(self, value: Any, what: str) -> list[Any]:
        if not isinstance(value, list):
            raise self.fail(what, "a list")
        return value

    def number(self, value: Any, what: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(what, "a number")
        return value
