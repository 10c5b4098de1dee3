"""hpc3build check on the real image, and on small ones that are broken in one way each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hpc3build.containerfile import ENTRYPOINTS
from tests.images import Entry, File, Symlink, make_layout
from tests.integration.support import USERS, Built, hpc3build, images

engine = pytest.mark.engine
P = "org.supercontainers."
PAIRS = {P + "mpi": "none", P + "gpu": "none", "org.opencontainers.image.title": "small"}
RECORD = json.dumps({"prepend": {"PATH": ["/opt/app/bin"]}, "set": {}}).encode()


@dataclass(frozen=True)
class Small:
    """A small image that conforms, as the arguments of make_layout."""

    files: Mapping[str, Entry] = field(
        default_factory=lambda: {
            "bin/bash": File(b"\x7fELF"),
            "etc/profile": b"# /etc/profile: whoami and id -un are not called\numask 022\n",
            "etc/profile.d/z10_hpc3build.sh": b"export PATH=/opt/app/bin:$PATH\n",
            "opt/hpc3build/environment.json": RECORD,
            "opt/app/bin/app": File(b"#!/bin/bash\n"),
        }
    )
    config: Mapping[str, Any] = field(
        default_factory=lambda: {
            "Entrypoint": list(ENTRYPOINTS["hpc3"]),
            "Cmd": ["/bin/bash"],
            "Env": ["PATH=/opt/app/bin:/usr/bin:/bin"],
        }
    )
    labels: Mapping[str, str] = field(default_factory=lambda: PAIRS)
    annotations: Mapping[str, str] = field(default_factory=lambda: PAIRS)

    def plus(self, path: str, entry: Entry) -> Small:
        return replace(self, files={**self.files, path: entry})

    def told(self, key: str, value: str) -> Small:
        """The pair as label and as annotation."""
        return replace(self, labels={**self.labels, key: value}, annotations={**self.annotations, key: value})

    def configured(self, **members: Any) -> Small:
        given = {**self.config, **members}
        return replace(self, config={name: value for name, value in given.items() if value is not None})


SMALL = Small()
PATH = "PATH=/opt/app/bin:/usr/bin:/bin"
BROKEN: dict[str, tuple[Small, str, str]] = {
    # what is wrong: the image, the one rule that fails, and what the finding names
    "no entry point": (SMALL.configured(Entrypoint=None), "entrypoint", ""),
    "another entry point": (SMALL.configured(Entrypoint=["/bin/sh", "-c"]), "entrypoint", "/bin/sh"),
    "an entry point without login": (
        SMALL.configured(Entrypoint=[part for part in ENTRYPOINTS["hpc3"] if part != "-l"]),
        "entrypoint",
        "--rcfile",
    ),
    "no command": (SMALL.configured(Cmd=None), "command", ""),
    "a command that is no shell": (SMALL.configured(Cmd=["app"]), "command", "app"),
    "a label that differs": (replace(SMALL, labels={**PAIRS, P + "mpi": "mpich"}), "labels", P + "mpi"),
    "an annotation that is no label": (
        replace(SMALL, annotations={**PAIRS, P + "glibc": "2.36"}),
        "labels",
        P + "glibc",
    ),
    "a label that is no annotation": (replace(SMALL, labels={**PAIRS, P + "glibc": "2.36"}), "labels", P + "glibc"),
    "nothing said at all": (replace(SMALL, labels={}, annotations={}), "labels", "nothing"),
    "a malformed mandatory key": (
        SMALL.told(P + "hardware.cpu.optimized.mode", "fast"),
        "well-formed",
        P + "hardware.cpu.optimized.mode",
    ),
    "a malformed version": (SMALL.told(P + "glibc", "two"), "well-formed", P + "glibc"),
    "a forbidden key": (SMALL.told("run.oci.hooks.stderr", "/dev/null"), "forbidden", "run.oci.hooks.stderr"),
    "a hook": (SMALL.told("com.hooks.mpi.enabled", "true"), "forbidden", "com.hooks.mpi.enabled"),
    "gcc": (SMALL.plus("usr/bin/x86_64-linux-gnu-gcc-12", File(b"\x7fELF")), "leftovers", "x86_64-linux-gnu-gcc-12"),
    "gcc by a link": (SMALL.plus("usr/bin/gcc", Symlink("gcc-12")), "leftovers", "/usr/bin/gcc"),
    "cc1": (SMALL.plus("usr/lib/gcc/x86_64-linux-gnu/12/cc1", File(b"\x7fELF")), "leftovers", "cc1"),
    "a header": (SMALL.plus("usr/include/mpi.h", b"#pragma once\n"), "leftovers", "/usr/include/mpi.h"),
    "pip.conf": (SMALL.plus("etc/pip.conf", b"[global]\nindex-url = https://u:p@x/\n"), "leftovers", "/etc/pip.conf"),
    "a proxy of apt's": (
        SMALL.plus("etc/apt/apt.conf.d/80proxy", b'Acquire::http::Proxy "http://x";\n'),
        "leftovers",
        "80proxy",
    ),
    "a site's CA": (SMALL.plus("usr/local/share/ca-certificates/site.crt", b"-----BEGIN"), "leftovers", "site.crt"),
    "a build secret": (SMALL.plus("run/secrets/hpc3build_env", b"export http_proxy=x\n"), "leftovers", "run/secrets"),
    "the host's driver": (SMALL.plus("usr/lib/libcuda.so.1", File(b"\x7fELF")), "leftovers", "libcuda.so.1"),
    "a proxy in Env": (SMALL.configured(Env=[PATH, "http_proxy=http://u:p@x:1"]), "environment", "http_proxy"),
    "a CA in Env": (SMALL.configured(Env=[PATH, "SSL_CERT_FILE=/site.pem"]), "environment", "SSL_CERT_FILE"),
    "no PATH": (SMALL.configured(Env=[]), "environment", "PATH"),
    "the application off PATH": (SMALL.configured(Env=["PATH=/usr/bin:/bin"]), "environment", "PATH=/usr/bin"),
    "id -un": (SMALL.plus("etc/profile.d/u.sh", b'USER="`id -un`"\n'), "any-uid", "/etc/profile.d/u.sh"),
    "whoami in bashrc": (SMALL.plus("etc/bash.bashrc", b"[ $(whoami) = root ] && umask 022\n"), "any-uid", "whoami"),
}


def check(reference: str, *options: str) -> tuple[int, str, list[dict[str, str]]]:
    done = hpc3build("check", reference, "--json", *options, check=False)
    document = json.loads(done.stdout)
    assert document["bytes_not_downloaded"] == 0 and done.stderr == ""
    return done.returncode, document["verdict"], document["findings"]


def make(folder: Path, image: Small) -> str:
    layers = [image.files]
    make_layout(
        folder, layers, config=image.config, labels=image.labels, annotations=image.annotations, compression="gzip"
    )
    return f"oci:{folder}:latest"


def test_a_small_image_conforms(tmp_path: Path) -> None:
    """Else the broken ones would fail by more than their fault."""
    status, verdict, findings = check(make(tmp_path / "l", SMALL))
    assert (status, verdict) == (0, "CONFORMS")
    assert {finding["outcome"] for finding in findings if finding["rule"] != "mandatory"} == {"OK"}
    assert "UNKNOWN" in {finding["outcome"] for finding in findings if finding["rule"] == "mandatory"}


@pytest.mark.parametrize("fault", BROKEN)
def test_one_fault_fails_by_its_own_rule(fault: str, tmp_path: Path) -> None:
    image, rule, named = BROKEN[fault]
    status, verdict, findings = check(make(tmp_path / "l", image))
    failed = [finding for finding in findings if finding["outcome"] == "FAILS"]
    assert (status, verdict) == (1, "FAILS")
    assert {finding["rule"] for finding in failed} == {rule}
    assert any(named in f"{finding['key']} {finding['message']}" for finding in failed)
    assert all(finding["hint"] for finding in failed)


def test_what_a_later_layer_removed_is_no_fault(tmp_path: Path) -> None:
    folder = tmp_path / "l"
    layers = [{**SMALL.files, "usr/bin/gcc": File(b"\x7fELF")}, {"usr/bin/gcc": None}]
    make_layout(folder, layers, config=SMALL.config, labels=PAIRS, annotations=PAIRS)
    assert check(f"oci:{folder}:latest")[:2] == (0, "CONFORMS")


def test_the_text_says_it_too(tmp_path: Path) -> None:
    done = hpc3build("check", make(tmp_path / "l", BROKEN["gcc"][0]), check=False)
    assert done.returncode == 1 and done.stdout.splitlines()[-1] == "FAILS"
    assert any(line.startswith("FAILS") and "leftovers" in line for line in done.stdout.splitlines())


@engine
@pytest.mark.parametrize("where", ["layout", "store"])
def test_the_built_image_conforms(mpi_hello: Built, where: str) -> None:
    reference = mpi_hello.reference if where == "layout" else f"containers-storage:{mpi_hello.name}"
    status, verdict, findings = check(reference)
    assert (status, verdict) == (0, "CONFORMS")
    assert {finding["rule"] for finding in findings if finding["outcome"] == "OK"} == {
        "entrypoint", "command", "environment", "labels", "mandatory", "well-formed", "any-uid", "leftovers",
    }  # fmt: skip


@engine
@pytest.mark.parametrize("name", ["podman", "buildah"])
def test_the_built_image_conforms_under(name: str, mpi_hello: Built, leftover_containers: None) -> None:
    before = images()
    status, verdict, findings = check(mpi_hello.reference, "--run", name)
    assert (status, verdict) == (0, "CONFORMS")
    live = [finding for finding in findings if finding["rule"] == f"any-uid:{name}"]
    ran = [finding["message"] for finding in live if finding["outcome"] == "OK"]
    for user in USERS.values():
        of_user = [message for message in ran if f"({user})" in message]
        assert len(of_user) == {"podman": 3, "buildah": 1}[name], ran
    told = {finding["message"] for finding in live if finding["outcome"] == "UNKNOWN"}
    assert len(told) == {"podman": 0, "buildah": 2}[name]  # what it can't express is never green
    assert images() == before


@engine
def test_an_image_that_starts_for_nobody_fails_live(
    mpi_hello: Built, tmp_path: Path, leftover_containers: None
) -> None:
    """Right on paper, and without a bash."""
    before = images()
    status, verdict, findings = check(make(tmp_path / "l", SMALL), "--run", "podman")
    assert (status, verdict) == (1, "FAILS")
    assert {finding["rule"] for finding in findings if finding["outcome"] == "FAILS"} == {"any-uid:podman"}
    assert images() == before


def test_an_unknown_engine(tmp_path: Path) -> None:
    done = hpc3build("check", make(tmp_path / "l", SMALL), "--run", "rkt", check=False)
    assert done.returncode == 2 and "rkt" in done.stderr and "podman" in done.stderr and done.stdout == ""
