"""What Spack's own tests of `spack containerize` check (lib/spack/spack/test/container), checked of ours.

Each test bears the name of the one of Spack's that it stands for. docs/spack.md lists both, and says what differs.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hpc3build import bases
from hpc3build.containerfile import BuildContext, build_context
from hpc3build.errors import InputError
from hpc3build.frontends import spack
from hpc3build.frontends.spack_context import SpackRecipe
from hpc3build.recipe import Settings
from hpc3build.run import run
from tests.commands import hpc3build
from tests.dockerfile_words import instructions

MINIMAL: Mapping[str, Any] = {
    "specs": ["gromacs", "mpich", "fftw precision=float"],
    "container": {"format": "docker", "images": {"os": "ubuntu:22.04", "spack": "develop"}},
}


@pytest.fixture
def configuration() -> Any:
    return copy.deepcopy(MINIMAL)


def load(folder: Path, configuration: Any) -> SpackRecipe:
    (folder / "spack.yaml").write_text(json.dumps({"spack": configuration}))
    return spack.load((str(folder),), Settings(), run)


def written(folder: Path, configuration: Any) -> BuildContext:
    recipe = load(folder, configuration)
    return build_context(recipe, spack.context(recipe, None), spack.form(recipe))


def test_command(tmp_path: Path, configuration: Any) -> None:
    load(tmp_path, configuration)
    assert "FROM docker.io/library/ubuntu:22.04 AS builder" in hpc3build("render", tmp_path).out


def test_bootstrap_phase(tmp_path: Path, configuration: Any) -> None:
    configuration["container"]["images"] = {"os": "amazonlinux:2", "spack": {"resolve_sha": False}}
    text = written(tmp_path, configuration).containerfile
    assert "git init" in text and "git fetch" in text and "git checkout" in text


def test_manifest(tmp_path: Path, configuration: Any) -> None:
    """Spack writes it by echo; ours is a file, with the same content."""
    made = written(tmp_path, configuration)
    assert "echo" not in made.containerfile
    manifest = YAML(typ="safe").load(made.files["hpc3build/spack/spack.yaml"])["spack"]
    assert manifest["specs"] == MINIMAL["specs"] and "container" not in manifest


def test_build_and_run_images(tmp_path: Path, configuration: Any) -> None:
    recipe = load(tmp_path, configuration)
    assert (recipe.container.build_image, recipe.container.final_image) == ("ubuntu:22.04", "ubuntu:22.04")
    assert recipe.container.spack_ref == "develop"


def test_packages(tmp_path: Path, configuration: Any) -> None:
    assert load(tmp_path, configuration).container.final_packages == ()
    configuration["container"]["os_packages"] = {"final": ["libgomp1"]}
    text = written(tmp_path, configuration).containerfile.partition(" AS final")[2]
    assert re.search(
        r"apt-get update.*apt-get upgrade.*apt-get install.*libgomp1.*rm -rf /var/lib/apt", text, re.DOTALL
    )


#: Spack's documentation names all of these; its schema knows apt, yum, zypper, apk and yum_amazon.
COMMANDS = {
    "apt": ("apt-get update", "apt-get upgrade -y", "apt-get install -y", "rm -rf /var/lib/apt/lists/*"),
    "yum": ("epel-release", "yum update -y", "yum install -y", "yum clean all"),
    "dnf": ("", "dnf upgrade -y", "dnf install -y", "dnf clean all"),
    "microdnf": ("", "microdnf upgrade -y", "microdnf install -y", "microdnf clean all"),
    "zypper": ("refresh", "zypper --non-interactive update", "zypper --non-interactive install", "zypper clean --all"),
    "apk": ("", "apk upgrade", "apk add --no-cache", "/var/cache/apk"),
    "yum_amazon": ("amazon-linux-extras install epel -y", "yum update -y", "yum install -y", "yum clean all"),
    "dnf_epel": ("dnf install -y epel-release", "dnf upgrade -y", "dnf install -y", "dnf clean all"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_container_os_packages_command(command: str, tmp_path: Path, configuration: Any) -> None:
    assert set(COMMANDS) == set(bases.MANAGERS)
    configuration["container"]["images"] = {"build": "custom-build:latest", "final": "custom-final:latest"}
    configuration["container"]["os_packages"] = {"command": command, "final": ["libgomp1"], "build": ["extra-dev"]}
    builder, _, final = written(tmp_path, configuration).containerfile.partition(" AS final")
    assert all(part in final for part in (*COMMANDS[command], "libgomp1"))
    assert all(part in builder for part in (COMMANDS[command][2], "extra-dev", "git", "make"))
    configuration["container"]["os_packages"]["update"] = False
    final = written(tmp_path, configuration).containerfile.partition(" AS final")[2]
    assert COMMANDS[command][1] not in final and COMMANDS[command][2] in final


@pytest.mark.parametrize("form", ["docker", "singularity"])
def test_ensure_render_works(form: str, tmp_path: Path, configuration: Any) -> None:
    configuration["container"]["format"] = form
    assert written(tmp_path, configuration).containerfile


def test_strip_is_set_from_config(tmp_path: Path, configuration: Any) -> None:
    assert "strip.py /opt/software" in written(tmp_path, configuration).containerfile
    configuration["container"]["strip"] = False
    assert "strip.py" not in written(tmp_path, configuration).containerfile


def test_custom_base_images(tmp_path: Path, configuration: Any) -> None:
    configuration["container"]["images"] = {"build": "custom-build:latest", "final": "custom-final:latest"}
    with pytest.raises(InputError) as caught:
        written(tmp_path, configuration)
    assert "custom-build:latest" in caught.value.message and "os_packages:command" in caught.value.hint
    configuration["container"]["os_packages"] = {"command": "apt"}
    found = [rest for word, rest in instructions(written(tmp_path, configuration).containerfile) if word == "FROM"]
    assert found == [
        "docker.io/library/custom-build:latest AS builder",
        "docker.io/library/custom-final:latest AS final",
    ]


def test_base_images_with_bootstrap(tmp_path: Path, configuration: Any) -> None:
    configuration["container"]["images"] = {"os": "amazonlinux:2", "spack": "develop"}
    found = [rest for word, rest in instructions(written(tmp_path, configuration).containerfile) if word == "FROM"]
    assert found == ["docker.io/library/amazonlinux:2 AS builder", "docker.io/library/amazonlinux:2 AS final"]


def test_error_message_invalid_os(tmp_path: Path, configuration: Any) -> None:
    configuration["container"]["images"]["os"] = "invalid:1"
    with pytest.raises(InputError, match="base image invalid:1 is not in the table of operating systems"):
        written(tmp_path, configuration)


def test_using_single_quotes_in_dockerfiles(tmp_path: Path, configuration: Any) -> None:
    """`definitions:` hold $names; no shell and no builder sees them."""
    configuration["definitions"] = [{"apps": ["gromacs"]}]
    configuration["specs"] = ["$apps", {"matrix": [["$apps"], ["$^mpis"]]}]
    made = written(tmp_path, configuration)
    assert "$apps" not in made.containerfile and "$^mpis" not in made.containerfile
    manifest = YAML(typ="safe").load(made.files["hpc3build/spack/spack.yaml"])["spack"]
    assert manifest["specs"] == configuration["specs"]
    assert manifest["definitions"] == [{"apps": ["gromacs"]}]


def test_depfile_is_handed_on(tmp_path: Path, configuration: Any) -> None:
    """Of Spack's manual; its tests do not look at it."""
    configuration["container"]["depfile"] = True
    assert "install.sh concretize depfile" in written(tmp_path, configuration).containerfile
