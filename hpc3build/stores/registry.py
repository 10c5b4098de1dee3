"""A repository of a registry (distribution-spec 1.1): raw bytes, verified, and the tag written last.

One manifest is read by GET and replaced by HEAD and PUT, three requests. The HEAD is sent just before the PUT: no
tested registry heeds If-Match (oci.md §3), so what another client writes within that one round trip is overwritten.
The only import of oras, made when a registry asks for a token: it costs 0.09 s with requests.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, BinaryIO, cast
from urllib.parse import urlencode

from hpc3build.errors import ImageError, StoreError, TagMoved
from hpc3build.jsonedit import MAX_BYTES
from hpc3build.oci import INDEXES, MANIFESTS, Descriptor, Manifest, check_digest, digest_of, verify
from hpc3build.reference import Reference, is_digest
from hpc3build.run import Runner, run
from hpc3build.stores import Store, registry_referrers
from hpc3build.stores.access import Access
from hpc3build.stores.connection import Content, Reply
from hpc3build.stores.credentials import Credentials
from hpc3build.stores.files import verified
from hpc3build.stores.login import Challenge, Login, parsed
from hpc3build.stores.referrers import About
from hpc3build.stores.refusals import Interrupted, Refusal, problem
from hpc3build.stores.resumed import Resumed
from hpc3build.stores.session import Session
from hpc3build.stores.transport import AGAIN, Client

ACCEPT = ", ".join(sorted(MANIFESTS | INDEXES))
UPLOADS = 3  # how often a blob's upload is begun anew
SETTLE = 0.02  # seconds before a manifest is read back
_DONE = (200, 201, 202, 204)
_ALMOST = 1 << 20  # a manifest of this size may be more than a registry takes
_PUTS = 3  # of a manifest that the registry finds another digest of


class Registry:
    """A store in one repository. Of one thread, as its client is; ``client`` shares connections and tokens."""

    def __init__(
        self,
        reference: Reference,
        access: Access | None = None,
        *,
        runner: Runner = run,
        client: Client | None = None,
        read_back: bool = False,
    ) -> None:
        self.reference = reference
        self._own = client is None
        self._client = client or Client(access)
        self._runner = runner
        self._read_back = read_back
        self._listed: set[str] = set()  # manifests with a subject that the registry listed itself
        self.session = Session(reference, self._client, runner, _token)

    # ---- reading

    def manifest(self, reference: str | None = None) -> Manifest:
        """See Store; None is what the store was opened for."""
        reference = reference or self.reference.digest or self.reference.tag or "latest"
        named = self.session.named(reference)
        reply = self.session.ask("GET", self.session.path("manifests", reference), {"Accept": ACCEPT}, limit=MAX_BYTES)
        if reply.status != 200:
            raise self.session.refusal("GET", named, reply)
        if len(reply.content) > MAX_BYTES:
            raise ImageError(f"{named}: the manifest is larger than {MAX_BYTES >> 20} MiB")
        if told := reply.header("Docker-Content-Digest"):
            verify(reply.content, check_digest(told, f"{named}: the registry's answer"), str(named))
        media_type = reply.header("Content-Type").partition(";")[0].strip() or None
        return Manifest.parse(
            reply.content, media_type, reference if is_digest(reference) else told or None, what=str(named)
        )

    def current(self, tag: str, *, write: bool = False) -> str | None:
        """The digest that ``tag`` names, None where there is no such tag. ``write``: a PUT follows."""
        return self._current(tag, write=write)[0]

    @contextlib.contextmanager
    def blob(self, digest: str) -> Iterator[BinaryIO]:
        """See Store; a stream that is cut is resumed."""
        check_digest(digest, str(self.reference))
        with contextlib.closing(Resumed(lambda position: self._open(digest, position))) as stream:
            yield verified(cast(BinaryIO, stream), digest)

    def exists(self, digest: str) -> bool:
        """Whether the repository has the blob."""
        check_digest(digest, str(self.reference))
        reply = self.session.ask("HEAD", self.session.path("blobs", digest))
        if reply.status in (200, 404):
            return reply.status == 200
        try:  # some registries refuse HEAD
            self._open(digest, 0).close()
        except Refusal as error:
            if error.status == 404:
                return False
            raise
        return True

    def tags(self) -> tuple[str, ...]:
        """See Store. Raises StoreError for a repository that is not there."""
        return tuple(sorted({name for names in self.session.tag_pages() for name in names}))

    def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """See Referrers; by the registry's API, or else the tag that stands in for it."""
        return registry_referrers.listed(self, self.session, check_digest(digest, str(self.reference)))

    def signature_tags(self, digest: str) -> tuple[str, ...]:
        """See Referrers."""
        return registry_referrers.signature_tags(self, self.session, check_digest(digest, str(self.reference)))

    def survey(self, digests: Iterable[str]) -> tuple[About, ...]:
        """See Referrers; mostly two requests, which do not wait for each other."""
        return registry_referrers.survey(self, self.session, tuple(digests))

    @contextlib.contextmanager
    def beside(self) -> Iterator[Registry]:
        """The same repository over connections of its own, for another thread."""
        with self._client.beside() as client:
            yield Registry(self.reference, runner=self._runner, client=client)

    def list_referrer(self, manifest: Manifest, *, replaces: str | None = None) -> str | None:
        """See Referrers; a registry that answered OCI-Subject to the PUT lists by itself."""
        if manifest.digest in self._listed:
            return None
        return registry_referrers.enter(self, manifest, replaces)

    # ---- writing

    def put_blob(self, content: bytes, digest: str | None = None) -> str:
        """See Store; a blob that is there is not sent."""
        digest = digest or digest_of(content)
        if not self.exists(digest):
            self._upload(digest, len(content), lambda: contextlib.nullcontext(content))
        return digest

    def mount(self, digest: str, repository: str) -> bool:
        """Take a blob from another repository of this registry; False where the registry does not do that."""
        location = self._begin(check_digest(digest, str(self.reference)), repository)
        if location is not None:
            with contextlib.suppress(StoreError):
                self.session.send("DELETE", location, write=True, once=True)
        return location is None

    def copy_blob(self, blob: Descriptor, source: Store) -> None:
        """Bring a blob here: mounted where it lies in this registry, else streamed; one that is there stays."""
        if self.exists(blob.digest):
            return
        near = isinstance(source, Registry) and source.session.base == self.session.base
        repository = source.reference.name if isinstance(source, Registry) and near else None
        self._upload(blob.digest, blob.size, lambda: source.blob(blob.digest), repository)

    def put_manifest(self, manifest: Manifest, tag: str | None, *, expect: str | None = None) -> None:
        """See Store."""
        named = self.reference.at(manifest.digest) if tag is None else self.reference.with_tag(tag)
        where = manifest.digest if tag is None else tag
        if manifest.size > MAX_BYTES:
            raise StoreError(
                f"{named}: the manifest has {manifest.size} bytes, more than the {MAX_BYTES} that registries take",
                hint="shorten or remove annotations",
            )
        expect = expect if tag is not None else None
        headers = {"Content-Type": manifest.media_type}
        if expect is not None:
            headers["If-Match"] = self._unmoved(where, expect)

        def done() -> bool:
            # The write may have happened though its answer was lost, and then others may have written.
            now = self._current(where, write=True)[0]
            if manifest.is_named(now):
                return True
            if expect is not None and not self._is(where, now, expect):
                raise _moved(named, now, expect)
            return False

        began = time.monotonic()
        reply = self._put(self.session.path("manifests", where), headers, manifest.raw, done)
        if reply is not None:
            self._check_written(named, manifest, reply, expect)
        if self._read_back:
            if tag is not None:
                # Who saw the old tag before our PUT overwrites ours within one more round trip: look after that.
                self._client.sleep(SETTLE + 2 * (time.monotonic() - began))
            if (now := self.manifest(where)).raw != manifest.raw:
                raise _moved(named, now.digest, manifest.digest)
        if reply is not None and reply.header("OCI-Subject"):
            self._listed.add(manifest.digest)

    def close(self) -> None:
        """Close the connections, unless they are another's."""
        if self._own:
            self._client.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- manifests

    def _current(self, tag: str, *, write: bool) -> tuple[str | None, str]:
        """Digest and ETag of what ``tag`` names."""
        path = self.session.path("manifests", tag)
        reply = self.session.send("HEAD", path, {"Accept": ACCEPT}, write=write)
        if reply is not None and reply.status == 404:
            return None, ""
        digest = reply.header("Docker-Content-Digest") if reply is not None and reply.status == 200 else ""
        if reply is not None and is_digest(digest):
            return digest, reply.header("ETag")
        try:  # HEAD refused, or without a digest; GET also tells why something is refused
            return self.manifest(tag).digest, ""
        except Refusal as error:
            if error.status == 404:
                return None, ""
            raise

    def _unmoved(self, tag: str, expect: str) -> str:
        """The ETag for If-Match of a tag that is still what it was."""
        digest, etag = self._current(tag, write=True)
        if not self._is(tag, digest, expect):
            raise _moved(self.session.named(tag), digest, expect)
        return etag or f'"{digest}"'

    def _is(self, tag: str, digest: str | None, expect: str) -> bool:
        """Whether ``digest``, which ``tag`` has, names the same as ``expect``; another algorithm's is computed."""
        if digest is None or digest.partition(":")[0] == expect.partition(":")[0]:
            return digest == expect
        return self.manifest(tag).is_named(expect)

    def _put(self, path: str, headers: Mapping[str, str], raw: bytes, done: Callable[[], bool]) -> Reply | None:
        for attempt in range(1, _PUTS + 1):
            reply = self.session.send("PUT", path, headers, raw, write=True, before_again=done)
            if reply is None or reply.status != 400 or problem(reply)[0] != "DIGEST_INVALID":
                break
            # Distribution 2.8 read a blob's link that another upload of the same blob was just writing anew.
            if attempt < _PUTS:
                self._client.sleep(self._client.pause(attempt, reply))
                if done():
                    return None
        return reply

    def _check_written(self, named: Reference, manifest: Manifest, reply: Reply, expect: str | None) -> None:
        if reply.status == 412 and expect is not None:
            raise _moved(named, None, expect)
        if reply.status not in _DONE:
            told = ""
            if reply.status in (400, 413) and manifest.size > _ALMOST:
                told = f"perhaps for its size of {manifest.size} bytes: many registries take less than 4 MiB"
            raise self.session.refusal("PUT", named, reply, told)
        digest = reply.header("Docker-Content-Digest")
        if not digest:  # else the answer itself is the check, and saves a request
            digest = self.current(named.tag or manifest.digest, write=True) or "nothing"
        if not manifest.is_named(digest):
            raise StoreError(
                f"{named}: the registry stored {digest}, not the {manifest.digest} that was sent",
                hint="somebody else wrote it meanwhile, or the registry alters manifests; look at it",
            )

    # ---- blobs

    def _open(self, digest: str, position: int) -> Reply:
        headers = {"Range": f"bytes={position}-"} if position else {}
        reply = self.session.send("GET", self.session.path("blobs", digest), headers, stream=True)
        if reply is None or reply.status not in (200, 206):
            raise self.session.refusal("GET", self.reference.at(digest), reply)
        if position and reply.status == 200:  # the registry gives no parts
            while position and (part := reply.read(min(position, 1 << 18))):
                position -= len(part)
        elif position and not reply.header("Content-Range").startswith(f"bytes {position}-"):
            reply.close()
            raise ImageError(f"{self.reference.at(digest)}: the registry sent another part than asked for")
        return reply

    def _begin(self, digest: str, repository: str | None) -> str | None:
        """Where to send a blob; None when it was mounted from ``repository``."""
        path = self.session.path("blobs", "uploads") + "/"
        if repository is not None:
            path += f"?{urlencode({'mount': digest, 'from': repository})}"
        # Sent again after faults: of an upload that is begun twice, one is left to the registry's own cleaning.
        reply = self.session.send("POST", path, {"Content-Length": "0"}, write=True)
        if reply is not None and reply.status == 201 and repository is not None:
            return None
        if reply is None or reply.status != 202 or not reply.header("Location"):
            raise self.session.refusal("POST", self.reference, reply)
        return self.session.near(reply.header("Location"))

    def _upload(
        self, digest: str, size: int, opened: Callable[[], AbstractContextManager[Content]], source: str | None = None
    ) -> None:
        """Begin, send, and begin anew after a fault: what an upload holds after one is not known."""
        for attempt in range(1, UPLOADS + 1):
            reply = None
            try:
                location = self._begin(digest, source)
                if location is None:
                    return
                location += ("&" if "?" in location else "?") + urlencode({"digest": digest})
                headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
                with opened() as content:
                    reply = self.session.send("PUT", location, headers, content, write=True, once=True)
            except Interrupted:
                if attempt == UPLOADS:
                    raise
            if reply is not None and reply.status in _DONE:
                return
            if reply is not None and (reply.status not in AGAIN | {401, 404, 416} or attempt == UPLOADS):
                raise self.session.refusal("PUT", self.reference.at(digest), reply)
            self._client.sleep(self._client.pause(attempt, reply))
            if self.exists(digest):
                return


