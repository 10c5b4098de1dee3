"""recipes/pytorch: rendered and described, never built (its sources are gigabytes)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc3build.errors import InputError
from hpc3build.recipe import Settings
from hpc3build.run import run
from hpc3build.workflows.describe import facts_of
from hpc3build.workflows.render import render
from tests.unit.test_containerfile import GOLDEN, ROOT, masked

pytest.importorskip("easybuild.framework")
RECIPE = ROOT / "recipes" / "pytorch"
EXPECTED = ROOT / "tests/data/easybuild/expected/PyTorch-2.9.1-foss-2025b-CUDA-12.9.1.json"
ACCEPTED = ("CUDA", "cuDNN")


def test_golden(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    context = render((str(RECIPE),), Settings(accept_eula_for=ACCEPTED), run).context
    golden = GOLDEN / "easybuild-pytorch.Containerfile"
    if request.config.getoption("--update-golden"):
        golden.write_text(masked(context.containerfile), encoding="utf-8")
    assert masked(context.containerfile) == golden.read_text(encoding="utf-8")
    options = context.files["hpc3build/easybuild/options.txt"].decode().splitlines()
    assert options == [
        "--optarch=GCC:-march=x86-64-v3 -mtune=generic",
        "--cuda-compute-capabilities=8.0,9.0",
        "--accept-eula-for=CUDA,cuDNN",
    ]
    parts = {name.split("/")[2] for name in context.files if name.endswith("/easyconfigs.txt")}
    assert parts == {"toolchain", "dependencies", "application"}
    assert not [name for name in context.files if name.endswith(".eb")], "EasyBuild's own stay with EasyBuild"


def test_nobody_accepts_licences_for_the_user() -> None:
    with pytest.raises(InputError, match=r"CUDA for CUDA/12\.9\.1"):
        render((str(RECIPE),), Settings(), run)


def test_facts() -> None:
    _, facts = facts_of(str(RECIPE), Settings(), run)
    expected = json.loads(EXPECTED.read_text())
    said = {
        "org.opencontainers.image.title": "pytorch",
        "org.supercontainers.hardware.gpu.architecture": "sm_80,sm_90",
        "org.supercontainers.hardware.gpu.driver.version": "525.60.13",  # machine code of any CUDA 12
        "org.supercontainers.documentation": facts.annotations()["org.supercontainers.documentation"],
    }
    assert facts.annotations() == {
        **expected["annotations"],
        **expected["with_target_x86_64_v3"]["annotations"],
        **said,
    }
