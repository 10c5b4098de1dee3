"""keep.py on a made-up EasyBuild tree: what only the build needed goes, what runs stays."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "containerfiles" / "easybuild" / "keep.py"
KEPT = ("app/1.0-gompi", "GCC/13", "GCCcore/13", "nvidia-compilers/25.9", "intel-compilers/2025.0")
BUILD_ONLY = ("CMake/3", "GCC/12", "M4/1")
RUNS = {
    "app/1.0-gompi/bin/app",
    "app/1.0-gompi/include/app.h",
    "app/1.0-gompi/share/x.log",
    "app/1.0-gompi/easybuild/reprod/app-1.0-gompi.eb",
    "app/1.0-gompi/easybuild/reprod/app-1.0-gompi.env",
    "GCCcore/13/lib64/libgomp.so.1",
    "GCCcore/13/lib64/libgomp.so.1.0.0",
    "GCCcore/13/lib64/libgomp.so",
    "GCCcore/13/lib/sub/libstdc++.so.6",
    "GCCcore/13/easybuild/reprod/GCCcore-13.eb",
    "nvidia-compilers/25.9/Linux_x86_64/25.9/compilers/lib/libnvc.so",
    "intel-compilers/2025.0/compiler/2025.0/lib/libiomp5.so",
}
GOES = {
    "app/1.0-gompi/easybuild/easybuild-app-1.0-20260101.log.gz",
    "app/1.0-gompi/easybuild/easybuild-app-1.0_test_report.md",
    "app/1.0-gompi/easybuild/app-1.0-gompi-easybuild-devel",
    "app/1.0-gompi/easybuild/reprod/easyblocks/makecp.py",
    "GCC/13/easybuild/GCC-13-easybuild-devel",
    "GCCcore/13/bin/gcc",
    "GCCcore/13/libexec/gcc/x86_64/13/cc1",
    "GCCcore/13/lib/gcc/x86_64/13/libgcc.a",
    "GCCcore/13/lib/gcc/x86_64/13/plugin/liblto.so.0",
    "GCCcore/13/lib64/libgomp.a",
    "GCCcore/13/lib64/libgomp.spec",
    "GCCcore/13/share/doc/libx.so",
    "GCCcore/13/include/c++/13/vector",
    "nvidia-compilers/25.9/Linux_x86_64/25.9/compilers/bin/nvc",
    "nvidia-compilers/25.9/Linux_x86_64/25.9/compilers/include/x.h",
    "intel-compilers/2025.0/compiler/2025.0/bin/icx",
    "CMake/3/bin/cmake",
    "GCC/12/easybuild/reprod/GCC-12.eb",
    "M4/1/bin/m4",
}


def tree(tmp_path: Path) -> tuple[Path, Path]:
    build, prefix = tmp_path / "build", tmp_path / "eb"
    build.mkdir()
    shutil.copy(SCRIPT, build)
    modules = [{"module": name, "name": name.split("/")[0], "class": "x"} for name in KEPT]
    (build / "keep.json").write_text(json.dumps({"modules": modules, "roots": ["app/1.0-gompi"]}))
    for name in RUNS | GOES:
        file = prefix / "software" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    for name in (*KEPT, *BUILD_ONLY):
        category = "devel" if name in BUILD_ONLY else "tools"
        (prefix / "modules/all" / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / "modules/all" / f"{name}.lua").write_text(name)
        (prefix / "modules" / category / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / "modules" / category / f"{name}.lua").symlink_to(f"../../all/{name}.lua")
    (prefix / "software/.locks").mkdir()
    return build, prefix


def keep(build: Path, prefix: Path, root: Path) -> None:
    subprocess.run([sys.executable, "-W", "error", build / "keep.py", prefix, root], check=True)


def files(top: Path) -> set[str]:
    return {str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir() or path.is_symlink()}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    build, prefix = tree(tmp_path)
    keep(build, prefix, tmp_path / "root")
    return prefix


def test_only_what_runs_stays(kept: Path) -> None:
    found = files(kept / "software")
    assert RUNS - found == set()
    assert found & GOES == set()
    assert found == RUNS


def test_no_empty_folder_of_what_went(kept: Path) -> None:
    assert {path.name for path in (kept / "software").iterdir()} == {name.split("/")[0] for name in KEPT}
    assert not (kept / "software/GCCcore/13/bin").exists() and not (kept / "software/GCC/12").exists()


def test_module_files(kept: Path) -> None:
    expected = {f"{top}/{name}.lua" for name in KEPT for top in ("all", "tools")}
    assert files(kept / "modules") == expected
    assert all((kept / "modules" / name).exists() for name in expected), "no link leads nowhere"
    assert not (kept / "modules/devel").exists()


def test_record_is_kept_for_evidence(kept: Path, tmp_path: Path) -> None:
    record = tmp_path / "root/opt/hpc3build/easybuild.json"
    assert json.loads(record.read_text()) == json.loads((tmp_path / "build/keep.json").read_text())
    assert record.stat().st_mode & 0o777 == 0o644


def test_twice(kept: Path, tmp_path: Path) -> None:
    before = files(kept)
    keep(tmp_path / "build", kept, tmp_path / "root")
    assert files(kept) == before


def test_symbolic_links(tmp_path: Path) -> None:
    """Links are taken away as links; what they lead to, inside or outside, is never touched."""
    build, prefix = tree(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    software = prefix / "software"
    (software / "M4/2").symlink_to(outside)  # a build-only version that is a link
    (software / "GCCcore/13/lib64/libgomp.so.2").symlink_to("libgomp.so.1")
    (software / "GCCcore/13/lib32").symlink_to("lib")
    (software / "GCCcore/13/bin/out").symlink_to(outside / "precious")
    (software / "GCCcore/13/bin/dangling").symlink_to("nowhere")
    (software / "app/1.0-gompi/easybuild/log").symlink_to(outside)
    (software / "app/1.0-gompi/lib64").symlink_to("lib")
    keep(build, prefix, tmp_path / "root")
    assert (outside / "precious").read_text() == "x"
    assert not (software / "M4").exists() and not (software / "app/1.0-gompi/easybuild/log").is_symlink()
    assert (software / "GCCcore/13/lib64/libgomp.so.2").resolve().name == "libgomp.so.1"
    assert (software / "app/1.0-gompi/lib64").is_symlink()
    assert not (software / "GCCcore/13/bin").exists()


def test_a_compiler_that_was_asked_for_stays_whole(tmp_path: Path) -> None:
    build, prefix = tree(tmp_path)
    change_record(build, roots=["GCCcore/13"])
    keep(build, prefix, tmp_path / "root")
    assert (prefix / "software/GCCcore/13/bin/gcc").exists()


def test_compilers_may_stay(tmp_path: Path) -> None:
    build, prefix = tree(tmp_path)
    change_record(build, keep_compilers=True)
    keep(build, prefix, tmp_path / "root")
    assert (prefix / "software/GCCcore/13/bin/gcc").exists() and not (prefix / "software/M4").exists()


def test_modules_for_login_shells(tmp_path: Path) -> None:
    build, prefix = tree(tmp_path)
    change_record(build, load_modules=True)
    keep(build, prefix, tmp_path / "root")
    script = tmp_path / "root/etc/profile.d/z11_hpc3build_modules.sh"
    assert script.stat().st_mode & 0o777 == 0o644
    # A stand-in for Lmod, which may not be installed here.
    text = 'module() { echo "module $*" >&3; }\n' + script.read_text().replace("/lmod/init/bash", "/nowhere")
    for options in ("-c", "-euc"):
        shell = ["bash", "--noprofile", "--norc", options, f"exec 3>&1; {text}\n{text}\nset -o | grep -c nounset"]
        done = subprocess.run(shell, capture_output=True, text=True, check=True)
        assert done.stderr == ""
    subprocess.run(["sh", "-eu", "-c", script.read_text()], check=True)
    assert f"module use {prefix}/modules/all" in script.read_text() and "'app/1.0-gompi'" in script.read_text()


def test_the_builders_cpu_is_kept_for_evidence(tmp_path: Path) -> None:
    build, prefix = tree(tmp_path)
    (build / "native").mkdir()
    (build / "native/target.json").write_text('{"target": "zen4"}')
    keep(build, prefix, tmp_path / "root")
    assert json.loads((tmp_path / "root/opt/hpc3build/easybuild.json").read_text())["native"] == {"target": "zen4"}


def change_record(build: Path, **fields: object) -> None:
    record = json.loads((build / "keep.json").read_text())
    (build / "keep.json").write_text(json.dumps({**record, **fields}))


# ---- parts.py


def lay_out(tmp_path: Path, name: str = "parts") -> Path:
    build, prefix = tree(tmp_path)
    record = json.loads((build / "keep.json").read_text())
    for entry in record["modules"]:
        entry["part"] = "application" if entry["name"] == "app" else "toolchain"
    change_record(build, modules=record["modules"], parts=["toolchain", "dependencies", "application"])
    keep(build, prefix, tmp_path / "root")
    (prefix / "software/app/1.0-gompi/other").hardlink_to(prefix / "software/app/1.0-gompi/bin/app")
    shutil.copy(SCRIPT.with_name("parts.py"), build)
    subprocess.run([sys.executable, "-W", "error", build / "parts.py", prefix, tmp_path / name], check=True)
    return tmp_path / name


def test_parts(tmp_path: Path) -> None:
    target = lay_out(tmp_path)
    prefix = str(tmp_path / "eb")
    assert {path.name for path in target.iterdir()} == {"toolchain", "dependencies", "application"}
    application, toolchain = Path(f"{target}/application{prefix}"), Path(f"{target}/toolchain{prefix}")
    assert {path.name for path in (application / "software").iterdir()} == {"app"}
    assert {path.name for path in (toolchain / "software").iterdir()} == {name.split("/")[0] for name in KEPT} - {"app"}
    assert (application / "modules/all/app").is_dir() and not (toolchain / "modules").exists()
    names = [application / "software/app/1.0-gompi" / name for name in ("other", "bin/app")]
    assert names[0].stat().st_ino == names[1].stat().st_ino, "hard links stay"
    made = [application, application / "software", toolchain / "software", target / "dependencies"]
    assert {path.stat().st_mtime for path in made} == {0.0}, "a part that did not change is the same layer again"


# ---- native.py


@pytest.mark.parametrize(
    ("compilers", "target", "option"),
    [
        ({"GCC": {"compiler": "gcc", "version": "13.2.0"}}, "zen4", "--optarch=GCC:-march=znver4 -mtune=znver4"),
        # The nearest target that all compilers know.
        ({"GCC": {"compiler": "gcc", "version": "4.9.4"}}, "x86_64_v3", "--optarch=GCC:-march=x86-64 "),
        ({"NVHPC": {"compiler": "nvhpc", "version": "25.9"}}, "zen4", "--optarch=NVHPC:-tp=zen4"),
        ({}, "zen4", "--optarch=GENERIC"),
    ],
)
def test_native(tmp_path: Path, compilers: dict[str, dict[str, str]], target: str, option: str) -> None:
    (tmp_path / "native").mkdir()
    (tmp_path / "native/compilers.json").write_text(json.dumps(compilers))
    shutil.copy(SCRIPT.with_name("native.py"), tmp_path)
    code = "import archspec.cpu, runpy, sys; archspec.cpu.host = lambda: archspec.cpu.TARGETS['zen4']; "
    code += "runpy.run_path(sys.argv[1], run_name='__main__')"
    subprocess.run([sys.executable, "-c", code, tmp_path / "native.py"], check=True, capture_output=True)
    assert (tmp_path / "native/options.txt").read_text().startswith(option)
    assert json.loads((tmp_path / "native/target.json").read_text())["target"] == target
