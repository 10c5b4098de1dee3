"""Faults between the command and a real registry (oci.md §4 and more), met by the command with most to write.

After each of them the tag is the old index or the new one, a plain client pulls all of it, and doing it again
gives the new one.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc3build.cli import main
from hpc3build.oci import OCI_INDEX, OCI_MANIFEST, Manifest, digest_of
from hpc3build.stores.access import Limits
from tests.fake_http import Answer, Fault, Recorded, altered, cut, error, status
from tests.fake_registry import TokenServer
from tests.images import descriptor_of, make_document, make_layout
from tests.integration.registries import fetched, push
from tests.integration.support import ROOT, missing, sh
from tests.proxy import Proxy

pytestmark = pytest.mark.engine

#: Children, configurations and the tag change: reads, blobs' uploads, PUTs by digest, the tag's HEAD and PUT.
WISH = ("-a", "k=v", "--labels", "--all-children")
TAG, CHILDREN, BLOBS = "/manifests/1", "/manifests/sha256:", "/blobs/"


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pauses."""
    monkeypatch.setattr("hpc3build.stores.transport.random.uniform", lambda low, high: 0.01)
    monkeypatch.setattr("hpc3build.stores.transport.Limits", functools.partial(Limits, attempts=4))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def proxy(registry: str) -> Iterator[Proxy]:
    with Proxy(registry) as proxy:
        yield proxy


class Case:
    """An attested index under a new name, and what it is to become."""

    def __init__(self, proxy: Proxy, folder: Path) -> None:
        self.proxy, self.folder = proxy, folder
        self.path = f"faults/{uuid.uuid4().hex[:8]}:1"
        self.index = self._index(folder / "layout")
        push(folder / "layout", self.index, f"{proxy.upstream}/{self.path}")
        assert main(["annotate", f"oci:{folder / 'layout'}:1", *WISH, "-q"]) == 0
        self.wanted = json.loads((folder / "layout" / "index.json").read_bytes())["manifests"][0]["digest"]

    @property
    def digest(self) -> str:
        return digest_of(fetched(f"{self.proxy.upstream}/{self.path}"))

    def annotate(self, *options: str) -> int:
        return main(["annotate", f"{self.proxy.host}/{self.path}", *(options or WISH)])

    def assert_whole(self, *digests: str) -> None:
        """The tag is one of these, and everything below it is there."""
        assert self.digest in digests
        if not missing("skopeo"):
            options = ("--all", "--src-tls-verify=false", "--dest-oci-accept-uncompressed-layers", "--quiet")
            pulled = self.folder / f"pulled-{uuid.uuid4().hex[:8]}"
            sh("skopeo", "copy", *options, f"docker://{self.proxy.upstream}/{self.path}", f"oci:{pulled}:1")

    def _index(self, folder: Path) -> Manifest:
        # Some registries share blobs between repositories: what is there already is not sent.
        new = {"run": self.path.encode()}
        images = [make_layout(folder, [{n: b"1", **new}], architecture=n, tag=None) for n in ("amd64", "arm64")]
        platforms = [{"architecture": name, "os": "linux"} for name in ("amd64", "arm64")]
        entries = [descriptor_of(made, platform=where) for made, where in zip(images, platforms, strict=True)]
        said = {"vnd.docker.reference.digest": images[0].digest, "vnd.docker.reference.type": "attestation-manifest"}
        unknown = {"architecture": "unknown", "os": "unknown"}
        statement = make_layout(folder, [{"in-toto": b"1"}], tag=None)
        entries.append(descriptor_of(statement, annotations=said, platform=unknown))
        (folder / "index.json").unlink()
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, "annotations": {"vendor": "x"}}
        return make_document(folder, document, tag="1")


@pytest.fixture
def case(proxy: Proxy, tmp_path: Path) -> Case:
    return Case(proxy, tmp_path)


