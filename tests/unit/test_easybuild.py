"""EasyBuild's closures as stacks, without EasyBuild: what its resolver answers is recorded or made up here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpc3build.errors import InputError, ToolError, ToolMissing
from hpc3build.frontends import easybuild, for_source
from hpc3build.frontends.easybuild import EasyBuildRecipe
from hpc3build.frontends.easybuild_flags import compilers, optarch
from hpc3build.frontends.easybuild_resolve import resolve
from hpc3build.frontends.easybuild_sources import Sources
from hpc3build.frontends.easybuild_stack import stack_of_closure
from hpc3build.recipe import Settings
from hpc3build.run import Completed

CLOSURES = Path(__file__).resolve().parents[1] / "data" / "easybuild" / "closures"
GROMACS, CUDA = "GROMACS-2024.4-foss-2023b", "GROMACS-2024.4-foss-2023b-CUDA-12.4.0"


def recorded(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((CLOSURES / f"{name}.json").read_text())
    return document


def module(name: str, version: str = "1", *deps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    toolchain = fields.pop("toolchain", {"name": "foss", "version": "2023b"})
    return {
        "name": name,
        "version": version,
        "versionsuffix": "",
        "toolchain": toolchain,
        "easyconfig": f"{name}-{version}.eb",
        "module": f"{name}/{version}",
        "moduleclass": "tools",
        "deps": list(deps),
        "builddeps": [],
        "toolchainopts": {},
        "osdependencies": [],
        "compiler_family": "GCC",
        **fields,
    }


SYSTEM = {"name": "system", "version": "system"}
GCC = module("GCC", "13.2.0", toolchain=SYSTEM, compiler_family="SYSTEM", moduleclass="compiler")


def closure(*modules: dict[str, Any], roots: tuple[str, ...] = ("A/1",)) -> dict[str, Any]:
    return {"modules": list(modules), "roots": list(roots), "easybuild_version": "5.4.1"}


def recipe(*modules: dict[str, Any], folder: Path = Path("/nowhere"), **settings: Any) -> EasyBuildRecipe:
    return EasyBuildRecipe(
        origin=folder / "A.eb",
        folder=folder,
        settings=Settings(**settings),
        sources=Sources(easyconfigs=("A.eb",), robot_paths=(folder,)),
        closure=closure(*modules),
    )


ONE = Sources(easyconfigs=("A.eb",))


class Answer:
    """A runner that answers what it is told, and remembers how it was asked."""

    def __init__(self, stdout: str = "", returncode: int = 0, stderr: str = "", error: Exception | None = None) -> None:
        self.done = Completed((), returncode, stdout, stderr)
        self.error = error
        self.asked: list[tuple[tuple[str, ...], dict[str, Any]]] = []

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        self.asked.append((tuple(argv), options))
        if self.error:
            raise self.error
        return self.done


@pytest.fixture(autouse=True)
def python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC3BUILD_EASYBUILD_PYTHON", "/opt/eb/bin/python")


def test_a_recorded_closure_is_a_stack() -> None:
    made = stack_of_closure(recorded(GROMACS), target="zen3")
    assert made.manager == "easybuild"
    (root,) = made.roots
    assert (root.name, root.version, root.id) == ("GROMACS", "2024.4", "GROMACS/2024.4-foss-2023b")
    assert root.toolchain is not None
    assert (root.toolchain.name, root.toolchain.mpi_modules) == ("foss", ("OpenMPI",))
    names = {package.name: package for package in made.packages}
    assert names["foss"].is_toolchain
    assert names["foss"].target is None, "a toolchain holds no code"
    assert made.by_id["M4/1.4.19"].target is None, "the SYSTEM toolchain takes no --optarch"
    assert names["OpenMPI"].target == "zen3"
    assert "OpenMPI" in {package.name for package in made.runtime_closure(root)}
    assert "CMake" not in {package.name for package in made.counted}


@pytest.mark.parametrize("path", sorted(CLOSURES.glob("*.json")), ids=lambda path: path.stem)
def test_every_edge_of_every_closure_leads_somewhere(path: Path) -> None:
    document = json.loads(path.read_text())
    made = stack_of_closure(document)
    assert len(made.packages) >= len(document["modules"])
    for package in made.packages:
        for dependency in package.dependencies:
            assert dependency.package in made.by_id
    assert not [package for package in made.packages if package.external]
    assert {package.id for package in made.roots} == set(document["roots"])


def test_what_the_closure_lacks_is_an_external_module() -> None:
    needed = {"name": "cray-mpich", "version": "8.1", "versionsuffix": "", "toolchain": SYSTEM}
    made = stack_of_closure(closure(module("A", "1", needed)))
    external = made.by_id["cray-mpich/8.1"]
    assert (external.external, external.version, external.target) == (True, "8.1", None)
    assert external in made.counted


def test_the_version_system_is_no_version() -> None:
    assert stack_of_closure(closure(module("A", "1"), module("OpenMPI", "system"))).packages[1].version is None


@pytest.mark.parametrize(
    ("own", "target", "unmapped"),
    [
        ("march=x86-64-v3", "x86_64_v3", ""),
        ("-march=znver3", "zen3", ""),
        ("march=native", None, "-march=native"),
        ("mystery", None, "-mystery"),
        ("", "zen4", ""),
        (None, "zen4", ""),
    ],
)
def test_an_easyconfigs_own_optarch_wins_for_its_module(own: str | None, target: str | None, unmapped: str) -> None:
    made = stack_of_closure(
        closure(module("A", "1", toolchainopts={"optarch": own} if own is not None else {})), target="zen4"
    )
    assert (made.packages[0].target, made.packages[0].unmapped_flags) == (target, unmapped)


def test_capabilities_and_switches_of_the_root() -> None:
    options = {"usempi": True, "openmp": False, "precise": None, "weird": [1]}
    made = stack_of_closure(
        closure(
            module("A", "1", cuda_compute_capabilities=["8.0"], toolchainopts=options),
            module("B", "1", cuda_compute_capabilities=["7.0"]),
        ),
        capabilities="9.0",
    )
    assert [package.capabilities for package in made.packages] == [("8.0",), ()]
    assert dict(made.packages[0].variants) == {"usempi": True, "openmp": False}
    assert dict(made.options) == {"cuda_compute_capabilities": "9.0"}


def test_resolve_asks_the_pinned_easybuild_in_a_clean_environment(tmp_path: Path) -> None:
    own = tmp_path / "A-1.eb"
    own.write_text("name = 'A'")
    answer = Answer(json.dumps(closure(module("A"))))
    found = resolve(Sources(easyconfigs=(str(own), "B-1.eb"), robot_paths=(tmp_path,)), answer)
    assert found["roots"] == ["A/1"]
    ((argv, options),) = answer.asked
    assert argv[0] == "/opt/eb/bin/python"
    assert [argv[i + 1] for i, word in enumerate(argv) if word == "--easyconfig"] == [str(own), "B-1.eb"]
    assert str(tmp_path) in argv[argv.index("--robot-paths") + 1]
    assert set(options["env"]) == {"HOME", "PATH", "LC_ALL", "TMPDIR"}
    assert not Path(options["env"]["TMPDIR"]).exists(), "its folder is gone"
    assert options["timeout"] > 0
    assert options["check"] is False


def test_what_easybuild_refuses_is_bad_input_with_its_file() -> None:
    answer = Answer(json.dumps({"error": "no such toolchain", "file": "A.eb", "hint": "see --list"}), 1)
    with pytest.raises(InputError) as caught:
        resolve(ONE, answer)
    assert (caught.value.message, caught.value.hint) == ("A.eb: no such toolchain", "see --list")
    with pytest.raises(InputError, match=r"^broken$"):
        resolve(ONE, Answer('{"error": "broken"}', 1))


@pytest.mark.parametrize(
    ("stdout", "code"),
    [("", 0), ("", 1), ("garbage", 0), ("[]", 0), ("3", 0), ("null", 0), ("{}", 0), ('{"modules": []}', 0),
     ("WARNING\n{}", 0), (json.dumps(closure(module("A"))), 1), ("[" * 100_000, 0), ("9" * 5000, 0)],
)  # fmt: skip
def test_any_other_answer_is_a_failed_tool_with_its_last_lines(stdout: str, code: int) -> None:
    stderr = "".join(f"line {number}\n" for number in range(100))
    with pytest.raises(ToolError) as caught:
        resolve(ONE, Answer(stdout, code, stderr))
    assert caught.value.exit_code == 3
    assert "A.eb" in caught.value.message
    assert "line 99" in caught.value.message
    assert "line 50\n" not in caught.value.message


def test_running_out_of_time_is_told_as_the_runner_tells_it() -> None:
    with pytest.raises(ToolError, match=r"300 s"):
        resolve(ONE, Answer(error=ToolError("python did not finish within 300 s")))


def test_without_easybuild_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPC3BUILD_EASYBUILD_PYTHON")
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(ToolMissing) as caught:
        resolve(ONE, Answer())
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize(
    ("target", "gcc", "expected"),
    [
        (None, "13.2.0", "GENERIC"),
        ("x86_64", "13.2.0", "GENERIC"),
        ("aarch64", "13.2.0", "GENERIC"),
        ("x86_64_v3", "13.2.0", "GCC:-march=x86-64-v3 -mtune=generic"),
        ("zen3", "13.2.0", "GCC:-march=znver3 -mtune=znver3"),
    ],
)
def test_optarch_of_a_target(target: str | None, gcc: str, expected: str) -> None:
    made = optarch([module("A"), {**GCC, "version": gcc}], target, "")
    assert made.split(" -mprefer")[0] == expected


def test_optarch_takes_the_oldest_gcc_of_the_closure_and_else_the_bases() -> None:
    """Flags that an old release knows, a new one knows too."""
    several = [module("A"), {**GCC, "version": "9.4.0"}, module("GCCcore", "13.2.0")]
    assert "-mavx2" in optarch(several, "x86_64_v3", "")
    assert optarch([module("A"), module("GCC", "system")], "x86_64_v3", "12.2.0").startswith("GCC:-march=x86-64-v3")
    with pytest.raises(InputError, match="no flags that are known"):
        optarch([module("A")], "x86_64_v3", "")


@pytest.mark.parametrize(
    ("family", "name", "version", "target", "expected"),
    [
        ("Intel", "intel-compilers", "2024.2.0", "x86_64_v3", "Intel:-march=x86-64-v3 -mtune=generic"),
        ("Intel", "iccifort", "2020.4.304", "x86_64_v3", "Intel:-march=core-avx2 -mtune=core-avx2 -fma -mf16c"),
        ("NVHPC", "NVHPC", "25.9", "zen4", "NVHPC:-tp=zen4"),
        ("NVHPC", "nvidia-compilers", "25.9", "haswell", "NVHPC:-tp=haswell"),
        ("LLVM", "llvm-compilers", "20.1.8", "zen4", "LLVM:-march=znver4 -mtune=znver4"),
        ("ROCm", "rocm-compilers", "19.0.0", "x86_64_v3", "ROCm:-march=x86-64-v3 -mtune=generic"),
        ("Fujitsu", "FCC", "4.5.0", "a64fx", "Fujitsu:-mcpu=a64fx"),
    ],
)
def test_optarch_of_every_family(family: str, name: str, version: str, target: str, expected: str) -> None:
    its = module(name, version, toolchain=SYSTEM, compiler_family="SYSTEM")
    gcc = module("GCCcore", "13.2.0", toolchain=SYSTEM, compiler_family="SYSTEM")
    assert optarch([gcc, its, module("A", compiler_family=family)], target, "") == expected
    with_gcc = optarch([gcc, its, module("A", compiler_family=family), module("zlib")], "x86_64", "")
    assert with_gcc == "GENERIC", "which EasyBuild knows for each of them"


def test_optarch_names_all_families_since_the_others_would_be_native() -> None:
    modules = [
        module("A", compiler_family="Intel"),
        module("zlib"),
        module("tool", compiler_family="NVHPC", builddep=True),
        module("GCCcore", "13.2.0", compiler_family="SYSTEM"),
        module("intel-compilers", "2024.2.0", compiler_family="SYSTEM"),
    ]
    parts = dict(part.split(":") for part in optarch(modules, "x86_64_v3", "").split(";"))
    assert set(parts) == {"GCC", "Intel", "NVHPC"}
    assert parts["NVHPC"] == "GENERIC", "no product of it stays"
    assert compilers(modules, "") == {
        "GCC": {"compiler": "gcc", "version": "13.2.0"},
        "Intel": {"compiler": "oneapi", "version": "2024.2.0"},
    }


def test_a_version_without_end_is_one() -> None:
    modules = [module("A"), module("GCC", "9" * 5000), module("GCCcore", "13.2.0")]
    assert compilers(modules, "")["GCC"]["version"] == "13.2.0"


def test_optarch_of_what_cannot_be_built() -> None:
    with pytest.raises(InputError, match="zen4"):
        optarch([module("A"), {**GCC, "version": "8.5.0"}], "zen4", "")
    with pytest.raises(InputError, match="CrayCE"):
        optarch([module("A", compiler_family="CrayCE")], "zen3", "")
    assert optarch([module("A", compiler_family="Intel")], None, "") == "GENERIC"


@pytest.mark.parametrize("name", [GROMACS, CUDA])
def test_optarch_of_a_recorded_closure(name: str) -> None:
    assert optarch(recorded(name)["modules"], "x86_64_v3", "").startswith("GCC:-march=x86-64-v3")


@pytest.mark.parametrize(
    ("base", "expected"), [("debian:12", {"libssl-dev", "libfoo"}), ("fedora:41", {"openssl-devel", "libfoo"})]
)
def test_os_dependencies_are_those_of_the_bases_manager(base: str, expected: set[str]) -> None:
    wishes = [["openssl-devel", "libssl-dev", "libopenssl-devel"], "libfoo"]
    made = recipe(module("A", osdependencies=wishes), base=base)
    names = set(easybuild.context(made, None).variables["builder_packages"])
    assert expected <= names
    assert not {"openssl-devel", "libssl-dev", "libopenssl-devel"} & names - expected


@pytest.mark.parametrize(
    "wish", ["$(touch x)", "a; id", "a b", "", "-y", "--x", "/bin/sh", "a\nb", 5, None, ["ok", "$(id)"], [["a"]], {}]
)
def test_an_os_dependency_that_is_no_package_is_told(wish: object) -> None:
    """No distribution has a package of such a name, and a build without it would fail after hours."""
    with pytest.raises(InputError) as raised:
        easybuild.context(recipe(module("A", osdependencies=["libfoo", wish])), None)
    assert raised.value.message.startswith("A-1.eb: osdependencies: "), raised.value.message
    assert "is not the name of a package" in raised.value.message
    assert "\n" not in raised.value.message


def test_own_easyconfigs_travel_with_what_lies_beside_them_and_shipped_ones_stay(tmp_path: Path) -> None:
    own, shipped = tmp_path / "recipe", tmp_path / "shipped"
    for folder in (own, shipped):
        folder.mkdir()
        (folder / "A.eb").write_text(f"of {folder.name}")
    (own / "a.tar").write_text("source")
    (own / "a.patch").write_text("patch")
    (tmp_path / "secret").write_text("not yours")
    (own / "link").symlink_to(tmp_path / "secret")
    sources, patches = ["a.tar", "../secret", "link", "missing.tar"], ["a.patch", str(tmp_path / "secret")]
    made = recipe(
        module("A", path=str(own / "A.eb"), sources=sources, patches=patches),
        module("B", path=str(shipped / "A.eb")),
        module("C", path=str(tmp_path / "nowhere.eb")),
        folder=own,
    )
    files = easybuild.context(made, None).files
    names = {name: data for name, data in files.items() if "/easyconfigs/" in name}
    assert names == {
        "easybuild/application/easyconfigs/A.eb": b"of recipe",
        "easybuild/application/easyconfigs/a.tar": b"source",
        "easybuild/application/easyconfigs/a.patch": b"patch",
    }
    assert files["easybuild/application/easyconfigs.txt"] == b"A-1.eb\n"
    assert files["easybuild/options.txt"] == b"--optarch=GENERIC\n"


def test_options_of_the_build() -> None:
    made = recipe(module("A"), GCC, target="zen3", cuda_compute_capabilities="8.0,9.0")
    options = easybuild.context(made, None).files["easybuild/options.txt"].decode().splitlines()
    assert options[0].startswith("--optarch=GCC:-march=znver3")
    assert options[1:] == ["--cuda-compute-capabilities=8.0,9.0"]


@pytest.mark.parametrize("value", ["80", "8.0;id", "8.0,", "8.0 9.0", "sm_80", "8.0\n"])
def test_capabilities_that_are_none_are_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "A-1.eb").write_text("")
    with pytest.raises(InputError, match=r"8\.0,9\.0a"):
        easybuild.load((str(tmp_path / "A-1.eb"),), Settings(cuda_compute_capabilities=value), Answer())


def test_folders_and_names(tmp_path: Path) -> None:
    folder = tmp_path / "hello"
    folder.mkdir()
    for name in ("hello-1.eb", "gompi-1.eb"):
        (folder / name).write_text("")
    answer = Answer(json.dumps(closure(module("hello"), roots=("hello/1",))))
    made = easybuild.load((str(folder),), Settings(), answer)
    assert made.sources.easyconfigs == (str(folder / "hello-1.eb"),)
    assert made.folder == folder
    assert for_source(str(folder)) is easybuild
    assert for_source("GROMACS-2024.4-foss-2023b.eb") is easybuild
    (folder / "hello-1.eb").rename(folder / "other-1.eb")
    with pytest.raises(InputError, match="none is named like the folder"):
        easybuild.load((str(folder),), Settings(), answer)
    for source in ("no/such.eb", "$(id).eb", "-x.eb", "a b.eb", "a\n.eb"):
        with pytest.raises(InputError, match="no such easyconfig"):
            easybuild.load((source,), Settings(), answer)
