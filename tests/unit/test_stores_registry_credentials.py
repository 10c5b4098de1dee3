"""Where names and passwords come from: docker's and podman's files, and credential helpers."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpc3build.errors import InputError, ToolMissing
from hpc3build.run import Completed, run
from hpc3build.stores.credentials import HUB_KEY, Found, files, find


def pair(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def write(path: Path, auths: dict[str, dict[str, str]], **members: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": auths, **members}))
    return path


def user(found: Found) -> str:
    return f"{found.credentials.username}:{found.credentials.password}" if found.credentials else ""


class Helpers:
    """A Runner that is the credential helpers."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []

    def __call__(self, argv: Sequence[str], *, input: str | None = None, **options: Any) -> Completed:
        command, verb = argv
        name = command.removeprefix("docker-credential-")
        self.asked.append((name, input or ""))
        assert verb == "get"
        if name not in self.answers:
            raise ToolMissing(f"{command}: command not found")
        answer = self.answers[name]
        if isinstance(answer, str):
            return Completed(tuple(argv), 1, answer, "")
        return Completed(tuple(argv), 0, json.dumps(answer), "")


ALICE = {"ServerURL": "x", "Username": "alice", "Secret": "s3cret"}


def test_order_of_files(tmp_path: Path) -> None:
    env = {
        "HOME": str(tmp_path / "home"),
        "REGISTRY_AUTH_FILE": str(tmp_path / "1.json"),
        "DOCKER_CONFIG": str(tmp_path / "2"),
        "XDG_RUNTIME_DIR": str(tmp_path / "3"),
        "XDG_CONFIG_HOME": str(tmp_path / "4"),
    }
    paths = list(files(env))
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "1.json",
        "2/config.json",
        "3/containers/auth.json",
        "4/containers/auth.json",
    ]
    for number in range(len(paths) - 1, -1, -1):
        write(paths[number], {"quay.io": pair(f"user{number}:p")})
        assert user(find("quay.io", "a/b", run, env)) == f"user{number}:p"
    write(paths[0], {"other.io": pair("x:y")})
    assert user(find("quay.io", "a/b", run, env)) == "user1:p"
    del env["DOCKER_CONFIG"]
    write(tmp_path / "home" / ".docker" / "config.json", {"quay.io": pair("home:p")})
    assert user(find("quay.io", "a/b", run, env)) == "home:p"
    assert [path.name for path in files({})] == ["auth.json"]