PLACES = [("GET", TAG), ("GET", CHILDREN), ("GET", BLOBS), ("HEAD", BLOBS), ("POST", BLOBS), ("PUT", BLOBS)]
PLACES += [("PUT", CHILDREN), ("HEAD", TAG), ("PUT", TAG)]
PASSING: dict[str, tuple[Fault, int]] = {
    "429, Retry-After 1": (status(429, retry_after="1"), 1),
    "429 three times": (status(429, retry_after="0"), 3),
    **{str(code): (status(code), 1) for code in (408, 500, 502, 503, 504)},
    "cut": (cut(), 1),
    "cut after it was done": (cut(done=True), 1),
    "a 500 after it was done": (altered(lambda answer: setattr(answer, "status", 500)), 1),
    "truncated": (cut(after=7), 1),
}


@pytest.mark.parametrize("row", PASSING)
def test_what_passes(case: Case, row: str) -> None:
    """Wherever it strikes: no peer passes all of 429, 503, a cut on GET and a cut on PUT."""
    fault, times = PASSING[row]
    for method, path in PLACES if "Retry-After" not in row else [("GET", TAG), ("PUT", TAG)]:
        case.proxy.fail(method, path, fault, times)
    assert case.annotate() == 0
    assert not any(rule.times for rule in case.proxy._rules if rule.method != "HEAD" or rule.path == TAG)
    case.assert_whole(case.wanted)


def wrong_digest(answer: Answer) -> None:
    answer.headers["Docker-Content-Digest"] = "sha256:" + "0" * 64


def lying_type(answer: Answer) -> None:
    answer.headers["Content-Type"] = OCI_MANIFEST if "index" in answer.headers["Content-Type"] else OCI_INDEX


def drip(answer: Answer) -> None:
    answer.drip = 0.15


def to_itself(request: Recorded, right: Callable[[], Answer]) -> Answer:
    return Answer(307, {"Location": request.path + ("&x" if "?" in request.path else "?x")})


LASTING: dict[str, tuple[Fault, tuple[str, ...]]] = {
    **{str(code): (status(code), ("GET", "HEAD", "PUT", "POST")) for code in (413, 429, 503)},
    "cut": (cut(), ("GET", "HEAD", "PUT", "POST")),
    "truncated": (cut(after=20), ("GET",)),
    "wrong digest header": (altered(wrong_digest), ("GET /manifests/", "HEAD /manifests/", "PUT /manifests/")),
    "lying Content-Type": (altered(lying_type), ("GET /manifests/",)),
    "slow loris": (altered(drip), ("GET",)),
    "redirect loop": (to_itself, ("GET", "HEAD", "PUT", "POST")),
}
STRIKES = [
    (row, method, path)
    for row, (_, methods) in LASTING.items()
    for method, path in PLACES
    if method in methods or f"{method} {path[:11]}" in methods
]


@pytest.mark.parametrize(("row", "method", "path"), STRIKES)
def test_what_lasts(
    case: Case, row: str, method: str, path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message, exit code 4 and the old tag; only where the tag's PUT itself meets it, the tag may be new."""
    case.proxy.fail(method, path, LASTING[row][0], -1)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        if row == "slow loris":  # only here a deadline passes: one that a test can wait for
            patch.setattr(
                "hpc3build.stores.transport.Limits", functools.partial(Limits, read=1.6, total=1.6, attempts=2)
            )
        done = case.annotate()
    told = capsys.readouterr().err
    # What HEAD is refused is asked by GET; another digest in its answer is a tag that moved.
    assert done in ((0, 4, 5) if method == "HEAD" else (4,)), told
    assert done == 0 or (told.count("hpc3build: error: ") == 1 and "Traceback" not in told), told
    case.assert_whole(case.index.digest, case.wanted)
    if (method, path) != ("PUT", TAG):
        assert case.digest == (case.wanted if done == 0 else case.index.digest)
    case.proxy._rules.clear()
    assert case.annotate() == 0 and case.digest == case.wanted


@pytest.mark.parametrize("at", ["GET", "HEAD", "POST", "PUT"])
def test_a_token_runs_out_in_mid_run(case: Case, at: str) -> None:
    """Before each such request: a new one is asked for, and the work goes on."""
    with TokenServer({"alice": "s3cret"}) as tokens:
        seen: set[str] = set()

        def guarded(request: Recorded, right: Callable[[], Answer]) -> Answer:
            if request.method == at and request.path not in seen:
                seen.add(request.path)
                # The one that it has: another thread may just have got its own.
                tokens.granted.pop(request.headers.get("authorization", "").removeprefix("Bearer "), None)
            needed = tokens.needed(request)
            if tokens.allows(request.headers.get("authorization", ""), needed):
                return right()
            challenge = f'Bearer realm="{tokens.url}",service="fake",scope="{" ".join(needed)}"'
            return error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})

        for method in ("GET", "HEAD", "PUT", "POST"):
            case.proxy.fail(method, "", guarded, -1)
        login = Path(os.environ["HOME"]) / ".docker" / "config.json"
        login.parent.mkdir()
        login.write_text(json.dumps({"auths": {case.proxy.host: {"auth": "YWxpY2U6czNjcmV0"}}}))
        assert case.annotate() == 0 and seen
        case.assert_whole(case.wanted)


