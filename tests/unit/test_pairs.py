"""Rule N2: what may be a label and an annotation everywhere."""

from __future__ import annotations

import pytest

from hpc3build.errors import InputError
from hpc3build.pairs import MAX_PAIR_BYTES, check_line, check_pair


@pytest.mark.parametrize("key", ["a", "org.example/x_y-z.1", "A9", "0"])
def test_keys(key: str) -> None:
    check_pair(key, "")


@pytest.mark.parametrize("key", ["", ".", "a.", "-a", "a b", "a=b", "a\n", "é", "a$", "a/"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(InputError, match="is not an annotation key"):
        check_pair(key, "x")


@pytest.mark.parametrize("character", "\n\r\0\x1b\x7f\x85\u2028\u2029")
def test_a_value_is_one_line(character: str) -> None:
    with pytest.raises(InputError, match=r"^k: the value holds a line break"):
        check_pair("k", f"a{character}b")


def test_a_value_is_utf_8() -> None:
    with pytest.raises(InputError, match=r"^k: the value is not UTF-8"):
        check_pair("k", "\ud800")
    assert check_line("k", "Größe") == 7, "in bytes"


def test_key_and_value_have_a_length() -> None:
    check_pair("key", "é" * ((MAX_PAIR_BYTES - 3) // 2))
    with pytest.raises(InputError, match="longer than 4096 bytes"):
        check_pair("key", "é" * ((MAX_PAIR_BYTES - 3) // 2) + "xx")
