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
from tests.integration.support import Built, hpc3build
from tests.variants import elf_with_sections

engine = pytest.mark.engine
P = "org.supercontainers."
OCI = "org.opencontainers.image."
PAIRS = {
    P + "mpi": "none",
    P + "gpu": "none",
    OCI + "title": "small",
    OCI + "version": "1.0",
    OCI + "description": "run app",
    OCI + "licenses": "MIT",
    OCI + "base.name": "docker.io/library/debian:12",
    OCI + "base.digest": f"sha256:{'0' * 64}",
    "io.github.hpc3build.lock": f"sha256:{'1' * 64}",
    "io.github.hpc3build.conformance": "login,nobody",
}
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

    def labelled(self, key: str, value: str) -> Small:
        return replace(self, labels={**self.labels, key: value})

    def silent(self, key: str) -> Small:
        def less(pairs: Mapping[str, str]) -> dict[str, str]:
            return {name: value for name, value in pairs.items() if name != key}

        return replace(self, labels=less(self.labels), annotations=less(self.annotations))

    def without(self, path: str) -> Small:
        return replace(self, files={name: entry for name, entry in self.files.items() if name != path})

    def configured(self, **members: Any) -> Small:
        given = {**self.config, **members}
        return replace(self, config={name: value for name, value in given.items() if value is not None})


SMALL = Small()
DEBUG = elf_with_sections(".text", ".debug_info")
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
    "gcc": (SMALL.plus("usr/bin/x86_64-linux-gnu-gcc-12", File(b"\x7fELF")), "build-tools", "x86_64-linux-gnu-gcc-12"),
    "gcc by a link": (SMALL.plus("usr/bin/gcc", Symlink("gcc-12")), "build-tools", "/usr/bin/gcc"),
    "cc1": (SMALL.plus("usr/lib/gcc/x86_64-linux-gnu/12/cc1", File(b"\x7fELF")), "build-tools", "cc1"),
    "a header": (SMALL.plus("usr/include/mpi.h", b"#pragma once\n"), "build-tools", "/usr/include/mpi.h"),
    "pip.conf": (SMALL.plus("etc/pip.conf", b"[global]\nindex-url = https://u:p@x/\n"), "site-files", "/etc/pip.conf"),
    "a proxy of apt's": (
        SMALL.plus("etc/apt/apt.conf.d/80proxy", b'Acquire::http::Proxy "http://x";\n'),
        "site-files",
        "80proxy",
    ),
    "a site's CA": (SMALL.plus("usr/local/share/ca-certificates/site.crt", b"-----BEGIN"), "site-files", "site.crt"),
    "a build secret": (SMALL.plus("run/secrets/hpc3build_env", b"export http_proxy=x\n"), "secrets", "run/secrets"),
    "the host's driver": (SMALL.plus("usr/lib/libcuda.so.1", File(b"\x7fELF")), "driver", "libcuda.so.1"),
    "a proxy in Env": (SMALL.configured(Env=[PATH, "http_proxy=http://x:1"]), "site-settings", "http_proxy"),
    "a CA in Env": (SMALL.configured(Env=[PATH, "SSL_CERT_FILE=/site.pem"]), "site-settings", "SSL_CERT_FILE"),
    "no PATH": (SMALL.configured(Env=[]), "environment", "PATH"),
    "the application off PATH": (SMALL.configured(Env=["PATH=/usr/bin:/bin"]), "environment", "PATH=/usr/bin"),
    "id -un": (SMALL.plus("etc/profile.d/u.sh", b'USER="`id -un`"\n'), "any-uid", "/etc/profile.d/u.sh"),
    "whoami in bashrc": (SMALL.plus("etc/bash.bashrc", b"[ $(whoami) = root ] && umask 022\n"), "any-uid", "whoami"),
    "id -u -n": (SMALL.plus("etc/profile.d/u.sh", b"USER=$(id -u -n)\n"), "any-uid", "id -u -n"),
    "a password in Env": (SMALL.configured(Env=[PATH, "DB_PASSWORD=x1"]), "credentials", "DB_PASSWORD"),
    "a password in a URL": (SMALL.configured(Env=[PATH, "INDEX=https://u:p@x/"]), "credentials", "INDEX"),
    "a password in a label": (SMALL.labelled("index", "https://u:p@x/"), "credentials", "index"),
    "a closed working folder": (SMALL.configured(WorkingDir="/root"), "working-folder", "/root"),
    "the superseded schema": (SMALL.labelled("org.label-schema.name", "CentOS"), "stale-labels", "label-schema"),
    "the base's title": (SMALL.told(OCI + "title", "debian"), "stale-labels", OCI + "title"),
    "the base's version": (SMALL.told(OCI + "version", "12"), "stale-labels", OCI + "version"),
    "no bash": (SMALL.without("bin/bash"), "shell", "/bin/bash"),
    "a bash for root only": (SMALL.plus("bin/bash", File(b"\x7fELF", 0o700)), "shell", "0700"),
    "a closed application": (SMALL.plus("opt/app/lib/data", File(b"x", 0o600)), "readable", "/opt/app/lib/data"),
    "a closed login script": (SMALL.plus("etc/profile.d/x.sh", File(b"", 0o640)), "readable", "profile.d/x.sh"),
    "set-UID": (SMALL.plus("opt/app/bin/helper", File(b"\x7fELF", 0o4755)), "set-uid", "helper"),
    "apt's lists": (
        SMALL.plus("var/lib/apt/lists/deb.debian.org_debian_dists_bookworm_main_binary-amd64_Packages", b"x"),
        "caches",
        "Packages",
    ),
    "pip's cache": (SMALL.plus("root/.cache/pip/http/a", b"x"), "caches", ".cache"),
    "a builder's log": (SMALL.plus("opt/sw/easybuild/easybuild-app.log", b"x"), "caches", "easybuild-app.log"),
    "a private key": (SMALL.plus("root/.ssh/id_ed25519", b"x"), "secrets", "id_ed25519"),
    "a registry's password": (SMALL.plus("root/.docker/config.json", b"{}"), "secrets", "config.json"),
    "apt's password": (SMALL.plus("etc/apt/auth.conf.d/site.conf", b"machine x"), "secrets", "auth.conf.d"),
    "a stub of the driver": (SMALL.plus("opt/cuda/lib64/stubs/libcuda.so", b"x"), "driver", "stubs"),
}


