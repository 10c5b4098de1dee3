"""Before an image is published: run it as a job would, and keep what was proven for its annotations."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from hpc3build import conformance
from hpc3build.engines import DEFAULT, ENTRY_POINT, Engine, How, Launcher, choose
from hpc3build.errors import Contradiction
from hpc3build.facts import Fact, Note, Source
from hpc3build.facts import vocabulary as voc
from hpc3build.findings import Outcome
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import Manifest
from hpc3build.run import Completed, Runner


class _Baked:
    """A launcher that gives the image the environment which the rewrite is about to bake into its configuration."""

    def __init__(self, launcher: Launcher, env: Mapping[str, str]) -> None:
        self.name, self.store, self.lacks = launcher.name, launcher.store, launcher.lacks
        self._launcher, self._env = launcher, env

    def prepared(self, image: str) -> AbstractContextManager[str]:
        return self._launcher.prepared(image)

    def run(self, image: str, argv: Sequence[str], how: How = DEFAULT) -> Completed:
        return self._launcher.run(image, argv, replace(how, env={**self._env, **how.env}))


def prove(
    engine: Engine, image: str, manifest: Manifest, config: ImageConfig, env: Mapping[str, str], runner: Runner
) -> Iterator[Fact | Note]:
    """The fact of what the image was seen to do; a note where nothing of it was seen: no engine starts anything here.

    Raises Contradiction for an image that does not do what HPC3 asks, which is never published.
    """
    launchers: list[Launcher] = [engine]
    if ENTRY_POINT in engine.lacks and shutil.which("podman"):
        launchers.insert(0, choose("podman", runner))  # both have one store
    looked_at = conformance.Image(manifest, config.with_env(env))
    for launcher in launchers:
        findings = list(conformance.prove(_Baked(launcher, env), image, looked_at))
        if all(finding.rule != "engine" for finding in findings):
            break  # in a container podman may start nothing, and buildah by chroot does
    for finding in findings:
        if finding.outcome is Outcome.FAILS:
            raise Contradiction(
                f"the image does not do what HPC3 asks ({finding.rule}, {finding.where}): {finding.message}",
                hint=f"nothing was published; {finding.hint}",
            )
    if claims := conformance.proven(findings):
        evidence = f"seen under {launcher.name} before it was published"
        yield Fact(voc.CONFORMANCE, ",".join(claims), Source.FILES, evidence)
    else:  # row 25 wants it of every build, and nothing is claimed that was not seen
        yield Note(
            voc.CONFORMANCE,
            "nothing that the image does was seen, so it claims nothing: check --run ENGINE where one starts it",
            "; ".join(dict.fromkeys(finding.message for finding in findings if finding.rule == "engine")),
        )
