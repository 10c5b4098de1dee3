"""Before an image is published: what was seen becomes its claim, and one that does not do it stays where it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpc3build.containerfile import ENTRYPOINTS
from hpc3build.engines import ENTRY_POINT, How
from hpc3build.errors import Contradiction
from hpc3build.facts import Fact, Note, Source
from hpc3build.facts import vocabulary as voc
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import Manifest
from hpc3build.run import Completed, run
from hpc3build.workflows import prove as module
from tests.unit.test_conformance import PATH, Container, image

BAKED = {"PATH": PATH, "APP": "1"}


def prove(engine: Any, folder: Path, entry: str = "hpc3-exec") -> list[Fact]:
    facts = module.prove(engine, *given(folder, entry), BAKED, run)
    return [fact for fact in facts if isinstance(fact, Fact)]


def given(folder: Path, entry: str = "hpc3-exec") -> tuple[str, Manifest, ImageConfig]:
    made = image(folder, Env=["PATH=/usr/bin:/bin"], Entrypoint=list(ENTRYPOINTS[entry]))
    return "image", made.manifest, made.config


def test_what_was_seen_is_claimed(tmp_path: Path) -> None:
    (fact,) = prove(engine := Container(), tmp_path)
    assert (fact.key, fact.source) == (voc.CONFORMANCE, Source.FILES) and "fake" in fact.evidence
    assert fact.value == "any-uid,env-baked,exec-args,exit-code,login,nobody"
    assert all(how.env.items() >= BAKED.items() for argv, how in engine.seen if argv), "as it will be, once baked"


def test_what_hpc3_loses_is_not_claimed(tmp_path: Path) -> None:
    def does(argv: Sequence[str], how: How) -> Completed | None:
        return Completed((), 0, "lost", "") if argv[:1] in (("sh",), ("printf",)) else None

    (fact,) = prove(Container(does), tmp_path, "hpc3")
    assert fact.value == "any-uid,env-baked,login,nobody"


def test_an_image_without_its_application_is_refused(tmp_path: Path) -> None:
    engine = Container(lambda argv, how: Completed((), 0, "/usr/bin:/bin", "") if argv[:1] == ("printenv",) else None)
    with pytest.raises(Contradiction, match="/opt/app/bin") as error:
        prove(engine, tmp_path)
    assert "nothing was published" in (error.value.hint or "")


def test_where_nothing_starts_nothing_is_claimed_and_it_is_said(tmp_path: Path) -> None:
    """Row 25 is mandatory after a build: one that cannot have it tells so."""
    engine = Container(lambda argv, how: Completed((), 126, "", "no cgroups"))
    (note,) = module.prove(engine, *given(tmp_path), BAKED, run)
    assert isinstance(note, Note) and note.key is voc.CONFORMANCE
    assert "nothing that the image does was seen" in note.message and "no cgroups" in note.evidence


def test_buildah_has_no_entry_point_so_podman_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    podman = Container()
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(module, "choose", lambda name, runner: {"podman": podman}[name])
    assert len(prove(Container(None, ENTRY_POINT), tmp_path)) == 1 and podman.seen
    nothing = Container(lambda argv, how: Completed((), 126, "", "no cgroups"))
    monkeypatch.setattr(module, "choose", lambda name, runner: nothing)
    (fact,) = prove(Container(None, ENTRY_POINT), tmp_path / "1")
    assert "nobody" in fact.value.split(",") and "login" not in fact.value.split(",") and nothing.seen
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    (fact,) = prove(Container(None, ENTRY_POINT), tmp_path / "2")
    assert "login" not in fact.value.split(",")
