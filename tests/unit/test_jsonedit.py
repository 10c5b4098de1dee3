from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc3build import jsonedit
from hpc3build.errors import ImageError

PRETTY = b'{\n   "schemaVersion": 2,\n   "n": 2e3,\n   "annotations": {\n      "b": "1",\n      "d": "2"\n   }\n}\n'


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b'{"a":1,"a":2}', "twice"),
        (b'{"x":[{"deep":{"a":1,"a":1}}]}', "x[0].deep"),
        (b'{"x":{"a":{"b":1,"b":2}},"y":1,"x":3}', "twice"),
        (b'{"config":{"size":1,"sizE":2}}', "config differ only in case"),
        ('{"size":1,"\u017fize":2}'.encode(), "only in case"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "Infinity"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b"\xff{}", "UTF-8"),
        (b"\xef\xbb\xbf{}", "JSON"),
        (b"", "JSON"),
        (b"{} x", "JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "JSON"),
        (b"[" * 65 + b"]" * 65, "64 levels"),
        (b"[" * 2_000_000, "64 levels"),
        (b" " * (4 * 1024 * 1024 + 1), "bytes"),
    ],
)
def test_load_refuses(raw: bytes, says: str) -> None:
    with pytest.raises(ImageError, match="thing") as caught:
        jsonedit.load(raw, "thing")
    assert says in caught.value.message


def test_load_takes_what_is_allowed() -> None:
    assert jsonedit.load(b"[" * 64 + b"]" * 64)
    assert jsonedit.load(b'{"Labels":{"Version":"1","version":"2"}}') == {"Labels": {"Version": "1", "version": "2"}}
    assert jsonedit.load(b'{"brackets":"' + b"[" * 99 + b'"}')
    assert jsonedit.load(b'{"a":"\\ud83d\\ude00"}') == {"a": "\U0001f600"}


@pytest.mark.parametrize(
    ("raw", "path", "value", "expected"),
    [
        (b'{"a":1}', ("b",), 2, b'{"a":1,"b":2}'),
        (b'{"a": 1}', ("b",), {"c": "d"}, b'{"a": 1,"b": {"c": "d"}}'),
        (b'{"a": 1, "c": 3}', ("b",), {"x": 1, "y": 2}, b'{"a": 1, "c": 3, "b": {"x": 1, "y": 2}}'),
        (b"{}", ("a",), "\u00fc", '{"a":"\u00fc"}'.encode()),
        (b'{ "a" : 1 }', ("b",), 2, b'{ "a" : 1, "b" : 2 }'),
        (b'{"a":{}}', ("a", "b"), 1, b'{"a":{"b":1}}'),
        (b'{"a":null}', ("a", "b"), 1, b'{"a":{"b":1}}'),
        (b'{"a":[1, 2]}', ("a", 2), 3, b'{"a":[1, 2, 3]}'),
        (b'{"a":[1,{"b":2}]}', ("a", 1, "b"), 3, b'{"a":[1,{"b":3}]}'),
        (b'{"a":1}', ("a",), True, b'{"a":true}'),
        (b'{"a":1e0}', ("a",), 1, b'{"a":1}'),
        (b'{\n\t"a": 1\n}', ("b",), {"c": [1]}, b'{\n\t"a": 1,\n\t"b": {\n\t\t"c": [\n\t\t\t1\n\t\t]\n\t}\n}'),
        (b'{\r\n  "a": {}\r\n}', ("a", "b"), 1, b'{\r\n  "a": {\r\n    "b": 1\r\n  }\r\n}'),
    ],
)
def test_set_member(raw: bytes, path: jsonedit.Path, value: Any, expected: bytes) -> None:
    assert jsonedit.set_member(raw, path, value) == expected


def test_pairs_touch_nothing_else() -> None:
    assert jsonedit.set_pairs(PRETTY, ("annotations",), {"c": "x", "a": "y", "e": "z", "d": "2"}) == (
        b'{\n   "schemaVersion": 2,\n   "n": 2e3,\n   "annotations": {\n      "a": "y",\n      "b": "1",\n'
        b'      "c": "x",\n      "d": "2",\n      "e": "z"\n   }\n}\n'
    )
    assert jsonedit.set_pairs(b'{"m":{"z":"1","a":"2"}}', ("m",), {"b": "3"}) == b'{"m":{"z":"1","a":"2","b":"3"}}'
    assert jsonedit.set_pairs(PRETTY, ("annotations",), {}, ["b"]) == PRETTY.replace(b'"b": "1",\n      ', b"")
    assert jsonedit.set_pairs(PRETTY, ("annotations",), {}, ["d"]) == PRETTY.replace(b',\n      "d": "2"', b"")


