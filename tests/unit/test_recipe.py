"""hpc3build.yaml: every key, and every way to get one wrong, with its file and line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hpc3build.cli import main
from hpc3build.errors import InputError
from hpc3build.facts import vocabulary as voc
from hpc3build.frontends.settings import read_settings
from hpc3build.recipe import Recipe, Settings
from hpc3build.workflows.describe import planned_facts
from hpc3build.yamlread import read_yaml
from tests.stacks import root, stack

EVERY_KEY = """\
title: My application
base: debian:12
target: x86_64_v3
entrypoint: hpc3-exec
os_packages:
  build: [libopenmpi-dev, g++]
  final:
    - openmpi-bin # a remark
    - "@development"
env:
  OMP_NUM_THREADS: 4
  WORDS: it's "so" $HOME
user: 1000:users
labels:
  my.label: x
mpi:
  mode: mpi_replace
docs: |
  # Title
  text
rank: -3
smoke: app --version
secrets: [token]
caches: [/var/cache/x]
pins:
  easybuild: 5.4.1
  archspec: 0.2.7
  clingo: 5.7.1
  spack: v0.23.1
  spack-packages: develop
cuda_compute_capabilities: "8.0,9.0"
host_provided: [cray-mpich]
easybuild:
  robot_paths: [easyconfigs, /site/easyconfigs]
  include_easyblocks: [blocks/*.py]
  hooks: hooks.py
  accept_eula_for: [CUDA]
  sourcepath: [sources, /site/sources]
  modules: lmod
  keep_compilers: true
spack_mirrors: mirrors.yaml
spack_keys: keys.asc
binary_cache: false
pin: true
"""
SETTINGS = Settings(
    title="My application",
    base="debian:12",
    target="x86_64_v3",
    entrypoint="hpc3-exec",
    build_packages=("libopenmpi-dev", "g++"),
    final_packages=("openmpi-bin", "@development"),
    env={"OMP_NUM_THREADS": "4", "WORDS": 'it\'s "so" $HOME'},
    user="1000:users",
    labels={"my.label": "x"},
    mpi_mode="mpi_replace",
    docs="# Title\ntext\n",
    rank=-3,
    smoke="app --version",
    secrets=("token",),
    caches=("/var/cache/x",),
    pins={
        "easybuild": "5.4.1",
        "archspec": "0.2.7",
        "clingo": "5.7.1",
        "spack": "v0.23.1",
        "spack-packages": "develop",
    },
    cuda_compute_capabilities="8.0,9.0",
    host_provided=("cray-mpich",),
    robot_paths=("easyconfigs", "/site/easyconfigs"),
    include_easyblocks=("blocks/*.py",),
    hooks="hooks.py",
    accept_eula_for=("CUDA",),
    sourcepath=("sources", "/site/sources"),
    modules="lmod",
    keep_compilers=True,
    spack_mirrors="mirrors.yaml",
    spack_keys="keys.asc",
    binary_cache=False,
    pin=True,
)


def settings(tmp_path: Path, text: str | bytes) -> Settings:
    (tmp_path / "hpc3build.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return read_settings(tmp_path)


def refused(tmp_path: Path, text: str | bytes) -> InputError:
    with pytest.raises(InputError) as raised:
        settings(tmp_path, text)
    assert raised.value.exit_code == 2 and "\n" not in raised.value.message
    return raised.value


def test_every_key(tmp_path: Path) -> None:
    found = settings(tmp_path, EVERY_KEY)
    here = {
        "robot_paths": (f"{tmp_path}/easyconfigs", "/site/easyconfigs"),
        "include_easyblocks": (f"{tmp_path}/blocks/*.py",),
        "hooks": f"{tmp_path}/hooks.py",
        "sourcepath": (f"{tmp_path}/sources", "/site/sources"),
    }
    assert found == dataclasses.replace(SETTINGS, **here), "paths are those from the file's folder"
    default = Settings()
    same = {
        field.name
        for field in dataclasses.fields(Settings)
        if getattr(found, field.name) == getattr(default, field.name)
    }
    of_the_command_line = {"spack_ref", "spack_source", "packages_source", "concretize", "format", "save_lock"}
    of_the_command_line |= {"spack", "spack_config", "concretize_seconds", "environment", "cache", "mpi_provider"}
    assert same == of_the_command_line


@pytest.mark.parametrize("text", ["", "\n", "# title: x\n", "---\n# nothing yet\n...\n", "null\n"])
def test_a_file_without_a_setting_sets_nothing(text: str, tmp_path: Path) -> None:
    """Somebody has commented all of it out."""
    assert settings(tmp_path, text) == Settings()
    with pytest.raises(InputError, match=r"hpc3build\.yaml:1: expected a mapping, found nothing"):
        read_yaml(tmp_path / "hpc3build.yaml")


@pytest.mark.parametrize("spelling", [voc.CPU_VERSION.name, *voc.CPU_VERSION.aliases])
def test_a_target_among_labels_is_the_image_s_under_every_spelling(spelling: str, tmp_path: Path) -> None:
    """Nothing that the build writes beside it says otherwise, nor does the mode."""
    found = planned_facts(
        Recipe(origin=tmp_path, folder=tmp_path, settings=settings(tmp_path, f"labels: {{{spelling}: zen3}}\n")),
        stack(root("a@1", target="x86_64")),
    )
    assert (found.value(voc.CPU_VERSION), found.value(voc.CPU_MODE)) == ("zen3", "microarch")


def test_none_and_empty(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == Settings()
    assert settings(tmp_path, "{}") == settings(tmp_path, "title:\nenv:\nlabels: {}\nos_packages:\n") == Settings()


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("titel: x\n", "1: titel", "title"),
        ("title: x\nbsae: y\n", "2: bsae", "base"),
        ("os_packages:\n  finl: [a]\n", "2: os_packages:finl", "final"),
        ("mpi:\n  mod: x\n", "2: mpi:mod", "mode"),
        ("pins:\n  eazybuild: x\n", "2: pins:eazybuild", "easybuild"),
        ("zzz: 1\n", "1: zzz", "keys are title"),
        ("5: x\n", "1: 5", "keys are"),
        ("? [a, b]\n: c\n", "1", "keys are"),
        ("container: {}\n", "1: container", "keys are"),
    ],
)
def test_unknown_keys_with_the_nearest(text: str, where: str, hint: str, tmp_path: Path) -> None:
    error = refused(tmp_path, text)
    assert error.message.startswith(f"{tmp_path}/hpc3build.yaml:{where}") and "unknown key" in error.message
    assert hint in error.hint


WRONG = [
    ("title: [a]", "title", "a list"),
    ("title: {a: b}", "title", "a mapping"),
    ("title: true", "title", "true or false"),
    ("title: !!set {x}", "title", "text"),
    ("title: !foo x", "title", "text"),
    ('title: "a\\nb"', "title", "one line"),
    ('title: "a\\x1b[31m"', "title", "one line"),
    ("base: [x]", "base", "a list"),
    ("target: [x]", "target", "a list"),
    ("entrypoint: bash", "entrypoint", "hpc3, hpc3-exec"),
    ("entrypoint: [hpc3]", "entrypoint", "a list"),
    ("os_packages: [a]", "os_packages", "a mapping"),
    ("os_packages: {final: a}", "os_packages:final", "a list"),
    ("os_packages: {final: [1.5]}", "os_packages:final", "a number"),
    ("os_packages: {final: ['a; b']}", "os_packages:final", "package name"),
    ("os_packages: {final: ['$(id)']}", "os_packages:final", "package name"),
    ("os_packages: {final: ['-y']}", "os_packages:final", "package name"),
    ("os_packages: {final: ['']}", "os_packages:final", "package name"),
    ("env: [A=b]", "env", "a mapping"),
    ("env: {A: [b]}", "env:A", "a list"),
    ("env: {A-B: c}", "env:A-B", "environment variable"),
    ("env: {'A=B': c}", "env:A=B", "environment variable"),
    ("env: {1A: c}", "env:1A", "environment variable"),
    ('env: {A: "b\\nRUN x"}', "env:A", "one line"),
    ("user: 'a b'", "user", "UID"),
    ("user: 99999999999", "user", "99999999999 is more than 2147483647"),
    ("user: 2147483648", "user", "2147483648 is more than 2147483647"),
    ("user: '1000:" + "9" * 5000 + "'", "user", "is more than 2147483647"),
    ("pins: {easybuild: latest}", "pins:easybuild", "'latest' is not a release"),
    ("pins: {easybuild: 4.9.4}", "pins:easybuild", "4.9.4: expected EasyBuild 5"),
    ("pins: {easybuild: develop}", "pins:easybuild", "is not a release"),
    ("pins: {archspec: latest}", "pins:archspec", "'latest' is not a release"),
    ("pins: {clingo: v5.7.1}", "pins:clingo", "'v5.7.1' is not a release"),
    ("user: 017", "user", "a number, which YAML reads as 17"),
    ("env: {UMASK: 0022}", "env:UMASK", "a number, which YAML reads as 22"),
    ("env: {A: 0x10}", "env:A", "which YAML reads as 16"),
    ("env: {A: 0o17}", "env:A", "which YAML reads as 15"),
    ("env: {A: 0b11}", "env:A", "put it in quotes"),
    ("env: {A: 1_000}", "env:A", "which YAML reads as 1000"),
    ("env: {A: 2026-01-02T03:04:05Z}", "env:A", "a time, which YAML reads as "),
    ("user: 'root\\'", "user", "UID"),
    ("user: ':'", "user", "UID"),
    ("user: [1]", "user", "a list"),
    ("labels: {'a b': c}", "labels:a b", "annotation key"),
    ('labels: {a: "b\\nc"}', "labels:a", "one line"),
    ('labels: {a: "\\ud800"}', "labels:a", ""),
    ("labels: {a: " + "x" * 4096 + "}", "labels:a", "4096"),
    ("labels: {com.hooks.cxi.enabled: 'true'}", "labels:com.hooks.cxi.enabled", "leave it out"),
    ("labels: {run.oci.handler: x}", "labels:run.oci.handler", "never writes it"),
    ("labels: {cdi.k8s.io/gpu: x}", "labels:cdi.k8s.io/gpu", "never writes it"),
    ("labels: {org.supercontainers.gpus: none}", "labels:org.supercontainers.gpus", "did you mean org.supercontainers"),
    ("labels: {org.supercontainers.gpu: nvidia}", "labels:org.supercontainers.gpu", "expected LIST of cuda"),
    ("labels: {io.archspec.cpu.target: zen99}", "labels:io.archspec.cpu.target", "did you mean"),
    ("labels: {org.supercontainers.documentation: hello}", "labels:org.supercontainers.documentation", "base64"),
    ("labels: {org.supercontainers.glibc.version: new}", "labels:org.supercontainers.glibc.version", "expected X.Y"),
    (
        f"labels: {{{voc.CPU_VERSION.name}: zen2, io.archspec.cpu.target: zen3}}",
        "labels:io.archspec.cpu.target",
        "both are spellings of one key",
    ),
    (
        f"labels: {{io.archspec.cpu.target: zen3, {voc.CPU_MODE.name}: generic}}",
        f"labels:{voc.CPU_MODE.name}",
        "generic, and the CPU target zen3 is microarch",
    ),
    ("mpi: mpi_replace", "mpi", "a mapping"),
    ("mpi: {mode: nonsense}", "mpi:mode", "expected LIST, best first, of mpi_replace"),
    ("mpi: {mode: 'mpi_replace, mpi_system'}", "mpi:mode", "'mpi_replace, mpi_system' is not a value"),
    ("title: " + "x" * 4096, "title", "4096"),
    ("rank: " + "9" * 4000, "rank", "at most 20 digits"),
    ("rank: first", "rank", "whole number"),
    ("rank: true", "rank", "whole number"),
    ("rank: 1.5", "rank", "whole number"),
    ("smoke: [a, b]", "smoke", "a list"),
    ('smoke: "a\\nb"', "smoke", "one line"),
    ("secrets: token", "secrets", "a list"),
    ("secrets: ['a,src=/etc/shadow']", "secrets", "id of a secret"),
    ("caches: [relative]", "caches", "absolute path"),
    ("caches: ['/a,target=/b']", "caches", "absolute path"),
    ("pins: 5", "pins", "a mapping"),
    ('pins: {spack: "v1\\nRUN x"}', "pins:spack", "one line"),
    ("host_provided: cray-mpich", "host_provided", "a list"),
    ("target: zen99", "target", "not a CPU target"),
    ("target: x86_64_v33", "target", "x86_64_v3"),
    ("target: Zen3", "target", "did you mean zen3"),
    ("base: 5", "base", "a number"),
    ("base: 'debian:12 AS x'", "base", "not the name of an image"),
    ("base: --x", "base", "not the name of an image"),
    ("base: 'debian:12@sha256:12'", "base", "not the name of an image"),
    ("base: '$(id)'", "base", "not the name of an image"),
    ("pins: {spack: '--x'}", "pins:spack", "'--x' is not a release, tag, branch or commit"),
    ("pins: {spack: 'v1;id'}", "pins:spack", "is not a release"),
    ("pins: {spack-packages: 'a b'}", "pins:spack-packages", "is not a release"),
    ("pins: {easybuild: '5.1 --pre'}", "pins:easybuild", "is not a release"),
    ('env: {PATH: ""}', "env:PATH", "its entry '' is no absolute path"),
    ("env: {PATH: relative}", "env:PATH", "its entry 'relative' is no absolute path"),
    ("env: {PATH: '/a::/b'}", "env:PATH", "its entry '' is no absolute path"),
    ("env: {PATH: '/a:/b:'}", "env:PATH", "$PATH is the place of the base's"),
    ("env: {PATH: '$HOME/bin'}", "env:PATH", "its entry '$HOME/bin' is no absolute path"),
    ("pins: {archspec: '$(id)'}", "pins:archspec", "is not a release"),
    ("pins: {clingo: ''}", "pins:clingo", "is not a release"),
    *((f'{key}: ""', key, "empty") for key in ("title", "base", "target", "docs", "smoke", "spack_keys")),
    *((f'{key}: "  "', key, "empty") for key in ("title", "docs", "smoke", "spack_mirrors")),
    ('cuda_compute_capabilities: ""', "cuda_compute_capabilities", "empty"),
    ('user: ""', "user", "empty"),
    ('mpi: {mode: ""}', "mpi:mode", "expected"),
    ('easybuild: {hooks: ""}', "easybuild:hooks", "empty"),
    ("secrets: [hpc3build_env]", "secrets", "'hpc3build_env' is an id of hpc3build's own"),
    ("secrets: [hpc3build_x]", "secrets", "hpc3build's own"),
    ("caches: ['/../etc']", "caches", "absolute path"),
    ("caches: ['/a/..']", "caches", "absolute path"),
    *((f"caches: [{path}]", "caches", f"{path} would hide ") for path in ("/", "//", "/usr", "/opt", "/etc/", "/var")),
    *(
        (f"caches: [/ok, {path}]", "caches", f"{path} would hide {path}, which the build needs")
        for path in ("/opt/hpc3build", "/opt/easybuild", "/opt/software", "/opt/spack", "/opt/spack-environment")
    ),
    ("caches: [/opt/software/x]", "caches", "lies in /opt/software, and what is in a cache is not in the image"),
    ("caches: [//opt//software//x]", "caches", "lies in /opt/software"),
    ("caches: [/proc/1]", "caches", "lies in /proc"),
    *(
        (f"labels: {{{key}: '{value}'}}", f"labels:{key}", "the build states it itself")
        for key, value in (
            ("io.github.hpc3build.conformance", "any-uid"),
            ("io.github.hpc3build.vocabulary", "7"),
            ("io.github.hpc3build.lock", f"sha256:{'0' * 64}"),
            ("io.github.hpc3build.size", "1"),
            ("io.github.hpc3build.seal", f"sha256:{'0' * 64}"),
            ("org.opencontainers.image.base.name", "x"),
            ("org.opencontainers.image.base.digest", f"sha256:{'0' * 64}"),
        )
    ),
]


@pytest.mark.parametrize(("text", "key", "told"), WRONG, ids=[text[:40] for text, _, _ in WRONG])
def test_wrong_values(text: str, key: str, told: str, tmp_path: Path) -> None:
    """Each alone, below another key, so that a line is more than the default."""
    error = refused(tmp_path, f"# a remark\n\n{text}\n")
    assert error.message.startswith(f"{tmp_path}/hpc3build.yaml:3: {key}"), error.message
    assert told in error.message + error.hint


def test_lists_among_labels_are_sorted_each_item_once(tmp_path: Path) -> None:
    text = "labels:\n  org.supercontainers.gpu: rocm,cuda,cuda\n  org.example.list: b,a,a\n"
    found = settings(tmp_path, text + "  org.supercontainers.mpi.portability.mode: ucx_inject,mpi_replace\n").labels
    assert found == {
        "org.supercontainers.gpu": "cuda,rocm",
        "org.example.list": "b,a,a",
        "org.supercontainers.mpi.portability.mode": "ucx_inject,mpi_replace",
    }


NO_DOCS = [
    ("nothere.md", "no such file"),
    ("GUIDE.markdown", "no such file"),
    ("notes of mine.txt", "no such file"),
    ("x.rst", "no such file"),
    ("doc/guide", "no such file"),
    ("folder/", "is a folder"),
    ("folder", "is a folder"),
    (".", "is a folder"),
    ("README", "no such file"),
    ("Makefile", "no such file"),
    ("5", "no such file"),
    ("../outside.md", "lies outside of the recipe's folder"),
    ("link.md", "lies outside of the recipe's folder"),
    ("../../../../../../../../../../etc/passwd", "lies outside of the recipe's folder"),
    ("../nothere.md", "lies outside of the recipe's folder"),
    ("bytes.md", "not UTF-8"),
    ("long.md", "3001 bytes of markdown, and a label holds 3000"),
    ('"\\ud800"', "not UTF-8"),
    ("y" * 3001, "3001 bytes of markdown, and a label holds 3000"),
]


@pytest.mark.parametrize(("docs", "told"), NO_DOCS, ids=lambda text: text[:30])
def test_docs_that_name_no_file_beside_the_recipe(docs: str, told: str, tmp_path: Path) -> None:
    """They became the image's documentation, as words."""
    here = tmp_path / "recipe"
    (here / "folder").mkdir(parents=True)
    (tmp_path / "outside.md").write_text("not yours")
    (here / "link.md").symlink_to("../outside.md")
    (here / "bytes.md").write_bytes(b"\xff")
    (here / "long.md").write_text("x" * 3001)
    error = refused(here, f"title: x\ndocs: {docs}\n")
    assert error.message.startswith(f"{here}/hpc3build.yaml:2: docs: ") and told in error.message
    assert "not yours" not in error.message


@pytest.mark.parametrize("docs", ["see https://u:sekret@h/x", "https://u:sekret@h/x", "README.md"])
def test_docs_with_the_password_of_a_url_are_refused(docs: str, tmp_path: Path) -> None:
    """The label's base64 hides it from every other look."""
    (tmp_path / "README.md").write_text("# Read\n<https://u:sekret@h/x>\n")
    error = refused(tmp_path, f"title: x\ndocs: {docs}\n")
    assert error.message == f"{tmp_path}/hpc3build.yaml:2: docs: the password of https://…@h/x would be public"
    assert "sekret" not in str(error.hint)


@pytest.mark.parametrize(
    ("docs", "text"),
    [
        ("README.md", "# Read\nme\n"),
        ("notes of mine", "notes\n"),
        ("doc/guide", "guide\n"),
        ("https://example.org/guide.md", "https://example.org/guide.md"),
        ("see https://example.org/guide.md", "see https://example.org/guide.md"),
        ("see https://USER:$TOKEN@h/x", "see https://USER:$TOKEN@h/x"),
        ("An image of GROMACS.", "An image of GROMACS."),
        ("for CPU and/or GPU", "for CPU and/or GPU"),
        ("README", "All of it\n"),
        ("|\n  # Title\n  see/README.md\n", "# Title\nsee/README.md\n"),
        ('"a\\0b"', "a\0b"),
    ],
    ids=ascii,
)
def test_docs_are_a_file_or_the_text(docs: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "doc").mkdir()
    for name, content in (
        ("README.md", "# Read\nme\n"),
        ("notes of mine", "notes\n"),
        ("doc/guide", "guide\n"),
        ("README", "All of it\n"),
    ):
        (tmp_path / name).write_text(content)
    assert settings(tmp_path, f"docs: {docs}\n").docs == text


@pytest.mark.parametrize(
    "text",
    [
        "target: native",
        "base: ubi8",
        "base: example.org:5000/x/y:1",
        "env: {UMASK: '0022', A: &x 22, B: *x, C: -5, D: 0, E: 2026-01-02}",
        "user: 2147483647:2147483647",
        "user: 1a:0",
        "pins: {easybuild: 5.4.1, archspec: 0.2.5.post1, clingo: '10'}",
        "caches: [/a..b]",
        "caches: [/opt/softwares, /var/cache/x, /root/.cache, /usr/src/x, /opt/mine]",
    ],
)
def test_values_that_are_right(text: str, tmp_path: Path) -> None:
    assert settings(tmp_path, f"{text}\n") != Settings()


LAUGHS = "a: &a [x]\nb: &b [" + "*a, " * 99 + "*a]\nc: &c [" + "*b, " * 99 + "*b]\nd: [" + "*c, " * 99 + "*c]\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n", ":1: expected a mapping, found a list"),
        ("x\n", ":1: expected a mapping, found text"),
        ("title: 'open\n", "not valid YAML"),
        ("title: a\ntitle: b\n", ":2: not valid YAML"),
        ("title: a: b\n", ":1: not valid YAML"),
        ("\tx: y\n", ":1: not valid YAML"),
        ("title: *nobody\n", ":1: not valid YAML"),
        ("title: a\n---\ntitle: b\n", ":2: not valid YAML"),
        (b"title: \xff\n", ":1: not UTF-8"),
        (b"a: b\ntitle: \xff\n", ":2: not UTF-8"),
        ("title: a\0b\n", "not valid YAML"),
        ("title: !!bool x\n", "not valid YAML"),
        ("title: !!int x\n", "not valid YAML"),
        ("title: 2001-12-14t21:59:43.10-95:00\n", "not valid YAML"),
        ("a: " + "[" * 1000, "not valid YAML"),
        ("a: " + "{b: " * 70 + "1" + "}" * 70, "nested too deeply"),
        (LAUGHS, "nested too deeply, or its aliases"),
        ("a: &a\n  b: *a\n", "hpc3build.yaml"),
    ],
)
def test_hostile_yaml(text: str | bytes, told: str, tmp_path: Path) -> None:
    assert told in refused(tmp_path, text).message


def test_no_object_is_ever_made(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    refused(tmp_path, f"title: !!python/object/apply:os.system ['touch {mark}']\n")
    assert not mark.exists()


def test_a_folder_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "hpc3build.yaml").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        read_settings(tmp_path)


SECRET = "https://bob:hunter2@mirror.example/x"
OF_SPACK = [
    ("base: debian:99", "base: the base image debian:99 is not in the table", "os_packages:command"),
    ("base: foo/bar:1", "base: the base image foo/bar:1 is not in the table", "os_packages:command"),
    ("target: native", "target: 'native' is not a CPU target", "Spack takes a name"),
    ("spack_mirrors: nosuch.yaml", "spack_mirrors: nosuch.yaml: no such file", "beside the recipe"),
    ("spack_keys: nosuch", "spack_keys: nosuch: no such file", "beside the recipe"),
    (f"env: {{PIP_INDEX_URL: '{SECRET}'}}", "env:PIP_INDEX_URL: ", "secrets of hpc3build.yaml"),
    (f"title: '{SECRET}'", "title: ", "secrets of hpc3build.yaml"),
    (f"labels: {{org.example.url: '{SECRET}'}}", "labels:org.example.url: ", "leave it out"),
]
OF_EASYBUILD = [
    ("cuda_compute_capabilities: sm_80", "cuda_compute_capabilities: sm_80: expected a list", ""),
    ("easybuild: {robot_paths: [nosuch]}", "easybuild:robot_paths: {}/nosuch: no such folder", ""),
    ("easybuild: {sourcepath: [nosuch]}", "easybuild:sourcepath: {}/nosuch: no such folder", ""),
    ("easybuild: {hooks: nosuch}", "easybuild:hooks: {}/nosuch: no such file", ""),
    ("easybuild: {include_easyblocks: [nosuch]}", "easybuild:include_easyblocks: {}/nosuch: no such Python file", ""),
    ("target: zen99", "target: 'zen99' is not", ""),
]


@pytest.mark.parametrize(
    ("recipe", "text", "told", "hint"),
    [("spack.yaml", *each) for each in OF_SPACK] + [("A-1.eb", *each) for each in OF_EASYBUILD],
)
def test_what_only_a_frontend_refuses_has_its_line_too(
    recipe: str, text: str, told: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / recipe).write_text("spack:\n  specs: [zlib]\n" if recipe == "spack.yaml" else "name = 'A'\n")
    (tmp_path / "hpc3build.yaml").write_text(f"# a remark\n\n{text}\n")
    assert main(["render", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"hpc3build: error: {tmp_path}/hpc3build.yaml:3: {told.format(tmp_path)}"), error
    assert hint in error and "hunter2" not in error


def test_what_an_option_says_names_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the file states the same key, and where neither the file nor the option does."""
    (tmp_path / "spack.yaml").write_text("spack:\n  specs: [zlib]\n  container:\n    images: {os: 'debian:99'}\n")
    (tmp_path / "hpc3build.yaml").write_text("base: debian:98\n")
    assert main(["render", str(tmp_path), "--base", "debian:97"]) == 2
    assert "error: --base: the base image debian:97 is" in capsys.readouterr().err
    (tmp_path / "hpc3build.yaml").unlink()
    assert main(["render", str(tmp_path)]) == 2
    where = f"{tmp_path}/spack.yaml:4: spack:container:images:os: the base image debian:99 is"
    assert where in capsys.readouterr().err


@pytest.mark.parametrize("place", ["hpc3build.yaml", "spack.yaml"])
def test_a_label_that_begins_as_ours_and_is_none_is_told(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As annotate -a tells it."""
    labels = "labels: {org.supercontainers.mpi.abi: '12', org.example.mpi.abi: '12'}"
    own = f"  container:\n    {labels}\n" if place == "spack.yaml" else ""
    (tmp_path / "spack.yaml").write_text(f"spack:\n  specs: [zlib]\n{own}")
    if place == "hpc3build.yaml":
        (tmp_path / place).write_text(f"{labels}\n")
    assert main(["render", str(tmp_path)]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "no key of the vocabulary" in line]
    assert len(told) == 1 and told[0].startswith("hpc3build: note: org.supercontainers.mpi.abi is no key")
    assert "did you mean org.supercontainers.mpi.abi.version" in told[0]


FOREIGN = [
    ("spack.yaml", "easybuild: {modules: flat}", "easybuild:modules"),
    ("spack.yaml", "easybuild: {keep_compilers: false}", "easybuild:keep_compilers"),
    ("spack.yaml", "cuda_compute_capabilities: '8.0'", "cuda_compute_capabilities"),
    ("spack.yaml", "pins: {spack: v0.23.1, easybuild: 5.4.1}", "pins:easybuild"),
    ("spack.yaml", "pins: {archspec: 0.2.7}", "pins:archspec"),
    ("A-1.eb", "spack_mirrors: mirrors.yaml", "spack_mirrors"),
    ("A-1.eb", "spack_keys: keys.asc", "spack_keys"),
    ("A-1.eb", "binary_cache: true", "binary_cache"),
    ("A-1.eb", "host_provided: [cray-mpich]", "host_provided"),
    ("A-1.eb", "pins: {spack: v0.23.1}", "pins:spack"),
    ("A-1.eb", "pins: {spack-packages: v1}", "pins:spack-packages"),
    ("A-1.eb", "pins: {clingo: 5.7.1}", "pins:clingo"),
]


@pytest.mark.parametrize(("recipe", "text", "key"), FOREIGN)
def test_keys_of_the_other_package_manager_are_refused(
    recipe: str, text: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As its options are."""
    (tmp_path / recipe).write_text("spack:\n  specs: [zlib]\n" if recipe == "spack.yaml" else "name = 'A'\n")
    (tmp_path / "hpc3build.yaml").write_text(f"# a remark\n\n{text}\n")
    assert main(["facts", str(tmp_path)]) == 2
    told = f"{tmp_path}/hpc3build.yaml:3: {key}: the package manager of this recipe has no use for it"
    assert told in capsys.readouterr().err


def test_options_win_where_they_are_given() -> None:
    beside = Settings(title="file", base="debian:12", host_provided=("a",), env={"A": "1"})
    given = beside.overridden(title="option", base=None, host_provided=(), env={})
    assert given == dataclasses.replace(beside, title="option")
    assert beside.overridden(rank=0).rank == 0


def test_title_falls_back_to_the_folder() -> None:
    recipe = Recipe(origin=Path("x"), folder=Path("/a/my-app"))
    assert recipe.title == "my-app"
    assert dataclasses.replace(recipe, settings=Settings(title="t")).title == "t"


def test_a_smoke_command_with_a_missing_quote_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "hpc3build.yaml").write_text("title: x\nsmoke: it's\n")
    with pytest.raises(InputError, match=r"hpc3build\.yaml:2: smoke: not a command"):
        read_settings(tmp_path)


def test_an_option_wins_also_where_it_asks_for_the_default() -> None:
    assert Settings(entrypoint="hpc3").over(Settings(entrypoint="hpc3-exec")).entry == "hpc3"
    assert Settings().over(Settings(entrypoint="hpc3-exec", rank=0)).entry == "hpc3-exec"
    assert Settings().over(Settings()).entry == "hpc3"