def test_narrowest_key(tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    env = {"REGISTRY_AUTH_FILE": str(file)}
    write(
        file,
        {
            "quay.io": pair("host:p"),
            "quay.io/team": pair("team:p"),
            "quay.io/team/app": pair("app:p:with:colons"),
            "quay.io:443": pair("port:p"),
        },
    )
    assert user(find("quay.io", "team/app", run, env)) == "app:p:with:colons"
    assert user(find("quay.io", "team/app2", run, env)) == "team:p"
    assert user(find("quay.io", "teams/app", run, env)) == "host:p"
    assert user(find("quay.io:443", "team/app", run, env)) == "port:p"
    for other in ("quay.io.evil.org", "evil-quay.io", "io", "quay.io:8443"):
        assert find(other, "team/app", run, env).credentials is None


@pytest.mark.parametrize("key", ["https://quay.io", "https://quay.io/v1/", "http://quay.io/v2/", "quay.io/"])
def test_older_keys(tmp_path: Path, key: str) -> None:
    file = write(tmp_path / "a.json", {key: pair("old:p\0")})
    assert user(find("quay.io", "a", run, {"REGISTRY_AUTH_FILE": str(file)})) == "old:p"


@pytest.mark.parametrize("key", [HUB_KEY, "docker.io", "index.docker.io", "registry-1.docker.io", "docker.io/library"])
def test_docker_hub(tmp_path: Path, key: str) -> None:
    file = write(tmp_path / "a.json", {key: pair("hub:p")})
    env = {"REGISTRY_AUTH_FILE": str(file)}
    assert user(find("docker.io", "library/debian", run, env)) == "hub:p"
    assert find("quay.io", "library/debian", run, env).credentials is None


def test_tokens_and_halves(tmp_path: Path) -> None:
    entries: dict[str, dict[str, str]] = {
        "a.io": {"identitytoken": "refresh", **pair("00000000:")},
        "b.io": {"registrytoken": "bearer"},
        "c.io": {"username": "bob", "password": "p"},
        "d.io": {},
        "e.io": pair("only:"),
    }
    env = {"REGISTRY_AUTH_FILE": str(write(tmp_path / "a.json", entries))}
    found = {host: find(host, "x", run, env).credentials for host in entries}
    assert found["a.io"] and found["a.io"].identity == "refresh"
    assert found["b.io"] and found["b.io"].bearer == "bearer"
    assert found["c.io"] and found["c.io"].basic == "Basic Ym9iOnA="
    assert found["d.io"] is None and found["e.io"] is None
    assert "refresh" not in repr(found) and "bearer'" not in repr(found) and "'p'" not in repr(found)


AUTH = '{"auths": {"a.io": {"auth": "%s"}}}'


@pytest.mark.parametrize("content", ["{", "[]", AUTH % "%%%", AUTH % "é", AUTH % "/w==", b"\xff"])
def test_malformed_files(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=r"a.json"):
        find("a.io", "x", run, {"REGISTRY_AUTH_FILE": str(file)})


@pytest.mark.parametrize(
    "content", ["", "{}", '{"auths": null}', '{"auths": {"a.io": 7}, "credHelpers": [], "credsStore": 1}']
)
def test_files_without_logins(tmp_path: Path, content: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(content)
    assert find("a.io", "x", run, {"REGISTRY_AUTH_FILE": str(file)}) == Found(None)


def test_helpers(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", {"a.io": pair("file:p")}, credHelpers={"a.io": "pass"}, credsStore="desktop")
    env = {"REGISTRY_AUTH_FILE": str(file)}
    helpers = Helpers(**{"pass": ALICE, "desktop": {"Username": "<token>", "Secret": "refresh"}})
    found = find("a.io", "x", helpers, env).credentials
    assert (
        found and (found.username, found.password) == ("alice", "s3cret") and "docker-credential-pass" in found.source
    )
    other = find("b.io", "x", helpers, env).credentials
    assert other and other.identity == "refresh" and not other.password
    find("docker.io", "library/x", helpers, env)
    assert helpers.asked == [("pass", "a.io"), ("desktop", "b.io"), ("desktop", HUB_KEY)]


def test_helpers_that_do_not_help(tmp_path: Path) -> None:
    env = {"REGISTRY_AUTH_FILE": str(tmp_path / "a.json")}
    rows: list[tuple[str, Any, str]] = [
        ("none", "credentials not found in native keychain", ""),
        ("broken", "s3cret gpg: no key", "failed with exit status 1"),
        ("odd", ["s3cret"], "no answer"),
        ("missing", None, "command not found"),
        ("../../bin/evil", None, "not the name"),
    ]
    for name, answer, note in rows:
        write(tmp_path / "a.json", {"a.io": pair("file:p")}, credHelpers={"a.io": name}, credsStore=name)
        helpers = Helpers(**({name: answer} if answer is not None else {}))
        found = find("a.io", "x", helpers, env)
        assert user(found) == "file:p", "the file's own entry is used then"
        assert (note in "".join(found.notes)) if note else not found.notes
        assert "s3cret" not in "".join(found.notes)
        assert ".." not in "".join(name for name, _ in helpers.asked)


def test_a_helper_whose_answer_has_no_end(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", {}, credsStore="deep")
    found = find("a.io", "x", lambda *_, **__: Completed((), 0, "[" * 100_000, ""), {"REGISTRY_AUTH_FILE": str(file)})
    assert found.credentials is None and "no answer" in "".join(found.notes)


def test_a_real_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "docker-credential-real"
    script.write_text('#!/bin/sh\nread server\nprintf \'{"Username":"%s","Secret":"s3cret"}\' "$server"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    file = write(tmp_path / "a.json", {}, credsStore="real")
    assert user(find("a.io", "x", run, {"REGISTRY_AUTH_FILE": str(file)})) == "a.io:s3cret"


def test_a_pipe_has_no_credentials(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    keep_open = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    threading.Timer(2, os.close, [keep_open]).start()  # where it is read after all, that ends
    with pytest.raises(InputError, match="pipe: not a file"):
        find("quay.io", "a", run, {"REGISTRY_AUTH_FILE": str(tmp_path / "pipe")})


def test_dev_null_has_none(tmp_path: Path) -> None:
    assert find("quay.io", "a", run, {"REGISTRY_AUTH_FILE": os.devnull}).credentials is None
