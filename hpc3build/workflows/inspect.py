"""What an image says of itself, without its layers."""

from __future__ import annotations

from dataclasses import dataclass

from hpc3build.errors import ImageError, StoreError
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import Descriptor, Manifest
from hpc3build.reference import Reference
from hpc3build.run import Runner
from hpc3build.stores import Store, named, open_store, read_blob
from hpc3build.stores.access import Access
from hpc3build.stores.referrers import Referrers


@dataclass(frozen=True)
class Inspected:
    """A manifest, for an image its configuration, and what refers to it.

    ``referrers`` is None where they cannot be listed, and ``unlisted`` says why.
    """

    reference: Reference
    manifest: Manifest
    config: ImageConfig | None
    referrers: tuple[Descriptor, ...] | None = None
    unlisted: str = ""


def inspect(reference: Reference, runner: Runner, access: Access | None = None) -> Inspected:
    """Read the manifest, the configuration of an image, and the list of what refers to it.

    Raises StoreError for what is not there or not reached, ImageError for what is malformed, and InputError for
    credentials or a proxy that cannot be used.
    """
    with open_store(reference, runner, access) as store:
        manifest = named(store, reference)
        config = None
        if not manifest.is_index:
            digest = manifest.config.digest
            config = ImageConfig.parse(read_blob(store, digest), digest)
        return Inspected(reference, manifest, config, *_referrers(store, manifest.digest))


def _referrers(store: Store, digest: str) -> tuple[tuple[Descriptor, ...] | None, str]:
    """A list that cannot be read is no reason to show nothing of the image."""
    if not isinstance(store, Referrers):
        return None, ""
    try:
        return store.referrers(digest), ""
    except (ImageError, StoreError) as error:
        return None, error.message
