"""certs.d: which folder is taken, and what in it is used."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from hpc3build.errors import InputError
from hpc3build.reference import parse
from hpc3build.stores import certificates
from hpc3build.stores.access import Access
from hpc3build.stores.registry import Registry
from tests.fake_registry import NAME, FakeRegistry
from tests.images import make_layout


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("not installed: openssl")
    folder = tmp_path_factory.mktemp("tls")
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    argv += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key"), "-out", str(folder / "cert")]
    subprocess.run(argv, check=True, capture_output=True)
    return folder / "cert", folder / "key"


def test_the_first_folder_of_the_name_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "SYSTEM", (tmp_path / "etc",))
    home = {"HOME": str(tmp_path)}
    own = tmp_path / ".config" / "containers" / "certs.d"
    assert certificates.folder("r.example", 443, home) is None
    (tmp_path / "etc" / "r.example").mkdir(parents=True)
    assert certificates.folder("r.example", 443, home) == tmp_path / "etc" / "r.example"
    assert certificates.folder("r.example", 5000, home) is None
    (own / "r.example:443").mkdir(parents=True)
    assert certificates.folder("r.example", 443, home) == own / "r.example:443"
    (tmp_path / "etc" / "[::1]:5000").mkdir()
    assert certificates.folder("::1", 5000, home) == tmp_path / "etc" / "[::1]:5000"
    elsewhere = {"XDG_CONFIG_HOME": str(tmp_path / "x")}
    assert certificates.folder("r.example", 443, elsewhere) == tmp_path / "etc" / "r.example"


def test_a_private_authority_and_a_client_certificate(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    make_layout(tmp_path / "layout", [{}])
    with FakeRegistry(certificate=pair) as fake:
        fake.add(tmp_path / "layout")
        place = tmp_path / ".config" / "containers" / "certs.d" / fake.host
        place.mkdir(parents=True)
        (place / "ca.crt").write_bytes(pair[0].read_bytes())
        (place / "client.cert").write_bytes(pair[0].read_bytes())
        with Registry(parse(f"{fake.host}/{NAME}:latest"), Access()) as store, pytest.raises(InputError, match="key"):
            store.manifest()
        (place / "client.key").write_bytes(pair[1].read_bytes())
        with Registry(parse(f"{fake.host}/{NAME}:latest"), Access()) as store:
            assert store.manifest().layers


def test_what_cannot_be_used(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nonsense")
    with pytest.raises(InputError, match=r"ca\.crt"):
        certificates.load(ssl.create_default_context(), tmp_path)
    (tmp_path / "ca.crt").unlink()
    (tmp_path / "c.cert").write_bytes(pair[0].read_bytes())
    (tmp_path / "c.key").write_text("nonsense")
    with pytest.raises(InputError, match=r"c\.cert"):
        certificates.load(ssl.create_default_context(), tmp_path)


def test_a_pipe_is_no_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    keep_open = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    threading.Timer(2, os.close, [keep_open]).start()  # where it is read after all, that ends
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "pipe"))
    with pytest.raises(InputError, match="pipe: not a file"):
        certificates.default()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent"))
    assert certificates.default().verify_mode is ssl.CERT_REQUIRED
