"""What is taken of the site for a build, and what must stay behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpc3build import site
from hpc3build.errors import InputError
from hpc3build.run import Completed, missing, run

PEM = b"-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"


def put(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def exports(found: Mapping[str, bytes]) -> dict[str, str]:
    """What a shell has after sourcing the script."""
    script = found.get("hpc3build_env", b"")
    done = subprocess.run(["/bin/sh", "-c", script.decode() + "env -0"], env={}, capture_output=True, check=True)
    pairs = dict(os.fsdecode(entry).split("=", 1) for entry in done.stdout.split(b"\0") if entry)
    return {name: value for name, value in pairs.items() if name not in ("PWD", "_", "SHLVL", "OLDPWD")}


def settings(tmp_path: Path, env: Mapping[str, str] | None = None, **files: str | bytes) -> Mapping[str, bytes]:
    put(tmp_path, files)
    return site.settings(env or {}, tmp_path / "home", without_apt, tmp_path / "root")


def without_apt(argv: Sequence[str], **_: Any) -> Completed:
    raise missing(argv[0])


def test_a_site_without_anything(tmp_path: Path) -> None:
    assert settings(tmp_path, {"HOME": "/root", "SECRET_TOKEN": "x"}) == {}


def test_proxies(tmp_path: Path) -> None:
    env = {
        "http_proxy": "http://user:p'$(id)@proxy:3128",
        "HTTPS_PROXY": "http://b",
        "no_proxy": "localhost,.x",
        "all_proxy": "",
        "ftp_proxy": "line\nbreak",
        "OTHER": "z",
    }
    found = exports(settings(tmp_path, env))
    assert found == {name: value for name, value in env.items() if value and name != "OTHER"}


PIP = [
    ({}, {"root/etc/pip.conf": "[global]\nindex-url = https://a/simple\n"}, {"PIP_INDEX_URL": "https://a/simple"}),
    ({}, {"root/etc/xdg/pip/pip.conf": "[global]\ntimeout = 5\n"}, {"PIP_TIMEOUT": "5"}),
    ({}, {"home/.pip/pip.conf": "[install]\ntrusted-host = a b\n"}, {"PIP_TRUSTED_HOST": "a b"}),
    (
        {},
        {
            "root/etc/pip.conf": "[global]\nindex-url = https://global\n",
            "home/.config/pip/pip.conf": "[global]\nindex-url = https://user\n",
        },
        {"PIP_INDEX_URL": "https://user"},
    ),
    (
        {"PIP_INDEX_URL": "https://env"},
        {"home/.config/pip/pip.conf": "[global]\nindex-url = https://user\nretries = 2\n"},
        {"PIP_INDEX_URL": "https://env", "PIP_RETRIES": "2"},
    ),
    ({"PIP_CONFIG_FILE": "{}/mine"}, {"mine": "[global]\nproxy = http://p\n"}, {"PIP_PROXY": "http://p"}),
    ({"PIP_CONFIG_FILE": os.devnull}, {"root/etc/pip.conf": "[global]\nindex-url = https://a\n"}, {}),
    ({"PIP_INDEX_URL": "https://u:100%@h"}, {}, {"PIP_INDEX_URL": "https://u:100%@h"}),
    # Of this machine alone.
    ({"PIP_INDEX_URL": "file:///srv/simple"}, {}, {}),
    ({"PIP_EXTRA_INDEX_URL": "file:///a https://b /srv/c"}, {}, {"PIP_EXTRA_INDEX_URL": "https://b"}),
    ({}, {"root/etc/pip.conf": "[global]\nextra-index-url =\n  file:///a\n  https://b\n"}, {"PIP_EXTRA_INDEX_URL": "https://b"}),
    ({"PIP_FIND_LINKS": "/srv", "PIP_CACHE_DIR": "/c", "PIP_CERT": "/ca", "PIP_USER": "1"}, {}, {}),
    # Not readable as pip's: no obstacle.
    ({}, {"root/etc/pip.conf": "no section\n"}, {}),
    ({}, {"root/etc/pip.conf": b"\xff\xfe[global]"}, {}),
    ({}, {"root/etc/pip.conf/folder": ""}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("env", "files", "expected"), PIP)
def test_pip(env: dict[str, str], files: dict[str, str | bytes], expected: dict[str, str], tmp_path: Path) -> None:
    env = {name: value.replace("{}", str(tmp_path)) for name, value in env.items()}
    assert exports(settings(tmp_path, env, **files)) == expected


def test_ca_from_the_environment_then_the_system(tmp_path: Path) -> None:
    put(tmp_path, {"own.pem": PEM + b"own", "root/etc/ssl/certs/ca-certificates.crt": PEM + b"system"})
    assert settings(tmp_path)["hpc3build_ca"] == PEM + b"system"
    for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        assert settings(tmp_path, {name: f"{tmp_path}/own.pem"})["hpc3build_ca"] == PEM + b"own"
        assert settings(tmp_path, {name: f"{tmp_path}/none"})["hpc3build_ca"] == PEM + b"system"
        assert settings(tmp_path, {name: str(tmp_path)})["hpc3build_ca"] == PEM + b"system", "a folder"


@pytest.mark.parametrize("content", [b"", b"not a bundle", PEM + b"x" * site.MAX_SECRET])
def test_ca_that_no_build_can_take(content: bytes, tmp_path: Path) -> None:
    put(tmp_path, {"own.pem": content})
    assert "hpc3build_ca" not in settings(tmp_path, {"SSL_CERT_FILE": f"{tmp_path}/own.pem"})


def test_red_hats_bundle(tmp_path: Path) -> None:
    put(tmp_path, {"root/etc/pki/tls/certs/ca-bundle.crt": PEM})
    assert settings(tmp_path) == {"hpc3build_ca": PEM}


KEPT = [
    'Acquire::http::Proxy "http://proxy:3128";',
    'Acquire::https::Proxy "http://user:p%40ss@proxy:3128";',
    'Acquire::http::Proxy::deb.debian.org "DIRECT";',
    'Acquire::Check-Valid-Until "false";',
]
DROPPED = [
    'Acquire::https::CAInfo "/etc/ssl/site.pem";',
    'Acquire::https::SslKey "/etc/ssl/private/key.pem";',
    'Acquire::http::Proxy-Auto-Detect "/usr/bin/auto-apt-proxy";',
    'Acquire::http::User-Agent "";',
    'Dir::Cache "/srv/apt";',
    'APT::Update::Post-Invoke { "rm -f /x"; };',
    '// Acquire::http::Proxy "http://old:1";',
    '/* Acquire::http::Proxy "http://old:1"; */',
    '# Acquire::http::Proxy "http://old:1";',
]
#: apt.conf(5): what files of the folder say, in their order, and the settings that travel.
APT_SYNTAX = {
    "a block": ('Acquire::http {\n Proxy "http://p:3128";\n};\n', ['Acquire::http::Proxy "http://p:3128";']),
    "blocks in one line": ('Acquire { http { Proxy "http://p"; }; };', ['Acquire::http::Proxy "http://p";']),
    "a block, then a flat line": (
        f'Acquire::http\n{{\n Proxy "http://p";\n}};\n{KEPT[1]}\n{KEPT[3]}\n',
        ['Acquire::http::Proxy "http://p";', KEPT[1], KEPT[3]],
    ),
    "lower case": (
        'acquire::HTTP::proxy "http://p";\nacquire::check-date "false";',
        ['Acquire::HTTP::proxy "http://p";', 'Acquire::check-date "false";'],
    ),
    "comments": (f'{KEPT[0]} // why\n/*\n{KEPT[1]}\n*/\n# {KEPT[3]}\n', [KEPT[0]]),
    "#clear": (f'{KEPT[0]}\n{KEPT[3]}\n#clear Acquire::http::Proxy;\n', [KEPT[3]]),
    "the last one of a name": (f'{KEPT[0]}\nAcquire {{ http::proxy "http://new"; }};', ['Acquire::http::Proxy "http://new";']),
    "no quotes": ("Acquire::https::Verify-Peer false;", ['Acquire::https::Verify-Peer "false";']),
    "a list": ('Acquire::http::X { "a"; "b"; };', ['Acquire::http::X:: "a";', 'Acquire::http::X:: "b";']),
    "a quote, which a file cannot hold": (f"Acquire::http::User-Agent a%22b;\n{KEPT[3]}", [KEPT[3]]),
    "a mistake": (f"{KEPT[0]}\nAcquire::http::Timeout oops oops\n", []),
}  # fmt: skip


def apt_dump(etc_of: Path, config: bytes = b"") -> list[str]:
    """What the machine's own apt-config says of Acquire:: for apt.conf and its folder below ``etc_of``."""
    argv = ("apt-config", "dump")
    done = run(argv, env={**os.environ, "APT_CONFIG": str(_apt_config(etc_of, config))})
    return [line for line in done.stdout.splitlines() if line.startswith("Acquire::")]


