"""Rules that need no image of their own: what is owed when, and engines that cannot start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from hpc3build import conformance
from hpc3build.engines import DEFAULT, How
from hpc3build.evidence.layers import ImageFiles
from hpc3build.findings import Finding, Outcome
from hpc3build.oci import ImageConfig, Manifest
from hpc3build.run import Completed
from tests.images import make_layout

GPU = "org.supercontainers.gpu"
ARCHITECTURE = "org.supercontainers.hardware.gpu.architecture"
CUDA = "org.supercontainers.hardware.gpu.cuda.version"
ROCM = "org.supercontainers.hardware.gpu.rocm.version"


def image(tmp_path: Any, pairs: dict[str, str]) -> conformance.Image:
    from hpc3build.stores import read_blob
    from hpc3build.stores.layout import Layout

    manifest: Manifest = make_layout(tmp_path / "image", [{}], annotations=pairs, labels=pairs)
    with Layout(tmp_path / "image") as store:
        config = ImageConfig.parse(read_blob(store, manifest.config.digest))
    return conformance.Image(manifest, config, ImageFiles({}))


@pytest.mark.parametrize(
    ("gpu", "owed"),
    [("none", set()), ("cuda", {ARCHITECTURE, CUDA}), ("rocm", {ARCHITECTURE, ROCM}), ("opencl", {ARCHITECTURE})],
)
def test_a_gpu_owes_its_own_keys(tmp_path: Any, gpu: str, owed: set[str]) -> None:
    findings = list(conformance.mandatory(image(tmp_path, {GPU: gpu})))
    keys = {finding.key for finding in findings if finding.key.startswith("org.supercontainers.hardware.gpu")}
    assert keys == owed
    assert {finding.outcome for finding in findings} == {Outcome.UNKNOWN}


class Engine:
    """An engine of which every run ends with ``status``."""

    name = "podman"
    lacks: frozenset[str] = frozenset()

    def __init__(self, status: int, stdout: str = "") -> None:
        self.status, self.stdout = status, stdout

    def run(self, image: str, argv: Sequence[str], how: How = DEFAULT) -> Completed:
        return Completed(tuple(argv), self.status, self.stdout, "crun: setrlimit RLIMIT_NOFILE")


def live(engine: Any) -> list[Finding]:
    return list(conformance.live(engine, "image"))


@pytest.mark.parametrize("status", [125, 126])
def test_an_engine_that_starts_nothing_says_nothing_of_the_image(status: int) -> None:
    (finding,) = live(Engine(status))
    assert finding.outcome is Outcome.UNKNOWN and "RLIMIT_NOFILE" in finding.message
    assert "troubleshooting" in finding.hint


def test_a_command_that_fails_is_the_images_fault_for_every_user() -> None:
    assert [finding.outcome for finding in live(Engine(1))] == [Outcome.FAILS] * 9


def test_the_probe_must_come_back_as_it_was_sent() -> None:
    assert {finding.outcome for finding in live(Engine(0, f"{conformance.PROBE}\n"))} == {Outcome.OK}
    assert {finding.outcome for finding in live(Engine(0, "Welcome!\n" + conformance.PROBE))} == {Outcome.FAILS}
