"""What an installed Spack says of itself: the same Stack as the lock's, or one InputError that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc3build.errors import InputError
from hpc3build.evidence.layers import ImageFile, ImageFiles
from hpc3build.facts.subjects import of_stack
from hpc3build.frontends import spack
from hpc3build.frontends.spack_lock import read_lock
from hpc3build.frontends.spack_records import INDEX, read_file
from hpc3build.recipe import Settings
from hpc3build.run import Completed
from hpc3build.stack import Stack
from hpc3build.workflows.describe import facts_of

TINY = Path(__file__).resolve().parents[1] / "data" / "spack" / "envs" / "tiny-installed"
FILES = ("spec.json", "db-index.json", "find.json", "spack.lock")
GCC = "ebbbvzqyu4cjwfkpvvmlcbc6qfdmfwja"
FEW = {"max_examples": 60, "deadline": None, "suppress_health_check": list(HealthCheck)}


def runner(*_: Any, **__: Any) -> Completed:
    raise AssertionError("reading a file starts no process")


def load(name: str) -> Any:
    return json.loads((TINY / name).read_text())


def read(document: Any) -> Stack:
    return read_file(json.dumps(document), "dir/file.json")


def refused(document: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(document)
    assert caught.value.message.startswith("dir/file.json:")
    assert len(caught.value.message.splitlines()) == 1
    return caught.value.message


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_one_installation_gives_the_facts_of_its_lock(name: str) -> None:
    lock = read_lock((TINY / "spack.lock").read_text(), "spack.lock")
    found = read_file((TINY / name).read_text(), name)
    assert of_stack(found).annotations() == of_stack(lock).annotations()
    assert [root.name for root in found.roots] == ["hello-mpi"]
    by_name = {package.name: package for package in found.packages}
    for package in lock.packages:
        same = by_name[package.name]
        assert (same.id, same.target, same.compilers, same.variants) == (
            package.id, package.target, package.compilers, package.variants,
        )  # fmt: skip


def test_a_database_knows_the_prefixes() -> None:
    found = read_file((TINY / "db-index.json").read_text(), "index.json")
    assert {package.name: package.prefix for package in found.packages}["hello-mpi"] == (
        "/opt/software/linux-x86_64_v3/hello-mpi-1.0-r5jka4dbahain2hncudqvog4qeq3t46a"
    )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("called", ["anything", "some.txt", "x.json", "spack.lock"])
def test_facts_knows_a_file_by_its_content(name: str, called: str, tmp_path: Path) -> None:
    shutil.copy(TINY / name, tmp_path / called)
    _, facts = facts_of(str(tmp_path / called), Settings(), runner)
    assert facts.annotations()["org.supercontainers.mpi"] == "openmpi"


@pytest.mark.parametrize(("name", "place"), [("spec.json", ".spack/spec.json"), ("db-index.json", INDEX)])
def test_facts_of_a_prefix_and_of_an_install_tree(name: str, place: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir()
    shutil.copy(TINY / name, tmp_path / place)
    _, facts = facts_of(str(tmp_path), Settings(), runner)
    assert facts.annotations()["org.opencontainers.image.title"] == "hello-mpi"


def test_an_image_without_lock_is_known_by_its_database() -> None:
    data = (TINY / "db-index.json").read_bytes()

    def image(*paths: str) -> ImageFiles:
        return ImageFiles(
            {path: ImageFile(path, "file", 0o644, 0, 0, len(data), "", data, "sha256:0") for path in paths}
        )

    one = f"/opt/software/{INDEX}"
    found = spack.read_stack(image(one))
    assert found is not None and found.origin == one
    assert spack.wanted(one) and not spack.wanted("/opt/software/index.json")
    assert spack.read_stack(image(one, f"/srv/other/{INDEX}")) is None
    assert spack.read_stack(image()) is None


def test_build_dependencies_that_were_removed_are_no_fault_of_a_record() -> None:
    document = load("db-index.json")
    del document["database"]["installs"][GCC]
    assert "gcc" not in [package.name for package in read(document).packages]
    listed = [node for node in load("find.json") if node["name"] != "gcc"]
    assert [root.name for root in read(listed).roots] == ["hello-mpi"]
    document = load("spec.json")
    document["spec"]["nodes"] = [node for node in document["spec"]["nodes"] if node["name"] != "gcc"]
    assert GCC in refused(document)


def test_a_listing_that_lacks_what_runs_with_it_is_refused() -> None:
    """Facts of one package without its dependencies would say that it uses no MPI."""
    only = [node for node in load("find.json") if node["name"] != "openmpi"]
    assert "openmpi/" in refused(only)


def test_roots_of_a_database_are_what_was_asked_for_else_what_nothing_needs() -> None:
    document = load("db-index.json")
    installs = document["database"]["installs"]
    openmpi = next(record for record in installs.values() if record["spec"]["name"] == "openmpi")
    openmpi["explicit"] = True
    assert {root.name for root in read(document).roots} == {"hello-mpi", "openmpi"}
    for record in installs.values():
        record["explicit"] = False
    assert "hello-mpi" in [root.name for root in read(document).roots]
    for record in installs.values():
        record["installed"] = False
    assert "nothing is installed" in refused(document)


def old(document: Any) -> Any:
    """A spec file of version 1, as its reader wants it: ``{name: fields}``, dependencies by name, a compiler."""
    nodes = []
    for node in document["spec"]["nodes"]:
        fields = {key: value for key, value in node.items() if key not in ("name", "annotations", "dependencies")}
        needs = {
            edge["name"]: {"hash": edge["hash"], "type": edge["parameters"]["deptypes"]}
            for edge in node.get("dependencies", ())
        }
        compiler = {"compiler": {"name": "gcc", "version": "12.2.0"}}
        nodes.append({node["name"]: {**fields, **compiler, **({"dependencies": needs} if needs else {})}})
    return nodes


def test_a_spec_file_and_a_database_of_version_1() -> None:
    nodes = old(load("spec.json"))
    found = read({"spec": nodes})
    assert found.virtual_edges is False
    assert found.roots[0].compilers == ("gcc@12.2.0",)
    assert of_stack(found).annotations() == of_stack(read(load("spec.json"))).annotations()
    installs = {
        fields["hash"]: {"spec": {name: fields}, "installed": True, "explicit": name == "hello-mpi", "ref_count": 1}
        for node in nodes
        for name, fields in node.items()
    }
    made = read({"database": {"version": "5", "installs": installs}})
    assert made.virtual_edges is False
    assert [root.name for root in made.roots] == ["hello-mpi"]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"spec": {"_meta": {"version": 7}, "nodes": []}}, "spec file of version 7; 1 to 6 can be read"),
        ({"spec": {"_meta": {"version": "5"}, "nodes": []}}, "spec:_meta:version"),
        ({"spec": {"_meta": {"version": 5}, "nodes": []}}, "no nodes"),
        ({"spec": {"_meta": {"version": 5}, "nodes": [{"name": "a"}]}}, "node 0: hash"),
        ({"spec": 1}, "spec: expected a mapping"),
        ({"database": {"version": "9", "installs": {}}}, "database of version 9"),
        ({"database": {"version": "8", "installs": {}}}, "nothing is installed"),
        ({"database": {"version": "8", "installs": {"h": 1}}}, "installs:h"),
        ({"database": {"version": "8"}}, "database:installs"),
        ([], "the list is empty"),
        ([1], "node 0"),
        ({}, "_meta"),
        (3, "the document"),
    ],
)
def test_what_is_wrong_and_where_is_told(document: Any, says: str) -> None:
    assert says in refused(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


def put(document: Any, place: tuple[Any, ...], value: Any) -> None:
    for key in place[:-1]:
        document = document[key]
    document[place[-1]] = value


@settings(**FEW)
@given(st.data())
@pytest.mark.parametrize("make", [lambda name=name: load(name) for name in FILES[:3]], ids=FILES[:3])
def test_real_files_mutated(make: Callable[[], Any], data: st.DataObject) -> None:
    document = make()
    place = data.draw(st.sampled_from([place for place in places(document) if place]))
    put(document, place, data.draw(json_values))
    try:
        of_stack(read(document))
    except InputError as error:
        assert len(error.message.splitlines()) == 1
