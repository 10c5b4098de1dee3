"""certs.d: what a site keeps on disk to reach one registry, an authority's certificate and a client's own.

Source: containers-certs.d(5). As there, the first folder of this registry's name is taken and no other looked at.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from hpc3build.errors import InputError
from hpc3build.reference import Reference
from hpc3build.yamlread import check_kind

SYSTEM = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


def folder(host: str, port: int, env: Mapping[str, str]) -> Path | None:
    """The folder HOST:PORT (HOST alone for 443) below certs.d, None where there is none."""
    config = Path(env["XDG_CONFIG_HOME"]) if env.get("XDG_CONFIG_HOME") else Path(env.get("HOME", "/"), ".config")
    host = f"[{host}]" if ":" in host else host
    names = (f"{host}:{port}", host) if port == 443 else (f"{host}:{port}",)
    places = (base / name for base in (config / "containers" / "certs.d", *SYSTEM) for name in names)
    return next((place for place in places if place.is_dir()), None)


def folder_of(reference: Reference) -> Path | None:
    """The same for a reference's registry, of this process's user."""
    return folder(reference.host, reference.port or 443, os.environ)


def default() -> ssl.SSLContext:
    """Who is trusted by default: OpenSSL reads $SSL_CERT_FILE, whatever it is. Raises InputError."""
    named = Path(os.environ.get("SSL_CERT_FILE") or os.devnull)
    if named.exists() and not named.is_dir() and str(named) != os.devnull:
        check_kind(named, "a PEM bundle in $SSL_CERT_FILE")
    return ssl.create_default_context()


def load(context: ssl.SSLContext, place: Path) -> None:
    """Trust every ``*.crt``, and show every ``*.cert`` with its ``*.key``. Raises InputError."""
    path = place
    try:
        for path in sorted(place.iterdir()):
            if path.suffix == ".crt":
                context.load_verify_locations(path)
            elif path.suffix == ".cert":
                key = path.with_suffix(".key")
                if not key.is_file():
                    raise InputError(f"{path}: its key {key.name} is not beside it")
                # With a password given a key that is locked is refused, instead of asking on the terminal.
                context.load_cert_chain(path, key, password="")
    except OSError as error:
        told = getattr(error, "reason", None) or error.strerror or str(error)
        raise InputError(f"{path}: {told}", hint="a PEM file") from error
