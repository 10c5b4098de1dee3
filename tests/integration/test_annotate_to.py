"""``annotate --to`` into and out of containers-storage, and ``check --run`` of an image behind a password."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc3build.stores.layout import Layout
from tests.fake_registry import NAME, FakeRegistry
from tests.images import make_layout
from tests.integration.support import hpc3build, sh

pytestmark = pytest.mark.engine


@pytest.fixture
def name(engine_env: None) -> Iterator[str]:
    name = f"localhost/hpc3build-to-{uuid.uuid4().hex[:12]}"
    yield name
    listed = sh("podman", "images", "--format", "{{.Repository}}:{{.Tag}}", name).stdout.split()
    sh("podman", "rmi", "--force", *listed)


def digest(name: str) -> str:
    manifest = sh("skopeo", "inspect", "--raw", f"containers-storage:{name}").stdout
    return json.loads(manifest)["annotations"].get("k", "")  # type: ignore[no-any-return]


def test_into_podmans_store_and_out_again(name: str, tmp_path: Path) -> None:
    old = make_layout(tmp_path / "l", [{"a": b"1" * 50_000}, {"b": b"2"}], annotations={"z": "1"}, tag="1")
    hpc3build("annotate", f"oci:{tmp_path}/l:1", "--to", f"containers-storage:{name}:1", "-a", "k=1")
    inspected = json.loads(sh("podman", "image", "inspect", f"{name}:1").stdout)[0]
    assert f"sha256:{inspected['Id']}" == old.config.digest and digest(f"{name}:1") == "1"
    # A new name in the same store takes no layer anywhere.
    hpc3build("annotate", f"containers-storage:{name}:1", "--to", f"containers-storage:{name}:2", "-a", "k=2")
    assert digest(f"{name}:2") == "2"
    out = hpc3build("annotate", f"containers-storage:{name}:2", "--to", f"oci:{tmp_path}/o:1", "-a", "k=3")
    new = Layout(tmp_path / "o").manifest("1")
    assert new.annotations == {"k": "3", "z": "1"} and new.config.digest == old.config.digest
    assert "packed anew" in out.stderr or new.layers == old.layers
    sh("skopeo", "copy", "-q", f"oci:{tmp_path}/o:1", f"dir:{tmp_path}/d")


def test_the_old_manifest_comes_back(name: str, tmp_path: Path) -> None:
    """containers-storage forgets it: the receipt holds it."""
    make_layout(tmp_path / "l", [{"a": b"1"}], annotations={"k": "0"}, tag="1")
    hpc3build("annotate", f"oci:{tmp_path}/l:1", "--to", f"containers-storage:{name}:1")
    refused = hpc3build("annotate", f"containers-storage:{name}:1", "-a", "k=1", "--backup-tag", check=False)
    assert refused.returncode == 4 and "--receipt" in refused.stderr and digest(f"{name}:1") == "0"
    for number, options in enumerate(([], ["--labels"])):
        receipt = tmp_path / f"{number}.json"
        hpc3build("annotate", f"containers-storage:{name}:1", "-a", "k=1", *options, "--receipt", receipt)
        assert digest(f"{name}:1") == "1"
        hpc3build("annotate", "--undo", receipt)
        assert digest(f"{name}:1") == "0"


def test_check_hands_the_password_on(engine_env: None, tmp_path: Path) -> None:
    make_layout(tmp_path / "l", [{"a": b"1"}])
    with FakeRegistry() as fake:
        fake.add(tmp_path / "l")
        fake.basic = ("alice", "s3cret-5d1c")
        argv = ["check", f"{fake.host}/{NAME}:latest", "--run", "podman", "--json", "--username", "alice"]
        done = hpc3build(*argv, "--password-stdin", input="s3cret-5d1c\n", check=False)
        assert done.returncode == 1 and "s3cret" not in done.stderr, done.stderr
        rules = {finding["rule"] for finding in json.loads(done.stdout)["findings"]}
        assert any(rule.startswith(("any-uid", "starts")) or "podman" in str(rule) for rule in rules), rules
