"""URLs as people, recipes and servers write them: which hold a password, and what of them may be shown."""

from __future__ import annotations

import re

_HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:\d*)?")
#: Of ``docker://NAME:TAG@sha256:…`` it is no password that comes before the @.
_NO_DIGEST = r"@(?!sha\d{3}:)"
WITH_PASSWORD = re.compile(rf"[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s:@]*:[^/\s@]+{_NO_DIGEST}")
_LOGIN = re.compile(
    r"([a-zA-Z][a-zA-Z0-9+.-]*://)(?:"
    r"[^\s/:@'\"<>]*:[^\s/'\"<>]*"
    r"|[^\s/:@'\"<>\[]*:(?!\d*/)[^\s'\"<>]*"  # a password may hold a /, though it should not; HOST:PORT/ is none
    r"|(?<=http://)[^\s/:@]+|(?<=https://)[^\s/:@]+"  # a name alone often is a token there
    rf"){_NO_DIGEST}"
)
_STANDS_FOR = re.compile(r"[$%{<…]")  # for a password that is put in later


def redacted(url: str) -> str:
    """A URL that may be shown: without query, fragment, user and password, which can be secrets."""
    head = url.partition("#")[0].partition("?")[0]
    place, _, path = head.partition("://")
    host, slash, rest = path.partition("/")
    host = host.rpartition("@")[2]
    if not _HOST.fullmatch(host):  # a password without its @, say
        host = "…"
    return f"{place}://{host}{slash}{rest}"[:300] if path else head[:300]


def without_logins(text: str) -> str:
    """A message that may be shown: names and passwords of the URLs in it are left out."""
    return _LOGIN.sub(r"\1…@", text) if "://" in text else text


def holds_login(url: str) -> bool:
    """Whether a URL has a password, or a name, which for HTTP often is a token; or nobody can tell."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 (raises for what is no port, as a password before a / is none)
    except ValueError:
        return True
    return parts.password is not None or (parts.scheme in ("http", "https") and "@" in parts.netloc)


def with_password(text: str) -> str | None:
    """The first URL with a password in a text, as it may be shown; None where there is none."""
    for found in WITH_PASSWORD.finditer(text):
        if not _STANDS_FOR.match(found.group().partition("://")[2].partition(":")[2]):
            return without_logins(re.split(r"[\s'\"<>]", text[found.start() :], maxsplit=1)[0])
    return None
