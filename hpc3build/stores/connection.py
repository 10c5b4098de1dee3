"""One HTTP/1.1 exchange over kept connections: http.client with time limits that hold, TLS options and proxies.

http.client and not urllib3 or requests: it starts in half their time (0.036 s against 0.071 and 0.093 s, python's own
0.009 s included), and what it lacks – limits, proxies, kept connections – is what this module adds.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import math
import os
import re
import socket
import ssl
import time
from collections.abc import Mapping
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import SplitResult, unquote, urlsplit

from hpc3build.errors import InputError, StoreError
from hpc3build.stores import certificates
from hpc3build.stores.access import Access, Limits, is_loopback
from hpc3build.urls import redacted

Origin = tuple[str, str, int]
Content = bytes | BinaryIO | None
MAX_ANSWER = 1 << 20  # of answers that are no manifest and no blob
_BLOCK = 1 << 18
_URL = re.compile(r"[!-~]+")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Cut(Exception):
    """No answer, or only a part of one."""


class Unreachable(Cut):
    """There was no connection to begin with."""


class NotTls(Unreachable):
    """What listens there does not speak TLS."""


class Reply:
    """An answer: ``content`` where it was read whole, else ``read`` and ``close``."""

    def __init__(self, url: str, response: http.client.HTTPResponse, link: _Link) -> None:
        self.url = url
        self.status = response.status
        self.headers: Message = response.headers
        self.content = b""
        self._response = response
        self._link: _Link | None = link

    def header(self, name: str) -> str:
        """A header's value, empty when there is none."""
        return str(self.headers.get(name) or "").strip()

    def read(self, count: int) -> bytes:
        """At most ``count`` bytes, none at the end. Raises Cut when the end comes early."""
        if self._link is None:
            return b""
        try:
            part = self._response.read1(count)
            if not part and self._response.length:
                raise Cut(f"the connection was cut {self._response.length} bytes before the answer's end")
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Cut(told(error)) from error
        except Cut:
            self.close()
            raise
        if not part:
            self._link.keep(self._response)
            self._link = None
        return part

    def drain(self, limit: int) -> Reply:
        """Read the whole body into ``content``; of a longer one ``limit`` + 1 bytes."""
        parts = []
        left = limit + 1
        while left > 0 and (part := self.read(left)):
            parts.append(part)
            left -= len(part)
        self.content = b"".join(parts)
        if left <= 0:
            self.close()
        return self

    def patient(self, limits: Limits) -> Reply:
        """From here on count rests, not the whole time: for blobs."""
        if self._link is not None:
            self._link.stream(limits)
        return self

    def close(self) -> None:
        """Give the rest of the body up, and with it the connection."""
        if self._link is not None:
            self._response.close()
            self._link.drop()
            self._link = None


class Connections:
    """Kept connections of one client."""

    def __init__(self, access: Access, limits: Limits) -> None:
        self._access = access
        self._limits = limits
        self._idle: dict[Origin, list[_Link]] = {}
        self._tls: dict[Path | None, ssl.SSLContext] = {}

    def exchange(self, method: str, url: str, headers: Mapping[str, str], content: Content, until: float) -> Reply:
        """Send one request and read the answer's head, before ``until`` (monotonic). Raises Cut and its kinds."""
        place = origin(url)
        idle = self._idle.setdefault(place, [])
        while idle:
            try:
                link = idle.pop()
            except IndexError:  # layers are read by several threads, and another one took it
                break
            try:
                return link.exchange(method, url, headers, content, until)
            except Cut:
                # A registry may close a connection that rested. Nothing was read, but it may have acted on a write.
                link.drop()
                if method not in ("GET", "HEAD"):
                    raise
        link = self._open(place, until)
        try:
            return link.exchange(method, url, headers, content, until)
        except BaseException:
            link.drop()
            raise

    def close(self) -> None:
        """Close what rests."""
        for idle in self._idle.values():
            while idle:
                idle.pop().drop()

    def _open(self, place: Origin, until: float) -> _Link:
        scheme, host, port = place
        proxy = _proxy(scheme, host)
        left = until - time.monotonic()
        if left <= 0:
            raise Unreachable("time is up")
        seconds = min(self._limits.connect, left)
        through = (proxy.hostname or "", proxy.port or 80) if proxy else (host, port)
        made: http.client.HTTPConnection
        if scheme == "https":
            context = self._context(host, port)
            made = http.client.HTTPSConnection(*through, timeout=seconds, blocksize=_BLOCK, context=context)
            if proxy:
                made.set_tunnel(host, port, headers=_proxy_login(proxy))
        else:
            made = http.client.HTTPConnection(*through, timeout=seconds, blocksize=_BLOCK)
        link = _Link(made, self._limits, self._idle[place], proxy if scheme == "http" else None)
        try:
            made.connect()
        except BaseException as error:
            made.close()
            if isinstance(error, (OSError, http.client.HTTPException, UnicodeError)):  # the last of names that are none
                raise _no_connection(error, place, proxy) from error
            raise
        return link

    def _context(self, host: str, port: int) -> ssl.SSLContext:
        folder = certificates.folder(host, port, os.environ)
        if folder not in self._tls:
            context = certificates.default()
            if self._access.ca_file is not None:
                try:
                    context.load_verify_locations(self._access.ca_file)
                except OSError as error:
                    raise InputError(f"--ca-file {self._access.ca_file}: {told(error)}", hint="a PEM file") from error
            if folder is not None:
                certificates.load(context, folder)
            if not self._access.tls_verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._tls[folder] = context
        return self._tls[folder]


