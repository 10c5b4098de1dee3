"""A build through a real proxy with a password, in a store of its own: nothing of the site stays anywhere."""

from __future__ import annotations

import base64
import gzip
import http.server
import select
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.support import MARKERS, RECIPE, Built, hpc3build, sh

pytestmark = [pytest.mark.engine, pytest.mark.long]

PASSWORD = MARKERS["a proxy password"]


class Proxy(http.server.BaseHTTPRequestHandler):
    """Forwards GET and CONNECT for whoever gives the password; counts what came through."""

    passed: set[str] = set()  # noqa: RUF012
    protocol_version = "HTTP/1.0"

    def allowed(self) -> bool:
        wanted = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
        if self.headers.get("Proxy-Authorization") == f"Basic {wanted}":
            return True
        self.send_response(407)
        self.send_header("Proxy-Authenticate", 'Basic realm="site"')
        self.end_headers()
        return False

    def do_GET(self) -> None:
        if not self.allowed():
            return
        self.passed.add("GET")
        kept = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy")}
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            answer = opener.open(urllib.request.Request(self.path, headers=kept), timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            self.send_response(answer.status or 502)
            for name, value in answer.headers.items():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            shutil.copyfileobj(answer, self.wfile)

    def do_CONNECT(self) -> None:
        if not self.allowed():
            return
        self.passed.add("CONNECT")
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as there:
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            pairs = {self.connection: there, there: self.connection}
            while True:
                ready, _, _ = select.select(list(pairs), [], [], 60)
                for one in ready:
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    pairs[one].sendall(data)
                if not ready:
                    return

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://user:{PASSWORD}@127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def store(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store of its own, with the base in it: what was built with the markers never mixes with the machine's cache."""
    shown = sh("podman", "info", "--format", "{{.Store.GraphDriverName}}").stdout.strip()
    sh("skopeo", "copy", "--quiet", f"containers-storage:{base}", f"oci:{tmp_path}/base:1")
    root, conf = tmp_path / "store", tmp_path / "storage.conf"
    conf.write_text(f'[storage]\ndriver = "{shown}"\nrunroot = "{tmp_path}/run"\ngraphroot = "{root}"\n')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(conf))
    sh("skopeo", "copy", "--quiet", f"oci:{tmp_path}/base:1", f"containers-storage:{base}")
    yield root
    subprocess.run(["buildah", "rmi", "--all", "--force"], capture_output=True, check=False)
    subprocess.run(["umount", str(root / "overlay")], capture_output=True, check=False)


def test_a_proxy_with_a_password_leaves_no_trace(
    proxy: str, site: dict[str, str], secret: Path, store: Path, base: str, tmp_path: Path
) -> None:
    """apt and pip go through it; a secret of the recipe is mounted and read where it installs."""
    recipe = Path(shutil.copytree(RECIPE, tmp_path / "recipe" / "mpi-hello"))
    with (recipe / "hpc3build.yaml").open("a") as file:
        file.write("secrets: [marker]\n")
    easyconfig = recipe / "mpi-hello-1.0-gompi-system.eb"
    read = "prebuildopts = 'grep -q S3CRET-file /run/secrets/marker && '\nbuildopts = '"
    easyconfig.write_text(easyconfig.read_text().replace("buildopts = '", read))
    env = {**site, "http_proxy": proxy, "https_proxy": proxy, "HTTPS_PROXY": proxy, "no_proxy": "proxy.invalid"}
    layout = tmp_path / "out"
    argv = ["build", recipe, "-t", f"oci:{layout}:1", "--engine", "buildah", "--base", base]
    done = hpc3build(*argv, "--secret", f"id=marker,src={secret}", env=env, check=False)
    assert done.returncode == 0, done.stderr[-3000:].replace(PASSWORD, "***")
    assert Proxy.passed == {"GET", "CONNECT"}, "the build did not go through the proxy"

    forms = [form for marker in MARKERS.values() for form in (marker.encode(), base64.b64encode(marker.encode())[:-4])]
    forms += [base64.b64encode(f"user:{PASSWORD}".encode()), proxy.rpartition("@")[2].encode()]
    built = Built(layout, "1", "", base, done.stdout, done.stderr)
    texts = {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    for path in layout.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            texts[path.name] = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    assert len(texts) >= 2 + 2 + len(built.manifest["layers"])
    assert [(name, form) for name, data in texts.items() for form in forms if form in data] == []
    # The builder's layers too, which stay in the engine's cache.
    found = sh("grep", "-rlaF", *(part for form in forms for part in ("-e", form.decode())), store, check=False)
    assert found.stdout.splitlines() == []
