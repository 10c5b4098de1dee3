"""EasyBuild really builds for the target it is told: a chain of three easyconfigs, and an MPI program.

The chain (tests/data/easybuild/greet) is data that only the build needs, a library with a patch, and a program.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import loaded
from tests.integration.support import RECIPE, ROOT, USERS, Built, hpc3build, missing, sh

pytestmark = [
    pytest.mark.engine,
    pytest.mark.long,
    pytest.mark.skipif(bool(missing("objdump")), reason=missing("objdump")),
]

GREET = ROOT / "tests" / "data" / "easybuild" / "greet"
P = "org.supercontainers."
CPU = P + "hardware.cpu.optimized.version"
MODE = P + "hardware.cpu.optimized.mode"
SOFTWARE = "opt/easybuild/software/"
#: The application's own files, where its loops are.
CODE = {
    "greet": ("greet/1.0-GCC-system/bin/greet", "libgreet/1.0-GCC-system/lib/libgreet.so"),
    "mpi-hello": ("mpi-hello/1.0-gompi-system/bin/mpi-hello",),
}
TARGETS = ("x86_64", "x86_64_v3", "native")
#: What a run must print.
SAYS = {"greet": "Hello from a chain: 4224\n", "mpi-hello": "ranks 1 sum 1 "}


def host() -> tuple[str, frozenset[str], str]:
    """This machine, by the archspec that a builder has too: name, features, vendor."""
    script = (
        "import archspec.cpu, json; host = archspec.cpu.host(); "
        "print(json.dumps([host.name, sorted(host.features | host.ancestors[-1].features), host.vendor]))"
    )
    name, features, vendor = json.loads(sh(sys.executable, "-c", script).stdout)
    return name, frozenset(features), vendor


def has_v3(target: str) -> bool:
    """Whether code for ``target`` may be expected to use AVX2 and FMA."""
    return target == "x86_64_v3" or (target == "native" and {"avx2", "fma"} <= host()[1])


def runs_here(target: str) -> bool:
    return target != "x86_64_v3" or {"avx2", "fma"} <= host()[1]


@pytest.fixture(scope="session")
def greet_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chain's easyconfigs with the sources beside them, as tarballs made here: nothing is fetched."""
    folder = tmp_path_factory.mktemp("recipe") / "greet"
    shutil.copytree(GREET, folder, ignore=shutil.ignore_patterns("src"))
    for source in sorted((GREET / "src").iterdir()):
        with tarfile.open(folder / f"{source.name}.tar.gz", "w:gz") as archive:
            archive.add(source, source.name)
    return folder


@pytest.fixture(
    scope="module",
    params=[pytest.param((name, target), id=f"{name}-{target}") for target in TARGETS for name in CODE],
)
def image(
    request: pytest.FixtureRequest, greet_recipe: Path, base: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str, Built]]:
    """The recipe's name, its target and what was built: about 50 s each, 20 s when the builder's layers are cached."""
    name, target = request.param
    if target == "x86_64_v3" and not runs_here(target):
        pytest.skip("this machine cannot run x86_64_v3, so the recipe's smoke test would fail")
    layout = tmp_path_factory.mktemp("target") / name
    recipe = greet_recipe if name == "greet" else RECIPE
    argv = ["build", str(recipe), "-t", f"oci:{layout}:1.0", "--engine", "buildah", "--base", base]
    done = hpc3build(*argv, "--target", target)
    with loaded(layout, "1.0") as loaded_name:
        yield name, target, Built(layout, "1.0", loaded_name, base, done.stdout, done.stderr)


def files(built: Built) -> dict[str, bytes]:
    """The regular files of the image below the software's folder; an image of ours deletes nothing between layers."""
    found = {}
    for layer in built.layers():
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            for member in archive:
                if member.isfile() and member.name.startswith(SOFTWARE):
                    stream = archive.extractfile(member)
                    assert stream is not None
                    found[member.name.removeprefix(SOFTWARE)] = stream.read()
    return found


def disassembly(data: bytes, folder: Path) -> str:
    path = folder / "binary"
    path.write_bytes(data)
    return sh("objdump", "-d", "--no-show-raw-insn", "--section=.text", path).stdout


def test_code_is_for_the_target_and_for_no_more(image: tuple[str, str, Built], tmp_path: Path) -> None:
    name, target, built = image
    there = files(built)
    for path in CODE[name]:
        text = disassembly(there[path], tmp_path)
        fma, wide = re.findall(r"\bvfmadd\w+", text), re.findall(r"%[yz]mm\d+", text)
        if has_v3(target):
            assert fma and wide, (path, text[-3000:])
        else:
            assert not fma and not wide, (path, text[-3000:])
            assert re.search(r"\bmulpd\b", text) and re.search(r"\baddpd\b", text), (path, text[-3000:])
        if target == "x86_64":
            assert not re.search(r"^\s*[0-9a-f]+:\s+v[a-z]", text, re.MULTILINE), path


