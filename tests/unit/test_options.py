"""What a person types for an image, and what is handed on to skopeo."""

from __future__ import annotations

import argparse
import base64
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpc3build import jsonedit
from hpc3build.errors import BadReference, InputError, ToolMissing
from hpc3build.host.fingerprint import Engine, Fingerprint
from hpc3build.match import Matcher
from hpc3build.oci import Descriptor, Manifest
from hpc3build.options import add_recipe, cache_folder, reference, run_folders
from hpc3build.recipe import OF_EASYBUILD, OF_SPACK, Settings
from hpc3build.reference import parse
from hpc3build.run import Completed, Runner, run
from hpc3build.stores.access import Access
from hpc3build.workflows.annotate import Wish, prepare
from hpc3build.workflows.candidates import Candidate
from hpc3build.workflows.check import skopeo_access
from hpc3build.workflows.engine_names import Place
from hpc3build.workflows.match import Judged
from hpc3build.workflows.run import plan
from tests.commands import hpc3build
from tests.images import make_layout


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("image", "oci:image; docker://image"),
        ("image:1.0", "oci:image:1.0"),
        ("./image", "oci:image"),
        ("image.tar", "oci-archive:image.tar"),
        ("image.tar:1.0", "oci-archive:image.tar:1.0"),
        ("localhost/app:1", "containers-storage:localhost/app:1"),
        ("localhost/app:1", "docker-daemon:localhost/app:1"),
    ],
)
def test_a_transport_that_was_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, hint: str) -> None:
    make_layout(tmp_path / "image", [{}])
    (tmp_path / "image.tar").write_bytes(b"")
    (tmp_path / "debian").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadReference) as told:
        reference(text)
    assert hint in told.value.hint
    assert reference(f"docker://{text.removeprefix('./')}").transport == "docker"
    assert reference("debian").registry == "docker.io", "a folder that holds no image is none"
    assert reference("localhost:5000/app").registry == "localhost:5000"


