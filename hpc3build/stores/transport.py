"""The light HTTP client of the registry store: repetitions with a deadline, and redirects that leak nothing.

Rules of oci.md §8.11: repeat 408, 429, 500, 502, 503, 504 and cuts, honour Retry-After, one deadline for all of it,
and never repeat what was refused. An Authorization goes to the origin it was made for, and over plain HTTP to this
machine only.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

from hpc3build.errors import StoreError
from hpc3build.stores.access import Access, Limits, is_loopback
from hpc3build.stores.connection import (
    MAX_ANSWER,
    Connections,
    Content,
    Cut,
    NotTls,
    Origin,
    Reply,
    Unreachable,
    origin,
)
from hpc3build.stores.pace import Pace
from hpc3build.urls import redacted

__all__ = ["MAX_ANSWER", "Client", "Cut", "Exchange", "Reply", "origin"]

AGAIN = frozenset({408, 429, 500, 502, 503, 504})
#: Of requests that may not be sent twice unseen, what says that nothing was done.
NOT_DONE = frozenset({429, 503})
MAX_REDIRECTS = 5
USER_AGENT = "hpc3build"


@dataclass(frozen=True)
class Exchange:
    """One request that was sent, for --debug and for counting: no headers, no query, no body."""

    method: str
    url: str
    status: int  # 0: no answer
    seconds: float
    told: str = ""


class Client:
    """Of one thread. Its connections and tokens may be shared by several stores, one after the other."""

    def __init__(
        self,
        access: Access | None = None,
        limits: Limits | None = None,
        *,
        observe: Callable[[Exchange], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        pace: Pace | None = None,
    ) -> None:
        self.access = access or Access()
        self.limits = limits or Limits()
        self.tokens: dict[tuple[object, ...], str] = {}  # kept by login.Login
        self.lacking_referrers: set[Origin] = set()  # registries without the referrers API
        self.tag_lists: dict[str, tuple[int, list[str] | None]] = {}  # kept by registry_referrers
        self._observe = observe
        self._besides: list[Client] = []
        self._closed = False
        self.sleep = sleep
        self._pace = pace
        self._connections = Connections(self.access, self.limits)

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Content = None,
        *,
        authorization: str = "",
        limit: int = MAX_ANSWER,
        stream: bool = False,
        once: bool = False,
        before_again: Callable[[], bool] | None = None,
    ) -> Reply | None:
        """Send a request until it is answered; the last answer, whatever its status.

        ``limit`` bounds the body (one byte more is read of a longer one); with ``stream`` a good answer's body is left
        to be read. ``once`` is for requests that must not be sent twice, but for 429 and 503. ``before_again`` is
        called before each repetition: when it returns True there is nothing left to do, and None is returned.
        Raises Cut when there was no answer, StoreError for redirects that cannot be followed.
        """
        until = time.monotonic() + self.limits.total
        attempt = 0
        while True:
            attempt += 1
            reply: Reply | None = None
            problem: Cut | None = None
            if self._pace is not None:
                waited = self._pace.wait(origin(url))
                until += 0 if self.limits.strict else waited  # what all have to wait is no fault of this request
            try:
                reply = self._followed(method, url, headers, content, authorization, until)
                if not (stream and reply.status in (200, 206)):
                    reply.drain(limit)
            except Cut as error:
                problem, reply = error, None
            if reply is not None and reply.status not in (NOT_DONE if once else AGAIN):
                return reply.patient(self.limits) if stream else reply
            pause = self.pause(attempt, reply)
            tries = self._tries(problem, once, content)
            if attempt < tries and self._held(url, reply, pause):
                pause = 0.0
            if attempt >= tries or time.monotonic() + pause >= until:
                if problem is not None:
                    raise problem
                return reply
            self.sleep(pause)
            if before_again is not None and before_again():
                return None

    @contextlib.contextmanager
    def beside(self) -> Iterator[Client]:
        """A client for another thread while the block runs: what this one has learnt, over connections of its own."""
        try:
            client = self._besides.pop()
        except IndexError:
            client = Client(self.access, self.limits, observe=self._observe, sleep=self.sleep, pace=self._pace)
        client.tokens.update(self.tokens)
        client.lacking_referrers = self.lacking_referrers
        client.tag_lists = self.tag_lists
        try:
            yield client
        finally:
            if self._closed:
                client.close()
            else:
                self._besides.append(client)

    def close(self) -> None:
        """Close the connections and forget the tokens."""
        self._closed = True
        while self._besides:
            self._besides.pop().close()
        self._connections.close()
        self.tokens.clear()

    def _followed(
        self, method: str, url: str, headers: Mapping[str, str], content: Content, authorization: str, until: float
    ) -> Reply:
        home = origin(url)
        for _ in range(MAX_REDIRECTS + 1):
            sent = {"User-Agent": USER_AGENT, **headers}
            if authorization and origin(url) == home:
                check_private(url)
                sent["Authorization"] = authorization
            reply = self._sent(method, url, sent, content, until)
            if reply.status not in (301, 302, 303, 307, 308) or method not in ("GET", "HEAD"):
                return reply
            reply.drain(MAX_ANSWER)
            target = joined(url, reply.header("Location"))
            if origin(target)[0] == "http" and origin(url)[0] == "https":
                raise StoreError(f"{redacted(url)} leads from HTTPS to plain HTTP, which is not followed")
            url = target
        raise StoreError(
            f"{method} {home[1]}: more than {MAX_REDIRECTS} redirects", hint="the registry is set up wrong"
        )

    def _sent(self, method: str, url: str, headers: Mapping[str, str], content: Content, until: float) -> Reply:
        began = time.monotonic()
        status, told = 0, ""
        try:
            reply = self._connections.exchange(method, url, headers, content, until)
            status = reply.status
        except Cut as error:
            told = str(error)
            raise
        finally:
            if self._observe is not None:
                self._observe(Exchange(method, redacted(url), status, time.monotonic() - began, told))
        return reply

    def _held(self, url: str, reply: Reply | None, pause: float) -> bool:
        """Whether the registry wants less of all of us, and they all wait now."""
        if self._pace is None or reply is None:
            return False
        if reply.status != 429 and not reply.header("Retry-After"):
            return False
        return self._pace.hold(origin(url), pause)

    def _tries(self, problem: Cut | None, once: bool, content: Content) -> int:
        if isinstance(problem, NotTls) or hasattr(content, "read"):  # a stream can be sent only once
            return 1
        if isinstance(problem, Unreachable):  # more likely a typing error than a fault that passes
            return min(3, self.limits.attempts)
        return 1 if once and problem is not None else self.limits.attempts

    def pause(self, attempt: int, reply: Reply | None) -> float:
        """Seconds until the next attempt: what the registry asks for, else twice as long each time, with jitter."""
        asked = retry_after(reply.header("Retry-After")) if reply is not None else None
        if asked is not None:
            return asked
        return float(self.limits.backoff * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))  # noqa: S311


def joined(url: str, location: str) -> str:
    """Where a Location leads. Raises StoreError when it is no URL."""
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise StoreError(f"{redacted(url)} leads to {redacted(location)!r}, which is no URL") from error


def check_private(url: str) -> None:
    """Raise StoreError when a secret sent to ``url`` could be read on the way."""
    scheme, host, _ = origin(url)
    if scheme != "https" and not is_loopback(host):
        raise StoreError(
            f"{host}: credentials are not sent over plain HTTP", hint="leave --plain-http out, or serve it by HTTPS"
        )


def retry_after(text: str) -> float | None:
    """The header's seconds or date, as seconds from now; None where there is none that can be read."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
