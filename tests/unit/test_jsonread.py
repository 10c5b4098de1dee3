"""JSON of others: a value, or one kind of error."""

from __future__ import annotations

import pytest

from hpc3build.jsonread import parsed


def test_a_value_is_given() -> None:
    assert parsed('{"a": [1, null]}') == parsed(b'{"a": [1, null]}') == {"a": [1, None]}


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, b"\xff\xfe\xfd"])
def test_all_that_is_none_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parsed(text)
