"""The same plan as an Apptainer definition: of a spack.yaml with format: singularity, and of any recipe by --format."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpc3build.containerfile import ENTRYPOINTS, BuildContext
from hpc3build.errors import InputError
from hpc3build.recipe import Settings
from hpc3build.run import run
from hpc3build.workflows.render import render
from tests.commands import assert_one_message, hpc3build

ROOT = Path(__file__).resolve().parents[2]


def made(source: Path, **settings: Any) -> BuildContext:
    return render((str(source),), Settings(**settings), run).context


def write(folder: Path, section: str, settings: str = "") -> Path:
    container = "".join(f"    {line}\n" for line in section.splitlines())
    (folder / "spack.yaml").write_text(f"spack:\n  specs: [zlib]\n  container:\n{container}")
    (folder / "hpc3build.yaml").write_text(f"title: app\n{settings}")
    return folder


def stages(text: str) -> list[dict[str, str]]:
    """The definition's stages: headers and sections by name, as Apptainer splits them."""
    found: list[dict[str, str]] = []
    section = ""
    for line in text.splitlines():
        if line.startswith("Bootstrap:"):
            found.append({})
            section = ""
        if re.match(r"\s*%\w", line):
            section = line.strip()
            assert section not in found[-1]
            found[-1][section] = ""
        elif section:
            found[-1][section] += f"{line}\n"
        elif line and not line.startswith("#"):
            name, _, value = line.partition(": ")
            found[-1][name] = value
    return found


IMAGES = "images: {os: 'debian:12', spack: '1.0'}\n"


def test_format_singularity_renders_a_definition(tmp_path: Path) -> None:
    context = made(write(tmp_path, f"format: singularity\n{IMAGES}os_packages: {{final: [libgomp1]}}\n"))
    builder, final = stages(context.containerfile)
    assert (context.form, builder["Bootstrap"], builder["From"]) == (
        "apptainer",
        "docker",
        "docker.io/library/debian:12",
    )
    assert (builder["Stage"], final["Stage"]) == ("builder", "final")
    assert builder["%files"].split() == ["hpc3build", "/opt/hpc3build/build"]
    order = ["apt-get install", "git fetch", "clingo==", "install.sh concretize", "strip.py", "capture.py"]
    places = [builder["%post"].index(part) for part in order]
    assert places == sorted(places)
    taken = [line.split() for line in final["%files from builder"].splitlines() if line]
    assert all(source == target for source, target in taken)
    assert {"/opt/software", "/opt/views", "/opt/spack-environment", "/opt/hpc3build/rootfs"} <= {a for a, _ in taken}
    assert "libgomp1" in final["%post"] and "finish.sh" in final["%post"]


@pytest.mark.parametrize("form", ["docker", "podman", "containerfile"])
def test_the_other_formats_are_containerfiles(form: str, tmp_path: Path) -> None:
    assert made(write(tmp_path, f"format: {form}\n{IMAGES}")).form == "containerfile"


def test_every_step_ends_the_build_when_it_fails(tmp_path: Path) -> None:
    """`set -e` does not see a failure in the middle of `a && b`."""
    for stage in stages(made(write(tmp_path, f"format: singularity\n{IMAGES}")).containerfile):
        post = stage["%post"]
        assert post.count("\n    ( ") == post.count(" ) || exit 1\n") > 0
        subprocess.run(["/bin/sh", "-n", "-c", post], check=True)


def test_the_keys_of_singularity(tmp_path: Path) -> None:
    keys = 'singularity:\n  runscript: exec /opt/view/bin/h5ls "$@"\n  startscript: |\n    sleep 1\n    sleep 2\n'
    section = f"format: singularity\n{IMAGES}{keys}  test: h5ls --version\n  help: Ask Anna.\n"
    _, final = stages(made(write(tmp_path, section)).containerfile)
    assert final["%runscript"].strip() == 'exec /opt/view/bin/h5ls "$@"'
    assert final["%startscript"].split("\n")[:2] == ["sleep 1", "sleep 2"]
    assert (final["%test"].strip(), final["%help"].strip()) == ("h5ls --version", "Ask Anna.")


