"""The tree of errors: its exit codes are those of docs/cli.md, and its page in the module tells the truth."""

from __future__ import annotations

import re

import pytest

from hpc3build import errors
from hpc3build.errors import Hpc3BuildError, InputError

CODES = {
    "InputError": 2,
    "BadReference": 2,
    "Contradiction": 1,
    "ToolError": 3,
    "ToolMissing": 3,
    "ImageError": 4,
    "StoreError": 4,
    "TagMoved": 5,
}
CLASSES = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
}


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_exit_codes(name: str, code: int) -> None:
    kind = CLASSES[name]
    assert issubclass(kind, Hpc3BuildError) and kind.exit_code == code


def test_none_is_missing_here() -> None:
    assert set(CLASSES) == {*CODES, "Hpc3BuildError"}


def test_the_picture_in_the_module() -> None:
    told = dict(re.findall(r"[├└]─ (\w+) +(\d)", errors.__doc__ or ""))
    assert told == {name: str(code) for name, code in CODES.items()}
    parents = re.findall(r"^(│  )?[├└]─ (\w+)", errors.__doc__ or "", re.MULTILINE)
    above = ""
    for nested, name in parents:
        assert CLASSES[name].__bases__ == (CLASSES[above] if nested else Hpc3BuildError,)
        above = above if nested else name


def test_message_and_hint() -> None:
    error = InputError("what", hint="do this")
    assert (error.message, error.hint, str(error), error.args) == ("what", "do this", "what", ("what",))
    assert InputError("what").hint == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fatal: 'https://bob:hunter2@host:1/x' is gone", "fatal: 'https://…@host:1/x' is gone"),
        ("https://hunter2@host/x", "https://…@host/x"),
        ("http://bob:hunter2/x@host", "http://…@host"),
        ("socks5://:hunter2@host, x@y", "socks5://…@host, x@y"),
        ("docker://bob:hunter2@host/x", "docker://…@host/x"),
    ],
)
def test_logins_of_urls_are_shown_nowhere(text: str, shown: str) -> None:
    error = InputError(text, hint=text)
    assert (error.message, error.hint, str(error), error.args) == (shown, shown, shown, (shown,))


@pytest.mark.parametrize(
    "text",
    [
        "docker://ubuntu:12@sha256:0",
        "docker://localhost:5000/x:1@sha256:0",
        "https://host:443/x@v1",
        "https://host/a:b@c",
        "ssh://git@host/x",
        "git@host:x",
    ],
)
def test_what_is_no_login_is_shown(text: str) -> None:
    assert InputError(text).message == text