#: Faults that only degrade: the image still conforms.
DEGRADED: dict[str, tuple[Small, str, str]] = {
    "a user by name": (SMALL.configured(User="app"), "user", "app"),
    "a volume": (SMALL.configured(Volumes={"/data": {}}), "volumes", "/data"),
    "no base": (SMALL.silent(OCI + "base.digest"), "base-pinned", OCI + "base.digest"),
    "no version": (SMALL.silent(OCI + "version"), "version", OCI + "version"),
    "untested": (SMALL.silent("io.github.hpc3build.conformance"), "tested", "conformance"),
    "no licence": (SMALL.silent(OCI + "licenses"), "licence", OCI + "licenses"),
    "no origin": (SMALL.silent("io.github.hpc3build.lock"), "reproducible", "lock"),
    "no usage": (SMALL.silent(OCI + "description"), "usage", "documentation"),
    "data": (SMALL.plus("data/genome.fa", b"ACGT"), "data", "/data/genome.fa"),
    "debugging sections": (SMALL.plus("opt/app/bin/app", File(DEBUG)), "stripped", "/opt/app/bin/app"),
}
GOOD = {
    "hpc3": SMALL,
    "hpc3-exec": SMALL.configured(Entrypoint=list(ENTRYPOINTS["hpc3-exec"])),
    "a user by number": SMALL.configured(User="1000:1000"),
    "a working folder": SMALL.configured(WorkingDir="/opt/app"),
    "an application that is a link": SMALL.plus("opt/app/bin/other", Symlink("app")),
    "Debian's set-UID files": SMALL.plus("usr/bin/su", File(b"\x7fELF", 0o4755)),
}


def check(reference: str, *options: str) -> tuple[int, str, list[dict[str, str]]]:
    done = hpc3build("check", reference, "--json", *options, check=False)
    document = json.loads(done.stdout)
    assert done.stderr == "" and (document["bytes_not_downloaded"] == 0) == ("config" not in options)
    return done.returncode, document["verdict"], document["findings"]


def make(folder: Path, image: Small) -> str:
    layers = [image.files]
    make_layout(
        folder, layers, config=image.config, labels=image.labels, annotations=image.annotations, compression="gzip"
    )
    return f"oci:{folder}:latest"


@pytest.mark.parametrize("name", GOOD)
def test_a_good_image_conforms(name: str, tmp_path: Path) -> None:
    """Else the broken ones would fail by more than their fault."""
    status, verdict, findings = check(make(tmp_path / "l", GOOD[name]))
    assert (status, verdict) == (0, "CONFORMS")
    assert {finding["outcome"] for finding in findings if finding["rule"] != "mandatory"} == {"OK"}
    assert "UNKNOWN" in {finding["outcome"] for finding in findings if finding["rule"] == "mandatory"}


@pytest.mark.parametrize("fault", DEGRADED)
def test_what_should_be_only_degrades(fault: str, tmp_path: Path) -> None:
    image, rule, named = DEGRADED[fault]
    status, verdict, findings = check(make(tmp_path / "l", image))
    assert (status, verdict) == (0, "CONFORMS")
    (told,) = [finding for finding in findings if finding["outcome"] not in ("OK", "UNKNOWN")]
    assert (told["outcome"], told["rule"]) == ("DEGRADED", rule) and told["hint"]
    assert named in f"{told['key']} {told['message']}"


def test_without_layers_nothing_is_read_of_them(tmp_path: Path) -> None:
    """A fault in a file is not seen, and the layers are counted as not downloaded."""
    folder = tmp_path / "l"
    reference = make(folder, SMALL.plus("usr/bin/gcc", File(b"\x7fELF")))
    layer = json.loads((folder / "index.json").read_text())["manifests"][0]["digest"].removeprefix("sha256:")
    manifest = json.loads((folder / "blobs" / "sha256" / layer).read_text())
    for blob in manifest["layers"]:
        (folder / "blobs" / "sha256" / blob["digest"].removeprefix("sha256:")).unlink()
    done = hpc3build("check", reference, "--static", "config", "--json")
    document = json.loads(done.stdout)
    assert document["verdict"] == "CONFORMS"
    assert document["bytes_not_downloaded"] == sum(blob["size"] for blob in manifest["layers"])
    assert "build-tools" not in {finding["rule"] for finding in document["findings"]}


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
    assert any(line.startswith("FAILS") and "build-tools" in line for line in done.stdout.splitlines())


@engine
@pytest.mark.parametrize("where", ["layout", "store"])
def test_the_built_image_conforms(mpi_hello: Built, where: str) -> None:
    reference = mpi_hello.reference if where == "layout" else f"containers-storage:{mpi_hello.name}"
    status, verdict, findings = check(reference)
    assert (status, verdict) == (0, "CONFORMS")
    assert {finding["rule"] for finding in findings if finding["outcome"] != "OK"} == {"licence"}


def test_an_unknown_engine(tmp_path: Path) -> None:
    done = hpc3build("check", make(tmp_path / "l", SMALL), "--run", "rkt", check=False)
    assert done.returncode == 2 and "rkt" in done.stderr and "podman" in done.stderr and done.stdout == ""
