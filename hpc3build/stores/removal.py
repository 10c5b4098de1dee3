"""Deleting a manifest of a registry by its digest, which takes all its tags with it.

Source: distribution-spec 1.1, "Deleting Manifests"; many registries refuse it, by configuration or rights.
"""

from __future__ import annotations

from hpc3build.oci import check_digest
from hpc3build.stores.registry import Registry


def delete(registry: Registry, digest: str) -> bool:
    """Whether it is gone; False where the registry does not delete. Raises StoreError where it does not answer."""
    path = registry.session.path("manifests", check_digest(digest, str(registry.reference)))
    reply = registry.session.send("DELETE", path, write=True)
    if reply is not None and reply.status in (200, 202, 204, 404):
        return True
    if reply is not None and reply.status in (400, 401, 403, 405, 501):
        return False
    raise registry.session.refusal("DELETE", registry.reference.at(digest), reply)
