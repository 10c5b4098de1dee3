"""A registry in this process, faithful to distribution 2.8 (oci.md §3), with faults on demand and a record of requests.

with FakeRegistry() as registry:
    registry.add(layout)                           # a layout of tests/images.py, under NAME:tag
    registry.fail("PUT", "/manifests/", status(429, retry_after="1"), times=3)
    Registry(parse(f"{registry.host}/{NAME}:latest"))
    assert registry.seen() == ["GET manifests", …]
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fake_http import (
    BLOB,
    MANIFEST,
    REFERRERS,
    TAGS,
    UPLOAD,
    Answer,
    Faulty,
    Headers,
    Recorded,
    Served,
    digest_of,
    error,
    ranged,
    serve,
)

NAME = "hpc/app"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
LIMIT = 4 << 20


class FakeRegistry(Faulty):
    """The options are attributes and can be changed at any time."""

    def __init__(self, *, certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__(certificate)
        self.blobs: dict[str, dict[str, bytes]] = {}  # repository -> digest -> content
        self.manifests: dict[str, dict[str, tuple[str, bytes]]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.etag = True
        self.digest_header = True
        self.referrers_api = False
        self.subject_header = False
        self.heeds_if_match = False
        self.mounts = True
        self.ranges = True
        self.page = 0  # how many tags on a page at most
        self.redirect_blobs = ""  # the URL to whose path /blobs/DIGEST blobs are redirected
        self.deletes = True
        self.catalog = True
        self.basic: tuple[str, str] | None = None
        self.bearer: TokenServer | None = None
        self.challenge = ""  # in place of the right one
        self._uploads: dict[str, str] = {}

    # ---- for tests

    def add(self, layout: Path, name: str = NAME) -> None:
        """Everything of a layout, with its tags."""
        for entry in json.loads((layout / "index.json").read_text())["manifests"]:
            self._add(layout, name, entry)
            if tag := entry.get("annotations", {}).get("org.opencontainers.image.ref.name"):
                self.tags.setdefault(name, {})[tag] = entry["digest"]

    def _add(self, layout: Path, name: str, descriptor: dict[str, Any]) -> None:
        content = (layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()
        if "manifest" not in descriptor["mediaType"] and "index" not in descriptor["mediaType"]:
            self.blobs.setdefault(name, {})[descriptor["digest"]] = content
            return
        self.manifests.setdefault(name, {})[descriptor["digest"]] = (descriptor["mediaType"], content)
        document = json.loads(content)
        for child in [document.get("config"), *document.get("layers", ()), *document.get("manifests", ())]:
            if child:
                self._add(layout, name, child)

    def put(self, name: str, tag: str, raw: bytes, media_type: str) -> str:
        """Another writer's push."""
        digest = digest_of(raw)
        self.manifests.setdefault(name, {})[digest] = (media_type, raw)
        self.tags.setdefault(name, {})[tag] = digest
        return digest

    def raw(self, tag: str, name: str = NAME) -> bytes:
        return self.manifests[name][self.tags[name][tag]][1]

    # ---- answering

    def right(self, request: Recorded) -> Answer:
        """The answer of a registry without faults."""
        with self._lock:
            path = urlsplit(request.path).path
            if refused := self._refused(request):
                return refused
            if path == "/v2/_catalog":
                return self._catalog(request)
            if found := MANIFEST.fullmatch(path):
                return self._manifest(request, found["name"], found["reference"])
            if found := UPLOAD.fullmatch(path):
                return self._upload(request, found["name"], found["id"])
            if found := BLOB.fullmatch(path):
                return self._blob(request, found["name"], found["digest"])
            if found := TAGS.fullmatch(path):
                return self._tags(request, found["name"])
            if found := REFERRERS.fullmatch(path):
                return self._referrers(found["name"], found["digest"])
            return (
                Answer(200) if path == "/v2/" else Answer(404, {"Content-Type": "text/plain"}, b"404 page not found\n")
            )

    def _refused(self, request: Recorded) -> Answer | None:
        given = request.headers.get("authorization", "")
        if self.basic is not None:
            pair = base64.b64encode(":".join(self.basic).encode()).decode()
            if given != f"Basic {pair}":
                challenge = self.challenge or 'Basic realm="Registry Realm"'
                return error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge}, "authentication required")
        if self.bearer is not None:
            needed = self.bearer.needed(request)
            if not self.bearer.allows(given, needed):
                challenge = f'Bearer realm="{self.bearer.url}",service="fake",scope="{" ".join(needed)}"'
                headers = {"WWW-Authenticate": self.challenge or challenge}
                return error(401, "UNAUTHORIZED", headers, "authentication required")
        return None

    def _manifest(self, request: Recorded, name: str, reference: str) -> Answer:
        if request.method == "PUT":
            return self._put_manifest(request, name, reference)
        if request.method == "DELETE" and self.deletes:
            return self._delete_manifest(name, reference)
        if request.method not in ("GET", "HEAD"):
            return error(405, "UNSUPPORTED")
        digest = self.tags.get(name, {}).get(reference, reference)
        if digest not in self.manifests.get(name, {}):
            return error(404, "MANIFEST_UNKNOWN", message="manifest unknown")
        media_type, raw = self.manifests[name][digest]
        if media_type not in request.headers.get("accept", ""):
            return error(404, "MANIFEST_UNKNOWN", message="OCI manifest found, but accept header does not support it")
        headers = {"Content-Type": media_type} | self._digest_headers(digest)
        return Answer(200, headers, raw)

    def _delete_manifest(self, name: str, digest: str) -> Answer:
        """As distribution: by digest alone, and all tags that name it go, too."""
        if ":" not in digest:
            return error(400, "DIGEST_INVALID")
        if self.manifests.get(name, {}).pop(digest, None) is None:
            return error(404, "MANIFEST_UNKNOWN")
        self.tags[name] = {tag: named for tag, named in self.tags.get(name, {}).items() if named != digest}
        return Answer(202)

    def _digest_headers(self, digest: str) -> Headers:
        headers = {"Docker-Content-Digest": digest} if self.digest_header else {}
        return headers | ({"ETag": f'"{digest}"'} if self.etag else {})

    def _put_manifest(self, request: Recorded, name: str, reference: str) -> Answer:
        kind, raw = request.headers.get("content-type", ""), request.body
        if len(raw) > LIMIT:  # 2.8 answers 400, not 413
            return error(400, "MANIFEST_INVALID", message="http: request body too large")
        try:
            document = json.loads(raw)
        except ValueError:
            return error(400, "MANIFEST_INVALID")
        if document.get("mediaType", kind) != kind or any(
            not isinstance(value, str) for value in (document.get("annotations") or {}).values()
        ):
            return error(400, "MANIFEST_INVALID", message="manifest invalid")
        for child in [document.get("config"), *document.get("layers", ())]:
            if child and child["digest"] not in self.blobs.get(name, {}):
                return error(400, "MANIFEST_BLOB_UNKNOWN", message="blob unknown to registry")
        for child in document.get("manifests", ()):
            if child["digest"] not in self.manifests.get(name, {}):
                return error(400, "MANIFEST_BLOB_UNKNOWN", message="blob unknown to registry")
        digest = digest_of(raw, reference if ":" in reference else "sha256:")
        now = self.tags.get(name, {}).get(reference)
        wanted = request.headers.get("if-match")
        if self.heeds_if_match and wanted and wanted != f'"{now}"':
            return error(412, "PRECONDITION_FAILED")
        if ":" in reference and reference != digest:
            return error(400, "DIGEST_INVALID")
        self.manifests.setdefault(name, {})[digest] = (kind, raw)
        if ":" not in reference:
            self.tags.setdefault(name, {})[reference] = digest
        headers = {"Location": f"/v2/{name}/manifests/{digest}"}
        headers |= {"Docker-Content-Digest": digest} if self.digest_header else {}
        if self.subject_header and document.get("subject"):
            headers["OCI-Subject"] = document["subject"]["digest"]
        return Answer(201, headers)

    def _blob(self, request: Recorded, name: str, digest: str) -> Answer:
        content = self.blobs.get(name, {}).get(digest)
        if content is None:
            return error(404, "BLOB_UNKNOWN", message="blob unknown to registry")
        if self.redirect_blobs and request.method == "GET":
            return Answer(307, {"Location": f"{self.redirect_blobs}/blobs/{digest}?X-Signature=s3cret-signature"})
        return ranged(request, content, self.ranges)

    def _upload(self, request: Recorded, name: str, upload: str) -> Answer:
        query = parse_qs(urlsplit(request.path).query)
        if request.method == "POST":
            digest, source = query.get("mount", [""])[0], query.get("from", [""])[0]
            if self.mounts and digest in self.blobs.get(source, {}):
                self.blobs.setdefault(name, {})[digest] = self.blobs[source][digest]
                return Answer(201, {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})
            upload = str(uuid.uuid4())
            self._uploads[upload] = name
            return Answer(202, {"Location": f"/v2/{name}/blobs/uploads/{upload}?_state=abc"})
        if self._uploads.pop(upload, None) != name:
            return error(404, "BLOB_UPLOAD_UNKNOWN")
        if request.method == "DELETE":
            return Answer(204)
        digest = query.get("digest", ["sha256:"])[0]
        if digest_of(request.body, digest) != digest:
            return error(400, "DIGEST_INVALID", message="provided digest did not match uploaded content")
        self.blobs.setdefault(name, {})[digest] = request.body
        return Answer(201, {"Docker-Content-Digest": digest})

    def _catalog(self, request: Recorded) -> Answer:
        if not self.catalog:
            return error(404, "UNSUPPORTED")
        query = parse_qs(urlsplit(request.path).query)
        names = sorted(name for name in self.manifests if name > query.get("last", [""])[0])
        size, headers = int(query.get("n", ["100"])[0]), {"Content-Type": "application/json"}
        if self.page:
            size = min(size, self.page)
        if len(names) > size:
            names = names[:size]
            headers["Link"] = f'</v2/_catalog?last={names[-1]}&n={size}>; rel="next"'
        return Answer(200, headers, json.dumps({"repositories": names}).encode())

    def _tags(self, request: Recorded, name: str) -> Answer:
        if name not in self.manifests:
            return error(404, "NAME_UNKNOWN", message="repository name not known to registry")
        tags = sorted(self.tags.get(name, {}))
        last = parse_qs(urlsplit(request.path).query).get("last", [""])[0]
        tags = [tag for tag in tags if tag > last]
        headers = {"Content-Type": "application/json"}
        if self.page and len(tags) > self.page:
            tags = tags[: self.page]
            headers["Link"] = f'</v2/{name}/tags/list?last={tags[-1]}&n={self.page}>; rel="next"'
        return Answer(200, headers, json.dumps({"name": name, "tags": tags or None}).encode())

    def _referrers(self, name: str, digest: str) -> Answer:
        if not self.referrers_api:
            return Answer(404, {"Content-Type": "text/plain"}, b"404 page not found\n")
        entries = []
        for found, (kind, raw) in self.manifests.get(name, {}).items():
            document = json.loads(raw)
            if (document.get("subject") or {}).get("digest") == digest:
                artifact = document.get("artifactType") or document.get("config", {}).get("mediaType")
                entries.append({"mediaType": kind, "digest": found, "size": len(raw), "artifactType": artifact})
        body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
        return Answer(200, {"Content-Type": OCI_INDEX}, body)