def _apt_config(etc_of: Path, config: bytes = b"") -> Path:
    file = etc_of.parent / "apt-config"
    file.write_bytes(f'Dir "{etc_of}";\n'.encode() + config)
    return file


def apt_settings(root: Path) -> bytes | None:
    """The secret of a machine whose /etc is below ``root``."""
    if shutil.which("apt-config") is None:
        pytest.skip("not installed: apt-config")

    def there(argv: Sequence[str], **options: Any) -> Completed:
        return run(argv, env={**os.environ, "APT_CONFIG": str(_apt_config(root))}, **options)

    return site.settings({}, root / "home", there, root).get("hpc3build_apt")


def test_apt(tmp_path: Path) -> None:
    """The folder's files in their order, then apt.conf; what apt ignores, and what is of this machine alone, stays."""
    conf = "etc/apt/apt.conf.d"
    root = put(
        tmp_path / "root",
        {
            "etc/apt/apt.conf": "\n".join([KEPT[3], *DROPPED]),
            f"{conf}/05a.conf": f"{KEPT[0]}\n{DROPPED[0]}\n",
            f"{conf}/10b": f"  {KEPT[2]}\n",
            f"{conf}/20check": KEPT[1],
            **{f"{conf}/{name}": 'Acquire::http::Proxy "http://no";' for name in ("old.bak", "x.dpkg-old", "y~")},
        },
    )
    found = apt_settings(root)
    assert found is not None and sorted(found.decode().splitlines()) == sorted(KEPT)


