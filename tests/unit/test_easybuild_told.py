"""Options of single easyconfigs: which are read, how eb is told, and what the facts say of them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc3build.errors import InputError
from hpc3build.facts import Facts, subjects
from hpc3build.facts import vocabulary as voc
from hpc3build.frontends import easybuild, easybuild_graph, easybuild_told
from hpc3build.frontends.easybuild import EasyBuildRecipe
from hpc3build.frontends.easybuild_flags import optarch_by_family
from hpc3build.frontends.easybuild_sources import Sources, sources_of
from hpc3build.frontends.easybuild_stack import stack_of_closure
from hpc3build.frontends.easybuild_told import Told
from hpc3build.recipe import Settings
from tests import closures
from tests.unit.test_easybuild import GCC, SYSTEM, closure, module

CHAIN = {"name": "GCC", "version": "13.2.0"}


def stack(tmp_path: Path, *lines: str) -> Sources:
    path = tmp_path / "easystack.yaml"
    path.write_text("easyconfigs:\n  - A-1.eb:\n      options:\n" + "".join(f"        {line}\n" for line in lines))
    return sources_of((str(path),), Settings())


def told(tmp_path: Path, *lines: str) -> Told:
    return stack(tmp_path, *lines).options["A-1.eb"]


def needs(name: str) -> dict[str, Any]:
    return {"name": name, "version": "1", "versionsuffix": "", "toolchain": CHAIN}


def built(name: str, *names: str, **fields: Any) -> dict[str, Any]:
    return module(name, "1", *map(needs, names), toolchain=CHAIN, **fields)


#: A and B need C; D stands alone. All are installed with GCC.
MODULES = (GCC, built("C"), built("A", "C"), built("B", "C"), built("D"))
ROOTS = ("A/1", "B/1", "D/1")


def made(options: dict[str, Told], modules: tuple[dict[str, Any], ...] = MODULES, **settings: Any) -> EasyBuildRecipe:
    names = ("A-1.eb", "B-1.eb", "D-1.eb")
    answer, by_module = easybuild_told.tell(closure(*modules, roots=ROOTS), names, options)
    sources = Sources(easyconfigs=names, options=options)
    folder = Path("/nowhere")
    return EasyBuildRecipe(
        origin=folder,
        folder=folder,
        settings=Settings(title="t", **settings),
        sources=sources,
        closure=answer,
        told=by_module,
    )


def facts(recipe: EasyBuildRecipe) -> Facts:
    found = easybuild.stack(recipe)
    assert found is not None
    return subjects.of_stack(found)


def values(recipe: EasyBuildRecipe) -> dict[str, str]:
    return dict(facts(recipe).annotations())


V3 = Told(where="s:4: optarch", arguments=("--optarch=GCC:-march=x86-64-v3",), optarch="GCC:-march=x86-64-v3")


# ---- reading


def test_arguments_are_those_that_eb_makes_of_them(tmp_path: Path) -> None:
    """As opts_dict_to_eb_opts of 5.4.1, by name; but for a number 1, which that takes for true and leaves out."""
    found = told(
        tmp_path,
        "optarch: 'Intel:-xHost;GCC:-march=x86-64-v3'",
        "max-parallel: 1",
        "cuda-compute-capabilities: ['8.0', '9.0a']",
        "accept-eula-for: CUDA,cuDNN",
        "debug: true",
        "skip-test-step:",
        "enforce-checksums: false",
    )
    assert found.arguments == (
        "--accept-eula-for=CUDA,cuDNN",
        "--cuda-compute-capabilities=8.0,9.0a",
        "--debug",
        "--disable-enforce-checksums",
        "--max-parallel=1",
        "--optarch=Intel:-xHost;GCC:-march=x86-64-v3",
        "--skip-test-step",
    )
    assert (found.capabilities, found.accepted) == ("8.0,9.0a", ("CUDA", "cuDNN"))
    assert found.optarch == "Intel:-xHost;GCC:-march=x86-64-v3"


@pytest.mark.easybuild
@pytest.mark.skipif(importlib.util.find_spec("easybuild") is None, reason="not installed: the pinned EasyBuild")
def test_eb_makes_the_same_of_them(tmp_path: Path) -> None:
    given = {
        "optarch": "GENERIC",
        "max-parallel": 4,
        "cuda-compute-capabilities": ["8.0", "9.0"],
        "accept-eula-for": "CUDA",
        "debug": True,
        "skip-test-step": None,
        "enforce-checksums": False,
    }
    lines = [f"{name}: {json.dumps(value)}" for name, value in given.items()]
    script = "import json, sys; from easybuild.tools.options import opts_dict_to_eb_opts as made; "
    script += "print(json.dumps(made(json.loads(sys.argv[1]))))"
    done = subprocess.run([sys.executable, "-c", script, json.dumps(given)], capture_output=True, text=True, check=True)
    assert list(told(tmp_path, *lines).arguments) == json.loads(done.stdout)


@pytest.mark.parametrize(
    ("line", "says", "hint"),
    [
        ("from-pr: 1", "4: A-1.eb:options:from-pr: easyconfigs are read without a network", "--copy-ec"),
        ("include-easyblocks-from-commit: abc", "without a network", "--include-easyblocks FILE"),
        ("hooks: h.py", "hooks: this is for the whole image", "give --hooks to hpc3build"),
        ("cuda_compute_capabilities: '8.0'", "cannot be carried", "did you mean cuda-compute-capabilities?"),
        ("minimal-toolchains: true", "minimal-toolchains: this option", "these can: accept-eula-for, "),
        ("5: true", "4: A-1.eb:options:5: this option", ""),
        ("optarch: true", "4: A-1.eb:options:optarch: expected the flags as text", ""),
        ("optarch:", "optarch: expected the flags as text, or GENERIC, found nothing", ""),
        ("optarch: ''", "neither flags nor", ""),
        ("optarch: 'GCC:a;b'", "'GCC:a;b' is neither flags nor FAMILY:FLAGS", ""),
        ("optarch: 'GCC:a;GCC:b'", "names a compiler twice", ""),
        ('optarch: "a\\nb"', "expected one line of text", ""),
        ("cuda-compute-capabilities: 8.0", "may have lost digits in YAML", "put it in quotes"),
        ("cuda-compute-capabilities: sm_80", "expected a list like 8.0,9.0a", ""),
        ("accept-eula-for: []", "expected names with commas", ""),
        ("accept-eula-for: 'CUDA,'", "expected names with commas", ""),
        ("max-parallel: many", "expected a whole number", ""),
        ("max-parallel: 0", "expected a whole number above 0", ""),
        ("debug: 'yes'", "debug: expected true or false, found text", ""),
    ],
)
def test_what_cannot_be_carried(tmp_path: Path, line: str, says: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        stack(tmp_path, line)
    assert says in caught.value.message and hint in (caught.value.hint or "")
    assert caught.value.message.startswith(f"{tmp_path}/easystack.yaml:4: ")


def test_the_first_of_two_entries_counts(tmp_path: Path) -> None:
    path = tmp_path / "easystack.yaml"
    path.write_text(
        "easyconfigs:\n  - A-1.eb\n  - A-1.eb: {options: {debug: true}}\n  - B-1.eb: {options: {debug: true}}\n"
    )
    found = sources_of((str(path),), Settings())
    assert found.easyconfigs == ("A-1.eb", "B-1.eb") and set(found.options) == {"B-1.eb"}


@given(st.text(alphabet="a:;-=", max_size=8))
def test_optarch_is_flags_or_flags_by_family(text: str) -> None:
    try:
        found = optarch_by_family(text)
    except ValueError:
        return
    assert (";".join(":".join(pair) for pair in found.items()) or text) == text


# ---- which module they come to


@pytest.mark.parametrize("name", closures.NAMES)
def test_every_module_comes_with_an_entry(name: str) -> None:
    document = closures.read(name)
    assert easybuild_graph.reached(document["roots"], easybuild_graph.needs(document["modules"])) == {
        each["module"] for each in document["modules"]
    }


def test_an_entry_brings_what_it_needs() -> None:
    assert set(made({"A-1.eb": V3}).told) == {"A/1", "C/1", "GCC/13.2.0"}
    assert set(made({"B-1.eb": V3}).told) == {"B/1"}, "what A has brought stays as it is"
    assert not made({}).told


def lines(recipe: EasyBuildRecipe) -> dict[str, list[str]]:
    files = easybuild.context(recipe, None).files
    found = {part: files.get(f"easybuild/{part}/easyconfigs.txt", b"").decode() for part in easybuild_graph.PARTS}
    return {part: text.splitlines() for part, text in found.items()}


def test_each_run_of_eb_has_its_options() -> None:
    option = V3.arguments[0]
    assert lines(made({"B-1.eb": V3})) == {
        "toolchain": ["GCC-13.2.0.eb"],
        "dependencies": ["C-1.eb"],
        "application": ["A-1.eb", "", "B-1.eb", option, "", "D-1.eb"],
    }
    assert lines(made({"A-1.eb": V3})) == {
        "toolchain": ["GCC-13.2.0.eb", option],
        "dependencies": ["C-1.eb", option],
        "application": ["A-1.eb", option, "", "B-1.eb", "D-1.eb"],
    }
    assert lines(made({}))["application"] == ["A-1.eb", "B-1.eb", "D-1.eb"]


def test_a_run_follows_the_entries_not_the_robot() -> None:
    """The robot may put D before A; it is the first entry's options that come first."""
    mixed = (GCC, built("D"), built("C"), built("A", "C"), built("B", "C"))
    assert lines(made({"A-1.eb": V3}, mixed))["application"][0] == "A-1.eb"


