"""A hostile spack.yaml through the real command: exit 2 and one message, within 2 s of CPU time and 300 MB."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.commands import ROOT, Done, assert_one_message, hpc3build
from tests.dockerfile_words import instructions

#: The slowest takes 0.8 s of two; a machine may be half as fast.
SECONDS, BYTES = 4, 300 << 20
HEAD = "spack:\n  specs: [zlib]\n  container:\n    images: {os: 'debian:12'}\n"
BREAKS = 'x"\nRUN touch /pwned\n#'


def limited(seconds: int = SECONDS) -> None:
    """Of the child alone: a breach kills it (CPU) or is a MemoryError with a traceback."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))


def render(folder: Path, *options: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "hpc3build", "render", str(folder), *options],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=limited,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def bomb() -> str:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join([*lines, "spack: {specs: *a11}"]) + "\n"


def container(**section: object) -> str:
    return json.dumps({"spack": {"specs": ["zlib"], "container": {"images": {"os": "debian:12"}, **section}}})


HOSTILE: dict[str, str | bytes] = {
    "line break in a label": container(labels={"a": BREAKS}),
    "line break in a label's name": container(labels={BREAKS: "a"}),
    "line break in a package": container(os_packages={"final": [BREAKS]}),
    "quote in a package": container(os_packages={"final": ['a"b']}),
    "dollar in a package": container(os_packages={"final": ["$(id)"]}),
    "backslash in a package": container(os_packages={"final": ["a\\"]}),
    "line break in an image": container(images={"os": f"debian:12{BREAKS}"}),
    "line break in images": container(images={"build": BREAKS, "final": BREAKS}, os_packages={"command": "apt"}),
    "line break in a reference": container(images={"os": "debian:12", "spack": {"ref": BREAKS}}),
    "line break in a URL": container(images={"os": "debian:12", "spack": {"url": BREAKS}}),
    "line break in a template": container(template=BREAKS),
    "another file as template": container(template="../../../../etc/passwd"),
    "another section": container(format="singularity", singularity={"help": "x\n%post\nid"}),
    "a stage in instructions": container(extra_instructions={"final": "RUN x\nFROM y"}),
    "a spec of a mapping": '{"spack": {"specs": [{"a": 1}, [2]]}}',
    "aliases that unfold": bomb(),
    "an alias of itself": "spack: &a\n  specs: [*a]\n",
    "a loop of mappings": "spack: &a\n  specs: [zlib]\n  packages: *a\n",
    "a merge of itself": "spack: &a {<<: *a}\n",
    "deep brackets": "spack: " + "[" * 50_000,
    "deep indentation": "".join("  " * level + "a:\n" for level in range(300)),
    "not UTF-8": b"spack:\n  specs: [\xff\xfe]\n",
    "UTF-16": "spack: {specs: [zlib]}".encode("utf-16"),
    "NUL": b"spack:\n  specs: [a\0b]\n",
    "binary": bytes(range(256)) * 40,
    "50 MB": b"spack:\n  specs: [" + b"x," * 25_000_000 + b"]\n",
    "a long line": HEAD + "    labels: {a: " + "x" * 120_000 + "\n",
    "many keys": "spack:\n" + "".join(f"  k{number}: {{}}\n" for number in range(9000)) + "  container: {a: b}\n",
    "a number without end": HEAD + "    strip: " + "9" * 100_000 + "\n",
    "a tag of Python": "spack: !!python/object/apply:os.system ['touch /pwned']\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_one_message_within_the_limits(name: str, tmp_path: Path) -> None:
    text = HOSTILE[name]
    (tmp_path / "spack.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    message = assert_one_message(render(tmp_path), 2)
    assert len(message) < 2000


SPECS = [
    "zlib\n  evil: 1",
    'zlib "a',
    "zlib $(id)",
    "zlib `id`",
    "zlib \\",
    "it's",
    "# zlib",
    "{{ zlib }}",
    "z\r\nRUN x",
]


def test_specs_are_text_for_spack_and_nothing_else(tmp_path: Path) -> None:
    """They stand in the spack.yaml of the context, and never in the Containerfile; YAML keeps them one spec each."""
    texts = []
    for folder, specs in ((tmp_path / "app", SPECS), (tmp_path / "plain/app", ["zlib"])):
        folder.mkdir(parents=True)
        (folder / "spack.yaml").write_text(json.dumps({"spack": {"specs": specs}}))
        done = render(folder, "--context", str(folder / "context"))
        assert done.status == 0, done.err
        written = YAML(typ="safe").load((folder / "context/hpc3build/spack/spack.yaml").read_bytes())
        assert written["spack"]["specs"] == specs
        texts.append((folder / "context/Containerfile").read_text())
    assert texts[0] == texts[1]


TITLES = ['"; touch mark #', "$(touch mark)", "`touch mark`", "it's $HOME \\", "{{ title }}", "%s", "<b>&", "# x"]


@pytest.mark.parametrize("title", TITLES)
def test_a_title_is_the_same_text_in_json_and_no_instruction(title: str, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "spack.yaml").write_text(HEAD)
    done = hpc3build("facts", "app", "--title", title, "--json", cwd=tmp_path)
    document = json.loads(done.out)
    assert document["annotations"]["org.opencontainers.image.title"] == title
    assert title in [fact["value"] for fact in document["facts"]]
    rendered = [instructions(render(folder, *options).out) for options in ((), ("--title", title))]
    assert rendered[0] == rendered[1] and rendered[0][0][0] == "FROM"
    assert not (tmp_path / "mark").exists()


def test_the_limits_hold(tmp_path: Path) -> None:
    """What these tests rely on: a child that takes more does not end with 2."""
    for code in ("while True: pass", "x = bytearray(400 << 20)"):
        argv = [sys.executable, "-c", code]
        done = subprocess.run(argv, preexec_fn=lambda: limited(1), capture_output=True, check=False)
        assert done.returncode not in (0, 2)
