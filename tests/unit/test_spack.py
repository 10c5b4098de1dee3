"""A spack.yaml with its container section, and the lock's fit with the builder."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hpc3build.containerfile import build_context
from hpc3build.errors import Hpc3BuildError, InputError
from hpc3build.evidence.layers import ImageFile, ImageFiles
from hpc3build.frontends import for_source, spack
from hpc3build.frontends.spack import SpackRecipe
from hpc3build.recipe import Settings
from hpc3build.run import Completed
from tests.dockerfile_words import instructions, pairs
from tests.moment import in_a_moment

HEAD = "spack:\n  specs: [zlib]\n"
Write = Callable[[str | bytes], Path]


def runner(*_: Any, **__: Any) -> Completed:
    raise AssertionError("reading a recipe starts no process")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(text: str | bytes) -> Path:
        path = tmp_path / "spack.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return make


def load(path: Path, **settings: Any) -> SpackRecipe:
    return spack.load((str(path),), Settings(**settings), runner)


def render(path: Path, **settings: Any) -> tuple[str, Any]:
    """The Containerfile, and the manifest that Spack is given."""
    recipe = load(path, **settings)
    made = build_context(recipe, spack.context(recipe, spack.stack(recipe)))
    return made.containerfile, YAML(typ="safe").load(made.files["hpc3build/spack/spack.yaml"])


def refused(path: Path, **settings: Any) -> InputError:
    """The error with which the recipe is refused: one line, the file with a line."""
    with pytest.raises(InputError) as caught, in_a_moment():
        render(path, **settings)
    assert caught.value.exit_code == 2
    assert len(caught.value.message.splitlines()) == 1
    return caught.value


def container(text: str) -> str:
    return HEAD + "  container:\n" + "".join(f"    {line}\n" for line in text.splitlines())


def test_every_key_of_the_container_section_has_its_place(write: Write) -> None:
    text = """\
        format: docker
        images:
          os: debian:12
          spack: {url: "https://example.org/spack.git", ref: v1.0.0, resolve_sha: false, verify: true}
        os_packages:
          command: apt
          update: false
          build: [libfoo-dev]
          final: [libgomp1]
        strip: false
        labels: {org.example.app: "1"}
        extra_instructions:
          build: RUN echo in-the-builder
          final: RUN echo in-the-image
        docker: {}
    """
    made = load(write(container("\n".join(line[8:] for line in text.splitlines())))).container
    assert (made.build_image, made.final_image) == ("debian:12", "debian:12")
    assert (made.spack_url, made.spack_ref) == ("https://example.org/spack.git", "v1.0.0")
    assert (made.manager, made.update, made.strip) == ("apt", False, False)
    assert (made.build_packages, made.final_packages) == (("libfoo-dev",), ("libgomp1",))
    assert dict(made.labels) == {"org.example.app": "1"}
    assert (made.extra_build, made.extra_final) == ("RUN echo in-the-builder", "RUN echo in-the-image")


@pytest.mark.parametrize(
    ("tag", "ref"),
    [("0.23.1", "v0.23.1"), ("develop", "develop"), ("v1.0.0", "v1.0.0"), ("releases/v1.0", "releases/v1.0")],
)
def test_the_spack_image_tag_names_a_release(write: Write, tag: str, ref: str) -> None:
    assert load(write(container(f"images: {{os: 'debian:12', spack: '{tag}'}}"))).container.spack_ref == ref


def test_builder_and_final_image_may_be_named(write: Write) -> None:
    made = load(write(container("images: {build: 'debian:12', final: 'debian:12-slim'}"))).container
    assert (made.build_image, made.final_image) == ("debian:12", "debian:12-slim")
    assert "go together" in refused(write(container("images: {build: 'debian:12'}"))).message


def test_settings_win_over_the_section(write: Write) -> None:
    path = write(container("images: {os: 'ubuntu:22.04', spack: '0.23.1'}\nlabels: {a: '1', b: '1'}"))
    made = load(path, base="debian:12", spack_ref="v1.0.0", labels={"b": "2"}).container
    assert (made.build_image, made.spack_ref, dict(made.labels)) == ("debian:12", "v1.0.0", {"a": "1", "b": "2"})


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("container:\n    imges: {}", "4: spack:container:imges", "images"),
        ("container:\n    images:\n      oss: x", "5: spack:container:images:oss", "os"),
        ("container:\n    images:\n      spack: {reff: x}", "5: spack:container:images:spack:reff", "ref"),
        ("container:\n    os_packages:\n      finall: [x]", "5: spack:container:os_packages:finall", "final"),
        ("container:\n    extra_instructions: {biuld: x}", "4: spack:container:extra_instructions:biuld", "build"),
        ("container:\n    entirely-other: x", "4: spack:container:entirely-other", "keys are format"),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest(write: Write, text: str, where: str, hint: str) -> None:
    path = write(HEAD + "  " + text + "\n")
    error = refused(path)
    assert error.message.startswith(f"{path}:{where}: unknown key")
    assert hint in error.hint


@pytest.mark.parametrize(
    "text",
    [
        "strip: 'yes'", "format: rpm", "labels: [a]", "labels: {a: [b]}", "labels: {'a b': c}",
        "labels: {a: true}",
        "images: text", "images: {os: [a]}", "images: {spack: [a]}", "images: {spack: {resolve_sha: 3}}",
        "os_packages: {final: gcc}", "os_packages: {final: [1]}", "os_packages: {command: pacman}",
        "os_packages: {update: 1}", "extra_instructions: {final: [a]}", "- a",
        "template: /x", "template: ../x", "singularity: {runscript: [x]}", "depfile: 'true'", "docker: {a: b}",
        "singularity: {runscript: \"x\\n%post\\nid\"}", "singularity: {help: \"Bootstrap: docker\"}",
        "images: {os: 'debian:12', build: a, final: b}",
        "extra_instructions: {build: \"RUN a\\nFROM x\"}", "extra_instructions: {final: ' from x'}",
    ],
)  # fmt: skip
def test_a_value_of_another_kind_names_file_line_and_key(write: Write, text: str) -> None:
    path = write(container(text))
    message = refused(path).message
    assert message.startswith(f"{path}:"), message
    assert int(message[len(str(path)) + 1 :].partition(":")[0]) in (3, 4)


HOSTILE = ['a"b', "a'b", "a$HOME b", "a`id`b", "a\\", "a; rm -rf /", "$(id)", "{{ 7*7 }}", "a && b", "#c", "FROM x"]


@pytest.mark.parametrize("key", ["com.hooks.cxi.enabled", "run.oci.handler", "org.systemd.property.MemoryMax"])
def test_labels_that_runtimes_act_on_are_refused_with_their_line(write: Write, key: str) -> None:
    """Rule N6: every key of the section works, but what would make a privileged runtime act is never written."""
    error = refused(write(container(f'labels:\n  org.example.app: "1"\n  {key}: "true"')))
    assert error.message.startswith(f"{write('')}:6: spack:container:labels:{key}: ")
    assert error.hint.startswith("leave it out")


def test_labels_of_the_vocabulary_are_written_as_it_writes_them(write: Write) -> None:
    made = load(write(container("labels: {org.supercontainers.gpu: 'rocm,cuda,cuda'}")))
    assert dict(made.settings.labels) == dict(made.container.labels) == {"org.supercontainers.gpu": "cuda,rocm"}
    told = refused(write(container("labels:\n  org.supercontainers.gpu: nvidia")))
    assert ":5: spack:container:labels:org.supercontainers.gpu: " in told.message


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_labels_and_specs_stay_in_their_place(write: Write, value: str) -> None:
    document = {"spack": {"specs": [value], "container": {"images": {"os": "debian:12"}, "labels": {"x.y": value}}}}
    text, manifest = render(write(json.dumps(document)))
    assert manifest["spack"]["specs"] == [value]
    plain = {"spack": {"specs": ["zlib"], "container": {"images": {"os": "debian:12"}, "labels": {"x.y": "plain"}}}}
    expected = instructions(render(write(json.dumps(plain)))[0])
    (position,) = [at for at, (name, _) in enumerate(expected) if name == "LABEL"]
    found = instructions(text)
    assert pairs(expected[position][1]) == {"x.y": "plain"} and pairs(found[position][1]) == {"x.y": value}
    found[position] = expected[position]
    assert found == expected, "a value gives no instruction, and specs never reach the Containerfile"


@pytest.mark.parametrize("value", [*HOSTILE, "a\nRUN id", "a\rb", "--option", "", "a b"])
def test_hostile_packages_are_refused(write: Write, value: str) -> None:
    for key in ("build", "final"):
        path = write(json.dumps({"spack": {"container": {"os_packages": {key: [value]}}}}))
        assert refused(path).message.startswith(f"{path}:1: ")


@pytest.mark.parametrize("place", ["labels", "os", "build", "ref", "url"])
@pytest.mark.parametrize(
    "value", ["a\nRUN id", "debian:12\nRUN id", "debian:12 AS x", "v1;id", "$(id)", "debian:12@x y"]
)
def test_line_breaks_and_commands_in_values_are_refused(write: Write, place: str, value: str) -> None:
    sections: dict[str, Any] = {
        "labels": {"labels": {"a": value if "\n" in value else "x\ny"}},
        "os": {"images": {"os": value}},
        "build": {"images": {"build": value, "final": value}, "os_packages": {"command": "apt"}},
        "ref": {"images": {"os": "debian:12", "spack": {"ref": value}}},
        "url": {"images": {"os": "debian:12", "spack": {"url": "https://" + value}}},
    }
    path = write(json.dumps({"spack": {"container": sections[place]}}))
    with pytest.raises(Hpc3BuildError) as caught:
        render(path)
    assert caught.value.exit_code == 2
    assert len(caught.value.message.splitlines()) == 1


LAUGHS = "spack: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (LAUGHS, None), ("spack: &a [*a]\n", None), ("&a {spack: *a}\n", None), ("&a {*a : 1}\n", None),
        ("spack: &a {<<: *a}\n", None), ("spack: " + "[" * 100_000, None), ("spack: " + "{a: " * 20_000, None),
        ("".join(" " * i + "a:\n" for i in range(400)), None), ("spack:\n" + "- a\n" * 200_000, None),
        (b"spack: \xff\n", 1), (b"spack:\n  a: b\n  c: \xe9\n", 3), ("spack:\n\tspecs: []\n", 2),
        ("spack:\n  a: \x01\n", 2),
        ("", 1), ("# nothing\n", 1), ("- a\n", 1), ("text\n", 1), ("3\n", 1), ("spack: [a]\n", 1), ("spack: text\n", 1),
        ("spack:\n  specs: []\nspack: {}\n", 3), ("spack:\n  a: 1\n  a: 2\n", 3), ("spack: {}\n---\nspack: {}\n", 2),
        ("other: {}\n", 1), ("spack: {}\nother: {}\n", 2), ("spack: *b\n", 1),
        ("spack: 'x\n", None), ("spack: {\n", None),
        ("spack: !!bool x\n", 1), ("spack: !!int x\n", 1), ("spack: !!float x\n", 1), ("spack: 2001-99-99\n", 1),
        ("spack: " + "9" * 5000 + "\n", 1), ("spack: !!binary =\n", 1),
        ("spack: !!python/object/apply:os.system [id]\n", 1),
        ("spack: !x {}\n", None), ("%YAML 9.0\n---\nspack: {}\n", None), ("? [a]\n: b\n", 1), (b"\x00\x01\x02", None),
        ("spack:\n  config: [a]\n", 2), ("spack:\n  packages: [a]\n", 2), ("spack:\n  packages: {all: [a]}\n", 2),
        ("spack:\n  packages: {all: {require: 5}}\n", None),
        ("spack:\n  packages: {zlib: {require: [{one_of: }, {any_of: 5}]}}\n", None),
    ],
)  # fmt: skip
def test_hostile_yaml_is_one_error_with_its_line_in_a_moment(write: Write, text: str | bytes, line: int | None) -> None:
    path = write(text)
    if text == "spack: !x {}\n":
        load(path)  # a tag that means nothing to YAML is no fault
        return
    message = refused(path).message
    assert message.startswith(f"{path}:{line or ''}"), message[:300]
    assert message[len(str(path)) + 1 :].split(":")[0].isdigit()
    assert len(message) < 1000


def test_a_file_of_50_mb_is_not_read(write: Write) -> None:
    assert "larger" in refused(write(b"spack: " + b"x" * 50_000_000)).message


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file"):
        load(tmp_path / "spack.yaml")
    (tmp_path / "folder" / "spack.yaml").mkdir(parents=True)
    with pytest.raises(InputError, match="folder"):
        load(tmp_path / "folder" / "spack.yaml" / "spack.yaml")
    with pytest.raises(InputError, match=r"one spack\.yaml at a time"):
        spack.load(("a/spack.yaml", "b/spack.yaml"), Settings(), runner)


@pytest.mark.parametrize("require", ["text", "[]", "[a]", "", "{one_of: [a, b]}", "[{one_of: [a]}]"])
def test_the_container_section_never_reaches_spack_and_the_target_becomes_a_requirement(
    write: Write, require: str
) -> None:
    packages = f"  packages:\n    all:\n      require: {require}\n    zlib: {{version: ['1.3']}}\n"
    path = write(HEAD + packages + "  view: true\n  container: {images: {os: 'debian:12'}, labels: {never.seen: x}}\n")
    if require.startswith("{"):
        refused(path, target="zen3")
        return
    _, manifest = render(path, target="zen3")
    everything = manifest["spack"]
    assert "container" not in everything
    assert "never.seen" not in json.dumps(everything)
    assert everything["specs"] == ["zlib"]
    assert everything["packages"]["zlib"] == {"version": ["1.3"]}
    assert everything["packages"]["all"]["require"][-1] == "target=zen3"
    assert everything["config"]["install_tree"] == {"root": "/opt/software"}
    kept = YAML(typ="safe").load(io.StringIO(f"x: {require}"))["x"] or []
    assert everything["packages"]["all"]["require"][:-1] == ([kept] if isinstance(kept, str) else kept)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["target=x86_64"]),
        ("  packages: {all: {target: [zen2]}}\n", None),
        ("  packages: {all: {require: target=zen2}}\n", "target=zen2"),
        ("  packages: {all: {require: [target=zen2, '%gcc']}}\n", ["target=zen2", "%gcc"]),
    ],
)
def test_a_build_without_a_target_is_for_the_generic_family_never_for_the_host(
    write: Write, text: str, expected: object
) -> None:
    _, manifest = render(write(HEAD + text + "  container: {images: {os: 'debian:12'}}\n"))
    assert manifest["spack"]["packages"]["all"].get("require") == expected


def test_an_unknown_target_is_refused_with_the_nearest(write: Write) -> None:
    with pytest.raises(InputError) as caught:
        load(write(HEAD), target="zenn3")
    assert "zen3" in caught.value.hint


def test_who_recognises_what(write: Write, tmp_path: Path) -> None:
    path = write(HEAD)
    for source in (path, tmp_path, tmp_path / "spack.lock"):
        assert for_source(str(source)) is spack
    with pytest.raises(InputError, match=r"no such file"):
        for_source(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not a recipe"):
        for_source(str(tmp_path / "empty"))


def test_the_lock_of_an_image_is_its_stack() -> None:
    path = "/opt/spack-environment/spack.lock"
    assert spack.wanted(path)
    assert spack.wanted("/root/spack.lock") is None
    assert spack.read_stack(ImageFiles({})) is None
    data = (Path(__file__).parents[1] / "data/spack/envs/tiny-installed/spack.lock").read_bytes()
    made = spack.read_stack(ImageFiles({path: ImageFile(path, "file", 0o644, 0, 0, len(data), "", data, "sha256:0")}))
    assert made is not None
    assert made.roots
