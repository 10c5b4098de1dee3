"""Answers to a registry's 401: which Authorization a request gets.

Ours is what oras-py gets wrong (oci.md §7): choosing by the challenge, since its token backend takes a Basic realm's
text for a URL and sends it the password; where a realm may be; a token for each scope; identity tokens. Its part is
asking for the token, which registry.py passes in, so that nothing of it is imported before a Bearer challenge.
Sources: RFC 9110 §11, distribution's auth/token and auth/oauth specifications.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from hpc3build.errors import StoreError
from hpc3build.reference import Reference
from hpc3build.run import Runner
from hpc3build.stores import credentials
from hpc3build.stores.access import is_loopback
from hpc3build.stores.connection import Reply
from hpc3build.stores.credentials import Credentials, Found
from hpc3build.stores.refusals import Refusal, refusal
from hpc3build.stores.transport import Client, check_private, origin

_WORD = r"[\w!#$%&'*+.^`|~-]+"
_PART = re.compile(
    rf'[\s,]*(?:(?P<name>{_WORD})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s,"]+))'
    rf"|(?P<scheme>{_WORD})(?=[\s,]|$))"
)
_TOKEN = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Challenge:
    """One scheme of a WWW-Authenticate, in lower case, with its parameters."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""
    error: str = ""


#: Asks a realm for a token: who asks, the challenge, scopes, credentials.
TokenSource = Callable[["Login", Challenge, Sequence[str], "Credentials | None"], "str | None"]


def challenges(headers: Sequence[str]) -> list[Challenge]:
    """Read the headers of a 401; one may hold several challenges."""
    found: list[dict[str, str]] = []
    for header in headers:
        position = 0
        while position < len(header) and (part := _PART.match(header, position)):
            position = part.end()
            if part["scheme"]:
                found.append({"scheme": part["scheme"].lower()})
            elif found:
                value = part["bare"] or re.sub(r"\\(.)", r"\1", part["quoted"] or "")
                found[-1].setdefault(part["name"].lower(), value)
    names = ("scheme", "realm", "service", "scope", "error")
    return [Challenge(**{name: fields[name] for name in names if name in fields}) for fields in found]