def test_a_root_that_others_need_is_there_before_them() -> None:
    """D's toolchain needs B: B is asked for and ends in the application's layer, but its step is the toolchain's."""
    chain = {"name": "foss", "version": "1"}
    foss = module("foss", "1", needs("B"), toolchain=SYSTEM)
    recipe = made({"B-1.eb": V3}, (GCC, built("B"), foss, built("A"), module("D", toolchain=chain)))
    assert lines(recipe) == {
        "toolchain": ["GCC-13.2.0.eb", "", "B-1.eb", V3.arguments[0], "", "foss-1.eb"],
        "dependencies": [],
        "application": ["A-1.eb", "D-1.eb"],
    }
    record = json.loads(easybuild.context(recipe, None).files["easybuild/keep.json"])
    assert {each["module"]: each["part"] for each in record["modules"]}["B/1"] == "application"


def test_the_image_keeps_what_eb_was_told() -> None:
    record = json.loads(easybuild.context(made({"B-1.eb": V3}), None).files["easybuild/keep.json"])
    assert record["told"] == {"B/1": list(V3.arguments)}
    assert "told" not in json.loads(easybuild.context(made({}), None).files["easybuild/keep.json"])


# ---- facts


@pytest.mark.parametrize(
    ("optarch", "target", "expected"),
    [
        ("GCC:-march=x86-64-v3", None, "x86_64_v3"),
        ("march=x86-64-v3", None, "x86_64_v3"),
        ("-march=znver3", None, "zen3"),
        ("GENERIC", None, None),
        ("GENERIC", "x86_64_v3", "x86_64_v3"),
        ("-march=native", "x86_64_v3", None),
    ],
)
def test_the_highest_target_counts(optarch: str, target: str | None, expected: str | None) -> None:
    """R2, of all modules that count: here one of two roots has flags of its own."""
    given = {"D-1.eb": Told(where="s:4", arguments=(f"--optarch={optarch}",), optarch=optarch)}
    found = values(made(given, target=target))
    assert found.get(voc.CPU_VERSION.name) == expected


