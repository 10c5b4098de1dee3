"""recipes/mpi-hello, really built: what it says of itself, and that it runs for everyone."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.files_alone import contradictions, files_alone, records_alone
from tests.integration.support import DEBIAN_OPENMPI, USERS, Built, hpc3build, parse_env, sh

pytestmark = pytest.mark.engine

P = "org.supercontainers."
OCI = "org.opencontainers.image."
EXPECTED = {
    P + "hardware.cpu.optimized.mode": "generic",
    P + "hardware.cpu.optimized.version": "x86_64",
    P + "gpu": "none",
    **DEBIAN_OPENMPI,
    OCI + "title": "mpi-hello",
    OCI + "version": "1.0",
    "io.github.hpc3build.vocabulary": "0",
}
BIN = "/opt/easybuild/software/mpi-hello/1.0-gompi-system/bin"
MPI = "Open MPI v4.1.4"
READ_ONLY = pytest.mark.parametrize("read_only", [False, True], ids=["plain", "read-only"])
AS = pytest.mark.parametrize("user", USERS.values(), ids=USERS)


def flags(user: str, read_only: bool = False) -> tuple[str, ...]:
    return ("--user", user, *(("--read-only",) if read_only else ()))


# ---- what it says


def test_labels_and_annotations_are_the_same_pairs(mpi_hello: Built) -> None:
    labels, annotations = mpi_hello.labels, mpi_hello.annotations
    labels.pop("io.buildah.version")  # the engine's own; every other label is ours
    assert labels == annotations and len(annotations) >= len(EXPECTED) + 4


def test_skopeo_shows_the_annotations(mpi_hello: Built) -> None:
    raw = sh("skopeo", "inspect", "--raw", mpi_hello.reference).stdout
    assert f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}" == mpi_hello.digest
    shown = json.loads(raw)["annotations"]
    assert {key: shown.get(key) for key in EXPECTED} == EXPECTED
    assert json.loads(sh("skopeo", "inspect", mpi_hello.reference).stdout)["Labels"].items() >= EXPECTED.items()


def test_facts(mpi_hello: Built) -> None:
    pairs = mpi_hello.annotations
    assert {key: pairs.get(key) for key in EXPECTED} == EXPECTED
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", pairs["io.github.hpc3build.lock"])
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", pairs[OCI + "created"])
    # Nothing is said of what isn't known or isn't there.
    assert not [key for key in pairs if re.search(r"cuda|rocm|gpu\.arch|driver|optimization", key)]


def test_files_alone_never_contradict_the_records(mpi_hello: Built) -> None:
    """R9: equal, a bound that holds, or among the keys that docs/evidence.md says files cannot prove."""
    alone, records = files_alone(mpi_hello.reference), records_alone(mpi_hello.reference)
    assert contradictions(alone, records.annotations(), mpi_hello.annotations) == []
    assert alone.annotations() == DEBIAN_OPENMPI


def test_base_name(mpi_hello: Built) -> None:
    assert mpi_hello.annotations[OCI + "base.name"] == mpi_hello.base


def test_base_digest(mpi_hello: Built) -> None:
    """The digest is that of the base's manifest, never that of an image in between."""
    manifest = sh("skopeo", "inspect", "--raw", f"containers-storage:{mpi_hello.base}").stdout
    if (said := mpi_hello.annotations.get(OCI + "base.digest")) is not None:
        assert said == f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"


def test_documentation(mpi_hello: Built) -> None:
    import base64

    text = base64.b64decode(mpi_hello.annotations[P + "documentation"], validate=True).decode()
    assert text.startswith("# mpi-hello\n")


def test_what_the_command_printed(mpi_hello: Built) -> None:
    """Results on stdout: the reference and its digest; the engine's output is on stderr."""
    assert mpi_hello.stdout.splitlines()[-1] == f"{mpi_hello.reference} {mpi_hello.digest}"
    assert "STEP" in mpi_hello.stderr and "STEP" not in mpi_hello.stdout
    for key in EXPECTED:
        assert key in mpi_hello.stdout