def test_without_them_the_entry_point_is_the_images_own(tmp_path: Path) -> None:
    _, final = stages(made(write(tmp_path, f"format: singularity\n{IMAGES}", "entrypoint: hpc3-exec\n")).containerfile)
    assert set(final) == {"Bootstrap", "From", "Stage", "%files from builder", "%post", "%environment", "%runscript"}
    last = final["%runscript"].strip().splitlines()[-1]
    assert shlex.split(last) == ["exec", *ENTRYPOINTS["hpc3-exec"], "$@"]


VALUES = ["it's", 'a "b"', "$HOME `id` $(id)", "back\\slash", "%post", "  two  "]


@pytest.mark.parametrize("value", VALUES)
def test_values_stay_what_they_are(value: str, tmp_path: Path) -> None:
    quoted = value.replace("'", "''")
    section = f"format: singularity\n{IMAGES}labels: {{x.y: '{quoted}'}}\n"
    _, final = stages(made(write(tmp_path, section, f"env: {{A: '{quoted}'}}\n")).containerfile)
    (export,) = [line for line in final["%environment"].splitlines() if line.startswith("    export A=")]
    shown = subprocess.run(["/bin/sh", "-c", f'{export}; printf %s "$A"'], capture_output=True, text=True, check=True)
    assert shown.stdout == value
    assert f"    x.y {value.rstrip()}\n" in final["%labels"]


def test_a_label_never_starts_a_section(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an annotation key"):
        made(write(tmp_path, f"format: singularity\n{IMAGES}labels: {{'%post': id}}\n"))


def test_instructions_of_the_other_format_are_refused(tmp_path: Path) -> None:
    lines = "extra_instructions: {final: echo x}\n"
    _, final = stages(made(write(tmp_path, f"format: singularity\n{IMAGES}{lines}")).containerfile)
    assert "\necho x\n" in final["%post"]
    with pytest.raises(InputError, match="the recipe's own format"):
        made(write(tmp_path, f"{IMAGES}{lines}"), format="apptainer")


def test_the_command_writes_it_and_build_refuses_it(tmp_path: Path) -> None:
    recipe = write(tmp_path, f"format: singularity\n{IMAGES}")
    done = hpc3build("render", recipe, "--context", tmp_path / "context")
    assert done.status == 0, done.err
    assert "Bootstrap: docker" in (tmp_path / "context/apptainer.def").read_text()
    assert (tmp_path / "context/hpc3build/spack/install.sh").exists()
    assert not (tmp_path / "context/Containerfile").exists()
    message = assert_one_message(hpc3build("build", recipe, "-t", f"oci:{tmp_path}/out:1"), 2)
    assert "--format containerfile" in message
    assert hpc3build("render", recipe, "--format", "containerfile").out.count("\nFROM ") == 2


@pytest.mark.easybuild
def test_easybuild_recipes_too(tmp_path: Path) -> None:
    pytest.importorskip("easybuild")
    context = made(ROOT / "recipes/mpi-hello", format="apptainer")
    builder, final = stages(context.containerfile)
    assert "runuser -u easybuild" in builder["%post"] and "chown -R 0:0 /opt/easybuild/software" in builder["%post"]
    assert "/opt/easybuild/modules /opt/easybuild/modules" in final["%files from builder"]


@pytest.mark.parametrize(("word", "first"), [("docker", "FROM "), ("podman", "FROM "), ("singularity", "Bootstrap: ")])
def test_the_option_takes_spacks_own_words(word: str, first: str) -> None:
    done = hpc3build("render", ROOT / "recipes/hello-spack", "--format", word)
    assert done.status == 0 and f"\n{first}" in done.out
