"""Labels count before annotations by key, not by name (rule R10), wherever the two meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc3build.errors import Contradiction
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.labels import declared
from hpc3build.host.fingerprint import Fingerprint
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import Manifest
from hpc3build.reference import parse
from hpc3build.rewrite import Target, apply, plan, plan_attachment
from hpc3build.run import run
from hpc3build.stores import read_blob
from hpc3build.stores.layout import Layout
from hpc3build.workflows import index
from hpc3build.workflows.candidates import Reading, candidates
from hpc3build.workflows.check import read_image
from tests.images import descriptor_of, make_document, make_layout

NEW, OLD = voc.GLIBC.name, voc.GLIBC.aliases[0]
CPU, ARCHSPEC = voc.CPU_VERSION.name, voc.CPU_VERSION.aliases[0]
LINUX = {"os": "linux", "architecture": "amd64"}
BASELINE = {CPU: "x86_64", voc.GPU.name: "none", voc.MPI.name: "none"}


@pytest.mark.parametrize(
    ("annotations", "labels", "value"),
    [
        ({NEW: "2.35"}, {OLD: "2.17"}, "2.17"),
        ({OLD: "2.35"}, {NEW: "2.17"}, "2.17"),
        ({NEW: "2.35", OLD: "2.31"}, {OLD: "2.17"}, "2.17"),
        ({NEW: "2.35"}, {}, "2.35"),
        ({NEW: "2.35", OLD: "2.17"}, {}, "2.35"),
        ({}, {NEW: "2.17", OLD: "2.17"}, "2.17"),
        # Two labels that differ: as facts have it, in doubt there is no value.
        ({NEW: "2.35"}, {NEW: "2.35", OLD: "2.17"}, None),
        ({NEW: "2.35"}, {NEW: "new", OLD: "2.17"}, "2.17"),
    ],
)
def test_the_label_counts(annotations: dict[str, str], labels: dict[str, str], value: str | None) -> None:
    pairs = declared({**annotations, "a": "1", "b": "1"}, {**labels, "b": "2"})
    assert voc.GLIBC.value_in(pairs) == value and (pairs["a"], pairs["b"]) == ("1", "2")
    if labels:
        assert {pairs[name] for name in (NEW, OLD) if name in pairs} <= {value}, "whoever reads one spelling alone"
    told = declared({}, labels, {**annotations, NEW: "2.40"})
    assert voc.GLIBC.value_in(told) == (value if labels else "2.40")


def test_labels_that_refine_each_other() -> None:
    pairs = declared({}, {ARCHSPEC: "zen3", CPU: "x86_64_v3"})
    assert pairs == {ARCHSPEC: "zen3", CPU: "zen3"}


def image(path: Path, labels: dict[str, str], annotations: dict[str, str] | None = None) -> Manifest:
    return make_layout(path, [{}], labels=labels, annotations=annotations, tag="1")


@pytest.mark.parametrize(("label", "said"), [(OLD, NEW), (NEW, OLD), (NEW, NEW)])
def test_an_annotation_that_a_label_contradicts_is_refused(tmp_path: Path, label: str, said: str) -> None:
    image(tmp_path, {label: "2.17"})
    store, reference = Layout(tmp_path), parse(f"oci:{tmp_path}:1")
    for planner in (plan, plan_attachment):
        with pytest.raises(Contradiction, match=r"2\.17"):
            planner(store, reference, annotations={said: "2.35"})
    assert plan(store, reference, annotations={said: "2.17"}).new.annotations == {said: "2.17"}


def test_labels_that_are_written_leave_none_that_contradicts(tmp_path: Path) -> None:
    image(tmp_path, {OLD: "2.17", ARCHSPEC: "zen3", "other": "1"})
    store, reference = Layout(tmp_path), parse(f"oci:{tmp_path}:1")
    pairs = {NEW: "2.35", CPU: "zen3"}
    apply(store, plan(store, reference, annotations=pairs, labels=pairs))
    config = ImageConfig.parse(read_blob(store, store.manifest("1").config.digest))
    assert config.labels == {**pairs, ARCHSPEC: "zen3", "other": "1"}


def test_descriptors_of_such_an_image(tmp_path: Path) -> None:
    """The annotation on the descriptor is of the index; the label is the image's."""
    made = image(tmp_path, {OLD: "2.17", **BASELINE})
    (tmp_path / "index.json").unlink()
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor_of(made, platform=LINUX, annotations={NEW: "2.35"})],
    }
    make_document(tmp_path, document, tag="all")
    reference = parse(f"oci:{tmp_path}:all")
    with pytest.raises(Contradiction):
        plan(Layout(tmp_path), reference, annotations={NEW: "2.36"}, target=Target(descriptors=True))
    (found,) = candidates(str(reference), Reading(run, host=Fingerprint(), whole=True))
    assert voc.GLIBC.value_in(found.pairs) == "2.17"
    (entry,) = index.annotate(reference, run).manifest.descriptors
    assert voc.GLIBC.value_in(entry.annotations) == "2.17"


def test_doubt_leaves_nothing_on_a_descriptor(tmp_path: Path) -> None:
    made = image(tmp_path, {OLD: "2.17", NEW: "2.35", **BASELINE})
    (tmp_path / "index.json").unlink()
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor_of(made, platform=LINUX, annotations={NEW: "2.35"})],
    }
    make_document(tmp_path, document, tag="all")
    (entry,) = index.annotate(parse(f"oci:{tmp_path}:all"), run).manifest.descriptors
    assert voc.GLIBC.value_in(entry.annotations) is None


def test_the_check_sees_the_label(tmp_path: Path) -> None:
    image(tmp_path, {OLD: "2.17"}, {NEW: "2.35"})
    found = read_image(Layout(tmp_path), parse(f"oci:{tmp_path}:1"), layers=False)
    assert found.declared == {OLD: "2.17", NEW: "2.17"}
