"""What an image says of itself, without its layers."""

from __future__ import annotations

from dataclasses import dataclass

from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import Manifest
from hpc3build.reference import Reference
from hpc3build.run import Runner
from hpc3build.stores import named, open_store, read_blob
from hpc3build.stores.access import Access


@dataclass(frozen=True)
class Inspected:
    """A manifest, and for an image its configuration."""

    reference: Reference
    manifest: Manifest
    config: ImageConfig | None


def inspect(reference: Reference, runner: Runner, access: Access | None = None) -> Inspected:
    """Read the manifest, and the configuration of an image."""
    with open_store(reference, runner, access) as store:
        manifest = named(store, reference)
        config = None
        if not manifest.is_index:
            digest = manifest.config.digest
            config = ImageConfig.parse(read_blob(store, digest), digest)
        return Inspected(reference, manifest, config)
