"""What refers to a manifest in a registry: by its referrers API, or by the tag that stands in for it.

Source: distribution-spec 1.1, "Listing Referrers" and "Referrers Tag Schema".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpc3build.errors import ImageError, TagMoved
from hpc3build.oci import OCI_INDEX, Descriptor, Manifest
from hpc3build.stores.beside import Later
from hpc3build.stores.referrers import SIGNATURES, About, fallback_tag, with_referrer
from hpc3build.stores.refusals import Refusal
from hpc3build.stores.transport import origin

if TYPE_CHECKING:
    from hpc3build.stores.registry import Registry
    from hpc3build.stores.session import Session

_TRIES = 4
_LIST_SERVES = 50
#: Answers of registries without the API that mean more than "not here".
_REAL = frozenset({401, 403, 408, 429, 500, 502, 503, 504})


def listed(registry: Registry, session: Session, digest: str) -> tuple[Descriptor, ...]:
    """Descriptors of the referrers of ``digest``, none where there are none."""
    found = _by_api(registry, session, digest)
    return _by_tag(registry, digest) if found is None else found


def signature_tags(registry: Registry, session: Session, digest: str) -> tuple[str, ...]:
    """cosign's tags for ``digest``: one request where all tags fit a page, else one for each."""
    return _signatures(registry, digest, _read_tags(session))


def survey(registry: Registry, session: Session, digests: Sequence[str]) -> tuple[About, ...]:
    """Referrers and cosign's tags. The list of tags is asked for beside the API; where that is lacking, it also tells
    whether there is a tag that stands in."""

    def list_tags() -> list[str] | None:
        with registry.beside() as other:
            return _all_tags(other.session)

    later = Later(list_tags)
    by_api = [_by_api(registry, session, digest) for digest in digests]
    tags = later.result()
    told = []
    for digest, found in zip(digests, by_api, strict=True):
        if found is None:
            found = _by_tag(registry, digest) if tags is None or fallback_tag(digest) in tags else ()
        told.append(About(digest, found, _signatures(registry, digest, tags)))
    return tuple(about for about in told if about.referrers or about.tags)


def _by_api(registry: Registry, session: Session, digest: str) -> tuple[Descriptor, ...] | None:
    """None where the registry lacks the API."""
    found: list[Descriptor] = []
    lacking = session.client.lacking_referrers
    if origin(session.base) in lacking:
        return None
    for reply in session.pages(f"referrers/{digest}", accept=OCI_INDEX):
        if reply.status in _REAL:
            raise session.refusal("GET", registry.reference, reply)
        if reply.status != 200:
            lacking.add(origin(session.base))
            return None
        found += Manifest.parse(reply.content, OCI_INDEX).descriptors
    return tuple(found)


def _by_tag(registry: Registry, digest: str) -> tuple[Descriptor, ...]:
    stand_in = _list(registry, fallback_tag(digest))
    return stand_in.descriptors if stand_in else ()


def _all_tags(session: Session) -> list[str] | None:
    """None where they do not fit a page, and where the registry does not list them to everybody who may read them.

    Of many images of a repository in one run, one list serves the next few: it only finds what to warn of.
    """
    place = session.base + session.path()
    served, names = session.client.tag_lists.get(place, (_LIST_SERVES, None))
    if served >= _LIST_SERVES:
        served, names = 0, _read_tags(session)
    session.client.tag_lists[place] = (served + 1, names)
    return names


def _read_tags(session: Session) -> list[str] | None:
    try:
        pages = session.tag_pages()
        names = next(pages)
        return names if next(pages, None) is None else None
    except (ImageError, Refusal):
        return None


def _signatures(registry: Registry, digest: str, names: list[str] | None) -> tuple[str, ...]:
    tags = [fallback_tag(digest) + ending for ending in SIGNATURES]
    if names is not None:
        return tuple(tag for tag in tags if tag in names)
    return tuple(tag for tag in tags if registry.current(tag) is not None)


def enter(registry: Registry, manifest: Manifest, replaces: str | None) -> str | None:
    """Put ``manifest`` into its subject's list, under the tag; the list's new digest, None when nothing changed."""
    if manifest.subject is None:
        raise ValueError(f"{manifest.digest} has no subject")
    tag = fallback_tag(manifest.subject.digest)
    for attempt in range(1, _TRIES + 1):
        old = _list(registry, tag)
        new = with_referrer(old, manifest, replaces)
        if new is old:
            return None
        try:
            registry.put_manifest(new, tag, expect=old.digest if old else None)
        except TagMoved:
            if attempt == _TRIES:
                raise
        else:
            return new.digest
    return None


def _list(registry: Registry, tag: str) -> Manifest | None:
    try:
        found = registry.manifest(tag)
    except Refusal as error:
        if error.status == 404:
            return None
        raise
    if not found.is_index:
        raise ImageError(f"{registry.reference.with_tag(tag)} is no list of referrers, but {found.media_type}")
    return found
