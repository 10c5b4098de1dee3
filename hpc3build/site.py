"""What a build needs of its site and the image must not keep: proxies, CA, pip and apt settings, as build secrets."""

from __future__ import annotations

import configparser
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hpc3build.errors import ToolError
from hpc3build.run import Runner
from hpc3build.yamlread import check_kind

_CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem")
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
#: pip's settings that make sense on another machine: file: URLs and folders of this one do not.
_PIP = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
# A line of apt-config's dump, with a value. One that is a path names a file of this machine, which the builder has not.
_APT = re.compile(r'Acquire::(?:https?|Check-)\S* "(?!\s*/)[^"]+";', re.IGNORECASE)
#: BuildKit refuses larger secrets.
MAX_SECRET = 500_000


def settings(env: Mapping[str, str], home: Path, runner: Runner, root: Path = Path("/")) -> Mapping[str, bytes]:
    """The secrets by id, from the environment and configuration files of this machine; none that it has not.

    ``hpc3build_env`` is a shell script of exports, ``hpc3build_ca`` a PEM bundle, ``hpc3build_apt`` an apt.conf.
    """
    found: dict[str, bytes] = {}
    exports = {**_proxies(env), **_pip(env, home, root)}
    if exports:
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(exports.items())]
        found["hpc3build_env"] = "".join(lines).encode()
    if (bundle := _ca(env, root)) is not None:
        found["hpc3build_ca"] = bundle
    if apt := _apt(runner):
        found["hpc3build_apt"] = apt
    return found


def _proxies(env: Mapping[str, str]) -> dict[str, str]:
    return {name: env[name] for name in (*_PROXIES, *(name.upper() for name in _PROXIES)) if env.get(name)}


def _pip(env: Mapping[str, str], home: Path, root: Path) -> dict[str, str]:
    """PIP_… variables, from pip's files (global, then user) and, over them, the environment."""
    files = [
        root / "etc/pip.conf",
        root / "etc/xdg/pip/pip.conf",
        home / ".pip/pip.conf",
        home / ".config/pip/pip.conf",
    ]
    if env.get("PIP_CONFIG_FILE") == os.devnull:
        files = []  # pip's own way to say: no files
    elif env.get("PIP_CONFIG_FILE"):
        files.append(Path(env["PIP_CONFIG_FILE"]))
    parser = configparser.RawConfigParser()
    for file in files:
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue
    values = {
        key: parser.get(section, key)
        for section in ("global", "install")
        if parser.has_section(section)
        for key in _PIP
        if parser.has_option(section, key)
    }
    values |= {key: env[name] for key in _PIP if (name := "PIP_" + key.upper().replace("-", "_")) in env}
    exports = {}
    for key, value in values.items():
        words = [word for word in value.split() if not word.startswith(("file:", "/"))]
        if words:
            exports["PIP_" + key.upper().replace("-", "_")] = " ".join(words)
    return exports


def _ca(env: Mapping[str, str], root: Path) -> bytes | None:
    candidates = [(name, Path(env[name])) for name in _CA_VARIABLES if env.get(name)]
    for named, path in (*candidates, *(("", root / name.lstrip("/")) for name in _CA_FILES)):
        try:
            if path.is_dir() or str(path) == os.devnull:
                continue
            check_kind(path, f"a PEM bundle in ${named}" if named else "a PEM bundle")
            data = path.read_bytes()
        except OSError:
            continue
        if b"BEGIN CERTIFICATE" in data:
            return data if len(data) <= MAX_SECRET else None
    return None


def _apt(runner: Runner) -> bytes:
    """What apt itself reads of the site's apt.conf, and of $APT_CONFIG: proxies, and archives with old dates.

    Its syntax has blocks, comments and directives, so apt-config is asked. Empty where that is missing (another
    family's machine) or refuses the files.
    """
    try:
        dump = runner(["apt-config", "dump"], check=False).stdout
    except ToolError:
        return b""
    return "".join(f"{line}\n" for line in dump.splitlines() if _APT.fullmatch(line)).encode()


@contextmanager
def as_files(secrets: Mapping[str, bytes]) -> Iterator[Mapping[str, Path]]:
    """The secrets as files that only this user can read, gone afterwards."""
    with TemporaryDirectory(prefix="hpc3build-secrets-") as folder:
        paths = {}
        for name, data in secrets.items():
            paths[name] = Path(folder) / name
            paths[name].touch(mode=0o600)
            paths[name].write_bytes(data)
        yield paths
