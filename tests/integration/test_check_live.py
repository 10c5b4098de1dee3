"""hpc3build check --run: the matrix of engines, users and ways, and images that are broken in one way each."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hpc3build.containerfile import ENTRYPOINTS
from tests.commands import started
from tests.images import File, Layer
from tests.integration.docker_daemon import daemon
from tests.integration.support import Built, hpc3build, images, missing, sh
from tests.variants import variant

pytestmark = pytest.mark.engine

USERS = ("root", "nobody", "an unknown user", "an unknown supplementary group")
WAYS = {"login-shell", "arguments", "quoting", "exit-status", "shell-pipe", "stdin", "read-only", "any-home"}
WAYS |= {"bypassed", "scratch"}
LOST_BY_HPC3 = {"quoting", "exit-status", "shell-pipe"}
TOOL = {"charliecloud": "ch-run", "apptainer": "podman", "enroot": "podman"}
#: What an engine cannot express, for every user; and whether it knows supplementary groups.
LACKS: Mapping[str, tuple[set[str], bool]] = {
    "podman": (set(), True),
    "docker": (set(), True),
    "buildah": ({"login-shell", "read-only", "signals"}, False),
    "charliecloud": ({"login-shell", "scratch", "signals"}, False),
    "apptainer": (set(), True),
    "enroot": ({"scratch"}, True),
}
long = pytest.mark.long


def check(reference: str, *options: str) -> tuple[int, list[dict[str, str]]]:
    done = hpc3build("check", reference, "--static", "config", "--json", *options, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, [finding for finding in json.loads(done.stdout)["findings"] if finding["where"]]


@pytest.mark.parametrize(
    ("engine", "entry"),
    [
        ("podman", "hpc3-exec"),
        *(
            pytest.param(engine, entry, marks=long)
            for engine in LACKS
            for entry in ENTRYPOINTS
            if (engine, entry) != ("podman", "hpc3-exec")
        ),
    ],
)
def test_the_matrix(
    engine: str, entry: str, mpi_hello: Built, tmp_path: Path, leftover_containers: None, request: pytest.FixtureRequest
) -> None:
    """Every cell is green, or is named here: what the engine lacks, and what HPC3's own line loses by definition."""
    if engine == "docker":
        request.getfixturevalue("docker_daemon")
    elif reason := missing(TOOL.get(engine, engine)):
        pytest.skip(reason)
    reference = variant(mpi_hello.layout, tmp_path / "l", Entrypoint=list(ENTRYPOINTS[entry]))
    status, findings = check(reference, "--run", engine)
    assert status == 0
    lacks, groups = LACKS[engine]
    cells = {(one["rule"], one["where"].partition(", ")[2]): one for one in findings}
    assert {rule for rule, _ in cells} == WAYS | {"signals", "quiet", "fast", "strict"}
    for (rule, user), cell in cells.items():
        if rule in lacks or (user == USERS[3] and not groups):
            assert cell["outcome"] == "UNKNOWN" and cell["message"].startswith("n/a: "), cell
        elif rule in LOST_BY_HPC3 and entry == "hpc3" and engine in ("podman", "docker", "apptainer", "enroot"):
            assert cell["outcome"] == "DEGRADED" and "hpc3-exec" in cell["hint"], cell
        else:
            assert cell["outcome"] == "OK", cell
    assert {user for _, user in cells} == set(USERS) and len(cells) == len(WAYS) * len(USERS) + 4


@pytest.fixture(scope="module")
def docker_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with daemon(tmp_path_factory.mktemp("docker")):
        yield


def profile(text: str) -> Layer:
    return {"etc/profile.d/z99_broken.sh": text.encode()}


def wrapper(text: str) -> tuple[Layer, dict[str, Any]]:
    """An entry point of its own, which runs the command in the end."""
    layer: Layer = {"entry.sh": File(f"#!/bin/bash\n{text}\n".encode())}
    return layer, {"Entrypoint": ["/entry.sh"]}


