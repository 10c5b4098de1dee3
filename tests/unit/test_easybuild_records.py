"""What an EasyBuild installation leaves in an image, read as a stack: real shapes, and hostile ones."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from hpc3build.evidence.layers import ImageFile, ImageFiles
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.subjects import of_stack
from hpc3build.frontends.easybuild_records import ROOTS, read_stack, wanted
from hpc3build.stack import Package, Stack
from tests.moment import in_a_moment

PREFIX = "/opt/easybuild"
LUA = '-- Built with EasyBuild version 5.4.1\nsetenv("EBROOT{0}", "/opt")\nsetenv("EBVERSION{0}", "{1}")\n'
TCL = '#%Module\nsetenv\tEBROOT{0}\t\t"/opt"\nsetenv\tEBVERSION{0}\t\t"{1}"\n'


def easyconfig(name: str, version: str, *lines: str, toolchain: str = "SYSTEM", **values: Any) -> str:
    """As EasyBuild dumps it to reprod."""
    head = ["easyblock = 'ConfigureMake'", f"name = '{name}'", f"version = '{version}'", "homepage = 'https://x.org'"]
    given = [f"{key} = {value!r}" for key, value in values.items()]
    return "\n".join([*head, f"toolchain = {toolchain}", *given, *lines]) + "\n"


def environment(flags: str) -> str:
    return f"#!/bin/bash\n# EasyBuild 5.4.1\nmodule load foss/2023b\nexport CC='gcc'\nexport CFLAGS='{flags}'\n"


def image(records: dict[str, str | bytes], roots: Any = None) -> ImageFiles:
    """``NAME/VERSION.eb``, ``.env``, ``.lua`` and ``.tcl`` by module, other paths as they are."""
    files = {}
    for key, text in records.items():
        module, _, kind = key.rpartition(".")
        name, _, version = module.partition("/")
        path = {
            "eb": f"{PREFIX}/software/{module}/easybuild/reprod/{name}-{version}.eb",
            "env": f"{PREFIX}/software/{module}/easybuild/reprod/{name}-{version}.env",
            "lua": f"{PREFIX}/modules/all/{module}.lua",
            "tcl": f"{PREFIX}/modules/all/{module}",
        }.get(kind, key)
        data = text if isinstance(text, bytes) else text.encode()
        files[path] = ImageFile(path, "file", 0o644, 0, 0, len(data), "", data, "sha256:0")
    if roots is not None:
        data = roots if isinstance(roots, bytes) else json.dumps({"roots": roots}).encode()
        files[ROOTS] = ImageFile(ROOTS, "file", 0o644, 0, 0, len(data), "", data, "sha256:0")
    return ImageFiles(files)


def read(records: dict[str, str | bytes], roots: Any = None) -> Stack:
    files = image(records, roots)
    assert all(wanted(path) for path in files), "a reader of layers would have kept these"
    made = read_stack(files)
    assert made is not None
    return made


def only(records: dict[str, str | bytes]) -> Package:
    (package,) = read(records).packages
    return package


FOSS = "{'name': 'foss', 'version': '2023b'}"
GCC = "{'name': 'GCC', 'version': '13.2.0'}"
TREE: dict[str, str | bytes] = {
    "GCC/13.2.0.eb": easyconfig("GCC", "13.2.0", moduleclass="compiler"),
    "OpenMPI/4.1.6-GCC-13.2.0.eb": easyconfig("OpenMPI", "4.1.6", "dependencies = [('UCX', '1.15.0')]", toolchain=GCC),
    "OpenMPI/4.1.6-GCC-13.2.0.env": environment("-O2 -ftree-vectorize -march=x86-64-v3 -fno-math-errno"),
    "UCX/1.15.0-GCCcore-13.2.0.eb": easyconfig("UCX", "1.15.0", toolchain=GCC),
    "foss/2023b.eb": easyconfig(
        "foss", "2023b", "dependencies = [('GCC', '13.2.0'), ('OpenMPI', '4.1.6', '', ('GCC', '13.2.0'))]",
        moduleclass="toolchain",
    ),
    "app/1.0-foss-2023b.eb": easyconfig("app", "1.0", "toolchainopts = {'usempi': True, 'x': [1]}", toolchain=FOSS),
    "app/1.0-foss-2023b.env": environment("-O2 -march=x86-64-v3"),
}  # fmt: skip


def test_a_tree_of_records_is_the_stack_that_was_installed() -> None:
    made = read(TREE, ["app/1.0-foss-2023b"])
    (root,) = made.roots
    assert (root.name, root.version, root.prefix) == ("app", "1.0", f"{PREFIX}/software/app/1.0-foss-2023b")
    assert (root.target, root.unmapped_flags, dict(root.variants)) == ("x86_64_v3", "", {"usempi": True})
    assert "app-1.0-foss-2023b.env" in root.target_origin
    assert root.toolchain is not None
    assert root.toolchain.mpi_modules == ("OpenMPI",)
    assert made.by_id["foss/2023b"].is_toolchain
    assert {package.name for package in made.counted} == {"app", "foss", "GCC", "OpenMPI", "UCX"}
    assert of_stack(made).annotations() == {
        voc.TITLE.name: "app",
        voc.IMAGE_VERSION.name: "1.0",
        voc.CPU_VERSION.name: "x86_64_v3",
        voc.CPU_MODE.name: "generic",
        voc.GPU.name: "none",
        voc.MPI.name: "openmpi",
        voc.MPI_IMPLEMENTATION.name: "openmpi",
        voc.MPI_VERSION.name: "4.1.6",
        voc.FRAMEWORK.name: "ucx",
    }


def test_without_our_record_the_roots_are_what_nothing_needs() -> None:
    assert [package.name for package in read(TREE).roots] == ["app"]


@pytest.mark.parametrize("record", [b"", b"{", b"\xff", b"[]", b"{}", b'{"roots": 5}', b"[" * 100_000])
def test_a_broken_record_of_the_roots_is_as_none(record: bytes) -> None:
    assert [package.name for package in read(TREE, record).roots] == ["app"]


def test_roots_that_are_not_there_are_not_made_up() -> None:
    assert [package.name for package in read(TREE, ["gone/1", "UCX/1.15.0-GCCcore-13.2.0"]).roots] == ["UCX"]


def test_an_image_without_records_has_no_stack() -> None:
    assert read_stack(ImageFiles({})) is None
    assert read_stack(image({"app/1.env": environment("-O2"), "app/1.lua": LUA.format("APP", "1")})) is None


@pytest.mark.parametrize(
    ("flags", "target", "unmapped"),
    [
        ("-O2 -march=znver3", "zen3", ""),
        ("-O2 -march=native", None, "-march=native"),
        ("-O2 -march=x86-64 -mtune=generic", "x86_64", ""),
        ("-O2", None, ""),
    ],
)
def test_flags_of_the_environment_say_the_target(flags: str, target: str | None, unmapped: str) -> None:
    records: dict[str, str | bytes] = {"a/1.eb": easyconfig("a", "1", toolchain=FOSS), "a/1.env": environment(flags)}
    package = only(records)
    assert (package.target, package.unmapped_flags) == (target, unmapped)
    system = only(records | {"a/1.eb": easyconfig("a", "1")})
    assert (system.target, system.unmapped_flags) == (None, ""), "EasyBuild sets no flags for SYSTEM"


@pytest.mark.parametrize(("kind", "form"), [("lua", LUA), ("tcl", TCL)])
def test_the_module_file_tells_the_version_behind_system(kind: str, form: str) -> None:
    records: dict[str, str | bytes] = {"OpenMPI/system.eb": easyconfig("OpenMPI", "system")}
    assert only(records).version is None
    assert only(records | {f"OpenMPI/system.{kind}": form.format("OPENMPI", "4.1.4")}).version == "4.1.4"
    assert only(records | {f"OpenMPI/system.{kind}": form.format("OPENMPI", "system")}).version is None
    assert only(records | {f"OpenMPI/system.{kind}": form.format("GCC", "12.2.0")}).version is None


def test_a_roots_own_capabilities_are_read() -> None:
    own = easyconfig(
        "a", "1", "dependencies = [('CUDA', '12.4.0', '', SYSTEM)]", cuda_compute_capabilities=["8.0", "9.0a"]
    )
    made = read({"a/1.eb": own, "CUDA/12.4.0.eb": easyconfig("CUDA", "12.4.0")})
    assert of_stack(made).value(voc.GPU_ARCHITECTURE) == "sm_80,sm_90a"


@pytest.mark.parametrize(
    ("told", "expected"),
    [({"a/1": ["9.0"], "gone/1": ["7.0"]}, "sm_90"), ({"a/1": "9.0"}, None), (["a/1"], "sm_80"), (None, "sm_80")],
)
def test_what_an_easystack_told_a_root(told: Any, expected: str | None) -> None:
    own = easyconfig("a", "1", "dependencies = [('CUDA', '12.4.0', '', SYSTEM)]", cuda_compute_capabilities=["8.0"])
    record = json.dumps({"roots": ["a/1"], "told_capabilities": told}).encode()
    made = read({"a/1.eb": own, "CUDA/12.4.0.eb": easyconfig("CUDA", "12.4.0")}, record)
    assert of_stack(made).value(voc.GPU_ARCHITECTURE) == expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("('b', '1')", "b/1-foss-2023b"),
        ("('b', '1', '-CUDA-12')", "b/1-foss-2023b-CUDA-12"),
        ("('b', '1', '', SYSTEM)", "b/1"),
        ("('b', '1', '', True)", "b/1"),
        ("('b', '1', '', ('GCC', '13.2.0'))", "b/1-GCC-13.2.0"),
        ("('c', '2')", "c/2-GCCcore-13.2.0"),
        ("('gone', '1')", None),
        ("{'name': 'b'}", None), ("'b/1'", None), ("('b',)", None), ("()", None), ("3", None), ("None", None),
        ("('b', '1', '', ())", "b/1"), ("('b', '1', '', ('GCC',))", "b/1"), ("('b', '1', [], 7)", "b/1"),
        ("(['b'], {'x': 1}, 3.5, {})", None),
    ],
)  # fmt: skip
def test_dependencies_lead_to_the_modules_that_are_there(entry: str, expected: str | None) -> None:
    modules = ["b/1", "b/1-foss-2023b", "b/1-foss-2023b-CUDA-12", "b/1-GCC-13.2.0", "c/2-GCCcore-13.2.0"]
    records: dict[str, str | bytes] = {f"{name}.eb": easyconfig(name[0], "1") for name in modules}
    records["a/1.eb"] = easyconfig("a", "1", f"dependencies = [{entry}]", toolchain=FOSS)
    edges = read(records).by_id["a/1"].dependencies
    assert [edge.package for edge in edges] == ([expected] if expected else [])


def test_nothing_of_an_easyconfig_is_ever_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    lines = [
        f"x = open({str(mark)!r}, 'w')",
        f"version = __import__('os').system('touch {mark}') or '6'",
        "raise SystemExit(3)",
        f"dependencies = [open({str(mark)!r}, 'w')]",
        f"toolchainopts = {{'usempi': exec(\"open('{mark}', 'w')\")}}",
    ]
    package = only({"a/1.eb": easyconfig("a", "1", *lines)})
    assert not mark.exists()
    assert (package.name, package.version, package.dependencies) == ("a", "1", ())


@pytest.mark.parametrize(
    "text",
    [
        "", "\x00", b"\xff\xfe", "name =", "name = 'a\n", "if:", "x = " + "(" * 100_000, "x = " + "[" * 150 + "]" * 150,
        "x = " + "-" * 100_000 + "1", "x = " + "1+" * 20_000 + "1", "x = " + "'a'" * 50_000, "version = " + "9" * 5000,
        "version = 9**9**9", "version = 'a' * 10**12", "version = 1.0", "version = ['1']", "version = 'a\\nb'",
        "toolchain = 3", "toolchain = {}", "toolchain = {1: 2}", "toolchain = ['foss', '1']",
        "toolchain = {'name': None}",
        "toolchain = {'name': ['x'], 'version': {}}", "dependencies = 3", "dependencies = 'abc'", "dependencies = {}",
        "toolchainopts = [1]", "toolchainopts = {1: 2, None: True}", "cuda_compute_capabilities = 8.0",
        "cuda_compute_capabilities = [8.0, None]", "moduleclass = []", "a, b = 1, 2", "x = {[]: 1}", "x = '\\d'",
        "def f():\n" * 3, "x = " + "a." * 20_000 + "b", "lambda: (yield)", "name: str = 'x'", "x = 1 if 2 else 3",
    ],
)  # fmt: skip
def test_any_text_is_read_in_a_moment_without_a_word(text: str | bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(), in_a_moment():
        warnings.simplefilter("default")
        package = only({"a/1.eb": text, "a/1.env": text, "a/1.lua": text, "a/1.tcl": text})
    assert package.id == "a/1"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"{PREFIX}/software/a/1/easybuild/reprod/a-1.eb", True),
        ("/app/software/a/1/easybuild/reprod/a-1.env", True),
        ("/app/modules/all/a/1.lua", True),
        ("/app/modules/all/a/1", True),
        (ROOTS, True),
        (f"{PREFIX}/software/a/1/easybuild/a-1.eb", False),
        (f"{PREFIX}/software/a/1/easybuild/reprod/easyblocks/a.py", False),
        (f"{PREFIX}/software/a/1/easybuild/reprod/deep/er/a-1.eb", False),
        ("/etc/passwd", False),
    ],
)
def test_what_is_asked_of_an_image(path: str, expected: bool) -> None:
    assert (wanted(path) is not None) is expected


@pytest.mark.parametrize(
    ("commands", "cflags", "target"),
    [
        ("export CC='mpicc'\nexport CC_SEQ='gcc'", "-march=core-avx2", "haswell"),
        ("export CC='icx'", "-march=x86-64-v3 -mtune=generic", "x86_64_v3"),
        ("export CC='mpicc'\nexport CC_SEQ='icc'", "-march=core-avx2 -mtune=core-avx2 -fma -mf16c", "x86_64_v3"),
        ("export CC='icc'", "-xSSE2", "x86_64"),
        ("export CC='nvc'", "-tp=px", "x86_64"),
        ("export CC='nvc'", "-tp=zen4", "zen4"),
        ("export CC='nvc'", "-tp=host", None),
        ("export CC='clang'", "-march=znver4 -mtune=znver4", "zen4"),
        ("export CC='fcc'", "-mcpu=generic -mtune=generic", "aarch64"),
    ],
)
def test_flags_are_read_as_their_compilers(commands: str, cflags: str, target: str | None) -> None:
    text = f"{commands}\nexport CFLAGS='-O2 {cflags}'\n"
    package = only({"A/1.eb": easyconfig("A", "1", toolchain=FOSS), "A/1.env": text})
    assert package.target == target
