"""Logins: by the challenge, for the scope, and never to anybody else."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc3build.errors import Hpc3BuildError, InputError, StoreError
from hpc3build.oci import Manifest
from hpc3build.reference import parse
from hpc3build.stores import login, read_blob, session, transport
from hpc3build.stores.access import Access, is_loopback
from hpc3build.stores.login import Challenge, challenges
from hpc3build.stores.refusals import Refusal
from hpc3build.stores.registry import Registry
from hpc3build.stores.transport import Client, Exchange
from tests.fake_http import Answer, Recorded, serve
from tests.fake_registry import NAME, FakeRegistry, TokenServer
from tests.images import make_layout

PAIRS = {"org.opencontainers.image.title": "app"}
USER, PASSWORD = "alice", "s3cret-pässword"
OPENSSL = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=here "
    "-addext subjectAltName=IP:127.0.0.1"
)
LOGIN = Access(plain_http=True, username=USER, password=PASSWORD)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No file of the machine's own is read."""
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "home"


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeRegistry]:
    make_layout(tmp_path / "layout", [{"a": b"1"}])
    with FakeRegistry() as registry:
        registry.add(tmp_path / "layout")
        yield registry


@pytest.fixture
def tokens(fake: FakeRegistry) -> Iterator[TokenServer]:
    with TokenServer({USER: PASSWORD}) as server:
        fake.bearer = server
        yield server


def opened(fake: FakeRegistry, access: Access = LOGIN, name: str = NAME) -> Registry:
    return Registry(parse(f"{fake.host}/{name}:latest"), access)


def annotate(store: Registry) -> Manifest:
    old = store.manifest()
    read_blob(store, old.config.digest)
    new = old.with_annotations(PAIRS)
    store.put_manifest(new, "latest", expect=old.digest)
    return new


# ---- Bearer


def test_bearer(fake: FakeRegistry, tokens: TokenServer) -> None:
    with opened(fake) as store:
        new = annotate(store)
    assert fake.raw("latest") == new.raw
    assert [request.status for request in fake.requests] == [401, 200, 200, 200, 201]
    assert fake.seen() == ["GET manifests", "GET manifests", "GET blobs", "HEAD manifests", "PUT manifests"]
    assert [request.path.partition("scope=")[2] for request in tokens.requests] == [
        "repository%3Ahpc%2Fapp%3Apull",
        "repository%3Ahpc%2Fapp%3Apull%2Cpush",
    ]


def test_anybody_may_read(fake: FakeRegistry) -> None:
    with TokenServer() as tokens:
        fake.bearer = tokens
        with opened(fake, Access(plain_http=True)) as store:
            old = store.manifest()
            assert "authorization" not in tokens.requests[0].headers
            with pytest.raises(Refusal, match="401 to PUT") as told:
                store.put_manifest(old.with_annotations(PAIRS), "latest", expect=old.digest)
            assert "podman login 127.0.0.1" in told.value.hint


def test_tokens_run_out(fake: FakeRegistry, tokens: TokenServer) -> None:
    with opened(fake) as store:
        for _ in range(3):
            tokens.expire()
            annotate(store)
            store.put_blob(fake.raw("latest")[:9])
            tokens.expire()
            store.tags()
            fake.put(NAME, "latest", next(iter(fake.manifests[NAME].values()))[1], store.manifest().media_type)


def test_one_token_for_many_images(fake: FakeRegistry, tokens: TokenServer) -> None:
    client = Client(LOGIN)
    for _ in range(4):
        with Registry(parse(f"{fake.host}/{NAME}:latest"), client=client) as store:
            store.manifest()
    client.close()
    assert len(tokens.requests) == 1


def test_mount_asks_for_both_repositories(fake: FakeRegistry, tokens: TokenServer) -> None:
    digest = next(iter(fake.blobs[NAME]))
    with opened(fake, name="hpc/other") as store:
        assert store.mount(digest, NAME)
    assert tokens.requests[-1].path.count("scope=") == 2


def test_identity_token(fake: FakeRegistry, tokens: TokenServer, home: Path) -> None:
    tokens.identity = "s3cret-identity"
    config(home / ".docker" / "config.json", {fake.host: {"identitytoken": "s3cret-identity"}})
    with opened(fake, Access(plain_http=True)) as store:
        annotate(store)
    assert {request.method for request in tokens.requests} == {"POST"}


def test_registry_token(fake: FakeRegistry, tokens: TokenServer, home: Path) -> None:
    tokens.granted["s3cret-token"] = frozenset([f"repository:{NAME}:pull,push"])
    config(home / ".docker" / "config.json", {fake.host: {"registrytoken": "s3cret-token"}})
    with opened(fake, Access(plain_http=True)) as store:
        annotate(store)
        tokens.expire()
        with pytest.raises(Refusal, match="401"):
            store.manifest()
    assert tokens.requests == []