def test_an_equal_value_is_no_edit() -> None:
    raw = b'{ "a" : {"x":1.0, "y":[ ]} }'
    assert jsonedit.set_member(raw, ("a",), {"y": [], "x": 1.0}) is raw
    assert jsonedit.remove_member(raw, ("a", "z")) is raw
    assert jsonedit.remove_member(raw, ("nope", 3, "z")) is raw


@pytest.mark.parametrize(
    ("raw", "path"),
    [(b'{"a":1}', ("a", "b")), (b'{"a":[1]}', ("a", "b")), (b'{"a":{}}', ("a", 0)), (b'{"a":[1]}', ("a", 2)),
     (b'{"a":[1]}', ("a", -1)), (b"[]", ("a",)), (b"7", ("a",)), (b"{}", ())],
)  # fmt: skip
def test_a_path_through_something_else(raw: bytes, path: jsonedit.Path) -> None:
    with pytest.raises(ImageError):
        jsonedit.set_member(raw, path, 5)


def test_half_a_character_is_refused() -> None:
    with pytest.raises(ImageError, match="surrogate"):
        jsonedit.set_member(b"{}", ("a",), "\udcff")


KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
NAMES = st.text('abc"\\\n \u00e9', min_size=1, max_size=4)  # no two differ only in case
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
LAYOUTS = st.sampled_from(
    [{}, {"indent": 3}, {"indent": 0}, {"separators": (",", ":")}, {"indent": "\t", "ensure_ascii": False},
     {"separators": (" ,\n ", " : ")}]
)  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    document = draw(
        st.dictionaries(
            KEYS,
            VALUES,
            max_size=5,
        )
    )
    document["annotations"] = draw(st.dictionaries(KEYS, KEYS, max_size=4))
    raw = json.dumps(document, **draw(LAYOUTS)).encode()
    try:
        jsonedit.load(raw)
    except ImageError:  # keys that differ only in case
        document = {"annotations": document["annotations"]}
        raw = json.dumps(document).encode()
    return document, raw


@settings(deadline=None)
@given(documents(), KEYS, VALUES)
def test_a_new_member_changes_nothing_else(pair: tuple[dict[str, Any], bytes], key: str, value: Any) -> None:
    document, raw = pair
    edited = jsonedit.set_member(raw, ("annotations", key), value)
    assert json.loads(edited) == {**document, "annotations": {**document["annotations"], key: value}}
    if key not in document["annotations"] and document["annotations"]:  # `{ }` would come back as `{}`
        assert jsonedit.remove_member(edited, ("annotations", key)) == raw
    assert jsonedit.set_member(edited, ("annotations", key), value) is edited


@settings(deadline=None)
@given(documents(), LAYOUTS, KEYS, VALUES)
def test_an_old_member_changes_in_its_place(
    pair: tuple[dict[str, Any], bytes], layout: dict[str, Any], key: str, value: Any
) -> None:
    document = pair[0]
    document["annotations"][key] = "<here stands the old value>"
    raw = json.dumps(document, **layout).encode()
    before, after = raw.split(b'"<here stands the old value>"')
    edited = jsonedit.set_member(raw, ("annotations", key), value)
    assert edited.startswith(before) and edited.endswith(after)
    assert json.loads(edited[len(before) : len(edited) - len(after)]) == value


@settings(deadline=None)
@given(documents(), st.dictionaries(KEYS, KEYS, max_size=4), st.lists(KEYS, max_size=2))
def test_pairs_equal_the_plain_update(
    pair: tuple[dict[str, Any], bytes], pairs: dict[str, str], remove: list[str]
) -> None:
    document, raw = pair
    edited = jsonedit.set_pairs(raw, ("annotations",), pairs, remove)
    kept = {key: value for key, value in document["annotations"].items() if key not in remove}
    assert json.loads(edited) == {**document, "annotations": {**kept, **pairs}}
    if list(document["annotations"]) == sorted(document["annotations"]):
        assert list(json.loads(edited)["annotations"]) == sorted({**kept, **pairs})
    assert jsonedit.set_pairs(edited, ("annotations",), pairs, remove) is edited


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text('{}[]",:\\ua1e.-0 \n', max_size=40).map(str.encode))
def test_anything_else_is_an_image_error(raw: bytes) -> None:
    try:
        jsonedit.set_pairs(raw, ("annotations",), {"a": "b"})
    except ImageError:
        return
    assert json.loads(raw) is not None or raw.strip() == b"null"
