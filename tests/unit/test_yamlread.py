"""YAML of people: every value has the line where it stands, and files are read within bounds."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc3build.errors import InputError
from hpc3build.yamlread import Section, dump_yaml, kind, line_of, read_text, read_yaml


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_text(tmp_path / "none", 10, "text")
    (tmp_path / "large").write_text("x" * ((1 << 20) + 1))
    with pytest.raises(InputError, match="larger than 1"):
        read_text(tmp_path / "large", 1 << 20, "text")
    assert read_text(tmp_path / "large", 2 << 20, "text") == "x" * ((1 << 20) + 1)


def test_lines_and_kinds(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: 1\n\nb:\n  - x\n  - y\n")
    data = read_yaml(tmp_path / "x.yaml")
    assert (line_of(data, "a"), line_of(data, "b"), line_of(data["b"], 1)) == (1, 3, 5)
    assert line_of(data, "none") == line_of({}, "a") == line_of([], 3) == 1
    assert [kind(value) for value in (None, True, 1, 1.5, "x", {}, [])] == [
        "nothing",
        "true or false",
        "a number",
        "a number",
        "text",
        "a mapping",
        "a list",
    ]


KEYS = st.text("abcdefg", min_size=1, max_size=4)
LEAVES = (
    st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=8)
    | st.integers(-9, 9)
    | st.booleans()
    | st.none()
)
TREES = st.dictionaries(
    KEYS, LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(KEYS, LEAVES, max_size=3), min_size=1, max_size=5
)


@settings(max_examples=150, deadline=None)
@given(TREES, st.data())
def test_every_value_has_the_line_where_it_was_written(tree: dict[str, Any], data: st.DataObject) -> None:
    """Written line by line, with blank lines and remarks between; what is read is what was written."""
    lines: list[str] = []
    places: list[tuple[tuple[Any, ...], int]] = []

    def put(text: str, *path: Any) -> None:
        lines.extend(data.draw(st.lists(st.sampled_from(["", "# a: remark", "   "]), max_size=2)))
        lines.append(text)
        places.append((path, len(lines)))

    for key, value in tree.items():
        nested = value if isinstance(value, dict | list) and value else None
        put(f"{json.dumps(key)}:" + ("" if nested else f" {json.dumps(value)}"), key)
        for inner in nested if isinstance(nested, dict) else ():
            put(f"  {json.dumps(inner)}: {json.dumps(nested[inner])}", key, inner)
        for position, item in enumerate(nested if isinstance(nested, list) else ()):
            put(f"  - {json.dumps(item)}", key, position)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.yaml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        found = read_yaml(path)
        assert found == tree
        for (key, *inner), line in places:
            assert line_of(found[key] if inner else found, inner[0] if inner else key) == line
            if not inner:
                assert Section(path, found).where(key) == f"{path}:{line}: {key}"
        path.write_bytes(dump_yaml(found))
        assert read_yaml(path) == tree
