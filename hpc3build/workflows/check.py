"""Conformance of an image, static and live."""

from __future__ import annotations

import base64
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hpc3build import conformance, rewrite
from hpc3build.engines import launcher
from hpc3build.errors import StoreError, ToolError
from hpc3build.evidence.layers import read_layers
from hpc3build.evidence.sections import read_section_names
from hpc3build.findings import Finding, Outcome
from hpc3build.oci import Manifest
from hpc3build.reference import DAEMON, DOCKER, STORAGE, Reference, parse
from hpc3build.run import Runner, clean_up
from hpc3build.stores import Store, named, open_store
from hpc3build.stores.access import Access
from hpc3build.stores.certificates import folder_of
from hpc3build.stores.daemon import DaemonStore
from hpc3build.stores.local import LocalStore
from hpc3build.workflows.describe import image_layers, read_config


@dataclass(frozen=True)
class Checked:
    """What was found, of which image, and how many bytes of layers were not needed for it."""

    reference: Reference
    digest: str
    findings: tuple[Finding, ...]
    bytes_not_downloaded: int

    @property
    def not_run(self) -> tuple[Finding, ...]:
        """The engines that were asked for and started nothing."""
        return tuple(one for one in self.findings if one.rule == "engine" and one.outcome is Outcome.UNKNOWN)


def check(
    reference: Reference,
    engines: tuple[str, ...],
    runner: Runner,
    access: Access | None = None,
    *,
    layers: bool = True,
    smoke: str = "",
) -> Checked:
    """Static findings, then those of each engine named. Without ``layers`` only manifest and configuration are read.

    ``smoke`` is a line of shell that proves the application; it is run, too.
    An engine that starts nothing is a finding, too.

    Raises InputError for an unknown engine and for an index, ToolMissing, and StoreError and ImageError where the image
    cannot be read.
    """
    with open_store(reference, runner, access) as store:
        image = read_image(store, reference, layers=layers)
    manifest = image.manifest
    launchers = [launcher(name, runner, image.config) for name in engines]
    findings = list(conformance.static(image))
    for place in sorted({one.store for one in launchers}):
        asked = [one for one in launchers if one.store == place]
        try:
            with _runnable(reference, manifest, place, runner, access or Access()) as name:
                for one in asked:
                    findings += conformance.live(one, name, image, smoke)
        except (ToolError, StoreError) as error:  # no daemon, say: what was found without it is kept
            findings += [conformance.starts_nothing(one, error.message) for one in asked]
    left = 0 if layers or launchers else manifest.layers_size
    return Checked(reference, manifest.digest, tuple(findings), left)


def read_image(store: Store, reference: Reference, *, layers: bool) -> conformance.Image:
    """What the static rules look at; with ``layers`` its files too.

    Raises InputError for an index, StoreError, ImageError.
    """
    manifest = named(store, reference)
    config = read_config(store, reference, manifest)
    files = None
    if layers:
        files = read_layers(image_layers(store, manifest), conformance.wanted, scan=read_section_names)
    return conformance.Image(manifest, config, files)


@contextmanager
def _runnable(reference: Reference, manifest: Manifest, place: str, runner: Runner, access: Access) -> Iterator[str]:
    """The image's name in the store ``place`` of engines; one that lies elsewhere is copied there for the while."""
    if reference.transport == place:
        yield manifest.config.digest.removeprefix("sha256:")
        return
    name = f"localhost/hpc3build-check:{uuid.uuid4().hex[:12]}"
    # A tag may have moved since: what was read is what runs.
    source = reference.at(manifest.digest) if reference.transport == DOCKER else reference
    if place == DAEMON:
        from hpc3build.engines.docker import Docker

        with DaemonStore(parse(f"{DAEMON}:{name}")) as target:
            try:
                with open_store(reference, runner, access) as store:
                    if isinstance(store, LocalStore):
                        store.pack()
                        manifest = store.manifest()
                    rewrite.transfer(store, target, rewrite.Rewrite(source, None, manifest), target.reference)
                yield name
            finally:
                Docker(runner).remove(name)
        return
    local = parse(f"{STORAGE}:{name}")
    try:  # around the copy, too: one that is interrupted may be done
        if reference.transport == DOCKER:
            with skopeo_access(source, access) as options:
                runner(["skopeo", "copy", "--quiet", *options, str(source), str(local)])
        else:  # skopeo takes an image of a layout or an archive by its tag alone
            with open_store(reference, runner) as store, open_store(local, runner) as there:
                rewrite.transfer(store, there, rewrite.Rewrite(source, None, manifest), local)
        yield name
    finally:
        clean_up(runner, ["buildah", "rmi", name])


@contextmanager
def skopeo_access(source: Reference, access: Access) -> Iterator[list[str]]:
    """Options that let skopeo read ``source`` as we do; a password is in a file that goes when the block ends."""
    if source.transport != DOCKER:
        yield []
        return
    options: list[str] = []
    if not access.verifies(source):
        options.append("--src-tls-verify=false")
    with TemporaryDirectory(prefix="hpc3build-") as folder:
        if access.username is not None:
            pair = base64.b64encode(f"{access.username}:{access.password or ''}".encode()).decode()
            file = Path(folder) / "auth.json"
            file.touch(mode=0o600)
            file.write_text(json.dumps({"auths": {source.registry: {"auth": pair}}}))
            options += ["--src-authfile", str(file)]
        if access.ca_file is not None:
            # skopeo looks into one folder only, so what certs.d has for this registry comes along.
            certificates = Path(folder) / "certs"
            certificates.mkdir(mode=0o700)
            if (known := folder_of(source)) is not None:
                shutil.copytree(known, certificates, dirs_exist_ok=True)
            shutil.copyfile(access.ca_file, certificates / "hpc3build-ca.crt")
            options += ["--src-cert-dir", str(certificates)]
        yield options