@pytest.mark.parametrize("what", APT_SYNTAX)
def test_apt_syntax(what: str, tmp_path: Path) -> None:
    text, kept = APT_SYNTAX[what]
    root = put(tmp_path / "root", {"etc/apt/apt.conf.d/10site": text})
    found = apt_settings(root) or b""
    assert found.decode().splitlines() == kept
    # Another apt, one that has the secret alone, says the same.
    bare = put(tmp_path / "bare" / "root", {"etc/apt/apt.conf.d/.keep": ""})
    added = set(apt_dump(bare, found)) - set(apt_dump(bare))
    assert {line for line in added if not line.endswith(' "";')} == set(kept)


def test_a_machine_without_apt(tmp_path: Path) -> None:
    """Its /etc/apt, if there is any, means nothing."""
    assert settings(tmp_path, **{"root/etc/apt/apt.conf": KEPT[0]}) == {}


def test_files_are_private_and_vanish() -> None:
    old = os.umask(0)
    try:
        with site.as_files({"hpc3build_env": b"a", "hpc3build_ca": b"\xff"}) as paths:
            assert {name: path.read_bytes() for name, path in paths.items()} == {
                "hpc3build_env": b"a",
                "hpc3build_ca": b"\xff",
            }
            assert {path.stat().st_mode & 0o777 for path in paths.values()} == {0o600}
            folders = {path.parent for path in paths.values()}
            assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}
    finally:
        os.umask(old)
    assert not any(folder.exists() for folder in folders)


def test_files_vanish_when_the_build_fails() -> None:
    seen: list[Path] = []
    with pytest.raises(RuntimeError), site.as_files({"a": b"x"}) as paths:
        seen += paths.values()
        raise RuntimeError
    assert seen and not seen[0].exists() and not seen[0].parent.exists()


def test_no_secrets_no_files() -> None:
    with site.as_files({}) as paths:
        assert paths == {}


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_pipe_is_no_bundle(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    keep_open = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    os.write(keep_open, PEM)  # where it is read after all, that does not wait without end
    threading.Timer(2, os.close, [keep_open]).start()
    with pytest.raises(InputError) as caught:
        settings(tmp_path, {name: str(tmp_path / "pipe")})
    assert caught.value.message == f"{tmp_path / 'pipe'}: not a file" and f"${name}" in caught.value.hint


def test_no_bundle_is_dev_null_or_a_folder(tmp_path: Path) -> None:
    found = settings(tmp_path, {"SSL_CERT_FILE": os.devnull, "PIP_CERT": str(tmp_path)})
    assert "hpc3build_ca" not in found
