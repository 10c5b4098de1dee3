"""check --fix: one rewrite mends what needs no layer, and says what does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpc3build.conformance.files import wanted as conformance_wanted
from hpc3build.containerfile import CMD, ENTRYPOINTS
from hpc3build.environment import ENVIRONMENT
from hpc3build.errors import TagMoved
from hpc3build.findings import Outcome
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import Manifest
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.stores import read_blob
from hpc3build.stores.layout import Layout
from hpc3build.workflows.describe import wanted as described_wanted
from hpc3build.workflows.mend import Mended, mend
from tests.images import File, Layer, make_layout
from tests.unit.test_cli import called, document

P = "org.supercontainers."
TITLE = "org.opencontainers.image.title"
PASSWD = b"root:x:0:0:root:/root:/bin/bash\napp:x:1000:100::/home/app:/bin/bash\n"
PATH = "/opt/app/bin:/usr/bin:/bin"
FILES: Layer = {
    "bin/bash": File(b"\x7fELF"),
    "etc/passwd": PASSWD,
    "etc/profile.d/app.sh": b"export PATH=/opt/app/bin:$PATH\n",
}
GOOD: dict[str, Any] = {"Entrypoint": list(ENTRYPOINTS["hpc3"]), "Cmd": list(CMD), "Env": [f"PATH={PATH}"]}


def mended(folder: Path, files: Layer = FILES, labels: Any = None, annotations: Any = None, **config: Any) -> Mended:
    given = {P + "mpi": "none"}
    make_layout(
        folder / "l",
        [files],
        config={name: value for name, value in {**GOOD, **config}.items() if value is not None},
        labels=given if labels is None else labels,
        annotations=given if annotations is None else annotations,
    )
    return mend(parse(f"oci:{folder}/l:latest"), run)


def now(folder: Path) -> tuple[Manifest, ImageConfig]:
    with Layout(folder / "l") as store:
        manifest = store.manifest("latest")
        return manifest, ImageConfig.parse(read_blob(store, manifest.config.digest), manifest.config.digest)


def failing(done: Mended) -> set[str]:
    return {finding.rule for finding in done.left if finding.outcome is Outcome.FAILS}


def test_a_good_image_is_left_alone(tmp_path: Path) -> None:
    done = mended(tmp_path)
    assert not done.result.changed and done.changes == () and failing(done) == set()


def test_everything_at_once(tmp_path: Path) -> None:
    labels = {P + "mpi": "none", "org.label-schema.name": "CentOS", "run.oci.handler": "x", TITLE: "app"}
    done = mended(
        tmp_path,
        labels=labels,
        annotations={P + "mpi": "mpich", P + "gpu": "none"},
        Entrypoint=["/app"],
        Cmd=None,
        User="app",
        WorkingDir="/root",
        Volumes={"/data": {}},
        Env=[f"PATH={PATH}", "http_proxy=http://proxy:3128", "OMP=1"],
    )
    manifest, config = now(tmp_path)
    assert failing(done) == set() and done.result.new_digest == manifest.digest
    assert (config.entrypoint, config.cmd) == (ENTRYPOINTS["hpc3"], CMD)
    assert (config.user, config.working_dir, config.volumes) == ("1000:100", "/", ())
    assert dict(config.env) == {"PATH": PATH, "OMP": "1"}
    pairs = {P + "mpi": "none", P + "gpu": "none", TITLE: "app"}
    assert dict(config.labels) == dict(manifest.annotations) == pairs
    assert len(done.changes) == 9


def test_layers_and_all_else_stay(tmp_path: Path) -> None:
    make_layout(tmp_path / "before", [FILES], config={**GOOD, "Cmd": ["x"], "StopSignal": "SIGINT"})
    before = Layout(tmp_path / "before").manifest("latest")
    done = mended(tmp_path, labels={}, annotations={}, Cmd=["x"], StopSignal="SIGINT")
    manifest, config = now(tmp_path)
    assert manifest.layers == before.layers and config.json["config"]["StopSignal"] == "SIGINT"
    assert done.changes == ("the command becomes /bin/bash",) and failing(done) == {"labels"}


def test_twice_is_once(tmp_path: Path) -> None:
    first = mended(tmp_path, Cmd=["x"])
    again = mend(parse(f"oci:{tmp_path}/l:latest"), run)
    assert not again.result.changed and again.result.new_digest == first.result.new_digest


def test_no_entry_point_that_would_lose_the_application(tmp_path: Path) -> None:
    """/etc/profile sets PATH anew: without a login script the application would be gone, so a layer is needed."""
    files = {path: entry for path, entry in FILES.items() if "profile" not in path}
    done = mended(tmp_path, files, Entrypoint=["/app"])
    assert failing(done) == {"entrypoint"} and not done.result.changed


def test_no_shell_where_there_is_none(tmp_path: Path) -> None:
    files = {path: entry for path, entry in FILES.items() if "bash" not in path}
    done = mended(tmp_path, files, Entrypoint=["/app"], Cmd=None)
    assert failing(done) == {"entrypoint", "command", "shell"} and done.changes == ()
    assert not any("--fix" in one.hint for one in done.left)


def test_a_user_of_no_passwd_file_needs_a_rebuild(tmp_path: Path) -> None:
    done = mended(tmp_path, User="ghost")
    assert done.changes == () and ["rebuild" in one.hint for one in done.left if one.rule == "user"] == [True]
    assert now(tmp_path)[1].user == "ghost"


def test_what_says_nothing_of_itself_is_mended_by_no_rewrite(tmp_path: Path) -> None:
    (left,) = (one for one in mended(tmp_path, labels={}, annotations={}).left if one.rule == "labels")
    assert "says nothing of itself" in left.message and left.hint.startswith("hpc3build annotate --detect --labels")


def test_the_recorded_environment_is_baked(tmp_path: Path) -> None:
    record = {"prepend": {"PATH": ["/opt/app/bin"]}, "set": {"APP": "1"}}
    files = {**FILES, "opt/hpc3build/environment.json": json.dumps(record).encode()}
    done = mended(tmp_path, files, Env=["PATH=/usr/bin:/bin"])
    assert dict(now(tmp_path)[1].env) == {"PATH": PATH, "APP": "1"} and failing(done) == set()


def test_a_large_environment_is_read_whole_by_whoever_reads_it(tmp_path: Path) -> None:
    entries = [f"/opt/app{number}/bin" for number in range(6000)]
    record = {"prepend": {"PATH": entries}, "set": {}}
    files = {**FILES, "opt/hpc3build/environment.json": json.dumps(record).encode()}
    mended(tmp_path, files, Env=["PATH=/usr/bin:/bin"])
    assert now(tmp_path)[1].env["PATH"] == ":".join([*entries, "/usr/bin", "/bin"])
    assert conformance_wanted(ENVIRONMENT) == described_wanted(ENVIRONMENT)


def test_credentials_need_a_rebuild(tmp_path: Path) -> None:
    """Taking a password out of the last configuration would hide it, not remove it."""
    done = mended(tmp_path, Env=[f"PATH={PATH}", "DB_PASSWORD=x"])
    assert failing(done) == {"credentials"} and "rebuild" in next(one.hint for one in done.left)


def test_a_tag_that_moves_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpc3build.workflows import mend as module

    def moving(*arguments: Any, **options: Any) -> Any:
        image = read(*arguments, **options)
        shutil.rmtree(tmp_path / "l")
        make_layout(tmp_path / "l", [{"other": b""}])
        return image

    read = module.read_image
    monkeypatch.setattr(module, "read_image", moving)
    with pytest.raises(TagMoved):
        mended(tmp_path, Cmd=["x"])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_layout(tmp_path / "l", [FILES], config={**GOOD, "Cmd": ["x"]}, labels={P + "mpi": "none"})
    before = now(tmp_path)[0].digest
    status, out, _ = called(capsys, "check", f"oci:{tmp_path}/l", "--fix", "--dry-run")
    assert status == 0 and "would become" in out and "mended: the command" in out and now(tmp_path)[0].digest == before
    status, out, _ = called(capsys, "check", f"oci:{tmp_path}/l", "--fix", "--entrypoint", "hpc3-exec", "--json")
    found = document(out, "check")
    assert status == 0 and found["changed"] and found["digest"] == now(tmp_path)[0].digest != before
    status, _, err = called(capsys, "check", f"oci:{tmp_path}/l", "--fix", "--run", "podman")
    assert status == 2 and "--run" in err


def test_a_receipt_takes_it_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = make_layout(tmp_path / "l", [FILES], config={**GOOD, "Cmd": ["x"]}, labels={P + "mpi": "none"})
    receipt = str(tmp_path / "r.json")
    status, _, _ = called(capsys, "check", f"oci:{tmp_path}/l", "--fix", "--receipt", receipt, "--backup-tag", "was")
    assert status == 0 and now(tmp_path)[0] != old and Layout(tmp_path / "l").manifest("was") == old
    assert called(capsys, "annotate", "--undo", receipt)[0] == 0 and now(tmp_path)[0] == old
    status, _, err = called(capsys, "check", f"oci:{tmp_path}/l", "--fix", "--receipt", receipt)
    assert status == 2 and "is there already" in err and now(tmp_path)[0] == old


def test_the_mended_image_goes_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = make_layout(tmp_path / "o", [FILES], config={**GOOD, "Cmd": ["x"]}, labels={P + "mpi": "none"})
    to = f"oci:{tmp_path}/l:latest"
    status, out, _ = called(capsys, "check", f"oci:{tmp_path}/o", "--fix", "--to", to, "--dry-run")
    assert status == 0 and f"would become {to} " in out and not (tmp_path / "l").exists()
    assert called(capsys, "check", f"oci:{tmp_path}/o", "--fix", "--to", to)[0] == 0
    assert now(tmp_path)[1].cmd == CMD and Layout(tmp_path / "o").manifest("latest") == old
    with Layout(tmp_path / "l") as there:
        assert [read_blob(there, layer.digest) for layer in old.layers]


@pytest.mark.parametrize("option", [["--to", "oci:x:1"], ["--receipt", "r"], ["--backup-tag"], ["--dry-run"]])
def test_ways_back_are_those_of_mending(option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_layout(tmp_path / "l", [FILES], config=GOOD)
    status, _, err = called(capsys, "check", f"oci:{tmp_path}/l", *option)
    assert status == 2 and f"{option[0]} goes with --fix" in err


@pytest.mark.parametrize("option", [["--smoke", "true"], ["--junit", "x"], ["--sarif", "x"], ["--static", "config"]])
def test_mending_is_no_check(option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_layout(tmp_path / "l", [FILES], config={**GOOD, "Cmd": ["x"]})
    before = now(tmp_path)[0]
    status, _, err = called(capsys, "check", f"oci:{tmp_path}/l", "--fix", *option)
    assert status == 2 and "--fix" in err and option[0].strip("-") in err and now(tmp_path)[0] == before
