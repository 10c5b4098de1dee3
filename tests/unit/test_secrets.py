"""Passwords, tokens and signed URLs stand in nothing that the command says, at --debug least of all, whatever fails.

The registry, the token server and the blob store of these tests repeat all that they were sent.
"""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from hpc3build.cli import main
from tests.fake_http import Answer, Fault, Recorded, altered, cut, error, serve
from tests.fake_registry import NAME, FakeRegistry, TokenServer
from tests.images import make_layout

USER, PASSWORD = "alice", "S3CRET-pässword"
IDENTITY, GIVEN, SIGNATURE, STATE = "S3CRET-identity", "S3CRET-registrytoken", "S3CRET-signature", "S3CRET-state"
PAIR = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
WISH = ("-a", "k=v", "--labels")  # reads a blob, uploads one, writes a manifest


class Loud(FakeRegistry):
    """Its Locations are signed, and every refusal repeats the request with its headers."""

    def right(self, request: Recorded) -> Answer:
        answer = super().right(request)
        if "Location" in answer.headers and "uploads" in answer.headers["Location"]:
            answer.headers["Location"] += f"&X-State={STATE}"
        if answer.status >= 400:
            said = f"{request.method} {request.path} {request.headers} {answer.headers}"
            answer.body = error(answer.status, "DENIED", message=said).body
        return answer


def echo(code: int) -> Fault:
    """A refusal that repeats the request with its headers, and where it was to lead."""

    def fault(request: Recorded, right: Callable[[], Answer]) -> Answer:
        headers = {"Location": f"https://{USER}:{PASSWORD}@store.example/x?X-Signature={SIGNATURE}"}
        return error(code, "DENIED", headers, f"{request.path} {request.headers} {headers}")

    return fault


def redirect(to: str) -> Fault:
    return lambda request, right: Answer(307, {"Location": to})


#: What happens to every request of the method, once the login is through.
FAULTS: dict[str, tuple[str, Fault]] = {
    **{f"{method} {code}": (method, echo(code)) for method in ("GET", "PUT", "POST") for code in (401, 403, 400, 500)},
    **{f"{method} cut": (method, cut()) for method in ("GET", "HEAD", "PUT", "POST")},
    "GET redirected": ("GET", echo(307)),
    "PUT redirected": ("PUT", echo(307)),
    **{
        f"GET leads to {name}": ("GET", redirect(to))
        for name, to in {
            "nowhere": f"http://127.0.0.1:1/x?X-Signature={SIGNATURE}",
            "no port": f"https://127.0.0.1:{SIGNATURE}/x",
            "no host": f"https://{USER}:{quote(PASSWORD)}@[::1/x?X-Signature={SIGNATURE}",
            "another scheme": f"ftp://{USER}:{SIGNATURE}@host/x?X-Signature={SIGNATURE}",
            "a control character": f"http://127.0.0.1:1/x?X-Signature={SIGNATURE}\x7f",
            "itself": f"?X-Signature={SIGNATURE}",
        }.items()
    },
    "POST leads to nowhere": (
        "POST",
        altered(lambda answer: answer.headers.update(Location=f"http://[?X={SIGNATURE}")),
    ),
    "POST leads elsewhere": (
        "POST",
        altered(lambda answer: answer.headers.update(Location=f"http://127.0.0.1:1/?X-Signature={SIGNATURE}")),
    ),
    "PUT another digest": ("PUT", altered(lambda a: a.headers.update({"Docker-Content-Digest": f"sha256:{'0' * 64}"}))),
}
LOGINS = ("basic", "bearer", "identity", "registrytoken", "wrong")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("hpc3build.stores.transport.random.uniform", lambda low, high: 0.0)
    # What is refused at a proxy is told with its name.
    monkeypatch.setenv("https_proxy", f"http://{USER}:{SIGNATURE}@127.0.0.1:1")
    return tmp_path / "home"


