"""docs/conformance.md, last table: what other tools' images keep of the rules, on twins of recipes/mpi-hello's image.

The twins have what those tools write: Spack's entry point and activation script (its Docker template), EasyBuild's
user, shell start-up file and leftovers (tests/data/easybuild/containerize).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc3build.containerfile import ENTRYPOINTS
from tests.images import File, Layer
from tests.integration.support import ROOT, Built, hpc3build
from tests.variants import variant

pytestmark = [pytest.mark.engine, pytest.mark.long]

BIN = "/opt/easybuild/software/mpi-hello/1.0-gompi-system/bin"
ENV = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
OURS_AWAY: Layer = {"etc/profile.d/z10_hpc3build.sh": None, "opt/hpc3build": None}
PASSWD = b"root:x:0:0:root:/root:/bin/bash\neasybuild:x:1000:1000::/home/easybuild:/bin/bash\n"
WORST = ("OK", "UNKNOWN", "DEGRADED", "FAILS")


def spack(layout: Path, folder: Path) -> str:
    layer: Layer = {
        **OURS_AWAY,
        "entrypoint.sh": File(b'#!/usr/bin/env bash\n. /opt/spack-environment/activate.sh\nexec "$@"\n'),
        "opt/spack-environment/activate.sh": f"export PATH={BIN}:$PATH\n".encode(),
    }
    return variant(layout, folder, layer=layer, annotations={}, Labels={}, Env=ENV, Entrypoint=["/entrypoint.sh"])


def easybuild(layout: Path, folder: Path) -> str:
    layer: Layer = {
        **OURS_AWAY,
        "etc/passwd": PASSWD,
        "home/easybuild/.bashrc": f"export PATH={BIN}:$PATH\n".encode(),
        "usr/bin/gcc": File(b"\x7fELF"),
        "var/lib/apt/lists/archive_dists_focal_main_binary-amd64_Packages": b"x",
        "app/software/mpi-hello/1.0/easybuild/easybuild-mpi-hello-1.0.log": b"log",
    }
    return variant(
        layout, folder, layer=layer, annotations={}, Labels={"maintainer": "easybuild@lists.ugent.be"}, Env=ENV,
        Entrypoint=None, Cmd=["/bin/bash", "-l"], User="easybuild",
    )  # fmt: skip


def ours(layout: Path, folder: Path) -> str:
    return variant(layout, folder, Entrypoint=list(ENTRYPOINTS["hpc3-exec"]))


def outcomes(reference: str) -> dict[str, str]:
    """The worst outcome of each rule."""
    done = hpc3build("check", reference, "--run", "podman", "--smoke", "mpi-hello", "--json", check=False)
    worst: dict[str, str] = {}
    for finding in json.loads(done.stdout)["findings"]:
        worst[finding["rule"]] = max(worst.get(finding["rule"], "OK"), finding["outcome"], key=WORST.index)
    return worst


def test_the_table_in_the_docs(mpi_hello: Built, tmp_path: Path, leftover_containers: None) -> None:
    found = [outcomes(make(mpi_hello.layout, tmp_path / make.__name__)) for make in (ours, spack, easybuild)]
    rows = [
        f"| `{rule}` | {' | '.join(one[rule] for one in found)} |"
        for rule in found[0]
        if any(one[rule] != "OK" for one in found)
    ]
    page = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    table = page[page.index("| rule | hpc3build | `spack") :].strip().splitlines()[2:]
    assert table == rows, "\n".join(rows)
