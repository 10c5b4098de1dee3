"""What an image's history may say, and that it says nothing where it could mean something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc3build.evidence.history import History, read_history
from hpc3build.facts import Fact, Facts, Source, declared
from hpc3build.facts import vocabulary as voc
from hpc3build.imageconfig import ImageConfig
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.stores import open_store
from hpc3build.workflows.describe import describe
from tests.evidence_images import IMAGES, make
from tests.stacks import notes, values

FROM = "FROM docker.io/library/debian:12"
E4S = {
    "io.e4s.base-img": "ubuntu:20.04",
    "io.e4s.repo": "https://github.com/UO-OACISS/e4s",
    "io.e4s.repo-ref": "f9035b887327a7102de588438d07bb61f1701ffd",
    "io.e4s.build-date": "2021-06-01",
}
LAST = "LABEL io.e4s.base-img=ubuntu:20.04"


def entry(created_by: str, comment: str = "", *, empty: bool = False) -> dict[str, Any]:
    return (
        {"created_by": created_by}
        | ({"comment": comment} if comment else {})
        | ({"empty_layer": True} if empty else {})
    )


def history(*entries: Any, layers: tuple[str, ...] = (), **more: Any) -> History:
    document = {"architecture": "amd64", "os": "linux", "history": list(entries), "config": {},
                "rootfs": {"type": "layers", "diff_ids": []}, **more}  # fmt: skip
    return read_history(ImageConfig.parse(json.dumps(document).encode()), layers)


def test_commands_by_the_layer_that_they_made() -> None:
    entries = (entry("ADD x /"), entry("ENV A=1", empty=True), entry("RUN make"))
    assert history(*entries, layers=("one", "two")).commands == {"one": "ADD x /", "two": "RUN make"}
    assert history(*entries, layers=("one",)).commands == {}, "layers were joined"
    assert history(*entries, layers=("one", "one")).commands == {}, "which of the two is not known"
    assert history().commands == {} and history().last == ""


def test_the_base_that_buildah_names() -> None:
    """As buildah 1.28 and later releases write it."""
    run_it, label = entry("/bin/sh -c apt-get update"), entry('/bin/sh -c #(nop) CMD ["sh"]', empty=True)
    assert history(entry("debian"), entry("/bin/sh -c #(nop) COPY a in /", FROM), label).base == FROM[5:]
    first = entry("/bin/sh -c #(nop) ARG A", FROM, empty=True)
    assert history(entry("debian"), first, run_it, label).base == FROM[5:]
    assert history(entry("/bin/sh", "FROM docker.io/library/alpine:3"), entry("/bin/sh", FROM)).base == FROM[5:]
    assert history(entry("/bin/sh", "FROM host:5000/a/b")).base == "host:5000/a/b"


@pytest.mark.parametrize(
    "entries",
    [
        (entry("/bin/sh", FROM), entry('CMD ["sh"]', "buildkit.dockerfile.v0", empty=True)),
        (entry("/bin/sh", FROM), entry('/bin/sh -c #(nop)  CMD ["sh"]', empty=True)),
        (entry("/bin/sh", FROM), entry("crane mutate", empty=True)),
        (entry("/bin/sh", FROM), entry("/bin/sh -c true", "by hand", empty=True)),
        (entry("/bin/sh", FROM), entry("", empty=True)),
        (entry("/bin/sh", FROM), entry("/bin/sh -c apt-get update")),  # perhaps of a build on the image's ID
        (entry("/bin/sh", FROM), entry("/bin/sh -c #(nop) ENV A=1", "FROM 6784cdf639dc", empty=True)),
        (entry("/bin/sh", FROM), {"created_by": 5, "empty_layer": True}),
        (entry("/bin/sh", "FROM localhost/debian:12"),),
        (entry("/bin/sh", "FROM localhost:5000/debian:12"),),
        (entry("/bin/sh", "FROM 6784cdf639dc"),),
        (entry("/bin/sh", "FROM debian:12"),),
        (entry("/bin/sh", "FROM user:password@host.org/a"),),
        (entry("/bin/sh", f"built by me {FROM}"),),
        (entry("/bin/sh", FROM), entry("/bin/sh", "FROM 6784cdf639dc")),
        (entry("/bin/sh"),),
    ],
)  # fmt: skip
def test_the_base_is_not_guessed(entries: tuple[Any, ...]) -> None:
    assert history(*entries).base is None


def test_docker_says_its_version() -> None:
    assert history(entry("/bin/sh", FROM), docker_version="20.10").base is None
    assert history(entry("/bin/sh", FROM), docker_version="").base == FROM[5:]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
        max_leaves=5,
    )
)
def test_entries_of_any_kind_say_nothing(value: Any) -> None:
    found = history({"created_by": value, "comment": value, "empty_layer": value}, layers=("one",))
    assert found.base is None and set(found.commands.values()) <= {value if isinstance(value, str) else ""}


def test_labels_of_e4s_where_they_are_the_images_own() -> None:
    found = list(declared.of_builder(History(last=LAST), E4S))
    assert values(found) == {
        voc.BASE_NAME: "ubuntu:20.04",
        voc.SOURCE_URL: "https://github.com/UO-OACISS/e4s",
        voc.REVISION: "f9035b887327a7102de588438d07bb61f1701ffd",
    }
    assert all(isinstance(fact, Fact) and fact.source is Source.LABEL for fact in found)
    assert values(declared.of_builder(History(last=f"/bin/sh -c #(nop)  {LAST}"), E4S)) == values(found)


@pytest.mark.parametrize("last", ["", "RUN spack install hdf5", "LABEL maintainer=me", 'CMD ["/bin/bash"]'])
def test_labels_of_e4s_that_were_inherited_say_nothing(last: str) -> None:
    assert list(declared.of_builder(History(last=last), E4S)) == []


def test_a_label_of_e4s_with_a_password_or_without_a_value_is_passed_over() -> None:
    labels = {"io.e4s.repo": "https://me:secret@github.com/x/y", "io.e4s.base-img": "", "io.e4s.repo-ref": "a\nb"}
    assert list(declared.of_builder(History(last=LAST), labels)) == []


def test_a_label_of_the_vocabulary_comes_first() -> None:
    labels = {"org.opencontainers.image.base.name": "docker.io/library/debian:11"}
    found = list(declared.of_builder(History(base=FROM[5:]), labels))
    assert values(found) == {} and notes(found) == [voc.BASE_NAME]
    same = {"org.opencontainers.image.base.name": FROM[5:]}
    assert list(declared.of_builder(History(base=FROM[5:]), same)) == []


def facts(folder: Path, command: str, *, beside: str = "COPY hello /usr/local/bin") -> Facts:
    """Of an Open MPI program without packages: ``command`` made the library's layer, ``beside`` the program's."""
    entries = [entry("ADD x /"), entry(command), entry("ENV A=1", empty=True), entry(beside)]
    make("debian-openmpi", folder, instead={"/var/lib/dpkg/status": {}}, history=entries)
    reference = parse(f"oci:{folder}:latest")
    with open_store(reference, run) as store:
        return describe(store, reference).facts


BUILD = "RUN /bin/sh -c wget https://x.org/{name} && tar xf {name} && ./configure --prefix={prefix} && make install"


def test_an_mpi_that_was_built_in_its_own_layer(tmp_path: Path) -> None:
    found = facts(tmp_path, BUILD.format(name="openmpi-4.1.4.tar.bz2", prefix="/usr"))
    fact = found[voc.MPI_VERSION]
    assert fact.value == "4.1.4" and fact.source is Source.LABEL
    assert "openmpi-4.1.4.tar, --prefix=/usr of /usr/lib/" in fact.evidence


@pytest.mark.parametrize(
    "command",
    [
        BUILD.format(name="openmpi-4.1.4.tar.bz2", prefix="/opt/openmpi"),
        BUILD.format(name="openmpi-${VERSION}.tar.bz2", prefix="/usr"),
        BUILD.format(name="mpich-4.1.4.tar.gz", prefix="/usr"),
        BUILD.format(name="my-openmpi-4.1.4.tar.gz", prefix="/usr"),
        BUILD.format(name="openmpi-4.1.4.patch", prefix="/usr"),
        BUILD.format(name="openmpi-4.1.4.tar.gz openmpi-4.1.5.tar.gz", prefix="/usr"),
        "RUN wget https://x.org/openmpi-4.1.4.tar.gz && ./install.sh",
        "RUN apt-get install -y libopenmpi-dev=4.1.4-3",
        "ENV OPENMPI_VERSION=4.1.4",
        "RUN spack install openmpi@4.1.4",
    ],
)
def test_a_release_is_not_guessed(command: str, tmp_path: Path) -> None:
    assert voc.MPI_VERSION not in facts(tmp_path, command)


def test_of_another_layer_it_says_nothing(tmp_path: Path) -> None:
    found = facts(tmp_path, "COPY y /", beside=BUILD.format(name="openmpi-4.1.4.tar.bz2", prefix="/usr"))
    assert voc.MPI_VERSION not in found and len(IMAGES["debian-openmpi"]["layers"]) == 3


def test_what_packages_say_stands(tmp_path: Path) -> None:
    command = entry(BUILD.format(name="openmpi-5.0.1.tar.bz2", prefix="/usr"))
    make("debian-openmpi", tmp_path, history=[command] * 3)
    reference = parse(f"oci:{tmp_path}:latest")
    with open_store(reference, run) as store:
        found = describe(store, reference).facts
    assert found.value(voc.MPI_VERSION) == "4.1.4" and not found.conflicts