def _moved(named: Reference, now: str | None, expect: str) -> TagMoved:
    return TagMoved(f"{named} is {now or 'gone or another'} now, it was {expect}")


class _Answer:
    """What oras looks at of an answer; other answers than 200 were raised before."""

    status_code = 200

    def __init__(self, reply: Reply) -> None:
        self.text = ""
        self._content = reply.content

    def json(self) -> dict[str, Any]:
        return parsed(self._content)


class _OrasSession:
    """In place of requests' session: our time limits, certificates and repetitions, and errors that say why."""

    def __init__(self, login: Login) -> None:
        self._login = login

    def get(
        self, url: str, headers: Mapping[str, str] | None = None, params: Any = None, verify: Any = None
    ) -> _Answer:
        sent = {"Accept": "application/json", **(headers or {})}
        authorization = sent.pop("Authorization", "")
        # Several scopes are several parameters (distribution's token specification).
        url += ("&" if "?" in url else "?") + urlencode(params or {}, doseq=True)
        reply = self._login.client.request("GET", url, sent, authorization=authorization)
        if reply is None or reply.status != 200:
            login = self._login
            raise login.refusal("GET", login.reference, reply, hint=login.hint(), what="the token server")
        return _Answer(reply)

    def request(self, method: str, url: str, params: Any = None, verify: Any = None) -> _Answer:
        return self.get(url, params=params)


def _token(login: Login, challenge: Challenge, scopes: Sequence[str], given: Credentials | None) -> str | None:
    """Ask a realm for a token, by oras-py."""
    from oras.auth import get_auth_backend
    from oras.auth.utils import authHeader

    session = _OrasSession(login)
    backend = get_auth_backend("token", session=session)
    asked = authHeader({"realm": challenge.realm, "service": challenge.service, "scope": list(scopes)})
    if given is None or not given.password:
        token = backend.request_anonymous_token(asked)
    else:
        backend.set_basic_auth(given.username, given.password)
        token = backend.request_token(asked)
    return token if isinstance(token, str) else None