class TokenServer(Served):
    """Gives tokens for scopes; ``users`` None lets anybody read."""

    def __init__(self, users: dict[str, str] | None = None, *, certificate: tuple[Path, Path] | None = None) -> None:
        self.users = users
        self.identity = ""  # a refresh token that is good
        self.requests: list[Recorded] = []
        self.granted: dict[str, frozenset[str]] = {}
        self._server = serve(self.handle, certificate)
        self._scheme = "https" if certificate else "http"

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}/token"

    def expire(self) -> None:
        """No token holds any more."""
        self.granted.clear()

    def needed(self, request: Recorded) -> list[str]:
        """The scopes that distribution asks for."""
        parts = urlsplit(request.path)
        name = re.split(r"/(?:manifests|blobs|tags|referrers)/", parts.path)[0].removeprefix("/v2/")
        scopes = [f"repository:{name}:{'pull' if request.method in ('GET', 'HEAD') else 'pull,push'}"]
        scopes += [f"repository:{source}:pull" for source in parse_qs(parts.query).get("from", ())]
        return scopes

    def allows(self, authorization: str, needed: list[str]) -> bool:
        granted = self.granted.get(authorization.removeprefix("Bearer "), frozenset())
        return all(scope in granted or (scope.endswith(":pull") and f"{scope},push" in granted) for scope in needed)

    def handle(self, request: Recorded) -> Answer:
        self.requests.append(request)
        if request.method == "POST":
            form = parse_qs(request.body.decode())
            if form.get("refresh_token") != [self.identity] or form.get("grant_type") != ["refresh_token"]:
                return error(401, "UNAUTHORIZED")
            return self._grant(form.get("scope", [""])[0].split(), "access_token")
        given = request.headers.get("authorization", "")
        if given:
            user, _, password = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
            if (self.users or {}).get(user) != password:
                return error(401, "UNAUTHORIZED", message=f"wrong: {given}")
        scopes = parse_qs(urlsplit(request.path).query).get("scope", [])
        if not given:
            scopes = [] if self.users is not None else [scope.replace("pull,push", "pull") for scope in scopes]
        return self._grant(scopes, "token")

    def _grant(self, scopes: list[str], key: str) -> Answer:
        token = f"t0ken-{uuid.uuid4()}"
        self.granted[token] = frozenset(scopes)
        return Answer(200, {"Content-Type": "application/json"}, json.dumps({key: token, "expires_in": 60}).encode())