def test_the_layout_is_whole(mpi_hello: Built) -> None:
    """Every blob has its digest, every descriptor its size, and nothing else lies there."""
    manifest = mpi_hello.manifest
    wanted = {mpi_hello.digest: None} | {
        entry["digest"]: entry["size"] for entry in (manifest["config"], *manifest["layers"])
    }
    blobs = {f"sha256:{path.name}": path for path in (mpi_hello.layout / "blobs" / "sha256").iterdir()}
    assert set(blobs) == set(wanted)
    for digest, path in blobs.items():
        assert f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" == digest
        assert wanted[digest] in (None, path.stat().st_size)
    assert {path.name for path in mpi_hello.layout.iterdir()} == {"blobs", "index.json", "oci-layout"}
    assert [path.name for path in mpi_hello.layout.parent.iterdir()] == [mpi_hello.layout.name]


def test_skopeo_and_umoci_can_copy_it(mpi_hello: Built, tmp_path: Path) -> None:
    sh("skopeo", "copy", "--quiet", mpi_hello.reference, f"dir:{tmp_path}/copy")
    assert json.loads((tmp_path / "copy" / "manifest.json").read_text()) == mpi_hello.manifest


# ---- that it runs


@AS
@READ_ONLY
def test_podman(mpi_hello: Built, user: str, read_only: bool) -> None:
    done = mpi_hello.podman("mpi-hello", options=flags(user, read_only))
    assert MPI in done.stdout and re.search(r"^ranks 1 sum 1 ", done.stdout, re.MULTILINE)
    assert done.stderr == ""  # no login script complains


@AS
def test_buildah_with_the_entry_point_bypassed(mpi_hello: Built, user: str) -> None:
    container = sh("buildah", "from", "--pull-never", mpi_hello.name).stdout.strip()
    try:
        done = sh("buildah", "run", "--user", user, container, "--", "mpi-hello")
    finally:
        sh("buildah", "rm", container)
    assert MPI in done.stdout


@AS
@READ_ONLY
def test_podman_with_the_entry_point_bypassed(mpi_hello: Built, user: str, read_only: bool) -> None:
    done = mpi_hello.podman("mpi-hello", options=(*flags(user, read_only), "--entrypoint", ""))
    assert MPI in done.stdout


@AS
def test_nowhere_to_write_but_shared_memory(mpi_hello: Built, user: str) -> None:
    """podman's --read-only leaves /tmp writable, others do not. Round the entry point it is for the user to say."""
    options = (*flags(user, True), "--read-only-tmpfs=false")
    script = "! touch /tmp/x 2>/dev/null && exec mpi-hello"
    done = mpi_hello.podman("sh", "-c", script, options=(*options, "--entrypoint", "", "--env", "TMPDIR=/dev/shm"))
    assert MPI in done.stdout
    done = mpi_hello.podman("mpi-hello", options=options)
    assert MPI in done.stdout and done.stderr == ""


@AS
def test_without_a_command_a_shell_reads_stdin(mpi_hello: Built, user: str) -> None:
    done = mpi_hello.podman(options=(*flags(user), "-i"), input="mpi-hello\necho $0 $((6 * 7))\n")
    assert MPI in done.stdout and done.stdout.splitlines()[-1] == "/bin/bash 42" and done.stderr == ""


def test_without_stdin_the_shell_ends(mpi_hello: Built) -> None:
    assert mpi_hello.podman().stdout == ""


@READ_ONLY
@pytest.mark.parametrize("home", [None, "", "/nonexistent", "/root"], ids=["unset", "empty", "missing", "closed"])
def test_home_unset_or_not_writable(mpi_hello: Built, home: str | None, read_only: bool) -> None:
    """What the container is given, before the login shell runs."""
    given = ("--unsetenv", "HOME") if home is None else ("--env", f"HOME={home}")
    done = mpi_hello.podman("mpi-hello", options=(*flags(USERS["unknown"], read_only), *given))
    assert MPI in done.stdout
    # bash's own words, of a home that it may not look into; no script of the image adds any.
    assert done.stderr in ("", "--: /root/.bash_profile: Permission denied\n")


@READ_ONLY
@pytest.mark.parametrize("home", ["/nonexistent", "/root"], ids=["missing", "closed"])
def test_home_not_writable_and_the_entry_point_bypassed(mpi_hello: Built, home: str, read_only: bool) -> None:
    """Without any HOME, Open MPI itself crashes there: recipes/mpi-hello/README.md."""
    options = (*flags(USERS["unknown"], read_only), "--entrypoint", "", "--env", f"HOME={home}")
    assert MPI in mpi_hello.podman("mpi-hello", options=options).stdout