@pytest.fixture
def loud(tmp_path: Path) -> Iterator[FakeRegistry]:
    make_layout(tmp_path / "layout", [{"a": b"1"}])
    with Loud() as registry:
        registry.add(tmp_path / "layout")
        yield registry


def written(folder: Path) -> str:
    """What stands in files that the command left: receipts, logs."""
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


def said(registry: FakeRegistry, login: str, folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """All that the command says at --debug: its streams, and the traceback that would be shown."""
    shown = ""
    with TokenServer({USER: PASSWORD}) as tokens, contextlib.ExitStack() as stack:
        entry: dict[str, str] = {"auth": PAIR}
        if login == "basic":
            registry.basic = (USER, PASSWORD)
        else:
            registry.bearer = tokens
        if login == "identity":
            tokens.identity, entry = IDENTITY, {"identitytoken": IDENTITY}
        if login == "registrytoken":
            tokens.granted[GIVEN] = frozenset([f"repository:{NAME}:pull,push"])
            entry = {"registrytoken": GIVEN}
        if login == "wrong":
            tokens.users = {USER: "another"}
        config = folder / "home" / ".docker" / "config.json"
        config.parent.mkdir(parents=True)
        config.write_text(json.dumps({"auths": {registry.host: entry}}))
        monkey = stack.enter_context(pytest.MonkeyPatch.context())
        (folder / "here").mkdir()
        monkey.chdir(folder / "here")
        try:
            main(["annotate", f"{registry.host}/{NAME}:latest", *WISH, "--debug", *options])
        except Exception as error:
            shown = "".join(traceback.format_exception(error))
        streams = capsys.readouterr()
        shown += streams.out + streams.err + written(folder / "here")
        secrets = [PASSWORD, PAIR, IDENTITY, GIVEN, SIGNATURE, STATE, "S3CRET", quote(PASSWORD), *tokens.granted]
    for secret in secrets:
        assert secret not in shown, shown
    return shown


@pytest.mark.parametrize(("login", "row"), [*itertools.product(LOGINS[:3], FAULTS), ("registrytoken", "GET 401"),
                                            ("wrong", "GET 401"), ("wrong", "GET 403")])  # fmt: skip
def test_faults(loud: FakeRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str], login: str, row: str) -> None:
    method, fault = FAULTS[row]

    def later(request: Recorded, right: Callable[[], Answer]) -> Answer:
        """First the login, so that there is something to tell."""
        refused = loud._refused(request)
        return refused or fault(request, right)

    loud.fail(method, "", later, -1)
    shown = said(loud, login, tmp_path, capsys)
    assert "Traceback" in shown or login == "wrong" or row.startswith("HEAD")


MORE = ("--receipt", "receipt.json", "--backup-tag", "--verify")


@pytest.mark.parametrize("options", [(), ("-v",), ("--json", "--referrers", "move"), ("--dry-run",), MORE])
@pytest.mark.parametrize("login", LOGINS)
def test_without_faults(
    loud: FakeRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str], login: str, options: tuple[str, ...]
) -> None:
    shown = said(loud, login, tmp_path, capsys, *options)
    assert ("Traceback" in shown) is (login == "wrong")
    assert (tmp_path / "here" / "receipt.json").exists() is (options == MORE)


def test_the_password_of_standard_input(
    loud: FakeRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}-wrong\n"))
    said(loud, "basic", tmp_path, capsys, "--username", USER, "--password-stdin")


def test_signed_blobs(loud: FakeRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The registry leads to a blob store by a signed URL, and that refuses, repeating it."""
    server = serve(lambda request: error(403, "DENIED", message=f"{request.path} {request.headers}"))
    loud.redirect_blobs = f"http://127.0.0.1:{server.server_address[1]}"
    shown = said(loud, "bearer", tmp_path, capsys)
    server.shutdown()
    server.server_close()
    assert "403" in shown
