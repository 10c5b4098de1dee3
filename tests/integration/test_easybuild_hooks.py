"""plugins/easybuild/hooks.py with a real eb: facts at the end of an installation, and an image that is told of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.commands import hpc3build
from tests.images import make_layout
from tests.real_eb import easyconfig, eb, needed

MODULE = "hello/1.0-GCC-system"


def plugin() -> Path:
    return Path(hpc3build("easybuild-hooks").out.strip())


def install(folder: Path, *arguments: str, **env: str) -> str:
    easyconfigs = folder / "easyconfigs"
    easyconfigs.mkdir(exist_ok=True)
    (easyconfigs / "hello-1.0-GCC-system.eb").write_text(easyconfig("hello"))
    (easyconfigs / "hello.c").write_text("int main(void) { return 0; }\n")
    options = [f"--hooks={plugin()}", f"--robot-paths={easyconfigs}:", f"--sourcepath={folder}/sources:{easyconfigs}"]
    return eb(folder, "hello-1.0-GCC-system.eb", *arguments, *options, **env)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needed()
    folder = tmp_path_factory.mktemp("eb")
    said = install(folder, "--optarch=GCC:-march=x86-64-v3")
    assert f"hpc3build: facts of {MODULE}: {folder}/software/{MODULE}/easybuild/hpc3build.json" in said
    return folder


def test_the_plugin_is_a_file_of_the_package() -> None:
    assert plugin().read_text().startswith('"""Hooks for EasyBuild')


def test_facts_of_what_was_built(installed: Path) -> None:
    document = json.loads((installed / "software" / MODULE / "easybuild" / "hpc3build.json").read_text())
    annotations = document["annotations"]
    assert annotations["org.opencontainers.image.title"] == "hello"
    assert annotations["org.supercontainers.hardware.cpu.optimized.version"] == "x86_64_v3"
    assert annotations["org.supercontainers.mpi"] == annotations["org.supercontainers.gpu"] == "none"
    (cpu,) = [fact for fact in document["facts"] if fact["key"].endswith("optimized.version")]
    assert "-march=x86-64-v3" in cpu["evidence"], "the flags that were used, not those that were asked for"
    left = {path.name for path in (installed / "software" / MODULE / "easybuild").iterdir()}
    assert not [name for name in left if name.endswith((".closure", ".new"))]


def test_an_image_is_told_of_them(installed: Path, tmp_path: Path) -> None:
    make_layout(tmp_path / "image", [{"a": b"1"}], tag="1.0")
    facts = installed / "software" / MODULE / "easybuild" / "hpc3build.json"
    done = hpc3build("annotate", f"oci:{tmp_path}/image:1.0", "--from", facts)
    assert done.status == 0, done.err
    shown = json.loads(hpc3build("inspect", f"oci:{tmp_path}/image:1.0", "--json").out)
    assert "x86_64_v3" in json.dumps(shown)


def test_elsewhere_and_without_hpc3build(installed: Path, tmp_path: Path) -> None:
    """$HPC3BUILD_FACTS names the file; where facts cannot be worked out, they can be later. The build succeeds."""
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "hpc3build").write_text("#!/bin/sh\necho no luck >&2\nexit 3\n")
    (broken / "hpc3build").chmod(0o755)
    facts = tmp_path / "facts.json"
    said = install(
        installed,
        "--rebuild",
        "--optarch=GCC:-march=znver3",
        HPC3BUILD_FACTS=str(facts),
        PATH=f"{broken}:{sys.prefix}/bin:/usr/bin:/bin",
    )
    assert "no luck" in said and not facts.exists()
    later = json.loads(hpc3build("facts", f"{facts}.closure", "--json").out)
    assert later["annotations"]["org.supercontainers.hardware.cpu.optimized.version"] == "zen3"