def test_ranks(mpi_hello: Built) -> None:
    done = mpi_hello.podman("mpirun", "-n", "3", "--oversubscribe", "mpi-hello", options=flags(USERS["nobody"]))
    assert len(re.findall(r"^MPI library: Open MPI v4\.1\.4", done.stdout, re.MULTILINE)) == 3
    assert re.search(r"^ranks 3 sum 6 ", done.stdout, re.MULTILINE)


def test_a_group_that_nobody_knows(mpi_hello: Built) -> None:
    options = (*flags(USERS["unknown"], True), "--group-add", "4242", "-i")
    done = mpi_hello.podman(options=options, input="id -G\nmpi-hello\n")
    assert "4242" in done.stdout.splitlines()[0].split() and MPI in done.stdout and done.stderr == ""


@AS
def test_login_scripts_are_quiet(mpi_hello: Built, user: str) -> None:
    done = mpi_hello.podman("true", options=flags(user, True))
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("options", ["-eu", "-x", "--posix"])
def test_the_profile_may_be_read_again_and_strictly(mpi_hello: Built, options: str) -> None:
    profile = "/etc/profile.d/z10_hpc3build.sh"
    script = f"set {options.replace('--posix', '-o posix')}; . {profile}; . {profile}; set +x; printf '%s' \"$PATH\""
    done = mpi_hello.podman("bash", "-c", script, options=("--entrypoint", ""))
    assert done.stdout.split(":").count(BIN) == 1
    if options != "-x":
        assert done.stderr == ""


def test_the_profile_is_read_by_a_plain_sh(mpi_hello: Built) -> None:
    done = mpi_hello.podman("sh", "-l", "-c", "mpi-hello", options=("--entrypoint", "", "--user", USERS["unknown"]))
    assert MPI in done.stdout and done.stderr == ""


@AS
def test_the_environment_is_the_same_round_the_entry_point(mpi_hello: Built, user: str) -> None:
    through = parse_env(mpi_hello.podman("env", options=flags(user)).stdout)
    around = parse_env(mpi_hello.podman("env", options=(*flags(user), "--entrypoint", "")).stdout)
    for env in (through, around):
        assert env["PATH"].split(":")[0] == BIN and env["PATH"].split(":").count(BIN) == 1
        assert env["EBROOTMPIMINHELLO"] == BIN.removesuffix("/bin") and env["EBVERSIONOPENMPI"] == "4.1.4"
    shells = {
        "PWD",
        "SHLVL",
        "_",
        "OLDPWD",
        "HOSTNAME",
        "container",
        "TERM",
        "HOME",
        "PATH",
        "TMPDIR",
        "USER",
        "LOGNAME",
    }
    assert {k: v for k, v in through.items() if k not in shells} == {k: v for k, v in around.items() if k not in shells}
    assert {entry for entry in around["PATH"].split(":") if entry.startswith("/opt/")} == {BIN}


def test_what_the_user_set_stays(mpi_hello: Built) -> None:
    options = (
        "--env",
        "EBROOTGOMPI=/mine",
        "--env",
        "PATH=/mine/bin:/usr/bin:/bin",
        "--env",
        "CMAKE_PREFIX_PATH=/mine",
    )
    env = parse_env(mpi_hello.podman("env", options=options).stdout)
    assert env["EBROOTGOMPI"] == "/mine"
    assert env["CMAKE_PREFIX_PATH"].split(":")[-1] == "/mine" and BIN in env["PATH"].split(":")


# ---- that it can be built again


def test_a_second_build_gives_the_same_image(mpi_hello: Built, site: dict[str, str], tmp_path: Path) -> None:
    """From the cache, on the same recipe and base: not one byte differs, and nothing is built again."""
    argv = ["build", "recipes/mpi-hello", "--engine", "buildah", "--base", mpi_hello.base, "--json"]
    done = hpc3build(*argv, "-t", f"oci:{tmp_path}/again:2.0", env=site)
    document = json.loads(done.stdout)
    assert {key: document["annotations"].get(key) for key in EXPECTED} == EXPECTED
    assert document["digest"] == mpi_hello.digest
