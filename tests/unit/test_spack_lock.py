"""The parser of spack.lock: whatever it is given, a Stack or one InputError of one line that names the file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc3build.errors import InputError
from hpc3build.facts.subjects import of_stack
from hpc3build.frontends.spack_lock import VERSIONS, read_lock
from hpc3build.stack import Stack
from tests.moment import in_a_moment

ENVS = Path(__file__).resolve().parents[1] / "data" / "spack" / "envs"
SMALL = json.loads((ENVS / "tiny-installed" / "spack.lock").read_text())
OLD = json.loads((ENVS / "v0.20.3-seed-gromacs-cuda" / "spack.lock").read_text())
FEW = {"max_examples": 60, "deadline": None, "suppress_health_check": list(HealthCheck)}


def read(document: Any) -> Stack | None:
    """The Stack, None where it is refused as it should be."""
    text = document if isinstance(document, str) else json.dumps(document)
    try:
        made = read_lock(text, "dir/spack.lock")
    except InputError as error:
        assert error.message.startswith("dir/spack.lock:"), error.message
        assert len(error.message.splitlines()) == 1, error.message
        assert len(error.message) < 2000
        error.message.encode("utf-8")
        return None
    for package in made.packages:
        assert package.origin.isprintable()
        assert all(compiler.isprintable() for compiler in package.compilers)
    try:
        of_stack(made, folder="dir")
    except InputError as error:
        assert len(error.message.splitlines()) == 1
    return made


def node(name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"name": name, "version": "1", "arch": {"platform_os": "debian12", "target": "x86_64"}, **fields}


def lock(nodes: dict[str, Any] | None = None, roots: Any = None, version: Any = 6) -> dict[str, Any]:
    return {
        "_meta": {"file-type": "spack-lockfile", "lockfile-version": version},
        "roots": [{"hash": "h", "spec": "a"}] if roots is None else roots,
        "concrete_specs": {"h": node()} if nodes is None else nodes,
    }


def edge(digest: str, *kinds: str, name: str = "b") -> dict[str, Any]:
    return {"name": name, "hash": digest, "parameters": {"deptypes": list(kinds), "virtuals": []}}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


def replaced(document: Any, path: tuple[Any, ...], value: Any, *, remove: bool = False) -> Any:
    if not path:
        return value
    document = copy.copy(document)
    if len(path) > 1:
        document[path[0]] = replaced(document[path[0]], path[1:], value, remove=remove)
    elif remove:
        del document[path[0]]
    else:
        document[path[0]] = value
    return document


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(**FEW)
@given(st.text())
def test_any_text(text: str) -> None:
    read(text)


@settings(**FEW)
@given(json_values)
def test_any_json(value: Any) -> None:
    assert read(value) is None


@settings(**FEW)
@given(json_values, json_values, json_values)
def test_any_json_in_the_right_frame(meta: Any, roots: Any, specs: Any) -> None:
    read({"_meta": {"lockfile-version": 6, "x": meta}, "roots": roots, "concrete_specs": specs})
    read(lock({"h": specs}))
    read(lock({"h": node(dependencies=meta, parameters=roots, external=specs)}))


@pytest.mark.parametrize("document", [SMALL, OLD], ids=["6", "4"])
def test_a_value_of_any_other_kind_in_any_place(document: Any) -> None:
    some = places(document)
    for place in some[:: 1 + len(some) // 300] if document is SMALL else some[:: len(some) // 60]:
        for value in (None, True, 0, 1.5, "", "\n", "x\ny", "\ud800", [], [[]], [None], {}, {"x": {}}):
            read(replaced(document, place, value))
        if place:
            read(replaced(document, place, None, remove=True))


@settings(**FEW)
@given(st.data())
def test_real_locks_mutated(data: st.DataObject) -> None:
    document = data.draw(st.sampled_from([SMALL, OLD]))
    some = places(document)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(some))
        try:
            document = replaced(document, place, data.draw(json_values))
        except (KeyError, IndexError, TypeError):
            continue
    read(document)


@pytest.mark.parametrize("name", ["tiny-installed", "v0.22.5-gromacs-openmpi-ucx"])
def test_a_truncated_lock_names_file_and_line(name: str) -> None:
    text = (ENVS / name / "spack.lock").read_text().rstrip()
    for length in range(0, len(text), max(1, len(text) // 200)):
        with pytest.raises(InputError) as refused:
            read_lock(text[:length], "dir/spack.lock")
        assert refused.value.message.startswith("dir/spack.lock:")
        assert "not valid JSON" in refused.value.message


def test_the_line_of_broken_json_is_told() -> None:
    with pytest.raises(InputError, match=r"^l:3: not valid JSON"):
        read_lock('{\n"a": 1,\n oops}', "l")


@pytest.mark.parametrize("version", [0, 9, 99, -6, 10**40, "6", True, 6.0, None, [6], {}])
def test_versions_that_cannot_be_read(version: Any) -> None:
    with pytest.raises(InputError) as refused:
        read_lock(json.dumps(lock(version=version)), "l")
    assert refused.value.hint
    if isinstance(version, int) and not isinstance(version, bool):
        assert "versions 1 to 8" in refused.value.message
        assert ("update hpc3build" in refused.value.hint) is (version > 8)


@pytest.mark.parametrize("version", list(VERSIONS))
def test_versions_that_can(version: int) -> None:
    made = read(lock(version=version))
    assert made is not None
    assert made.virtual_edges is (version > 4)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (lock(roots=[]), "no roots"),
        (lock(roots=[{"hash": "x"}]), "the root x"),
        (lock(roots=[{}]), "roots:hash"),
        (lock(roots={}), "roots: expected a list"),
        (lock(roots=["h"]), "roots: expected a mapping"),
        (lock(nodes={}), "the root h"),
        (lock(nodes={"h": node(dependencies=[edge("gone", "link")])}), "b/gone"),
        (lock(nodes={"h": node(dependencies=[{"name": "b"}])}), "hash"),
        (lock(nodes={"h": []}), "h: expected a mapping"),
        (lock(nodes={"h": node(name="")}), "name"),
        (lock(nodes={"h": node(version=1)}), "version"),
        (lock(nodes={"h": node(arch="linux-debian12-x86_64")}), "arch"),
        (lock(nodes={"h": node(arch={"target": {}})}), "target"),
        (lock(nodes={"h": node(parameters=[])}), "parameters"),
        ({**lock(), "_meta": {"file-type": "other", "lockfile-version": 6}}, "file-type"),
        ({**lock(), "_meta": 6}, "_meta"),
        ([], "the document"),
    ],
)
def test_what_is_wrong_and_where_is_told(document: Any, says: str) -> None:
    with pytest.raises(InputError) as refused:
        read_lock(json.dumps(document), "l")
    assert says in refused.value.message
    assert refused.value.exit_code == 2


def test_a_cycle_ends_and_everything_in_it_counts() -> None:
    nodes = {
        "h": node("a", dependencies=[edge("i", "link")]),
        "i": node("b", dependencies=[edge("j", "run"), edge("i", "link")]),
        "j": node("c", dependencies=[edge("h", "link")]),
    }
    made = read(lock(nodes))
    assert made is not None
    assert [package.name for package in made.counted] == ["a", "b", "c"]


def test_a_chain_of_20000_packages() -> None:
    count = 20_000
    nodes = {str(i): node(dependencies=[edge(str(i + 1), "link")] if i + 1 < count else []) for i in range(count)}
    made = read(lock(nodes, roots=[{"hash": "0"}]))
    assert made is not None
    assert len(made.counted) == count


PLACES = ["document", "kinds", "virtuals", "variant", "edge name", "compiler", "version", "hash"]


@pytest.mark.parametrize("depth", [100, 300, 480, 900, 950, 985, 1_000, 5_000, 100_000])
@pytest.mark.parametrize(
    "place", ["document", "kinds", "virtuals", "variant", "edge name", "compiler", "version", "hash"]
)
def test_any_depth_of_nesting(place: str, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    frames = {
        "document": "DEEP",
        "kinds": json.dumps(lock({"h": node(dependencies=[edge("h", "DEEP")])})),
        "virtuals": json.dumps(lock({"h": node(dependencies=[edge("h", "link")])})).replace(
            '"virtuals": []', '"virtuals": ["DEEP"]'
        ),
        "variant": json.dumps(lock({"h": node(parameters={"x": ["DEEP"]})})),
        "edge name": json.dumps(lock({"h": node(dependencies=[{"name": "DEEP", "hash": "gone"}])})),
        "compiler": json.dumps(lock({"h": node(compiler={"name": "DEEP", "version": "1"})})),
        "version": json.dumps(lock(version="DEEP")),
        "hash": json.dumps(lock(roots=[{"hash": "DEEP"}])),
    }
    with in_a_moment():
        read(frames[place].replace('"DEEP"', deep).replace("DEEP", deep))


@pytest.mark.parametrize("number", ["9" * 5000, "1e999999", "-Infinity", "NaN", "1" + "0" * 400])
def test_numbers_without_end(number: str) -> None:
    for frame in (lock(version="N"), lock({"h": node(version="N")}), lock({"h": node(parameters={"x": "N"})})):
        read(json.dumps(frame).replace('"N"', number))


def test_duplicate_keys_never_break_it() -> None:
    text = json.dumps(lock())
    read(text.replace('"roots"', '"roots": [], "roots"'))
    read(text.replace('"concrete_specs"', '"concrete_specs": {}, "concrete_specs"'))
    read(text[:-1] + ', "concrete_specs": {}}')


def test_extra_members_are_passed_over() -> None:
    spliced = node(build_spec={"hash": "gone"}, annotations={"x": 1}, package_hash="y", namespace="builtin")
    assert read({**lock({"h": spliced}), "include_concrete": {}, "unknown": [1]}) == read(lock())


def test_all_that_a_node_says() -> None:
    nodes = {
        "h": node(
            "app",
            parameters={"mpi": True, "cuda_arch": ["80"], "cflags": [], "build_type": "Release", "n": 3},
            dependencies=[
                {"name": "m", "hash": "m", "parameters": {"deptypes": ["build", "link"], "virtuals": ["mpi"]}},
                {"name": "gcc", "hash": "g", "parameters": {"deptypes": ["build"], "virtuals": ["c", "cxx"]}},
            ],
        ),
        "m": node("mpich", external={"path": "/opt/m", "module": None}, arch={"target": {"name": "zen3"}}),
        "g": node("gcc", version="12.2.0"),
    }
    made = read({**lock(nodes), "spack": {"version": "1.0.0"}})
    assert made is not None
    assert (made.manager, made.manager_version, made.origin) == ("spack", "1.0.0", "dir/spack.lock")
    app, mpich, gcc = made.packages
    assert (app.root, mpich.root, gcc.root) == (True, False, False)
    assert (app.external, mpich.external) == (False, True)
    assert (app.compilers, app.os, app.target, mpich.target) == (("gcc@12.2.0",), "debian12", "x86_64", "zen3")
    assert dict(app.variants) == {"mpi": True, "cuda_arch": ("80",), "cflags": (), "build_type": "Release"}
    assert app.dependencies[0].virtuals == ("mpi",)
    assert app.dependencies[0].kinds == {"build", "link"}
    assert mpich.virtuals == ("mpi",)
    assert app.origin == "spack.lock: app@1/h"
    assert [package.name for package in made.counted] == ["app", "mpich"]


def test_a_node_of_version_4_says_the_same_in_its_own_way() -> None:
    nodes = {
        "h": node(
            compiler={"name": "gcc", "version": "11.4.0"},
            dependencies=[{"name": "b", "hash": "i", "type": ["build", "link"]}],
            external={},
        ),
        "i": node("b"),
    }
    made = read(lock(nodes, version=4))
    assert made is not None
    assert made.packages[0].compilers == ("gcc@11.4.0",)
    assert made.packages[0].external is False
    assert made.packages[0].dependencies[0].kinds == {"build", "link"}


def small(name: str) -> Any:
    return json.loads((ENVS / name / "spack.lock").read_text())


def test_edges_of_version_2_by_the_hash_that_the_node_says_of_itself() -> None:
    """Spack's documentation of the format says so; the locks that its releases wrote have the keys."""
    given = small("lock-v2")
    own = {key: next(iter(node.values()))["hash"] for key, node in given["concrete_specs"].items()}
    for wrapped in given["concrete_specs"].values():
        for fields in wrapped.values():
            for needed in fields.get("dependencies", {}).values():
                needed["hash"] = own[needed["hash"]]
    made, plain = read(given), read(small("lock-v2"))
    assert made is not None and plain is not None
    assert made == plain
    assert [package.name for package in made.counted] == ["amg2013", "openmpi", "ucx", "zlib"]