# ---- Basic


def test_basic(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The realm is only a name: oras-py's token backend would send the password there."""
    fake.basic = (USER, PASSWORD)
    with opened(fake) as store:
        monkeypatch.setattr(store.session._login, "_token", None)
        new = annotate(store)
    assert fake.raw("latest") == new.raw
    assert [request.status for request in fake.requests] == [401, 200, 200, 200, 201]


@pytest.mark.parametrize("access", [Access(), Access("bob", "wrong"), Access(USER)])
@pytest.mark.parametrize("bearer", [False, True])
def test_wrong_login(fake: FakeRegistry, tokens: TokenServer, access: Access, bearer: bool) -> None:
    access = Access(access.username, access.password, plain_http=True)
    fake.basic, fake.bearer = (None, tokens) if bearer else ((USER, PASSWORD), None)
    with opened(fake, access) as store, pytest.raises(Refusal) as told:
        store.manifest()
    assert told.value.status == 401 and ("--username" in told.value.hint)
    assert len(fake.requests) + len(tokens.requests) <= 3


# ---- what must not leak


def test_secrets_are_not_told(fake: FakeRegistry, tokens: TokenServer) -> None:
    """The token server repeats what it got; so does this registry."""
    sent: list[Exchange] = []
    wrong = Access(plain_http=True, username=USER, password="s3cret-other")
    client = Client(wrong, observe=sent.append)
    with pytest.raises(Refusal, match=r"the token server answers 401 to GET .*wrong: Basic …") as told:
        Registry(parse(f"{fake.host}/{NAME}:latest"), client=client).manifest()
    client.close()
    shown = "".join([str(told.value), told.value.hint, repr(wrong), *map(str, sent)])
    for secret in ("s3cret", base64.b64encode(b"alice:s3cret-other").decode()):
        assert secret not in shown


def test_redirected_blobs_get_no_login(fake: FakeRegistry) -> None:
    seen: list[Recorded] = []

    def elsewhere(request: Recorded) -> Answer:
        seen.append(request)
        if "authorization" in request.headers or len(seen) > 1:
            return Answer(400)
        return Answer(200, {}, fake.blobs[NAME][request.path.split("/")[-1].partition("?")[0]])

    server = serve(elsewhere)
    fake.basic, fake.redirect_blobs = (USER, PASSWORD), f"http://127.0.0.1:{server.server_address[1]}"
    with opened(fake) as store:
        assert read_blob(store, store.manifest().config.digest)
        with pytest.raises(Refusal):
            read_blob(store, store.manifest().config.digest)
    assert [request.headers.get("authorization") for request in seen] == [None, None]
    server.shutdown()
    server.server_close()


def test_a_stranger_asks_for_a_login(fake: FakeRegistry) -> None:
    """A 401 from where a redirect led is not answered with the registry's credentials."""
    server = serve(lambda request: Answer(401, {"WWW-Authenticate": 'Basic realm="x"', "X": str(request.headers)}))
    fake.redirect_blobs = f"http://127.0.0.1:{server.server_address[1]}"
    with opened(fake) as store:
        digest = store.manifest().config.digest
        with pytest.raises(Refusal, match="401"):
            read_blob(store, digest)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer realm="http://auth.example.org/token",service="x"',
        'Bearer realm="Registry Realm"',
        'Bearer realm="//127.0.0.1/token"',
        'Bearer realm="file:///etc/passwd"',
        'Bearer realm="https://user:pw@auth.example.org/token"',
        "Bearer service=x",
        'Negotiate realm="x"',
        "",
    ],
)
def test_unsafe_challenges(fake: FakeRegistry, challenge: str) -> None:
    fake.basic, fake.challenge = (USER, PASSWORD), challenge or " "
    with opened(fake) as store, pytest.raises(StoreError) as told:
        store.manifest()
    assert len(fake.requests) == 1 and PASSWORD not in str(told.value)


@pytest.mark.parametrize("bearer", [False, True])
def test_never_over_plain_http(
    fake: FakeRegistry, tokens: TokenServer, monkeypatch: pytest.MonkeyPatch, bearer: bool
) -> None:
    fake.basic, fake.bearer = (None, tokens) if bearer else ((USER, PASSWORD), None)
    for module in (login, session, transport):
        monkeypatch.setattr(module, "is_loopback", lambda host: False)
    with opened(fake) as store, pytest.raises(StoreError, match="not sent over plain HTTP"):
        store.manifest()
    assert all("authorization" not in request.headers for request in fake.requests) and tokens.requests == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "LOCALHOST"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["127.evil.org", "127.0.0.1.evil.org", "localhost.evil.org", "128.0.0.1", ""])
