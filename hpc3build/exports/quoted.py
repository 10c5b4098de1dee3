"""Texts as TOML, YAML and lines of variables take them, so that no value leaves its place.

Sources: TOML 1.0.0 "String" (basic strings, toml-lang/toml), YAML 1.2.2 §5.7 and §7.3.1 (double-quoted scalars): both
know JSON's escapes, \\uXXXX and \\UXXXXXXXX; both forbid control characters as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

# What ends a line, or means something to a terminal; a tab does neither.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def quoted(text: str) -> str:
    """A double-quoted string of TOML and of YAML alike; whatever is not printable is escaped."""
    return "".join(sign if sign.isprintable() else _escaped(sign) for sign in json.dumps(text, ensure_ascii=False))


def _escaped(sign: str) -> str:
    code = ord(sign)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def flow(values: Iterable[str]) -> str:
    """A list of texts in one line."""
    return f"[{', '.join(map(quoted, values))}]"


def variables(env: Mapping[str, str]) -> tuple[list[str], tuple[str, ...]]:
    """Lines NAME=VALUE, and the names of the variables that no line can hold: there is no way to write a line's end."""
    good = [name for name, value in env.items() if name and not _CONTROL.search(name + value)]
    return [f"{name}={env[name]}" for name in good], tuple(name for name in env if name not in good)
