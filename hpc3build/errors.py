"""Every error a person can meet, with its exit code and a hint that says what to do.

Hpc3BuildError
├─ InputError      2  recipe, lock, easyconfig, option or JSON that cannot be used: file:line or key, what was expected
│  └─ BadReference 2  an image reference that no transport accepts
├─ Contradiction   1  plan and finding differ (vocabulary rule R9), or a label contradicts (R10)
├─ ToolError       3  a command failed: its name, exit status, last lines
│  └─ ToolMissing  3  a command that is not installed, and the package that provides it
├─ ImageError      4  malformed OCI content: digest mismatch, unknown media type, duplicate keys
├─ StoreError      4  a store cannot do what is asked: what, where
└─ TagMoved        5  somebody else moved the tag meanwhile
"""

from __future__ import annotations

from typing import ClassVar

from hpc3build.urls import without_logins


class Hpc3BuildError(Exception):
    """Base of all errors that are shown to people; ``hint`` says what to do next.

    Names and passwords of URLs, which messages quote, are left out.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = without_logins(message)
        self.hint = without_logins(hint)
        super().__init__(self.message)


class InputError(Hpc3BuildError):
    """What the user gave cannot be used."""

    exit_code = 2


class BadReference(InputError):
    """A text that is no image reference."""


class Contradiction(Hpc3BuildError):
    """Two statements about one image that cannot both hold."""

    exit_code = 1


class ToolError(Hpc3BuildError):
    """A command failed."""

    exit_code = 3


class ToolMissing(ToolError):
    """A command is not installed."""


class ImageError(Hpc3BuildError):
    """OCI content that is malformed or not what its digest says."""

    exit_code = 4

    def __init__(self, message: str, *, hint: str = "") -> None:
        # What it quotes came from the image, which may hold a media type of megabytes.
        super().__init__(message if len(message) <= 1200 else f"{message[:800]} … {message[-300:]}", hint=hint)


class StoreError(Hpc3BuildError):
    """A place where images lie refuses, or lacks, what is asked for.

    ``status`` is that of a registry's answer to it, 0 where there was none; other stores have none.
    """

    exit_code = 4
    status: int | None = None


class TagMoved(Hpc3BuildError):
    """The tag no longer names the manifest that was read."""

    exit_code = 5

    def __init__(
        self, message: str, *, hint: str = "somebody else wrote it meanwhile; look at it, then do this again"
    ) -> None:
        super().__init__(message, hint=hint)
