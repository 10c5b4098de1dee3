"""Conformance of an image, static and live."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from hpc3build import conformance
from hpc3build.engines import launcher
from hpc3build.evidence.layers import read_layers
from hpc3build.evidence.sections import read_section_names
from hpc3build.findings import Finding
from hpc3build.oci import Manifest
from hpc3build.reference import Reference
from hpc3build.run import Runner
from hpc3build.stores import Store, open_store
from hpc3build.stores.access import Access, is_loopback
from hpc3build.workflows.describe import image_layers, read_config


@dataclass(frozen=True)
class Checked:
    """What was found, of which image, and how many bytes of layers were not needed for it."""

    reference: Reference
    digest: str
    findings: tuple[Finding, ...]
    bytes_not_downloaded: int


def check(
    reference: Reference,
    engines: tuple[str, ...],
    runner: Runner,
    access: Access | None = None,
    *,
    layers: bool = True,
    smoke: Sequence[str] = (),
) -> Checked:
    """Static findings, then those of each engine named. Without ``layers`` only manifest and configuration are read.

    ``smoke`` is a command that proves the application; it is run, too.
    Raises InputError for an unknown engine.
    """
    with open_store(reference, runner, access) as store:
        image = read_image(store, reference, layers=layers)
    manifest = image.manifest
    launchers = [launcher(name, runner, image.config) for name in engines]
    findings = list(conformance.static(image))
    if launchers:
        with _runnable(reference, manifest, runner, access or Access()) as name:
            for one in launchers:
                findings += conformance.live(one, name, image, smoke)
    left = 0 if layers or launchers else sum(layer.size for layer in manifest.layers)
    return Checked(reference, manifest.digest, tuple(findings), left)


def read_image(store: Store, reference: Reference, *, layers: bool) -> conformance.Image:
    """What the static rules look at; with ``layers`` its files too. Raises InputError for an index."""
    manifest = store.manifest(reference.digest or reference.tag)
    config = read_config(store, reference, manifest)
    files = None
    if layers:
        files = read_layers(image_layers(store, manifest), conformance.wanted, scan=read_section_names)
    return conformance.Image(manifest, config, files)


@contextmanager
def _runnable(reference: Reference, manifest: Manifest, runner: Runner, access: Access) -> Iterator[str]:
    """The image's name in the engines' store; one that lies elsewhere is copied there for the while."""
    if reference.transport == "containers-storage":
        yield manifest.config.digest.removeprefix("sha256:")
        return
    name = f"localhost/hpc3build-check:{uuid.uuid4().hex[:12]}"
    options = []
    source = reference
    if reference.transport == "docker":
        # The tag may have moved since: what was read is what runs.
        source = reference.at(manifest.digest)
        host = reference.registry.rpartition(":")[0] or reference.registry
        if access.plain_http or not access.tls_verify or is_loopback(host.strip("[]")):
            options.append("--src-tls-verify=false")
    runner(["skopeo", "copy", "--quiet", *options, str(source), f"containers-storage:{name}"])
    try:
        yield name
    finally:
        runner(["buildah", "rmi", name], check=False)
