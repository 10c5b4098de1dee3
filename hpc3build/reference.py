"""Image references as skopeo and podman write them, read by grammar alone: no disk, no network.

Sources: containers-transports(5) for the transports, the distribution project's ``reference`` grammar for names.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from dataclasses import dataclass

from hpc3build.errors import BadReference

DOCKER, OCI, ARCHIVE = "docker", "oci", "oci-archive"
STORAGE, DAEMON = "containers-storage", "docker-daemon"
_TRANSPORTS = (OCI, ARCHIVE, STORAGE, DAEMON)
_PREFIXES = (f"{DOCKER}://", *(f"{transport}:" for transport in _TRANSPORTS))

FORMS = (
    "docker://HOST[:PORT]/NAME[:TAG][@DIGEST] (the prefix may be left out), oci:DIR[:TAG], oci-archive:FILE[:TAG], "
    "containers-storage:NAME[:TAG] or docker-daemon:NAME[:TAG]"
)
MAX_TEXT = 4096  # PATH_MAX; names are held to 255 below
MAX_NAME = 255
#: skopeo's other transports: without this, ``dir:x`` would be taken for the image dir with the tag x.
OTHER_TRANSPORTS = frozenset({"dir", "docker-archive", "tarball", "sif", "ostree", "atomic", "http", "https", "oras"})
#: Other tools' words for a registry.
_REGISTRY_WORDS = ("http", "https", "oras")

#: Names that end so are those of files: no image of Docker Hub is asked for by one that was mistyped.
_FILES = (
    *(".lock", ".json", ".jsonl", ".yaml", ".yml", ".eb", ".closure", ".tar", ".tgz", ".gz", ".sif", ".simg", ".sqsh"),
    *(".img", ".md", ".txt", ".rst", ".toml", ".log", ".out", ".sh", ".py", ".spec", ".def"),
)

_HEX = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"(?P<algorithm>sha256|sha512):(?P<hex>[0-9a-f]+)")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# A layout's tags are its own; skopeo writes whole names there (oci:DIR:quay.io/x/y:1).
_LAYOUT_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,254}")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123: 63 at most, or no name server is asked
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """Where an image is.

    ``name`` is the repository (docker, containers-storage, docker-daemon) or the path (oci, oci-archive), empty where
    ``image_id`` names the image. ``registry`` is HOST[:PORT]; it is empty for paths, and for short names in a local
    store, which the store looks up. ``storage`` is the ``driver@root+run`` part of containers-storage.
    """

    transport: str
    name: str
    registry: str = ""
    tag: str | None = None
    digest: str | None = None
    image_id: str | None = None
    storage: str = ""

    @property
    def is_path(self) -> bool:
        """Whether ``name`` is a path."""
        return self.transport in (OCI, ARCHIVE)

    @property
    def host(self) -> str:
        """The registry without port and brackets."""
        return self._place[0]

    @property
    def port(self) -> int | None:
        """The registry's port, None where it names none."""
        return self._place[1]

    @property
    def _place(self) -> tuple[str, int | None]:
        host, colon, port = self.registry.rpartition(":")
        named = bool(colon) and not port.endswith("]")
        return (host if named else self.registry).strip("[]"), int(port) if named else None

    @property
    def repository(self) -> str:
        """Registry and name, without tag and digest."""
        return f"{self.registry}/{self.name}" if self.registry else self.name

    def at(self, digest: str) -> Reference:
        """The same repository at ``digest``, without a tag. Raises BadReference."""
        if not is_digest(digest):
            raise BadReference(f"{digest!r} is not a digest", hint="sha256: and 64 hexadecimal digits")
        return dataclasses.replace(self, tag=None, digest=digest, image_id=None)

    def with_tag(self, tag: str) -> Reference:
        """The same repository under ``tag``, without a digest. Raises BadReference."""
        _check_tag(tag, tag, _LAYOUT_TAG if self.is_path else _TAG)
        return dataclasses.replace(self, tag=tag, digest=None)

    def __str__(self) -> str:
        """The full form, which ``parse`` reads back to an equal value."""
        prefix = "docker://" if self.transport == DOCKER else f"{self.transport}:"
        if self.storage:
            prefix += f"[{self.storage}]"
        if self.image_id is not None:
            return f"{prefix}sha256:{self.image_id}" if self.transport == DAEMON else f"{prefix}@{self.image_id}"
        tag = f":{self.tag}" if self.tag else ""
        return f"{prefix}{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Read a reference. Raises BadReference, whose hint lists the accepted forms.

    Names without tag and digest get the tag ``latest``; paths do not. ``debian:12`` is
    docker://docker.io/library/debian:12.
    """
    _check_text(text)
    transport, colon, rest = text.partition(":")
    if colon and transport in (OCI, ARCHIVE):
        return _path(text, transport, rest)
    if colon and transport == STORAGE:
        return _storage(text, rest)
    if colon and transport == DAEMON:
        digest = _DIGEST.fullmatch(rest)
        if digest and digest["algorithm"] == "sha256" and is_digest(rest):
            return Reference(DAEMON, "", image_id=digest["hex"])
        return _named(text, DAEMON, rest)
    if colon and transport in OTHER_TRANSPORTS:
        advice = "" if transport in _REGISTRY_WORDS else f"skopeo copy {_short(text)} oci:DIR:TAG"
        raise _bad(text, f"the transport {transport}: is not supported", advice)
    # Of one word alone only what is nearly oci: docker, and dockr, may be an image's name.
    likely = ("-" in transport and "/" not in transport) or (len(transport) < 5 and _near(transport) == OCI)
    if colon and likely and (advice := _meant(text)):
        raise _bad(text, f"there is no transport {transport}:", f"{advice} docker://{text} is a registry's")
    like_a_file = _like_a_file(text)
    try:
        found = _named(text, DOCKER, text.removeprefix("docker://"))
    except BadReference:
        if like_a_file:
            raise _bad(text, "it looks like a file", "is it there?") from None
        raise
    if like_a_file:
        raise _bad(text, "it looks like a file", f"is it there? docker://{text} is an image of Docker Hub")
    return found


def of_base(text: str) -> Reference:
    """A base image, by a name that FROM of a Containerfile takes. Raises BadReference."""
    advice = ""
    if text.startswith("docker://"):
        advice = "; write it without docker://"
    elif has_transport(text):
        advice = f"; podman pull {_short(text)} brings it, and podman tag gives it such a name"
    else:
        try:
            return parse(f"docker://{text}")
        except BadReference:
            pass
    raise BadReference(
        f"{_short(text)!r} is not the name of a base image",
        hint=f"FROM takes [HOST[:PORT]/]NAME[:TAG][@DIGEST]{advice}",
    )


def has_transport(text: str) -> bool:
    """Whether ``text`` begins as a reference that names its transport."""
    return text.startswith(_PREFIXES)


def is_digest(text: str) -> bool:
    """Whether ``text`` is a sha256 or sha512 digest in full."""
    found = _DIGEST.fullmatch(text)
    return found is not None and len(found["hex"]) == _HEX[found["algorithm"]]


def _check_text(text: str) -> None:
    if not text:
        raise _bad(text, "it is empty")
    if len(text) > MAX_TEXT:
        raise _bad(text, f"it is {len(text)} characters long, more than {MAX_TEXT}")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise _bad(text, "it holds a control character")
    if text != text.strip():
        raise _bad(text, "it begins or ends with a blank")
    if text.startswith("-"):
        raise _bad(text, "it begins with -, like an option")


def _path(text: str, transport: str, rest: str) -> Reference:
    rest, digest = _split_digest(text, rest, strict=False)
    path, colon, tag = rest.partition(":")  # the first colon, as skopeo splits
    if not path:
        raise _bad(text, "it names no path")
    if path.startswith("-"):
        raise _bad(text, "the path begins with -, like an option", f"write {transport}:./{_short(path)}")
    if colon:
        _check_tag(text, tag, _LAYOUT_TAG)
    return Reference(transport, path, tag=tag if colon else None, digest=digest)


def _storage(text: str, rest: str) -> Reference:
    storage = ""
    if rest.startswith("["):
        storage, bracket, rest = rest[1:].partition("]")
        if not bracket or not storage:
            raise _bad(text, "the [driver@root+run] part is empty or has no end")
    image_id = rest.removeprefix("@")
    if _IMAGE_ID.fullmatch(image_id):
        return Reference(STORAGE, "", image_id=image_id, storage=storage)
    return dataclasses.replace(_named(text, STORAGE, rest), storage=storage)


def _named(text: str, transport: str, rest: str) -> Reference:
    if re.match(r"\.{0,2}/", text):
        raise _bad(text, "it looks like a path", f"a layout directory is written oci:{_short(text)}")
    rest, digest = _split_digest(text, rest, strict=True)
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon:
        _check_tag(text, tag, _TAG)
    registry, name = _split_registry(head + slash + last, transport)
    if len(f"{registry}/{name}") > MAX_NAME:
        raise _bad(text, f"the name is longer than {MAX_NAME} characters")
    if registry and not _REGISTRY.fullmatch(registry):
        raise _bad(text, f"{_short(registry)!r} is not a registry's HOST[:PORT]")
    for component in name.split("/"):
        if not _COMPONENT.fullmatch(component):
            raise _bad_component(text, component)
    return Reference(transport, name, registry, tag if colon else None if digest else "latest", digest)


def _split_registry(name: str, transport: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and (any(sign in first for sign in ".:[") or first == "localhost" or first != first.lower()):
        registry, name = first, rest
    else:
        # Short names of a local store are that store's to look up (podman: localhost first, then docker.io).
        registry = "" if transport == STORAGE else "docker.io"
    if registry == "index.docker.io":
        registry = "docker.io"
    if registry == "docker.io" and "/" not in name:
        name = f"library/{name}"
    return registry, name


def _split_digest(text: str, rest: str, *, strict: bool) -> tuple[str, str | None]:
    head, at, digest = rest.rpartition("@")
    if not at:
        return rest, None
    if is_digest(digest):
        return head, digest
    if strict or _DIGEST.fullmatch(digest):  # a path may hold an @ of its own
        raise _bad(text, f"{_short(digest)!r} is not a digest (sha256: and 64 hexadecimal digits)")
    return rest, None


def _check_tag(text: str, tag: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(tag):
        raise _bad(text, f"{_short(tag)!r} is not a tag" if tag else "the tag after the : is empty")


def _bad_component(text: str, component: str) -> BadReference:
    if not component:
        return _bad(text, "a part of the name is empty")
    if component != component.lower():
        return _bad(text, f"{_short(component)!r}: names are lower-case")
    return _bad(text, f"{_short(component)!r} is not a name")


def _bad(text: str, why: str, advice: str = "") -> BadReference:
    message = f"{_short(text)!r} is not an image reference: {why}"
    advice = advice or _meant(text)
    return BadReference(message, hint=f"{advice}; accepted are {FORMS}" if advice else f"accepted are {FORMS}")


def _meant(text: str) -> str:
    """What a text with a misspelt transport may mean, as a question; else empty."""
    transport, colon, rest = text.partition(":")
    if not colon or transport in _TRANSPORTS or text.startswith("docker://"):
        return ""
    near = DOCKER if transport in _REGISTRY_WORDS else _near(transport)
    if not near:
        return ""
    meant = f"{DOCKER}://{rest.lstrip('/')}" if near == DOCKER else f"{near}:{rest}"
    try:
        parse(meant)
    except BadReference:
        return ""
    return f"did you mean {meant}?"


def _like_a_file(text: str) -> bool:
    """Whether a name of Docker Hub's that says neither that nor a tag ends as files do, in any case."""
    if ":" in text or "docker.io/" in text or not text.lower().endswith(_FILES):
        return False
    return _split_registry(text, DOCKER)[0] == "docker.io"


def _near(word: str) -> str:
    """The transport that is spelt nearly so, else empty."""
    import difflib

    if sorted(word) == sorted(OCI):  # two letters change places: difflib finds little that is alike in three
        return OCI
    return next(iter(difflib.get_close_matches(word, (DOCKER, *_TRANSPORTS), n=1, cutoff=0.8)), "")


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:100] + "…"
