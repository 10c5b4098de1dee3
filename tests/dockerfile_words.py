"""A small reader of Containerfiles for tests: instructions, and the words of ENV and LABEL as engines read them.

After Docker's reference (https://docs.docker.com/reference/dockerfile/): comment lines go first, a backslash at a
line's end joins lines, words are split at blanks outside quotes; ``\\`` escapes; single quotes are literal; ``$``
outside single quotes and unescaped expands.
"""

from __future__ import annotations


def instructions(text: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) pairs in order."""
    found: list[tuple[str, str]] = []
    pending = ""
    for line in text.split("\n"):
        if line.lstrip().startswith("#") or (not line.strip() and not pending):
            continue
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        if pending.strip():
            name, _, rest = pending.strip().partition(" ")
            found.append((name.upper(), rest.strip()))
        pending = ""
    assert not pending, f"the file ends within an instruction: {pending!r}"
    return found


class ExpandedError(AssertionError):
    """A value that an engine would expand."""


def pairs(rest: str) -> dict[str, str]:
    """The pairs of an ENV or LABEL instruction, unquoted. Raises ExpandedError where a variable would be expanded."""
    words: list[str] = []
    word, quote, within = "", "", False
    characters = iter(rest)
    for character in characters:
        if quote == "'":
            word, quote = (word, "") if character == "'" else (word + character, quote)
        elif character == "\\":
            following = next(characters, "")
            # Between double quotes the backslash stays before everything but these.
            word += following if not quote or following in '"\\$' else "\\" + following
            within = True
        elif character == "$":
            raise ExpandedError(f"${word} in {rest!r}")
        elif quote == '"':
            word, quote = (word, "") if character == '"' else (word + character, quote)
        elif character in "'\"":
            quote, within = character, True
        elif character in " \t":
            if within:
                words.append(word)
            word, within = "", False
        else:
            word, within = word + character, True
    assert not quote, f"a quote stays open in {rest!r}"
    if within:
        words.append(word)
    assert all("=" in word for word in words), words
    return {name: value for name, _, value in (word.partition("=") for word in words)}
