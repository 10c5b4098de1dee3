"""Requests to one repository: where they go, the login they carry, and every failure told with the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote, urlsplit

from hpc3build.errors import ImageError, StoreError
from hpc3build.reference import Reference, is_digest
from hpc3build.run import Runner
from hpc3build.stores.access import HUB, HUB_API, is_loopback
from hpc3build.stores.connection import Content, NotTls, Reply
from hpc3build.stores.login import Login, TokenSource, parsed
from hpc3build.stores.refusals import HINTS, Interrupted, Refusal
from hpc3build.stores.transport import MAX_ANSWER, Client, Cut, joined, origin

MAX_PAGES = 1000
#: Loopback registries that were found to speak plain HTTP, for the life of the process.
_plain: set[tuple[str, int]] = set()


class Session:
    """The requests of one Registry."""

    def __init__(self, reference: Reference, client: Client, runner: Runner, token: TokenSource) -> None:
        self.reference = reference
        self.client = client
        self._runner = runner
        self._token = token
        self._host = HUB_API if reference.registry == HUB else reference.registry
        self._place = (reference.host.lower(), reference.port or 443)
        plain = client.access.plain_http or self._place in _plain
        self._speak("http" if plain else "https")

    def _speak(self, scheme: str) -> None:
        self.base = f"{scheme}://{self._host}"
        self._login = Login(self.client, self.reference, self.base, self._runner, self._token)

    def path(self, *parts: str) -> str:
        """Below the repository."""
        return "/".join((f"/v2/{self.reference.name}", *(quote(part, safe=":") for part in parts)))

    def named(self, reference: str) -> Reference:
        """The repository at a digest or tag. Raises BadReference."""
        return self.reference.at(reference) if is_digest(reference) else self.reference.with_tag(reference)

    def near(self, location: str) -> str:
        """The URL of a Location; a registry behind a TLS proxy may call itself by http://, which is not followed."""
        url = joined(self.base, location)
        there, here = urlsplit(url), urlsplit(self.base)
        if there.scheme == "http" and here.scheme == "https":
            if there.hostname != here.hostname:
                raise StoreError(f"{self.reference}: the registry wants the upload sent over plain HTTP")
            url = there._replace(scheme="https", netloc=here.netloc).geturl()
        return url

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, *, limit: int = MAX_ANSWER
    ) -> Reply:
        """A request that reads. Raises StoreError when it is not answered."""
        reply = self.send(method, path, headers, limit=limit)
        assert reply is not None  # noqa: S101 - only before_again gives none
        return reply

    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        content: Content = None,
        *,
        write: bool = False,
        limit: int = MAX_ANSWER,
        stream: bool = False,
        once: bool = False,
        before_again: Callable[[], bool] | None = None,
    ) -> Reply | None:
        """As Client.request, with the login; a 401 is answered once. ``path`` may be a URL of an upload.

        Raises Interrupted when there is no answer, StoreError when the registry cannot be spoken to.
        """
        try:
            return self._sent(
                method,
                path,
                headers,
                content,
                write=write,
                limit=limit,
                stream=stream,
                once=once,
                before_again=before_again,
            )
        except StoreError as error:
            if error.status in (None, 404):  # of a token server, say: nothing is known of what was asked for
                error.status = 0
            raise

    def _sent(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None,
        content: Content,
        *,
        write: bool,
        limit: int,
        stream: bool,
        once: bool,
        before_again: Callable[[], bool] | None,
    ) -> Reply | None:
        asked = False
        while True:
            home = path.startswith("/") or origin(path) == origin(self.base)
            sent = self._login.header(write=write) if home else ""
            try:
                reply = self.client.request(
                    method,
                    self.base + path if path.startswith("/") else path,
                    headers or {},
                    content,
                    authorization=sent,
                    limit=limit,
                    stream=stream,
                    once=once,
                    before_again=before_again,
                )
            except NotTls as error:
                self._fall_back(error)
                continue
            except Cut as error:
                hint = "is the name right, and the registry up?" if "not reached" in str(error) else "try again later"
                raise Interrupted(f"{self.reference}: {method}: {error}", hint=hint) from error
            if reply is None or reply.status != 401 or asked or not home:
                return reply
            asked = True
            offered = [str(value) for value in reply.headers.get_all("WWW-Authenticate") or ()]
            if not self._login.answer(offered, sent=sent, write=write) or hasattr(content, "read"):
                return reply
            if before_again is not None and before_again():
                return None

    def pages(self, what: str, *, accept: str) -> Iterator[Reply]:
        """Answers to a list, page by page; the caller looks at their status. ``/v2/…`` is no list of the repository."""
        path: str | None = what if what.startswith("/") else f"/v2/{self.reference.name}/{what}"
        seen: set[str] = set()
        while path is not None:
            if path in seen or len(seen) == MAX_PAGES:
                raise StoreError(f"{self.reference}: the registry's list does not end")
            seen.add(path)
            reply = self.ask("GET", path, {"Accept": accept}, limit=4 * MAX_ANSWER)
            yield reply
            path = self._next(path, reply) if reply.status == 200 else None

    def tag_pages(self) -> Iterator[list[str]]:
        """The repository's tags, page by page. Raises StoreError for a repository that is not there."""
        for reply in self.pages("tags/list?n=1000", accept="application/json"):
            if reply.status != 200:
                raise self.refusal("GET", self.reference, reply)
            names = parsed(reply.content).get("tags") or []
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ImageError(f"{self.reference}: the registry's list of tags is malformed")
            yield names

    def refusal(self, method: str, reference: Reference, reply: Reply | None, told: str = "") -> Refusal:
        """The error for a reply that is not what was asked for; nothing secret is in it."""
        return self._login.refusal(method, reference, reply, hint=self.hint(reply), told=told)

    def hint(self, reply: Reply | None) -> str:
        """What to do, where it takes more than the status to say it."""
        if reply is not None and reply.status in (401, 403):
            return self._login.hint()
        return HINTS[404] if reply is not None and reply.status == 404 else ""

    def _next(self, path: str, reply: Reply) -> str | None:
        link = reply.header("Link")
        target, _, rest = link.partition(">")
        if not target.startswith("<") or "next" not in rest:
            return None
        url = joined(self.base + path, target[1:])
        if urlsplit(url).hostname != urlsplit(self.base).hostname:
            raise StoreError(f"{self.reference}: the registry's list goes on at another host")
        parts = urlsplit(url)
        return parts.path + (f"?{parts.query}" if parts.query else "")

    def _fall_back(self, error: NotTls) -> None:
        """A registry of this machine is tried in plain HTTP."""
        if self.base.startswith("http:") or not is_loopback(self._place[0]):
            raise StoreError(f"{self.reference}: {error}", hint="--plain-http, if it is to be so") from error
        _plain.add(self._place)
        self._speak("http")
