"""The EasyBuild block of a context: order and parts, options, licences, OS packages, Lmod, own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc3build.errors import InputError
from hpc3build.frontends import Context, easybuild_licences
from hpc3build.frontends.easybuild_context import Plan, context, own_files
from hpc3build.frontends.easybuild_graph import parts_of
from hpc3build.frontends.easybuild_sources import Sources
from hpc3build.recipe import Settings
from tests.unit.test_easybuild import GCC, GROMACS, SYSTEM, module, recorded

FOSS = {"name": "foss", "version": "2023b"}


def made(*modules: dict[str, Any], sources: Sources | None = None, **settings: Any) -> Context:
    return context(Plan(modules, ("A/1",), sources or Sources(easyconfigs=("A-1.eb",)), Settings(**settings)))


def needs(name: str, toolchain: dict[str, str] = SYSTEM) -> dict[str, Any]:
    return {"name": name, "version": "1", "versionsuffix": "", "toolchain": toolchain}


# ---- parts


def test_parts_of_a_recorded_closure() -> None:
    document = recorded(GROMACS)
    parts = parts_of(document["modules"], document["roots"])
    names = {part: [module["name"] for module in modules] for part, modules in parts.items()}
    assert list(names) == ["toolchain", "dependencies", "application"]
    assert names["application"] == ["GROMACS"]
    assert {"GCCcore", "GCC", "OpenMPI", "UCX", "FFTW", "foss", "binutils"} <= set(names["toolchain"])
    assert {"Catch2", "mpi4py"} <= set(names["dependencies"])
    assert sum(map(len, names.values())) == document["n"]
    order = [module["module"] for module in document["modules"]]
    for modules in parts.values():
        assert [module["module"] for module in modules] == sorted((m["module"] for m in modules), key=order.index)


def test_every_part_has_what_it_needs_below_it_or_in_it() -> None:
    document = recorded(GROMACS)
    there: set[tuple[str, str]] = set()
    for modules in parts_of(document["modules"], document["roots"]).values():
        there |= {(module["name"], module["version"]) for module in modules}
        for built in modules:
            assert {(dep["name"], dep["version"]) for dep in (*built["deps"], *built["builddeps"])} <= there


def test_empty_parts_are_left_out() -> None:
    assert list(parts_of([module("A", toolchain=SYSTEM)], ["A/1"])) == ["application"]
    assert list(parts_of([module("B", toolchain=SYSTEM), module("A", toolchain=SYSTEM)], ["A/1"])) == [
        "dependencies",
        "application",
    ]


def test_a_root_that_another_roots_toolchain_needs_is_still_a_root() -> None:
    chain = module("foss", "2023b", needs("B"), toolchain=SYSTEM)
    parts = parts_of([module("B", toolchain=SYSTEM), chain, module("A")], ["A/1", "B/1"])
    assert [m["module"] for m in parts["application"]] == ["B/1", "A/1"]


def test_each_part_is_a_step_of_its_own() -> None:
    files = made(module("foss", "2023b", toolchain=SYSTEM), module("B"), module("A")).files
    assert files["easybuild/toolchain/easyconfigs.txt"] == b"foss-2023b.eb\n"
    assert files["easybuild/dependencies/easyconfigs.txt"] == b"B-1.eb\n"
    assert files["easybuild/application/easyconfigs.txt"] == b"A-1.eb\n"
    record = json.loads(files["easybuild/keep.json"])
    assert {entry["module"]: entry["part"] for entry in record["modules"]} == {
        "foss/2023b": "toolchain",
        "B/1": "dependencies",
        "A/1": "application",
    }
    assert record["parts"] == ["toolchain", "dependencies", "application"]


# ---- options


def test_options_of_eb() -> None:
    options = made(module("A"), GCC, accept_eula_for=("CUDA", "Intel.*")).files["easybuild/options.txt"].decode()
    assert options.splitlines() == ["--optarch=GENERIC", "--accept-eula-for=CUDA,Intel.*"]
    assert "eula" not in made(module("A"), GCC).files["easybuild/options.txt"].decode()


def test_native_is_decided_in_the_builder() -> None:
    found = made(module("A"), GCC, target="native")
    assert found.variables["native"] is True
    assert b"optarch" not in found.files["easybuild/options.txt"]
    assert json.loads(found.files["easybuild/native/compilers.json"]) == {
        "GCC": {"compiler": "gcc", "version": "13.2.0"}
    }
    assert made(module("A"), GCC).variables["native"] is False


def test_names_that_easybuild_would_not_find_are_not_looked_for_again() -> None:
    known = made(module("A", osdependencies=[["pam-devel", "libpam0g-dev"]]))
    assert b"ignore-osdeps" not in known.files["easybuild/options.txt"]
    other = made(module("A", osdependencies=["pam-devel"]))
    assert "libpam0g-dev" in other.variables["builder_packages"]
    assert b"--ignore-osdeps\n" in other.files["easybuild/options.txt"]


# ---- licences

CUDA = {"name": "CUDA", "url": "https://example.org/cuda"}


@pytest.mark.parametrize("accepted", [("CUDA",), ("CU.*",), ("NVHPC", "CUDA")])
def test_a_licence_that_is_accepted(accepted: tuple[str, ...]) -> None:
    easybuild_licences.check([module("CUDA", eula=CUDA), module("A")], accepted)


@pytest.mark.parametrize("accepted", [(), ("cuda",), ("NVHPC",), ("UDA",)])
def test_a_licence_that_nobody_accepted(accepted: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        made(module("CUDA", "12", eula=CUDA), module("A"), accept_eula_for=accepted)
    assert "CUDA for CUDA/12: https://example.org/cuda" in caught.value.message
    assert "--accept-eula-for CUDA" in caught.value.hint and caught.value.exit_code == 2


@pytest.mark.parametrize("accepted", ["[", "CUDA NVHPC", "(?P<x"])
def test_what_is_no_pattern(accepted: str) -> None:
    with pytest.raises(InputError, match="--accept-eula-for"):
        easybuild_licences.check([], (accepted,))


# ---- the operating system


def test_run_time_packages_are_those_of_run_time_modules() -> None:
    modules = [
        module("UCX", osdependencies=[["libibverbs-dev", "libibverbs-devel", "rdma-core-devel"]]),
        module("OpenSSL", osdependencies=[["openssl-devel", "libssl-dev"]], builddep=True),
        module("A"),
    ]
    debian, rocky = made(*modules), made(*modules, base="rockylinux:9")
    assert debian.variables["final_packages"] == ["ibverbs-providers", "libibverbs1", "librdmacm1"]
    assert rocky.variables["final_packages"] == ["libibverbs", "librdmacm"]
    assert {"libibverbs-dev", "libssl-dev"} <= set(debian.variables["builder_packages"])
    assert {"rdma-core-devel", "openssl-devel"} <= set(rocky.variables["builder_packages"])


OLD = ("ubuntu:16.04", "ubuntu:18.04", "ubuntu:20.04", "ubuntu:22.04")


@pytest.mark.parametrize("base", ["debian:12", "ubuntu:24.04", "rockylinux:8", "rockylinux:9", "fedora:41", *OLD])
@pytest.mark.parametrize("modules", ["flat", "lmod"])
def test_every_base_has_one_lmod(base: str, modules: str) -> None:
    found = made(module("A"), base=base, modules=modules).variables
    assert bool(found["lmod_commit"]) == (base in OLD)
    packaged = {"lmod", "Lmod"} & set(found["builder_packages"])
    assert bool(packaged) == (base not in OLD)
    final = set(found["final_packages"])
    assert (packaged or {"lua5.3", "lua-posix"}) <= final if modules == "lmod" else not final
    assert ("/opt/lmod" in found["copied"]) == (base in OLD and modules == "lmod")


def test_a_base_without_lmod() -> None:
    with pytest.raises(InputError, match="Lmod 8 or newer"):
        made(module("A"), base="amazonlinux:2023")


# ---- own files


def test_own_easyblocks_and_hooks_travel(tmp_path: Path) -> None:
    (tmp_path / "generic").mkdir()
    for name in ("a.py", "generic/b.py", "h.py"):
        (tmp_path / name).write_text(name)
    sources = Sources(
        easyconfigs=("A-1.eb",),
        easyblocks=(tmp_path / "a.py", tmp_path / "generic" / "b.py"),
        hooks=tmp_path / "h.py",
    )
    found = made(module("A"), sources=sources)
    assert {name: data for name, data in found.files.items() if "/own/" in name} == {
        "easybuild/own/easyblocks/a.py": b"a.py",
        "easybuild/own/easyblocks/generic/b.py": b"generic/b.py",
        "easybuild/own/hooks.py": b"h.py",
    }
    assert found.variables["own"] is True and made(module("A")).variables["own"] is False


def test_two_files_of_one_name(tmp_path: Path) -> None:
    modules = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{name}-1.eb").write_text("")
        (folder / "x.patch").write_text("same")
        modules.append(module(name, path=str(folder / f"{name}-1.eb"), patches=["x.patch"]))
    assert set(own_files(modules, [tmp_path])) == {"one-1.eb", "two-1.eb", "x.patch"}
    (tmp_path / "two" / "x.patch").write_text("other")
    with pytest.raises(InputError, match=r"two/x\.patch and .*one/x\.patch: two files of one name"):
        own_files(modules, [tmp_path])


def test_a_base_of_no_row_is_refused_with_where_it_was_named() -> None:
    """Without the keys of a spack.yaml."""
    for origins, where in (({}, "--base: "), ({"base": "hpc3build.yaml:2: base"}, "hpc3build.yaml:2: base: ")):
        with pytest.raises(InputError) as caught:
            made(module("A"), base="debian:99", origins=origins)
        assert caught.value.message.startswith(f"{where}the base image debian:99 is not")
        assert "debian:12" in caught.value.hint and "container:" not in caught.value.hint