@pytest.mark.long
@pytest.mark.parametrize("reached", [False, True])
def test_killed_at_every_request(registry: str, tmp_path: Path, reached: bool) -> None:
    """SIGKILL, before the request arrives or after it was done: nothing in the process can tidy up."""
    at, ends = 0, []
    while True:
        with Proxy(registry) as proxy:
            case = Case(proxy, tmp_path / str(at))
            argv = [sys.executable, "-m", "hpc3build", "annotate", f"{proxy.host}/{case.path}", *WISH]
            process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            counted = 0

            def strike(request: Recorded, right: Callable[[], Answer]) -> Answer:
                nonlocal counted
                counted += 1
                if counted != at + 1:  # noqa: B023 - the server ends before the next round
                    return right()
                answer = right() if reached else Answer(0)
                process.send_signal(signal.SIGKILL)  # noqa: B023
                answer.cut_now = True
                return answer

            for method in ("GET", "HEAD", "PUT", "POST"):
                proxy.fail(method, "", strike, -1)
            done = process.wait(60)
            case.assert_whole(case.index.digest, case.wanted)
            ends.append(case.digest == case.wanted)
            proxy._rules.clear()
            assert case.annotate() == 0 and case.digest == case.wanted
        if done == 0:
            break
        at += 1
    # Only the last request, the tag's PUT, makes it new.
    assert at > 10 and ends == [False] * (at - 1) + [reached, True]


def test_a_registry_that_loses_what_it_took(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """It says 201 to the children and has none of them: a registry refuses the index then, and the tag stays."""
    case.proxy.fail("PUT", CHILDREN, lambda request, right: lost(request), -1)
    done = case.annotate()
    assert done in (0, 4)
    if done == 4:
        assert case.digest == case.index.digest and "to PUT" in capsys.readouterr().err


def lost(request: Recorded) -> Answer:
    return Answer(201, {"Docker-Content-Digest": digest_of(request.body)})


def test_the_tag_is_written_after_everything_else(case: Case) -> None:
    assert case.annotate() == 0
    writes = [request for request in case.proxy.requests if request.method in ("PUT", "POST")]
    assert writes[-1].path.endswith(TAG) and sum(request.path.endswith(TAG) for request in writes) == 1
    kinds = [request.kind for request in writes]
    assert kinds.index("PUT manifests") > max(at for at, kind in enumerate(kinds) if "uploads" in kind)


def test_another_writer_while_the_put_waits(case: Case) -> None:
    """The PUT meets a 503, and somebody writes before it is sent again."""
    other = make_document(case.folder / "layout", {**case.index.json, "annotations": {"by": "another"}}, tag="other")
    name = f"{case.proxy.upstream}/{case.path}"
    case.proxy.fail("PUT", TAG, lambda request, right: (push(case.folder / "layout", other, name), error(503))[1])
    done = case.annotate(*WISH, "--expect-digest", case.index.digest)
    assert done == 5 and case.digest == other.digest
