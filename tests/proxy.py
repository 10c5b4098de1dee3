"""A proxy before a real registry: every request is recorded, some meet faults, answers may be delayed.

with Proxy("127.0.0.1:5000") as proxy:
    proxy.fail("PUT", "/manifests/", cut())
    Registry(parse(f"{proxy.host}/app:1"))
"""

from __future__ import annotations

import contextlib
import http.client
import time

from tests.fake_http import Answer, Faulty, Recorded

_OF_ONE_HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "date", "server"})


class Proxy(Faulty):
    """``delay`` are seconds before each answer, as the way there and back takes them."""

    def __init__(self, upstream: str, *, delay: float = 0.0) -> None:
        super().__init__()
        self.upstream = upstream
        self.delay = delay
        self.received = 0  # bytes of the answers' bodies

    @property
    def sent(self) -> int:
        """Bytes of the requests' bodies."""
        return sum(len(request.body) for request in self.requests)

    def right(self, request: Recorded) -> Answer:
        """What the registry answers; it sees our Host, so that its Locations lead here again."""
        headers = {key: value for key, value in request.headers.items() if key not in _OF_ONE_HOP}
        with contextlib.closing(http.client.HTTPConnection(self.upstream, timeout=60)) as link:
            link.request(request.method, request.path, request.body or None, headers)
            response = link.getresponse()
            body = response.read()
        kept = {key: value for key, value in response.getheaders() if key.lower() not in _OF_ONE_HOP}
        with self._lock:
            self.received += len(body)
        time.sleep(self.delay)
        return Answer(response.status, kept, body)