class _Link:
    """A connection with its clock."""

    def __init__(
        self, made: http.client.HTTPConnection, limits: Limits, idle: list[_Link], proxy: SplitResult | None
    ) -> None:
        self._made = made
        self._limits = limits
        self._idle = idle
        self._proxy = proxy
        self._until = math.inf
        self._rest = limits.read
        self._slowest = 0
        self._spent = 0.0
        self._received = 0
        # http.client makes its reader on the socket; ours stands between, so that every wait is bounded.
        made.response_class = self._response  # type: ignore[assignment]

    def exchange(self, method: str, url: str, headers: Mapping[str, str], content: Content, until: float) -> Reply:
        self._until, self._rest, self._slowest = until, self._limits.read, 0
        if hasattr(content, "read"):  # a large blob: as long as it takes, and the registry hashes it at the end
            self._until, self._rest = math.inf, self._limits.total
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = dict(headers)
        if self._proxy:
            target = f"{parts.scheme}://{parts.netloc}{target}"
            sent |= _proxy_login(self._proxy)
        try:
            self._wait()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a refusal may come before the body's end
                self._made.request(method, target, content, sent)
            response = self._made.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Cut(told(error)) from error
        return Reply(url, response, self)

    def stream(self, limits: Limits) -> None:
        self._until, self._slowest, self._spent, self._received = math.inf, limits.slowest, 0.0, 0

    def keep(self, response: http.client.HTTPResponse) -> None:
        response.close()  # of a HEAD it is open still
        if response.will_close or self._made.sock is None:
            self.drop()
        else:
            self._idle.append(self)

    def drop(self) -> None:
        self._made.close()

    def _response(self, sock: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *args, **kwargs)
        response.fp = io.BufferedReader(_Timed(response.fp, sock, self), _BLOCK)
        return response

    def _wait(self, sock: socket.socket | None = None) -> None:
        """Bound the next wait on the socket."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("time is up")
        if sock := sock or self._made.sock:
            sock.settimeout(min(self._rest, left))

    def _count(self, seconds: float, received: int) -> None:
        self._spent += seconds
        self._received += received
        if self._slowest and self._spent > self._limits.read + self._received / self._slowest:
            raise TimeoutError(f"fewer than {self._slowest} bytes a second came")


class _Timed(io.RawIOBase):
    def __init__(self, reader: Any, sock: socket.socket, link: _Link) -> None:
        self._reader = reader.detach()  # its buffer is empty yet
        self._sock = sock
        self._link = link

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._link._wait(self._sock)
        began = time.monotonic()
        count = int(self._reader.readinto(buffer) or 0)
        self._link._count(time.monotonic() - began, count)
        return count

    def close(self) -> None:
        if not self.closed:
            self._reader.close()
        super().close()


def origin(url: str) -> Origin:
    """Scheme, host and port. Raises StoreError for anything that is no http(s) URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or not _URL.fullmatch(url):
        raise StoreError(f"{redacted(url)!r} is not a URL that can be asked")
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def told(error: BaseException) -> str:
    """A failure of the network in words."""
    if isinstance(error, TimeoutError):
        return "no answer in time" if str(error) in ("", "timed out", "The read operation timed out") else str(error)
    if isinstance(error, UnicodeError):
        return "it is no name of a host"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {getattr(error, 'verify_message', '') or error.reason or error}"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was cut"
    if isinstance(error, http.client.HTTPException):
        return f"the answer is not HTTP ({type(error).__name__})"
    return str(getattr(error, "strerror", None) or error)


def _no_connection(error: BaseException, place: Origin, proxy: SplitResult | None) -> Exception:
    scheme, host, port = place
    where = f"{host}:{port}" + (f" by the proxy {proxy.hostname}" if proxy else "")
    if isinstance(error, ssl.SSLCertVerificationError):
        return StoreError(
            f"{where}: its certificate is not trusted: {told(error)}",
            hint="--ca-file FILE names the authority's certificate, as does certs.d (docs/annotate.md); "
            "--tls-verify=false trusts anybody",
        )
    broken = (ssl.SSLError, ConnectionResetError, BrokenPipeError)
    if scheme == "https" and (isinstance(error, broken) or (isinstance(error, TimeoutError) and is_loopback(host))):
        return NotTls(f"{where} does not speak TLS ({told(error)})")
    return Unreachable(f"{where} is not reached: {told(error)}")


def _proxy(scheme: str, host: str) -> SplitResult | None:
    """The proxy of the environment. This machine is never reached through one, as in Go's clients."""
    if is_loopback(host) or not any(os.environ.get(name) for name in _PROXIES):
        return None
    from urllib.request import getproxies_environment, proxy_bypass

    proxies = getproxies_environment()
    name = next((name for name in (scheme, "all") if proxies.get(name)), None)
    if name is None or proxy_bypass(host):
        return None
    text = proxies[name]
    proxy = _proxy_url(text if "://" in text else f"http://{text}")
    if proxy is None:  # its value may hold a password, and where in it nobody knows
        raise InputError(
            f"{name}_proxy of the environment is not the URL of a proxy that can be used",
            hint="http://[USER:PASSWORD@]HOST:PORT; in a password write %2F for /, %40 for @, %3A for :",
        )
    return proxy


def _proxy_url(text: str) -> SplitResult | None:
    """An http:// URL of a host and nothing more; None for anything else."""
    try:
        proxy = urlsplit(text)
        usable = proxy.scheme == "http" and proxy.hostname and proxy.port != 0
    except ValueError:
        return None
    more = proxy.path.strip("/") or proxy.query or proxy.fragment
    return proxy if usable and not more and _URL.fullmatch(text) else None


def _proxy_login(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}