def test_a_spliced_spec_runs_with_what_it_was_spliced_with_and_was_compiled_as_before() -> None:
    made = read(small("splice"))
    assert made is not None
    assert [package.name for package in made.counted] == ["hdf5", "cray-mpich", "glibc"]
    assert made.roots[0].compilers == ("gcc@12.2.0",)


def test_roots_of_included_environments_are_roots_at_any_depth() -> None:
    given = small("include-concrete")
    made = read(given)
    assert made is not None
    assert [package.name for package in made.roots] == ["lammps", "openmpi"]
    del given["include_concrete"]["/srv/envs/apps"]["include_concrete"]
    once = read(given)
    assert once is not None
    assert [package.name for package in once.roots] == ["lammps"]


@pytest.mark.parametrize("depth", [3, 60, 100, 300])
def test_environments_included_without_end(depth: int) -> None:
    inner: Any = lock()
    for _ in range(depth):
        inner = {"roots": [], "concrete_specs": {}, "include_concrete": {"x": inner}}
    made = read({**lock(roots=[]), "include_concrete": {"x": inner}})
    assert (made is None) is (depth > 64)


def test_compilers_of_all_languages_in_their_order() -> None:
    nodes = {
        "h": node(
            dependencies=[
                {"name": "gcc", "hash": "g", "parameters": {"deptypes": ["build"], "virtuals": ["fortran"]}},
                {"name": "llvm", "hash": "l", "parameters": {"deptypes": ["build"], "virtuals": ["c", "cxx"]}},
            ]
        ),
        "g": node("gcc", version="12.2.0"),
        "l": node("llvm", version="19.1.0"),
        "r": node("reused", annotations={"original_specfile_version": 4, "compiler": "gcc@=11.4.0"}),
    }
    made = read(lock(nodes))
    assert made is not None
    assert made.packages[0].compilers == ("llvm@19.1.0", "gcc@12.2.0")
    assert made.packages[3].compilers == ("gcc@11.4.0",)


def test_virtuals_that_a_node_of_version_8_says_it_provides() -> None:
    made = read(lock({"h": node("anything", provided_virtuals=["mpi@3.1", "libgfortran@5"])}, version=8))
    assert made is not None
    assert made.packages[0].virtuals == ("libgfortran", "mpi")
    for odd in ("mpi", {"mpi": 1}, [1], [None], ["a\nb"]):
        assert read(lock({"h": node(provided_virtuals=odd)}, version=8)) is None