def test_what_the_image_says_of_its_cpu(image: tuple[str, str, Built]) -> None:
    _, target, built = image
    machine, _, vendor = host()
    mode = "generic" if target != "native" or vendor == "generic" else "microarch"
    expected = {CPU: machine if target == "native" else target, MODE: mode}
    assert {key: built.annotations.get(key) for key in expected} == expected
    assert {key: built.labels.get(key) for key in expected} == expected


def test_the_records_keep_the_flags(image: tuple[str, str, Built]) -> None:
    """EasyBuild's own record of the build: what the compiler was told."""
    name, target, built = image
    told = {"x86_64": "-march=x86-64 -mtune=generic", "x86_64_v3": "-march=x86-64-v3", "native": "-march="}[target]
    for path in CODE[name]:
        folder = path.split("/", 2)[:2]
        records = {k: v for k, v in files(built).items() if k.startswith("/".join(folder) + "/easybuild/reprod/")}
        (env,) = (data.decode() for key, data in records.items() if key.endswith(".env"))
        assert re.search(rf"export CFLAGS='[^']*{told}", env), env


def test_only_what_runs_is_left(image: tuple[str, str, Built]) -> None:
    name, _, built = image
    there = files(built)
    assert not [path for path in there if path.startswith("hpcdata/")]
    assert not [path for path in there if path.endswith(("_test_report.md", ".log", ".log.gz", "-easybuild-devel"))]
    assert not [path for path in there if path.endswith((".tar.gz", ".patch", ".c"))]
    modules = json.loads(built.podman("cat", "/opt/hpc3build/easybuild.json").stdout)
    expected = {"greet": {"GCC", "libgreet", "greet"}, "mpi-hello": {"GCC", "OpenMPI", "gompi", "mpi-hello"}}
    assert {entry["name"] for entry in modules["modules"]} == expected[name]


@pytest.mark.parametrize("user", USERS.values(), ids=USERS)
def test_it_runs_as_anyone(image: tuple[str, str, Built], user: str) -> None:
    name, _, built = image
    done = built.podman(name, options=("--user", user))
    assert SAYS[name] in done.stdout and done.stderr == ""


def test_it_runs_as_nobody_in_its_own_way(image: tuple[str, str, Built]) -> None:
    """The MPI program on three ranks. The chain without any environment: EasyBuild 5 links with RPATH, which holds
    because the final stage has the builder's prefix."""
    name, _, built = image
    nobody = ("--user", USERS["nobody"])
    if name == "mpi-hello":
        done = built.podman("mpirun", "-n", "3", "--oversubscribe", name, options=nobody)
        assert len(re.findall(r"^MPI library: Open MPI v4\.1\.4", done.stdout, re.MULTILINE)) == 3
        assert re.search(r"^ranks 3 sum 6 ", done.stdout, re.MULTILINE)
    else:
        program = f"/{SOFTWARE}{CODE[name][0]}"
        assert built.podman("env", "-i", program, options=(*nobody, "--entrypoint", "")).stdout == SAYS[name]


def test_its_modules_can_be_loaded_in_the_image(greet_recipe: Path, base: str, tmp_path: Path) -> None:
    """With --modules lmod: the run-time modules are there, and those that were asked for are loaded for everyone."""
    argv = ["build", str(greet_recipe), "-t", f"oci:{tmp_path}/image:1.0", "--engine", "buildah", "--base", base]
    done = hpc3build(*argv, "--modules", "lmod")
    with loaded(tmp_path / "image", "1.0") as name:
        built = Built(tmp_path / "image", "1.0", name, base, done.stdout, done.stderr)
        script = "module -t list 2>&1; module purge; module -t avail 2>&1; module load greet; greet\n"
        told = built.podman(options=("--user", USERS["nobody"], "-i"), input=script).stdout.splitlines()
        around = built.podman("greet", options=("--user", USERS["unknown"], "--entrypoint", "")).stdout
    modules = ["GCC/system", "libgreet/1.0-GCC-system", "greet/1.0-GCC-system"]
    assert told[:3] == modules and told[-1:] == SAYS["greet"].splitlines()
    assert {line for line in told[3:-1] if "greet" in line or "hpcdata" in line} >= set(modules[1:])
    assert not [line for line in told if line.startswith("hpcdata")]
    assert around == SAYS["greet"]


def test_a_chain_without_its_source_names_the_file(greet_recipe: Path, base: str, tmp_path: Path) -> None:
    """EasyBuild's own words, and nothing is left behind."""
    folder = tmp_path / "greet"
    shutil.copytree(greet_recipe, folder)
    (folder / "libgreet-1.0.tar.gz").unlink()
    argv = ["build", str(folder), "-t", f"oci:{tmp_path}/image:1.0", "--engine", "buildah", "--base", base]
    done: subprocess.CompletedProcess[str] = hpc3build(*argv, check=False)
    assert done.returncode == 3
    assert "libgreet-1.0.tar.gz" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "image").exists()
