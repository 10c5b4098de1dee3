"""`eb --containerize` beside hpc3build: the rows of the table in docs/easybuild.md, each on the same easyconfig.

What eb writes is recorded in tests/data/easybuild/containerize, and written anew here by the real one.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import closures
from tests.integration.support import RECIPE, ROOT, sh

RECORDS = ROOT / "tests" / "data" / "easybuild" / "containerize"
HPL = "HPL-2.3-foss-2023b.eb"
CUDA = "OSU-Micro-Benchmarks-7.5-gompi-2023b-CUDA-12.4.0.eb"
PYTORCH = "PyTorch-2.3.0-foss-2023b-CUDA-12.4.0.eb"
DOCKER = ("--container-type", "docker", "--container-config", "ubuntu:20.04")
APPTAINER = ("--container-type", "apptainer", "--container-config", "bootstrap=docker,from=debian:12")
OWN = (f"{RECIPE}/mpi-hello-1.0-gompi-system.eb", f"--robot-paths={RECIPE}:")
COMMANDS = {
    "HPL-2.3-foss-2023b.Dockerfile": (HPL, *DOCKER),
    "HPL-2.3-foss-2023b.Apptainer": (HPL, *APPTAINER),
    "mpi-hello-1.0-gompi-system.Dockerfile": (*OWN, *DOCKER),
    "PyTorch-2.3.0-foss-2023b-CUDA-12.4.0.Dockerfile": (PYTORCH, *DOCKER),
}

pytestmark = [
    pytest.mark.easybuild,
    pytest.mark.skipif(importlib.util.find_spec("easybuild") is None, reason="not installed: the pinned EasyBuild"),
]


def eb(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Real eb, which needs no module tool where it is told to fetch alone."""
    places = (f"--prefix={folder}", f"--tmpdir={folder}")
    options = ("--containerize", "--experimental", "--allow-use-as-root-and-accept-consequences", *places)
    return subprocess.run(
        [f"{sys.prefix}/bin/eb", *argv, *options],
        env={"HOME": "/nonexistent", "PATH": f"{sys.prefix}/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def recipe_of_eb(folder: Path, *argv: str) -> str:
    done = eb(folder, *argv, "--fetch")
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (folder / "containers").iterdir()
    return path.read_text(encoding="utf-8")


def record(name: str) -> str:
    return (RECORDS / name).read_text(encoding="utf-8")


def sorted_dependencies(text: str) -> str:
    return re.sub(r"OS_DEPS='(.*)'", lambda found: " ".join(sorted(found[1].split())), text)


def render(folder: Path, *argv: str, **env: str) -> dict[str, str]:
    """The build context that hpc3build renders, file by file."""
    command = [sys.executable, "-m", "hpc3build", "render", *argv, "--context", str(folder / "context")]
    folder.mkdir(parents=True, exist_ok=True)
    sh(*command, cwd=folder, env={"PYTHONPATH": str(ROOT), **env})
    context = folder / "context"
    return {
        path.relative_to(context).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(context.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def hpl(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return render(tmp_path_factory.mktemp("hpl"), HPL)


def stages(containerfile: str) -> list[str]:
    return re.split(r"^FROM ", containerfile, flags=re.MULTILINE)[1:]


# ---- what eb writes


@pytest.mark.parametrize("name", COMMANDS)
def test_the_records_are_what_eb_writes(name: str, tmp_path: Path) -> None:
    assert sorted_dependencies(recipe_of_eb(tmp_path, *COMMANDS[name])) == sorted_dependencies(record(name))


def test_every_record_has_its_command() -> None:
    assert {path.name for path in RECORDS.iterdir()} == {*COMMANDS, "README.md"}


# ---- the rows


def test_two_stages_instead_of_one(hpl: dict[str, str]) -> None:
    theirs, (builder, final) = stages(record("HPL-2.3-foss-2023b.Dockerfile")), stages(hpl["Containerfile"])
    assert len(theirs) == 1 and "g++" in theirs[0] and "easybuild" in theirs[0]
    assert "g++" in builder and "easybuild==" in builder
    assert "g++" not in final and "pip" not in final and "/opt/hpc3build/tools" not in final


def test_half_of_the_closure_stays_behind(hpl: dict[str, str]) -> None:
    kept = {entry["module"] for entry in json.loads(hpl["hpc3build/easybuild/keep.json"])["modules"]}
    assert {"HPL/2.3-foss-2023b", "OpenMPI/4.1.6-GCC-13.2.0"} <= kept
    assert not {name for name in kept if re.match(r"(CMake|M4|Bison|Autoconf|pkgconf|Python)/", name)}
    assert len(kept) == 24


def test_easybuild_is_pinned_and_theirs_is_not(hpl: dict[str, str]) -> None:
    for name in ("HPL-2.3-foss-2023b.Dockerfile", "HPL-2.3-foss-2023b.Apptainer"):
        assert re.search(r"pip3 install (-U )?easybuild$", record(name), re.MULTILINE)
    assert re.search(r"pip install --no-cache-dir easybuild==5\.4\.1 archspec==\S+", hpl["Containerfile"], re.MULTILINE)


def test_os_packages_of_the_whole_closure(hpl: dict[str, str]) -> None:
    """HPL itself asks for none; OpenSSL and UCX below it do, without which EasyBuild stops."""
    assert "OS_DEPS=''" in record("HPL-2.3-foss-2023b.Dockerfile")
    builder = stages(hpl["Containerfile"])[0]
    assert re.search(r"^ +libibverbs-dev \\$", builder, re.MULTILINE)
    assert re.search(r"^ +perl \\$", builder, re.MULTILINE)


def test_most_closures_have_os_packages_that_their_root_has_not() -> None:
    """Why that matters: counted over the recorded closures."""
    missed = []
    for name in closures.NAMES:
        *below, root = closures.read(name)["modules"]
        needed = {json.dumps(names) for module in below for names in module["osdependencies"]}
        if needed - {json.dumps(names) for names in root["osdependencies"]}:
            missed.append(name)
    assert len(missed) > 0.8 * len(closures.NAMES)


def test_options_that_eb_drops_are_always_given(hpl: dict[str, str], tmp_path: Path) -> None:
    options = ("--optarch=GENERIC", "--cuda-compute-capabilities=8.0", "--accept-eula-for=CUDA")
    assert recipe_of_eb(tmp_path, HPL, *DOCKER, *options) == record("HPL-2.3-foss-2023b.Dockerfile")
    # Without a target it is the generic one; never silently that of the machine that builds.
    assert "--optarch=GENERIC" in hpl["hpc3build/easybuild/options.txt"].splitlines()
    options = ("--target", "zen3", "--cuda-compute-capabilities", "8.0,9.0", "--accept-eula-for", "CUDA")
    told = render(tmp_path / "ours", CUDA, *options)["hpc3build/easybuild/options.txt"].splitlines()
    assert any(re.search(r"GCC:.*march=znver3", option) for option in told)
    assert {"--cuda-compute-capabilities=8.0,9.0", "--accept-eula-for=CUDA"} <= set(told)


def test_a_licence_is_asked_for_before_anything_is_built(tmp_path: Path) -> None:
    """Their recipe says nothing of it, and stops in the middle of the build."""
    assert "eula" not in record("PyTorch-2.3.0-foss-2023b-CUDA-12.4.0.Dockerfile")
    command = [sys.executable, "-m", "hpc3build", "render", CUDA, "-o", "Containerfile"]
    done = sh(*command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 2 and "--accept-eula-for CUDA" in done.stderr
    assert not list(tmp_path.iterdir())


def test_bases_that_eb_refuses(tmp_path: Path) -> None:
    done = eb(tmp_path, HPL, "--fetch", "--container-type", "docker", "--container-config", "debian:12")
    assert done.returncode != 0 and "Unsupported container config 'debian:12'" in done.stdout + done.stderr
    for number, base in enumerate(("debian:12", "ubuntu:24.04", "rockylinux:9")):
        ours = render(tmp_path / str(number), HPL, "--base", base)["Containerfile"]
        assert all(stage.startswith(f"docker.io/library/{base} AS ") for stage in stages(ours))


def test_own_easyconfigs_travel_with_their_sources(tmp_path: Path) -> None:
    theirs = record("mpi-hello-1.0-gompi-system.Dockerfile")
    assert "eb --robot mpi-hello-1.0-gompi-system.eb" in theirs and not re.search(r"^(COPY|ADD)", theirs, re.MULTILINE)
    there = {name.rpartition("/")[2] for name in render(tmp_path, str(RECIPE)) if "/easyconfigs/" in name}
    own = {"mpi-hello-1.0-gompi-system.eb", "gompi-system.eb", "OpenMPI-system-GCC-system.eb"}
    assert there == {*own, "mpi-hello.c", "mpi-hello.mk"}


def test_the_application_is_there_without_a_login_shell(hpl: dict[str, str]) -> None:
    """Theirs loads modules in the .bashrc of one user and has neither ENV nor ENTRYPOINT."""
    theirs, final = record("HPL-2.3-foss-2023b.Dockerfile"), stages(hpl["Containerfile"])[1]
    assert "${HOME}/.bashrc" in theirs and not re.search(r"^(ENV|ENTRYPOINT)", theirs, re.MULTILINE)
    assert re.search(r'^ENV PATH="/opt/easybuild/software/HPL/2\.3-foss-2023b/bin:', final, re.MULTILINE)
    assert re.search(r"^ENTRYPOINT ", final, re.MULTILINE) and not re.search(r"^USER ", final, re.MULTILINE)


def test_their_description_is_one_address() -> None:
    labels = re.findall(r"^LABEL (.*)$", record("HPL-2.3-foss-2023b.Dockerfile"), re.MULTILINE)
    assert labels == ["maintainer=easybuild@lists.ugent.be"]
    assert record("HPL-2.3-foss-2023b.Apptainer").endswith("%labels")


def test_rendering_needs_no_module_tool(hpl: dict[str, str], tmp_path: Path) -> None:
    bare = eb(tmp_path, HPL, *DOCKER)
    assert bare.returncode != 0 and "modules tool can not be used" in bare.stdout + bare.stderr
    path = {"PATH": "/usr/bin:/bin"}
    assert sh("bash", "--noprofile", "--norc", "-c", "! command -v lmod", env=path).returncode == 0
    assert render(tmp_path / "x" / "same" / "depth", HPL, **path).keys() == hpl.keys()


def test_the_same_bytes_from_anywhere(hpl: dict[str, str], tmp_path: Path) -> None:
    """Their OS_DEPS is a set of Python's, in another order in another process."""
    assert "OS_DEPS='" in record("PyTorch-2.3.0-foss-2023b-CUDA-12.4.0.Dockerfile")
    places = (("UTC", "C"), ("Asia/Tokyo", "C.UTF-8"), ("America/St_Johns", "POSIX"))
    for number, (zone, locale) in enumerate(places):
        env = {"TZ": zone, "LC_ALL": locale, "PYTHONHASHSEED": str(number), "HOME": str(tmp_path)}
        assert render(tmp_path / str(number), HPL, "--no-cache", **env) == hpl


def test_the_first_line_names_the_application(hpl: dict[str, str]) -> None:
    assert re.match(r"# Made by hpc3build \S+ for HPL\.\n", hpl["Containerfile"])


# ---- the page

PAGE = ROOT / "docs" / "easybuild.md"
ISSUES = {"#2851", "#2908", "#2475", "#3438", "#4447", "#2501", "#2500", "#2411", "#5158"}


def rows() -> list[list[str]]:
    table = PAGE.read_text(encoding="utf-8").split("## Beside `eb --containerize`")[1].split("\n\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [re.split(r"(?<!\\)\|", line.replace("\\|", ""))[1:-1] for line in lines[1:]]


def test_every_option_of_the_page_exists() -> None:
    section = PAGE.read_text(encoding="utf-8").split("## Options that eb has too")[1].split("\n## ")[0]
    named = re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE)
    assert len(named) >= 7
    told = sh(sys.executable, "-m", "hpc3build", "render", "--help").stdout
    assert [option for option in named if option not in told] == []


def test_every_issue_has_its_row() -> None:
    assert {issue for row in rows() for issue in re.findall(r"#\d+", row[1])} == ISSUES


def test_every_row_names_tests_that_exist() -> None:
    for row in rows():
        named = re.findall(r"`(\w+)::(test_\w+)`", row[4])
        assert len(row) == 5 and named, row
        for module, test in named:
            (path,) = ROOT.glob(f"tests/*/{module}.py")
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (module, test)
