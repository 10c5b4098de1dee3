"""containerfiles/spack/install.sh with a spack that only says what it was asked, and where things are then."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "containerfiles/spack/install.sh"
SPACK = """#!/bin/bash
# A spack that notes its arguments, without the scope of its own, and does what the test asks.
scope=$2
shift 2
printf '%s\\n' "$*" >>"$NOTED"
if [ -e "$scope/mirrors.yaml" ]; then cat "$scope/mirrors.yaml" >>"$NOTED.mirrors"; fi
case "$*" in
    *" install "*) exit "${INSTALL_STATUS:-0}" ;;
    *"buildcache push"*) exit "${PUSH_STATUS:-0}" ;;
    "gpg export"*) echo secret-key >"${@: -1}" ;;
    *"env depfile"*) printf 'all:\\n\\t@echo make >>%s\\n' "$NOTED" >"${@: -1}" ;;
esac
"""


@dataclass(frozen=True)
class Ran:
    """What spack was asked, and the folders of the builder."""

    status: int
    asked: list[str]
    root: Path


@pytest.fixture
def builder(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    for name, text in (("spack", SPACK), ("gpg", "#!/bin/sh\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    for folder in ("env", "secrets", "tmp", "cache", "etc", "store"):
        (tmp_path / folder).mkdir()
    return tmp_path


def install(builder: Path, *words: str, cached: bool = False, **env: str) -> Ran:
    """Run the script as the builder does, its places below ``builder``."""
    if cached:
        (builder / "etc/mirrors.yaml").touch()
    script = builder / "install.sh"
    script.write_text(
        SCRIPT.read_text().replace("/opt/spack/bin:", f"{builder}/bin:").replace("/etc/spack", f"{builder}/etc")
    )
    done = subprocess.run(
        ["/bin/bash", str(script), *words],
        env={
            "PATH": os.environ["PATH"],
            "NOTED": str(builder / "noted"),
            "TMPDIR": str(builder / "tmp"),
            "HPC3BUILD_ENVIRONMENT": str(builder / "env"),
            "HPC3BUILD_STORE": str(builder / "store"),
            "HPC3BUILD_VIEW": str(builder / "view"),
            "HPC3BUILD_ROOTFS": str(builder / "rootfs"),
            "HPC3BUILD_SECRETS": str(builder / "secrets"),
            "HPC3BUILD_CACHE": str(builder / "cache"),
            **({"HPC3BUILD_CACHE_MOUNTED": "yes"} if cached else {}),
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    noted = (builder / "noted").read_text().splitlines()
    (builder / "noted").unlink()
    return Ran(done.returncode, [line.replace(str(builder), "") for line in noted], builder)


def test_a_lock_is_installed_as_it_is(builder: Path) -> None:
    ran = install(builder, "lock")
    assert ran.asked == ["compiler find --scope site", "-e /env install --fail-fast", "-e /env gc -y"]
    assert (ran.root / "rootfs/opt/view").readlink() == Path("views/view")
    assert (ran.root / "env/activate.sh").readlink() == Path("/etc/profile.d/z10_hpc3build.sh")
    assert list((ran.root / "tmp").iterdir()) == []


def test_without_one_it_is_concretized_once(builder: Path) -> None:
    asked = install(builder, "concretize").asked
    assert asked[1:3] == ["-e /env concretize --fresh", "-e /env install --fail-fast"]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_depfile_is_made_and_the_view_comes_after(builder: Path) -> None:
    asked = install(builder, "lock", "depfile").asked
    assert asked[1].startswith("-e /env env depfile -o ")
    assert asked[2:] == ["make", "-e /env install --fail-fast", "-e /env gc -y"]


def test_mirrors_and_keys_are_read_from_the_secrets_and_stay_nowhere(builder: Path) -> None:
    (builder / "secrets/hpc3build_mirrors").write_text("mirrors: {a: https://user:geheim@example.org}\n")
    (builder / "secrets/hpc3build_keys").write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    ran = install(builder, "lock")
    assert ran.asked[0] == "gpg trust /secrets/hpc3build_keys"
    assert "geheim" in (builder / "noted.mirrors").read_text()
    (builder / "noted.mirrors").unlink()
    (builder / "secrets/hpc3build_mirrors").unlink()
    left = [file for file in builder.rglob("*") if file.is_file() and b"geheim" in file.read_bytes()]
    assert left == [] and list((builder / "tmp").iterdir()) == []


def test_logs_and_set_user_id_do_not_stay(builder: Path) -> None:
    kept = builder / "store/app/.spack/spec.json"
    kept.parent.mkdir(parents=True)
    for name in ("spec.json", "spack-build-out.txt.gz", "spack-build-env.txt"):
        (kept.parent / name).touch()
    sbang = builder / "store/sbang"
    sbang.touch()
    sbang.chmod(0o2775)
    install(builder, "lock")
    assert list(kept.parent.iterdir()) == [kept] and sbang.stat().st_mode & 0o7777 == 0o775


def test_signatures_are_never_put_aside() -> None:
    text = SCRIPT.read_text()
    assert "no-check-signature" not in text and "unsigned" not in text


def test_what_was_installed_goes_signed_into_the_cache(builder: Path) -> None:
    ran = install(builder, "lock", cached=True)
    assert ran.asked[0] == "gpg create hpc3build binary-cache@localhost"
    assert ran.asked[1].startswith("gpg export --secret /cache/key.")
    assert ran.asked[-2:] == ["-e /env buildcache push hpc3build-cache", "-e /env gc -y"]
    assert (builder / "cache/key").stat().st_mode & 0o777 == 0o600
    again = install(builder, "lock", cached=True)
    assert again.asked[0] == "gpg trust /cache/key" and "gpg create" not in " ".join(again.asked)


def test_a_failed_install_fails_and_keeps_what_was_built(builder: Path) -> None:
    ran = install(builder, "lock", cached=True, INSTALL_STATUS="7")
    assert ran.status == 7
    assert ran.asked[-1] == "-e /env buildcache push hpc3build-cache"


def test_a_cache_that_takes_nothing_fails_no_build(builder: Path) -> None:
    ran = install(builder, "lock", cached=True, PUSH_STATUS="1")
    assert ran.status == 0 and ran.asked[-1] == "-e /env gc -y"


def test_without_a_mount_or_a_mirror_there_is_no_cache(builder: Path) -> None:
    assert "buildcache" not in " ".join(install(builder, "lock").asked)
    assert "gpg" not in " ".join(install(builder, "lock", HPC3BUILD_CACHE_MOUNTED="yes").asked)


def test_runpath_names_the_folder_of_mpi_for_the_loader(builder: Path) -> None:
    store = builder / "store/openmpi-4.1/lib"
    store.mkdir(parents=True)
    (store / "libmpi.so").touch()
    (builder / "view/lib").mkdir(parents=True)
    (builder / "view/lib/libmpi.so").symlink_to(store / "libmpi.so")
    (builder / "view/lib/libz.so").touch()
    install(builder, "lock", "runpath")
    assert (builder / "rootfs/etc/ld.so.conf.d/hpc3build-mpi.conf").read_text() == f"{store}\n"