def test_no_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_challenges() -> None:
    text = 'Basic realm="a, \\"b\\"", Bearer realm="https://x/t" , service=y,scope="repository:a:pull,push"'
    assert challenges([text]) == [
        Challenge("basic", 'a, "b"'),
        Challenge("bearer", "https://x/t", "y", "repository:a:pull,push"),
    ]
    assert challenges(["Negotiate", "BASIC realm=x"]) == [Challenge("negotiate"), Challenge("basic", "x")]
    assert challenges(["", ",,", '"', "=", 'realm="x"']) == []


# ---- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("not installed: openssl")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [*OPENSSL.split(), "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


def test_tls(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    make_layout(tmp_path / "layout", [{"a": b"1"}])
    with (
        FakeRegistry(certificate=certificate) as fake,
        TokenServer({USER: PASSWORD}, certificate=certificate) as tokens,
    ):
        fake.add(tmp_path / "layout")
        fake.bearer = tokens
        with opened(fake, Access()) as store, pytest.raises(StoreError, match=r"not trusted.*self.signed") as told:
            store.manifest()
        assert "--ca-file" in told.value.hint and fake.requests == [], "never plain HTTP after a wrong certificate"
        with opened(fake, Access(USER, PASSWORD, ca_file=certificate[0])) as store:
            annotate(store)
        with opened(fake, Access(USER, PASSWORD, tls_verify=False)) as store:
            store.tags()
        with opened(fake, Access(ca_file=certificate[1])) as store, pytest.raises(Hpc3BuildError, match="--ca-file"):
            store.manifest()


def test_from_https_to_http(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    make_layout(tmp_path / "layout", [{"a": b"1"}])
    with FakeRegistry(certificate=certificate) as fake:
        fake.add(tmp_path / "layout")
        fake.redirect_blobs = "http://127.0.0.1:1"
        with opened(fake, Access(tls_verify=False)) as store, pytest.raises(StoreError, match="to plain HTTP"):
            read_blob(store, store.manifest().config.digest)


# ---- through a proxy


def test_proxy(monkeypatch: pytest.MonkeyPatch, fake: FakeRegistry) -> None:
    seen: list[Recorded] = []

    def relay(request: Recorded) -> Answer:
        seen.append(request)
        request.path = request.path.removeprefix("http://registry.example.org")
        return fake.handle(request)

    server = serve(relay)
    monkeypatch.setenv("http_proxy", f"http://me:s3cret@127.0.0.1:{server.server_address[1]}")
    with Registry(parse(f"registry.example.org/{NAME}:latest"), Access(plain_http=True)) as store:
        assert store.manifest().digest == fake.tags[NAME]["latest"]
    assert seen[0].headers["proxy-authorization"] == "Basic " + base64.b64encode(b"me:s3cret").decode()
    with opened(fake) as store:
        store.tags()
    assert len(seen) == 1, "this machine is not reached through the proxy"
    server.shutdown()
    server.server_close()


def config(path: Path, auths: dict[str, dict[str, str]], **members: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": auths, **members}))
    return path


@pytest.mark.parametrize(
    "value",
    [
        "http://bob:hunter2/x@proxy:3128",
        "http://bob:3128/hunter2@proxy",
        "http://bob:hunter2@host:notaport",
        "http://bob:hunter2@[::1",
        "http://bob:hunter2@h h:3128",
        "http://bob:hunter2@host:0",
        "socks5://bob:hunter2@host:1",
        "http://bob:hunter2@",
    ],
)
def test_a_proxy_that_is_none_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("https_proxy", value)
    with Registry(parse("registry.example.org/a/b:1"), Access()) as store:
        with pytest.raises(InputError, match="https_proxy") as caught:
            store.manifest()
        told = "".join(traceback.format_exception(caught.value))  # as --debug shows it
    assert "hunter2" not in told and "bob" not in told, told


def test_hosts_whose_names_are_none(monkeypatch: pytest.MonkeyPatch, fake: FakeRegistry) -> None:
    """A label of more than 63 characters, of a proxy and of a server that blobs are redirected to."""
    name = f"{'a' * 64}.example"
    fake.redirect_blobs = f"http://{name}"
    with opened(fake) as store, pytest.raises(StoreError, match=f"{name}:80 is not reached: it is no name of a host"):
        read_blob(store, store.manifest().config.digest)
    monkeypatch.setenv("https_proxy", f"http://{name}:1")
    told = f"by the proxy {name} is not reached: it is no name of a host"
    with Registry(parse("registry.example.org/a/b:1"), Access()) as store, pytest.raises(StoreError, match=told):
        store.manifest()
