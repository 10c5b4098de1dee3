"""What repositories a registry has: its catalog.

Source: distribution's HTTP API V2, "Listing Repositories"; the distribution specification leaves it out, and public
registries (Docker Hub, ghcr.io) refuse it.
"""

from __future__ import annotations

from collections.abc import Iterator

from hpc3build.errors import ImageError, StoreError
from hpc3build.reference import Reference
from hpc3build.run import Runner
from hpc3build.stores.access import Access
from hpc3build.stores.login import parsed
from hpc3build.stores.registry import Registry

PAGE = 1000


def repositories(host: Reference, runner: Runner, access: Access | None = None, *, page: int = PAGE) -> Iterator[str]:
    """Names, page by page, each once; of ``host`` the registry alone counts.

    Raises StoreError where there is no catalog, ImageError where it is malformed.
    """
    seen: set[str] = set()
    with Registry(host, access, runner=runner) as registry:
        for reply in registry.session.pages(f"/v2/_catalog?n={page}", accept="application/json"):
            if reply.status != 200:
                refusal = registry.session.refusal("GET", host, reply)
                login = f"{registry.session.hint(reply)}; or " if reply.status in (401, 403) else ""
                raise StoreError(
                    f"{refusal.message}: it does not list its repositories",
                    hint=f"{login}name them, docker://{host.registry}/NAME:*, or list the images: --batch FILE",
                )
            names = parsed(reply.content).get("repositories") or []
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ImageError(f"docker://{host.registry}: the registry's catalog is malformed")
            new = [name for name in names if name not in seen]
            seen.update(new)
            yield from new
