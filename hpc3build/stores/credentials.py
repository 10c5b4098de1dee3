"""Whose name and password to give to a registry: files of docker and podman, and their credential helpers.

Ours and not oras-py's: that reads ~/.docker/config.json alone, and knows no DOCKER_CONFIG, no REGISTRY_AUTH_FILE, no
auth.json, no keys for single repositories, no identity tokens and not Docker Hub's key (oci.md §7). Sources:
containers-auth.json(5), docker's config.json and its credential helper protocol.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc3build.errors import InputError, ToolError
from hpc3build.jsonread import parsed
from hpc3build.run import Runner
from hpc3build.stores.access import HUB, HUB_API
from hpc3build.yamlread import check_kind

HUB_KEY = "https://index.docker.io/v1/"
_HUB_NAMES = (HUB, "index.docker.io", HUB_API)
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
HELPER_SECONDS = 60.0


@dataclass(frozen=True)
class Credentials:
    """``identity`` is a refresh token, ``bearer`` a token that is sent as it is. ``source`` may be shown."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)
    bearer: str = field(default="", repr=False)
    source: str = ""

    @property
    def basic(self) -> str:
        """The value of a Basic Authorization."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown."""
        return tuple(filter(None, (self.password, self.identity, self.bearer, self.basic[6:])))


@dataclass(frozen=True)
class Found:
    """What the search gave: None where nothing fits; ``notes`` say what could not be asked."""

    credentials: Credentials | None
    notes: tuple[str, ...] = ()


def find(registry: str, name: str, runner: Runner, env: Mapping[str, str] | None = None) -> Found:
    """Credentials for a repository: the first file with an entry for it wins, and in it the narrowest key.

    Raises InputError for a file that cannot be read as what it is.
    """
    env = os.environ if env is None else env
    notes: list[str] = []
    for path in files(env):
        config = _load(path)
        if config is None:
            continue
        found = _in_helpers(config, registry, path, runner, notes) or _in_auths(config, registry, name, path)
        found = found or _in_store(config, registry, path, runner, notes)
        if found:
            return Found(found, tuple(notes))
    return Found(None, tuple(notes))


def files(env: Mapping[str, str]) -> Iterator[Path]:
    """Where credentials may lie, the first to be asked first. $DOCKER_CONFIG takes the place of ~/.docker."""
    home = Path(env["HOME"]) if env.get("HOME") else None
    if env.get("REGISTRY_AUTH_FILE"):
        yield Path(env["REGISTRY_AUTH_FILE"])
    if env.get("DOCKER_CONFIG"):
        yield Path(env["DOCKER_CONFIG"]) / "config.json"
    elif home:
        yield home / ".docker" / "config.json"
    if env.get("XDG_RUNTIME_DIR"):
        yield Path(env["XDG_RUNTIME_DIR"]) / "containers" / "auth.json"
    else:  # podman's own default where there is no session
        yield Path(f"/run/containers/{os.getuid()}/auth.json")
    if env.get("XDG_CONFIG_HOME"):
        yield Path(env["XDG_CONFIG_HOME"]) / "containers" / "auth.json"
    elif home:
        yield home / ".config" / "containers" / "auth.json"


def _load(path: Path) -> dict[str, Any] | None:
    try:
        if str(path) != os.devnull:  # which says: none
            check_kind(path, "what podman login or docker login writes")
        content = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    try:
        config = json.loads(content or "{}")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON", hint="podman login or docker login writes it anew") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: not a JSON object", hint="podman login or docker login writes it anew")
    return config


def _object(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _hosts(registry: str) -> tuple[str, ...]:
    return _HUB_NAMES if registry == HUB else (registry,)


def _in_helpers(
    config: Mapping[str, Any], registry: str, path: Path, runner: Runner, notes: list[str]
) -> Credentials | None:
    helpers = _object(config, "credHelpers")
    for key in (*((HUB_KEY,) if registry == HUB else ()), *_hosts(registry)):
        if isinstance(helpers.get(key), str) and helpers[key]:
            return _ask(helpers[key], HUB_KEY if registry == HUB else key, path, runner, notes)
    return None


def _in_store(
    config: Mapping[str, Any], registry: str, path: Path, runner: Runner, notes: list[str]
) -> Credentials | None:
    helper = config.get("credsStore")
    if not isinstance(helper, str) or not helper:
        return None
    return _ask(helper, HUB_KEY if registry == HUB else registry, path, runner, notes)


def _in_auths(config: Mapping[str, Any], registry: str, name: str, path: Path) -> Credentials | None:
    auths = _object(config, "auths")
    parts = name.split("/")
    for host in _hosts(registry):
        narrower = [f"{host}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1)]
        for key in (*narrower, host):
            if found := _entry(auths.get(key), f"{path} ({key})"):
                return found
    # docker's older keys are URLs: https://quay.io/v1/ stands for quay.io, but https://quay.io/name does not
    for key, entry in auths.items():
        host = re.sub(r"^https?://", "", key).rstrip("/")
        host = re.sub(r"/v[12]$", "", host)
        if host in _hosts(registry) and (found := _entry(entry, f"{path} ({key})")):
            return found
    return None


def _entry(entry: Any, source: str) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    texts = {key: value for key, value in entry.items() if isinstance(value, str)}
    username, password = texts.get("username", ""), texts.get("password", "")
    if texts.get("auth"):
        try:
            pair = base64.b64decode(texts["auth"], validate=True).decode()
        except ValueError as error:  # no base64, no ASCII, no UTF-8
            raise InputError(f"{source}: auth is not base64", hint="log in again") from error
        username, _, password = pair.partition(":")
        password = password.rstrip("\0")
    identity, bearer = texts.get("identitytoken", ""), texts.get("registrytoken", "")
    if not (username and password) and not identity and not bearer:
        return None
    return Credentials(username, password, identity, bearer, source)


def _ask(helper: str, server: str, path: Path, runner: Runner, notes: list[str]) -> Credentials | None:
    command = f"docker-credential-{helper}"
    source = f"{command} ({path})"
    if not _HELPER.fullmatch(helper):
        notes.append(f"{path}: {helper[:80]!r} is not the name of a credential helper")
        return None
    try:
        done = runner([command, "get"], input=server, check=False, timeout=HELPER_SECONDS)
    except ToolError as error:
        notes.append(f"{source}: {error.message}")
        return None
    if done.returncode != 0:
        # The protocol tells failures on stdout; "not found" is the answer for a registry without a login.
        if "not found" not in done.stdout:
            notes.append(f"{source} failed with exit status {done.returncode}")
        return None
    try:
        answer = parsed(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        notes.append(f"{source} gave no answer of the credential helper protocol")
        return None
    if username == "<token>":
        return Credentials(identity=secret, source=source)
    return Credentials(username, secret, source=source) if secret else None
