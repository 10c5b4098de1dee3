"""What fake servers of tests share: requests recorded, answers, faults, and a server in a thread."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self

MANIFEST = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")
BLOB = re.compile(r"/v2/(?P<name>.+)/blobs/(?P<digest>sha(?:256|512):[0-9a-f]+)")
UPLOAD = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<id>[^/]*)")
TAGS = re.compile(r"/v2/(?P<name>.+)/tags/list")
REFERRERS = re.compile(r"/v2/(?P<name>.+)/referrers/(?P<digest>[^/]+)")
Headers = dict[str, str]


@dataclass
class Answer:
    """What a handler sends; the fields after ``body`` are faults."""

    status: int
    headers: Headers = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None  # bytes of the body, then the connection is cut
    cut_now: bool = False  # without any answer
    drip: float = 0.0  # seconds between single bytes


@dataclass
class Recorded:
    """One request as it came."""

    method: str
    path: str
    headers: Headers
    body: bytes
    status: int = 0

    @property
    def kind(self) -> str:
        """``GET manifests``, ``POST uploads`` …"""
        for word, pattern in (
            ("manifests", MANIFEST),
            ("uploads", UPLOAD),
            ("blobs", BLOB),
            ("tags", TAGS),
            ("referrers", REFERRERS),
        ):
            if pattern.fullmatch(urlsplit(self.path).path):
                return f"{self.method} {word}"
        return f"{self.method} {urlsplit(self.path).path}"


#: Called with the request and with what answers it rightly; returns what is sent.
Fault = Callable[[Recorded, Callable[[], Answer]], Answer]


def status(code: int, *, retry_after: str = "", name: str = "", body: bytes | None = None) -> Fault:
    """Refuse without doing anything."""
    headers = {"Retry-After": retry_after} if retry_after else {}
    return lambda request, right: error(code, name, headers) if body is None else Answer(code, headers, body)


def cut(*, done: bool = False, after: int | None = None) -> Fault:
    """Cut the connection: before anything is done, after it was done, or ``after`` bytes of the body."""

    def fault(request: Recorded, right: Callable[[], Answer]) -> Answer:
        answer = right() if done or after is not None else Answer(0)
        answer.cut_now, answer.cut_after = after is None, after
        return answer

    return fault


def altered(change: Callable[[Answer], None]) -> Fault:
    """Change the right answer."""

    def fault(request: Recorded, right: Callable[[], Answer]) -> Answer:
        answer = right()
        change(answer)
        return answer

    return fault


def before(action: Callable[[], Any]) -> Fault:
    """Do something just before the request is carried out."""

    def fault(request: Recorded, right: Callable[[], Answer]) -> Answer:
        action()
        return right()

    return fault


def error(code: int, name: str = "", headers: Headers | None = None, message: str = "told by the registry") -> Answer:
    body = json.dumps({"errors": [{"code": name or "UNKNOWN", "message": message, "detail": None}]}).encode()
    return Answer(code, {"Content-Type": "application/json", **(headers or {})}, body)


def digest_of(content: bytes, like: str = "sha256:") -> str:
    """By the algorithm of the digest ``like``."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def ranged(request: Recorded, content: bytes, ranges: bool = True) -> Answer:
    """A blob, or the part of it that is asked for."""
    kind = {"Content-Type": "application/octet-stream"}
    found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    if not found or not ranges:
        return Answer(200, kind, content)
    start = int(found[1])
    return Answer(206, kind | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}, content[start:])


@dataclass
class _Rule:
    method: str
    path: str
    fault: Fault
    times: int


class Served:
    """A server that ends with its block."""

    _server: Any

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class Faulty(Served):
    """A server that records its requests and lets some of them meet a fault; ``right`` answers the others."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.requests: list[Recorded] = []
        self._rules: list[_Rule] = []
        self._lock = threading.RLock()
        self._server = serve(self.handle, certificate)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def fail(self, method: str, path: str, fault: Fault, times: int = 1) -> None:
        """Let the next requests whose path holds ``path`` meet a fault; -1 times is always."""
        self._rules.append(_Rule(method, path, fault, times))

    def seen(self) -> list[str]:
        """The kinds of the requests so far; forgets them."""
        kinds = [request.kind for request in self.requests]
        self.requests.clear()
        return kinds

    def handle(self, request: Recorded) -> Answer:
        with self._lock:
            self.requests.append(request)
            rule = next(
                (r for r in self._rules if r.method == request.method and r.path in request.path and r.times), None
            )
            if rule is not None:
                rule.times -= 1
        if rule is not None:
            return rule.fault(request, lambda: self.right(request))
        return self.right(request)

    def right(self, request: Recorded) -> Answer:
        """The answer without faults."""
        raise NotImplementedError


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Cut connections are what these tests are about."""


def serve(handle: Callable[[Recorded], Answer], certificate: tuple[Path, Path] | None = None) -> ThreadingHTTPServer:
    """Start a server on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30
        disable_nagle_algorithm = True

        def answer(self) -> None:
            body = self.body()
            headers = {key.lower(): ", ".join(self.headers.get_all(key, ())) for key in self.headers}
            request = Recorded(self.command, self.path, headers, body)
            answer = handle(request)
            request.status = answer.status
            if answer.cut_now:
                self.cut()
                return
            content = b"" if self.command == "HEAD" else answer.body
            head = {"Content-Length": str(len(answer.body)), **answer.headers}
            self.send_response(answer.status)
            for key, value in head.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.flush()
            if answer.drip:
                for place in range(len(content)):
                    self.wfile.write(content[place : place + 1])
                    time.sleep(answer.drip)
            elif answer.cut_after is not None:
                self.wfile.write(content[: answer.cut_after])
                self.wfile.flush()
                self.cut()
            else:
                self.wfile.write(content)

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)

        def cut(self) -> None:
            self.close_connection = True
            if not isinstance(self.connection, ssl.SSLSocket):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                time.sleep(0.01)
            self.connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server
