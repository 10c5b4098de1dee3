"""What refers to a manifest in a registry: by its referrers API, or by the tag that stands in for it.

Source: distribution-spec 1.1, "Listing Referrers" and "Referrers Tag Schema".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpc3build.errors import ImageError, TagMoved
from hpc3build.oci import OCI_INDEX, Descriptor, Manifest
from hpc3build.stores.referrers import SIGNATURES, fallback_tag, with_referrer
from hpc3build.stores.refusals import Refusal
from hpc3build.stores.transport import origin

if TYPE_CHECKING:
    from hpc3build.stores.registry import Registry
    from hpc3build.stores.session import Session

_TRIES = 4
#: Answers of registries without the API that mean more than "not here".
_REAL = frozenset({401, 403, 408, 429, 500, 502, 503, 504})


def listed(registry: Registry, session: Session, digest: str) -> tuple[Descriptor, ...]:
    """Descriptors of the referrers of ``digest``, none where there are none."""
    found: list[Descriptor] = []
    lacking = session.client.lacking_referrers
    if origin(session.base) not in lacking:
        for reply in session.pages(f"referrers/{digest}", accept=OCI_INDEX):
            if reply.status in _REAL:
                raise session.refusal("GET", registry.reference, reply)
            if reply.status != 200:
                lacking.add(origin(session.base))
                break
            found += Manifest.parse(reply.content, OCI_INDEX).descriptors
        else:
            return tuple(found)
    stand_in = _list(registry, fallback_tag(digest))
    return stand_in.descriptors if stand_in else ()


def signature_tags(registry: Registry, session: Session, digest: str) -> tuple[str, ...]:
    """cosign's tags for ``digest``: one request where all tags fit a page, else one for each."""
    tags = [fallback_tag(digest) + ending for ending in SIGNATURES]
    try:
        pages = session.tag_pages()
        names = next(pages)
        if next(pages, None) is None:
            return tuple(tag for tag in tags if tag in names)
    except (ImageError, Refusal):  # not every registry lists tags to everybody who may read them
        pass
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
