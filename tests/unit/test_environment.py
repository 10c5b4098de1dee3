"""What the builder captured, baked into config.Env."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from hpc3build import bases
from hpc3build.environment import ENVIRONMENT, baked_environment
from hpc3build.errors import ImageError
from hpc3build.evidence.layers import ImageFile
from hpc3build.recipe import Settings
from hpc3build.run import run
from hpc3build.workflows.render import render

ROOT = Path(__file__).resolve().parents[2]


def record_of(document: Mapping[str, object]) -> ImageFile:
    data = json.dumps(document).encode()
    return ImageFile(ENVIRONMENT, "file", 0o644, 0, 0, len(data), "", data, "sha256:0")


@pytest.mark.parametrize(
    ("found", "path"),
    [
        ({"PATH": ["/opt/a/bin", "/opt/a/sbin"]}, f"/opt/a/bin:/opt/a/sbin:{bases.PATH}"),
        ({}, bases.PATH),
        ({"PATH": ["/opt/a/bin", "/opt/b/bin"]}, f"/opt/a/bin:/opt/b/bin:{bases.PATH}"),
    ],
)
def test_of_what_was_expected_on_the_path_stays_what_is_there(found: dict[str, list[str]], path: str) -> None:
    record = record_of({"prepend": found, "set": {}})
    before = {"PATH": f"/opt/a/bin:/opt/b/bin:{bases.PATH}"}
    after = baked_environment({ENVIRONMENT: record}, before, ("/opt/a/bin", "/opt/b/bin"))
    assert after == {"PATH": path}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[" * 30_000,
        b'{"set": ' * 30_000,
        b'{"prepend": {}}',
        b'{"set": {}}',
        b'{"prepend": {}, "set": {"A": 1}}',
        b'{"prepend": {}, "set": {"A": [["b"]]}}',
        b'{"prepend": {"PATH": "/bin"}, "set": {}}',
        b'{"prepend": {"PATH": [1]}, "set": {}}',
        b'{"prepend": [], "set": {}}',
        b'{"prepend": {}, "set": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda data: repr(data[:40]),
)
def test_a_record_that_no_build_of_ours_wrote(data: bytes) -> None:
    record = ImageFile(ENVIRONMENT, "file", 0o644, 0, 0, len(data), "", data, "sha256:0")
    with pytest.raises(ImageError, match=r"environment\.json of the image is not what the build writes") as told:
        baked_environment({ENVIRONMENT: record}, {})
    assert len(told.value.message) < 300


@pytest.mark.parametrize("name", ["PATH", "LD_LIBRARY_PATH"])
def test_a_recipes_own_list_is_not_lost_with_the_configuration(name: str) -> None:
    """Of an image that was mended, config.Env may lack what the build had put there."""
    record = record_of({"prepend": {name: ["/app"]}, "set": {name: "/mine:/usr/bin"}})
    assert baked_environment({ENVIRONMENT: record}, {}) == {name: "/app:/mine:/usr/bin"}


def test_without_a_record_nothing_is_known() -> None:
    assert baked_environment({}, {"PATH": "/opt/a/bin"}, ("/opt/a/bin",)) == {}


BIN = "/opt/easybuild/software/mpi-hello/1.0-gompi-system/bin"


@pytest.mark.parametrize(("env", "expected"), [({}, (BIN,)), ({"PATH": "/mine"}, (BIN,)), ({"PATH": f"{BIN}:/x"}, ())])
def test_what_a_context_expects(env: dict[str, str], expected: tuple[str, ...]) -> None:
    """The application's entries, but what the recipe states itself, which stays whatever the builder finds."""
    context = render((str(ROOT / "recipes/mpi-hello"),), Settings(base="debian:12", env=env), run).context
    assert context.expected == expected


@pytest.mark.parametrize(
    ("stated", "path"),
    [
        ("/mine/bin", f"/mine/bin:{bases.PATH}"),
        ("/mine/bin:$PATH", f"/mine/bin:{bases.PATH}"),
        ("$PATH:/mine/bin", f"{bases.PATH}:/mine/bin"),
        ("${PATH}:/mine/bin", f"{bases.PATH}:/mine/bin"),
        ("/mine/bin:$PATH:/mine/sbin:${PATH}:/mine/bin", f"/mine/bin:{bases.PATH}:/mine/sbin"),
        ("$PATH", bases.PATH),
        ("/a:/usr/bin:/b", "/a:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/bin:/b"),
        ("/usr/bin:$PATH", "/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/bin"),
    ],
)
def test_a_recipes_own_path_stands_between_the_applications_and_the_bases(stated: str, path: str) -> None:
    """In the text, in what the builder captures and in the configuration that is made of both."""
    given = Settings(base="debian:12", env={"PATH": stated})
    context = render((str(ROOT / "recipes/mpi-hello"),), given, run).context
    assert f'\nENV PATH="{BIN}:{path}"\n' in context.containerfile
    own = json.loads(context.files["hpc3build/env.json"])
    assert own == {"PATH": path}
    for found in ([BIN], []):
        record = record_of({"prepend": {"PATH": found} if found else {}, "set": own})
        whole = ":".join([*found, path])
        for env in ({"PATH": f"{BIN}:{path}"}, {}):
            assert baked_environment({ENVIRONMENT: record}, env, context.expected) == {"PATH": whole}