#: The fault, and the rules that fail for it: the one meant for it, and those that cannot hold without it.
BROKEN: dict[str, tuple[Layer | None, dict[str, Any], set[str]]] = {
    "it asks for nothing and gives no shell": (None, {"Cmd": ["true"]}, {"login-shell"}),
    "arguments are joined": (*wrapper('. /etc/profile; exec bash -c "$*"'), {"quoting", "shell-pipe", "exit-status"}),
    "the exit status is lost": (*wrapper('. /etc/profile; "$@"; exit 0'), {"exit-status", "signals"}),
    "standard input is lost": (*wrapper('. /etc/profile; exec "$@" </dev/null'), {"stdin", "login-shell"}),
    "signals are lost": (*wrapper('. /etc/profile; "$@"; exit $?'), {"signals"}),
    "the entry point sets no environment": (
        *wrapper('export PATH=/usr/bin:/bin; exec "$@"'),
        {"arguments", "smoke"},
    ),
    "the environment is nowhere but in the entry point": (
        None,
        {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "APPLICATION=/opt/x"]},
        {"smoke-bypassed"},
    ),
    "it greets": (profile("echo Welcome"), {}, {"quiet"}),
    "it is slow": (profile("sleep 0.2"), {}, {"fast"}),
    "it is careless": (profile(': "$NO_SUCH_VARIABLE"'), {}, {"strict"}),
    "it goes home": (profile("cd /"), {}, {"scratch"}),
    "it writes": (
        {**profile(": >>/opt/written || exit 1"), "opt/written": File(b"", 0o666)},
        {},
        {"read-only"},
    ),
    # Debian's nobody has that home, and any-home gives it to the others.
    "it needs a home": (
        profile('[ "$HOME" != /nonexistent ] || [ "$(id -u)" = 65534 ] || exit 1'),
        {},
        {"any-home"},
    ),
}


@long
@pytest.mark.parametrize("fault", BROKEN)
def test_one_fault_is_told_by_its_own_rule(
    fault: str, mpi_hello: Built, tmp_path: Path, leftover_containers: None
) -> None:
    layer, members, rules = BROKEN[fault]
    given = {"Entrypoint": list(ENTRYPOINTS["hpc3-exec"]), **members}
    reference = variant(mpi_hello.layout, tmp_path / "l", layer=layer, **given)
    _, findings = check(reference, "--run", "podman", "--smoke", "mpi-hello")
    assert {one["rule"] for one in findings if one["outcome"] not in ("OK", "UNKNOWN")} == rules


@pytest.mark.parametrize("entry", ENTRYPOINTS)
def test_a_smoke_test_that_fails_under_either_entry_point(
    entry: str, mpi_hello: Built, tmp_path: Path, leftover_containers: None
) -> None:
    reference = variant(mpi_hello.layout, tmp_path / "l", Entrypoint=list(ENTRYPOINTS[entry]))
    line = "mpi-hello >/dev/null && sh -c 'exit 3'"
    status, findings = check(reference, "--run", "podman", "--smoke", line)
    told = [one for one in findings if one["rule"].startswith("smoke")]
    assert status == 1 and len(told) == 2 * len(USERS)
    assert {(one["outcome"], one["message"].partition(":")[0]) for one in told} == {
        ("FAILS", "exit status 3 instead of 0")
    }


def test_an_engine_that_starts_nothing_says_nothing_of_the_image(
    mpi_hello: Built, tmp_path: Path, leftover_containers: None
) -> None:
    """Right on paper, and without a shell."""
    before = images()
    layer: Layer = {"usr/bin/bash": None, "bin/bash": None}
    status, findings = check(variant(mpi_hello.layout, tmp_path / "l", layer=layer), "--run", "podman")
    assert status == 1 and images() == before
    assert "FAILS" in {one["outcome"] for one in findings if one["rule"] == "login-shell"}


def test_an_interrupted_check_leaves_no_container(base: str, leftover_containers: None) -> None:
    before = images()
    ours = ("podman", "ps", "--all", "--quiet", "--filter", "name=^hpc3build-[0-9a-f]{32}$")
    deadline = time.monotonic() + 60
    with started("check", f"containers-storage:{base}", "--run", "podman") as process:
        while len(sh(*ours).stdout.split()) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None, "it ended before several containers were there"
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err, err
    assert images() == before