def test_skopeo_gets_the_password_in_a_file_of_ours(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("authority")
    access = Access("alice", "s3cret", ca_file=tmp_path / "ca.pem")
    with skopeo_access(parse("quay.io/a/b:1"), access) as options:
        assert "s3cret" not in " ".join(options)
        file = Path(options[options.index("--src-authfile") + 1])
        assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        auth = json.loads(file.read_text())["auths"]["quay.io"]["auth"]
        assert base64.b64decode(auth) == b"alice:s3cret"
        folder = Path(options[options.index("--src-cert-dir") + 1])
        assert [path.read_text() for path in folder.iterdir()] == ["authority"]
    assert not file.exists() and not folder.exists()
    with skopeo_access(parse("oci:x:1"), access) as options:
        assert options == []


LOOPBACK = ("127.0.0.1:5000/a", "127.0.0.1/a", "docker://localhost/a", "[::1]:5000/a", "[::1]/a", "LOCALHOST:1/a")
ELSEWHERE = ("quay.io/a", "quay.io:443/a", "localhost.example:1/a", "[fe80::1]:5000/a")
LOCAL = [*((text, True) for text in LOOPBACK), *((text, False) for text in ELSEWHERE)]


@pytest.mark.parametrize(("text", "local"), LOCAL)
def test_a_registry_of_this_machine_need_not_prove_who_it_is(text: str, local: bool, tmp_path: Path) -> None:
    with skopeo_access(parse(f"{text}:1"), Access()) as options:
        assert options == ["--src-tls-verify=false"] * local
    candidate = Candidate(str(parse(f"{text}:1")), f"sha256:{'0' * 64}", {}, {})
    judged = Judged(candidate, Matcher(Fingerprint()).match({}, {}))
    line = plan(judged, ["x"], Fingerprint(), Access(), Place(run), engine="podman").line
    assert ("--tls-verify=false" in line) is local


def judged_of(pairs: dict[str, str]) -> Judged:
    candidate = Candidate("docker://quay.io/a:1", f"sha256:{'0' * 64}", {}, pairs)
    return Judged(candidate, Matcher(Fingerprint()).match({}, {}))


def podman_says(told: str | None) -> Runner:
    """Where podman prints this, or is not there."""

    def runner(argv: Sequence[str], **options: Any) -> Completed:
        assert list(argv) == ["podman", "--version"]
        if told is None:
            raise ToolMissing("podman: command not found")
        return Completed(tuple(argv), 0 if told else 1, told, "")

    return runner


PAIR = "org.supercontainers.gpu=cuda,rocm"
QUOTED = f'"{PAIR}"'


@pytest.mark.parametrize(
    ("started", "recorded", "word"),
    [
        ("podman version 4.3.1\n", None, QUOTED),
        ("podman version 5.0.0\n", "4.9.3", PAIR),
        (None, "4.9.3", QUOTED),
        ("", "5.2.0", PAIR),
        (None, None, PAIR),
    ],
)
def test_podman_4_is_given_commas_in_quotes(started: str | None, recorded: str | None, word: str) -> None:
    pairs = {"org.supercontainers.gpu": "cuda,rocm", "org.supercontainers.mpi": "none"}
    judged = Judged(
        Candidate("docker://quay.io/a:1", f"sha256:{'0' * 64}", {}, pairs), Matcher(Fingerprint()).match({}, {})
    )
    host = Fingerprint(engines=(Engine(name="podman", version=recorded),) if recorded else None)
    line = plan(judged, ["x"], host, Access(), Place(podman_says(started)), engine="podman").line
    given = [line[at + 1] for at, option in enumerate(line) if option == "--annotation"]
    assert given == ["org.supercontainers.mpi=none", word]


def test_podman_is_not_asked_where_nothing_has_a_comma() -> None:
    def runner(*_: Any, **__: Any) -> Completed:
        raise AssertionError

    pairs = {"org.supercontainers.gpu": "cuda"}
    judged = Judged(
        Candidate("docker://quay.io/a:1", f"sha256:{'0' * 64}", {}, pairs), Matcher(Fingerprint()).match({}, {})
    )
    assert plan(judged, [], Fingerprint(), Access(), Place(runner), engine="podman").line


# ---- where things are kept


@pytest.mark.parametrize("home", ["nowhere", "a-file", "", None])
def test_a_home_that_is_not_there_keeps_nothing(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-file").touch()
    for name in ("XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    if home is not None:
        monkeypatch.setenv("HOME", str(tmp_path / home) if home else "")
    assert cache_folder() is None
    assert run_folders() == (tmp_path / "tmp" / f"hpc3build-run-{os.geteuid()}",)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "named"))  # that folder the specification has us make
    assert cache_folder() == tmp_path / "named" / "hpc3build"


def test_a_home_that_is_there_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "hpc3build"


# ---- annotations that are null


@pytest.mark.parametrize("text", ['"annotations": null', '"annotations":null'])
def test_null_is_absent_and_stays_what_it_is(tmp_path: Path, text: str) -> None:
    old = make_layout(tmp_path, [{}])
    raw = old.raw[:-1] + b", " + text.encode() + b"}"
    manifest = Manifest.parse(raw)
    assert manifest.annotations == {} and manifest.with_annotations({}) is manifest
    assert manifest.with_annotations({}, ["a"]).raw == raw
    new = manifest.with_annotations({"a": "b"})
    assert new.raw == raw.replace(b"null", b'{"a": "b"}') or new.raw == raw.replace(b"null", b'{"a":"b"}')
    value = {"mediaType": "x", "digest": old.digest, "size": 1, "annotations": None}
    assert Descriptor.read(value, "manifests[0]").annotations == {}
    entry = json.dumps({"annotations": None}).encode()
    assert jsonedit.set_member(entry, ("annotations", "k"), "v") == b'{"annotations": {"k": "v"}}'


# ---- facts made elsewhere


def test_from_a_facts_document(tmp_path: Path) -> None:
    make_layout(tmp_path / "image", [{}], labels={"org.supercontainers.gpu": "cuda"})
    facts = hpc3build("facts", "oci:image", "--json", cwd=tmp_path).out
    document = json.loads(facts)
    document["annotations"] |= {"org.supercontainers.mpi": "none", "x.y": "1"}
    (tmp_path / "facts.json").write_text(json.dumps(document))
    wish = prepare(Wish(source=str(tmp_path / "facts.json"), pairs={"x.y": "2"}), run)
    assert wish.pairs == {**document["annotations"], "x.y": "2"} and wish.source is None
    for key, value in (("com.hooks.x", "1"), ("org.supercontainers.gpu", "?"), ("a b", "1"), ("k", 1)):
        (tmp_path / "facts.json").write_text(json.dumps({"facts": [], "annotations": {key: value}}))
        with pytest.raises(InputError, match=r"facts\.json"):
            prepare(Wish(source=str(tmp_path / "facts.json")), run)


@pytest.mark.parametrize(
    ("title", "own"), [("EasyBuild", OF_EASYBUILD), ("concretization of a spack.yaml", OF_SPACK)], ids=lambda value: ""
)
def test_options_of_one_package_manager_are_known_as_such(title: str, own: frozenset[str]) -> None:
    parser = argparse.ArgumentParser()
    add_recipe(parser, building=True)
    (group,) = (group for group in parser._action_groups if group.title == title)
    assert {action.dest for action in group._group_actions} <= own
    pins = ("easybuild", "archspec", "clingo", "spack", "spack-packages")  # docs/recipes.md
    assert own <= vars(Settings()).keys() | {f"pins:{name}" for name in pins}