def test_the_module_of_an_entry_has_its_target() -> None:
    generic = Told(where="s:4", arguments=("--optarch=GENERIC",), optarch="GENERIC")
    answer, _ = easybuild_told.tell(closure(*MODULES, roots=ROOTS), ("A-1.eb", "D-1.eb"), {"D-1.eb": generic})
    packages = stack_of_closure(answer, target="x86_64_v3").by_id
    assert (packages["A/1"].target, packages["D/1"].target) == ("x86_64_v3", "x86_64")
    assert packages["D/1"].target_origin == "its optarch in the easystack"
    own = [{**each, "optarch": "-march=znver3"} for each in answer["modules"]]
    assert stack_of_closure({**answer, "modules": own}).by_id["D/1"].target == "zen3", "the easyconfig's own wins"


def test_more_than_the_target_that_was_named() -> None:
    with pytest.raises(InputError, match=r"D-1.eb is built for zen3 by its optarch in the easystack"):
        easybuild.stack(made({"D-1.eb": Told(where="s", arguments=(), optarch="-march=znver3")}, target="x86_64_v3"))


def test_a_compiler_that_is_left_out_would_be_built_for_the_builder() -> None:
    with pytest.raises(InputError) as caught:
        made({"D-1.eb": Told(where="s:4: optarch", arguments=(), optarch="Intel:-xHost")})
    assert caught.value.message.startswith("s:4: optarch: nothing is said of GCC, ")
    assert "D-1.eb" in caught.value.message and ";GCC:GENERIC" in caught.value.hint


