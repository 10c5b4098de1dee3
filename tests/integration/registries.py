"""Real registries on loopback, and images in them."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from hpc3build.oci import INDEXES, MANIFESTS, Manifest
from hpc3build.reference import parse
from hpc3build.stores.access import Access
from hpc3build.stores.layout import Layout
from hpc3build.stores.registry import Registry

CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
#: Debian's distribution 2.8; whatever else is on the PATH is tried as well: distribution 3, olareg (which lists
#: referrers itself), and crane's, which checks nothing and has no ETag.
KINDS = tuple(name for name in ("docker-registry", "registry", "olareg", "crane") if shutil.which(name))
ACCEPT = ", ".join(sorted(MANIFESTS | INDEXES))


@contextlib.contextmanager
def running(kind: str, folder: Path, more: str = "") -> Iterator[str]:
    """HOST:PORT of a registry, in plain HTTP, with its data in ``folder``; ``more`` is configuration."""
    folder.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "config.yml").write_text(CONFIG.format(root=folder / "data", port=port) + more)
    argv = ["serve", str(folder / "config.yml")]
    if kind == "olareg":
        argv = ["serve", "--addr", "127.0.0.1", "--port", str(port), "--store-type", "mem", "--api-referrer"]
    elif kind == "crane":
        argv = ["registry", "serve", "--address", f"127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([kind, *argv], stdout=log, stderr=log)
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def push(folder: Path, manifest: Manifest, name: str, access: Access | None = None) -> None:
    """A layout's image, index or artifact with all that it needs: blobs, children, then the tag."""
    with Layout(folder) as source, Registry(parse(name), access) as store:
        _push(source, store, manifest)
        store.put_manifest(manifest, parse(name).tag)


def _push(source: Layout, store: Registry, manifest: Manifest) -> None:
    for entry in manifest.descriptors:
        if not manifest.is_index:
            store.copy_blob(entry, source)
            continue
        child = source.manifest(entry.digest)
        _push(source, store, child)
        store.put_manifest(child, None)


def fetched(name: str, what: str = "manifests") -> bytes:
    """A manifest's or blob's bytes (HOST/NAME:TAG or HOST/NAME@DIGEST), asked for without the product."""
    host, _, path = name.partition("/")
    repository, at, reference = path.rpartition("@" if "@" in path else ":")
    assert at
    with contextlib.closing(http.client.HTTPConnection(host, timeout=30)) as link:
        link.request("GET", f"/v2/{repository}/{what}/{reference}", headers={"Accept": ACCEPT})
        response = link.getresponse()
        content = response.read()
    assert response.status == 200, (name, response.status, content)
    return content
