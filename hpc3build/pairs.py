"""Rule N2: what may be a label or an annotation, of the vocabulary or not."""

from __future__ import annotations

import re

from hpc3build.errors import InputError

#: containerd drops labels whose key and value together are longer (issue #6123).
MAX_PAIR_BYTES = 4096
# Besides control characters, what YAML and Python take for a line's end.
_LINE_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def check_pair(key: str, value: str) -> None:
    """Raise InputError when the pair cannot be a label and an annotation everywhere."""
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?", key):
        raise InputError(f"{key!r} is not an annotation key", hint="letters, digits and . _ - / between them")
    if len(key.encode()) + check_line(key, value) > MAX_PAIR_BYTES:
        raise InputError(
            f"{key}: key and value are longer than {MAX_PAIR_BYTES} bytes", hint="runtimes drop such labels"
        )


def check_line(what: str, value: str) -> int:
    """The bytes of ``value``. Raises InputError when it is not one line of text; ``what`` is said to hold it."""
    if _LINE_BREAKS.search(value):
        raise InputError(f"{what}: the value holds a line break or control character", hint="it is to be one line")
    try:
        return len(value.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"{what}: the value is not UTF-8 text") from error