class Login:
    """The authorization of one repository. Tokens are kept by the client, apart for reading and writing."""

    def __init__(self, client: Client, reference: Reference, base: str, runner: Runner, token: TokenSource) -> None:
        self.client = client
        self.reference = reference
        self._base = base
        self._runner = runner
        self._token = token
        self._found: Found | None = None
        self._key = (*origin(base), reference.name)

    def header(self, *, write: bool) -> str:
        """What to send with the next request, empty before the first challenge."""
        tokens = self.client.tokens
        ready = tokens.get((*self._key, True)) or ("" if write else tokens.get((*self._key, False), ""))
        if ready or not write or (seen := tokens.get((*self._key, "bearer"))) is None:
            return ready
        # A challenge that was answered for reading tells where to ask; so the first write is not refused in vain.
        realm, service = json.loads(seen)
        self._bearer(Challenge("bearer", realm, service), write=True)
        return tokens.get((*self._key, True), "")

    def answer(self, headers: Sequence[str], *, sent: str, write: bool) -> bool:
        """Take a 401's challenges up. False when nothing new can be sent. Raises StoreError."""
        given = challenges(headers)
        by_scheme = {challenge.scheme: challenge for challenge in reversed(given)}
        if not {"bearer", "basic"} & set(by_scheme):
            schemes = ", ".join(sorted(by_scheme)) or "no way to log in"
            raise StoreError(
                f"{self.reference}: the registry asks for {schemes}", hint="hpc3build knows Bearer and Basic"
            )
        check_private(self._base)
        if "bearer" in by_scheme:
            return self._bearer(by_scheme["bearer"], write=write)
        found = self._credentials().credentials
        if found is None or not found.password or sent.startswith("Basic "):
            return False
        self.client.tokens[(*self._key, True)] = found.basic
        return True

    def hint(self) -> str:
        """What to do when the registry refuses."""
        found = self._credentials()
        notes = "".join(f"; {note}" for note in found.notes)
        if found.credentials is None:
            return f"no credentials were found: podman login {self.reference.registry}, or --username{notes}"
        return f"the credentials of {found.credentials.source} do not suffice{notes}"

    def refusal(
        self,
        method: str,
        reference: Reference,
        reply: Reply | None,
        *,
        hint: str,
        told: str = "",
        what: str = "the registry",
    ) -> Refusal:
        """The error for a reply; nothing secret is in it."""
        error = refusal(method, reference, reply, hint=hint, told=told, what=what)
        return Refusal(self.redact(error.message), hint=self.redact(error.hint), status=error.status, code=error.code)

    def redact(self, text: str) -> str:
        """``text`` without secrets, should a registry have repeated them."""
        known = self._found.credentials.secrets if self._found and self._found.credentials else ()
        tokens = [value.rpartition(" ")[2] for key, value in self.client.tokens.items() if key[-1] != "bearer"]
        for secret in (*known, *tokens):
            text = text.replace(secret, "…")
        return text

    def _credentials(self) -> Found:
        if self._found is None:
            access = self.client.access
            if access.username is not None:
                given = Credentials(access.username, access.password or "", source="--username")
                self._found = Found(given)
            else:
                self._found = credentials.find(self.reference.registry, self.reference.name, self._runner)
        return self._found

    def _bearer(self, challenge: Challenge, *, write: bool) -> bool:
        self._check_realm(challenge.realm)
        given = self._credentials().credentials
        scopes = challenge.scope.split() or [f"repository:{self.reference.name}:pull{',push' if write else ''}"]
        if write:  # a HEAD before a PUT is challenged for reading alone
            mine = f"repository:{self.reference.name}:"
            scopes = [f"{mine}pull,push" if scope == f"{mine}pull" else scope for scope in scopes]
        if given and given.bearer:
            token: str | None = given.bearer
        elif given and given.identity:
            token = self._exchanged(challenge, scopes, given.identity)
        else:
            token = self._token(self, challenge, scopes, given)
        if not token or not _TOKEN.fullmatch(token):
            return False
        # A scope of the registry's own choice may be wider than what the request needed.
        writes = write or any(scope.endswith((":*", ",push", "push,pull")) for scope in scopes)
        new = f"Bearer {token}"
        same = self.client.tokens.get((*self._key, writes)) == new
        self.client.tokens[(*self._key, writes)] = new
        self.client.tokens[(*self._key, "bearer")] = json.dumps([challenge.realm, challenge.service])
        if not writes:  # a token for writing that was refused for reading has run out
            self.client.tokens.pop((*self._key, True), None)
        return not same or not given or not given.bearer

    def _check_realm(self, realm: str) -> None:
        """Passwords go to an absolute HTTPS URL; to plain HTTP only from this machine to itself."""
        scheme, host, _ = origin(realm)
        here = is_loopback(host) and is_loopback(origin(self._base)[1])
        if urlsplit(realm).username is not None or (scheme != "https" and not here):
            raise StoreError(
                f"{self.reference}: the registry wants the password sent to {scheme}://{host}, which is not safe",
                hint="its token server must be an https:// URL",
            )

    def _exchanged(self, challenge: Challenge, scopes: Sequence[str], identity: str) -> str | None:
        """An access token for an identity token, which oras-py does not know."""
        form = {"grant_type": "refresh_token", "service": challenge.service, "client_id": "hpc3build"}
        content = urlencode({**form, "scope": " ".join(scopes), "refresh_token": identity}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        reply = self.client.request("POST", challenge.realm, headers, content, once=True)
        if reply is None or reply.status != 200:
            raise self.refusal("POST", self.reference, reply, hint=self.hint(), what="the token server")
        fields = parsed(reply.content)
        token = fields.get("access_token") or fields.get("token")
        return token if isinstance(token, str) else None


def parsed(content: bytes) -> dict[str, Any]:
    """A JSON object, empty when it is none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