def test_capabilities_of_single_roots() -> None:
    cuda = module("CUDA", "12.4.0", toolchain=SYSTEM, compiler_family="SYSTEM")
    dep = {"name": "CUDA", "version": "12.4.0", "versionsuffix": "", "toolchain": SYSTEM}
    modules = (GCC, cuda, *(module(name, "1", dep, toolchain=CHAIN) for name in "ABD"))
    its = {"A-1.eb": Told(where="s", arguments=(), capabilities="8.0,9.0")}
    recipe = made(its, modules, cuda_compute_capabilities="9.0")
    assert values(recipe)[voc.GPU_ARCHITECTURE.name] == "sm_90", "what is common to all roots"
    record = json.loads(easybuild.context(recipe, None).files["easybuild/keep.json"])
    assert record["told_capabilities"] == {"A/1": ["8.0", "9.0"], "B/1": ["9.0"], "D/1": ["9.0"]}
    assert record["cuda_compute_capabilities"] is None
    assert values(made(its, modules))[voc.GPU_ARCHITECTURE.name] == "sm_80,sm_90"
    apart = facts(made(its, modules, cuda_compute_capabilities="7.0"))
    assert [conflict.key for conflict in apart.conflicts] == [voc.GPU_ARCHITECTURE]


def test_a_licence_that_one_entry_accepts() -> None:
    licence = {"name": "CUDA", "url": "https://example.org/cuda"}
    cuda = module("CUDA", "12.4.0", toolchain=SYSTEM, compiler_family="SYSTEM", eula=licence)
    dep = {"name": "CUDA", "version": "12.4.0", "versionsuffix": "", "toolchain": SYSTEM}
    modules = (GCC, cuda, module("A", "1", dep, toolchain=CHAIN), built("B"), built("D"))
    yes = Told(where="s", arguments=("--accept-eula-for=CUDA",), accepted=("CUDA",))
    easybuild.context(made({"A-1.eb": yes}, modules), None)
    for other in ({"B-1.eb": yes}, {"A-1.eb": Told(where="s", arguments=(), accepted=("cuDNN",))}):
        with pytest.raises(InputError, match="nobody has accepted"):
            easybuild.context(made(other, modules), None)
    with pytest.raises(InputError, match="nobody has accepted"):
        # As in eb the entry's option takes the place of the command line's.
        easybuild.context(
            made({"A-1.eb": Told(where="s", arguments=(), accepted=("cuDNN",))}, modules, accept_eula_for=("CUDA",)),
            None,
        )
