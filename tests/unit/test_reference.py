from __future__ import annotations

import difflib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc3build.errors import BadReference
from hpc3build.reference import OTHER_TRANSPORTS, Reference, of_base, parse

D = "sha256:" + "ab" * 32
ID = "cd" * 32


@pytest.mark.parametrize(
    ("text", "expected", "full"),
    [
        ("debian", Reference("docker", "library/debian", "docker.io", "latest"), "docker://docker.io/library/debian:latest"),
        ("debian:12", Reference("docker", "library/debian", "docker.io", "12"), "docker://docker.io/library/debian:12"),
        ("docker:24-dind", Reference("docker", "library/docker", "docker.io", "24-dind"), None),
        ("index.docker.io/debian", Reference("docker", "library/debian", "docker.io", "latest"), None),
        ("spack/ubuntu", Reference("docker", "spack/ubuntu", "docker.io", "latest"), None),
        ("docker://quay.io/a/b/c:1.0", Reference("docker", "a/b/c", "quay.io", "1.0"), "docker://quay.io/a/b/c:1.0"),
        (f"quay.io/a/b@{D}", Reference("docker", "a/b", "quay.io", None, D), f"docker://quay.io/a/b@{D}"),
        (f"quay.io/a/b:1@{D}", Reference("docker", "a/b", "quay.io", "1", D), f"docker://quay.io/a/b:1@{D}"),
        ("localhost/x", Reference("docker", "x", "localhost", "latest"), None),
        ("localhost:5000/x:y", Reference("docker", "x", "localhost:5000", "y"), "docker://localhost:5000/x:y"),
        ("docker://[::1]:5000/x", Reference("docker", "x", "[::1]:5000", "latest"), "docker://[::1]:5000/x:latest"),
        ("REG/x", Reference("docker", "x", "REG", "latest"), None),
        ("oci:dir", Reference("oci", "dir"), "oci:dir"),
        ("oci:/a b/d\u00fcr:t", Reference("oci", "/a b/d\u00fcr", tag="t"), None),
        ("oci:dir:quay.io/x/y:1", Reference("oci", "dir", tag="quay.io/x/y:1"), "oci:dir:quay.io/x/y:1"),
        (f"oci:dir@{D}", Reference("oci", "dir", digest=D), f"oci:dir@{D}"),
        (f"oci:dir:t@{D}", Reference("oci", "dir", tag="t", digest=D), None),
        ("oci:me@home", Reference("oci", "me@home"), None),
        ("oci-archive:a.tar:1", Reference("oci-archive", "a.tar", tag="1"), "oci-archive:a.tar:1"),
        ("containers-storage:a", Reference("containers-storage", "a", tag="latest"), "containers-storage:a:latest"),
        ("containers-storage:localhost/app:1", Reference("containers-storage", "app", "localhost", "1"), None),
        (f"containers-storage:{ID}", Reference("containers-storage", "", image_id=ID), f"containers-storage:@{ID}"),
        (
            "containers-storage:[vfs@/r+/run]localhost/app",
            Reference("containers-storage", "app", "localhost", "latest", storage="vfs@/r+/run"),
            "containers-storage:[vfs@/r+/run]localhost/app:latest",
        ),
        ("docker-daemon:x:1", Reference("docker-daemon", "library/x", "docker.io", "1"), None),
        (f"docker-daemon:sha256:{ID}", Reference("docker-daemon", "", image_id=ID), f"docker-daemon:sha256:{ID}"),
    ],
)  # fmt: skip
def test_forms(text: str, expected: Reference, full: str | None) -> None:
    reference = parse(text)
    assert reference == expected
    assert parse(str(reference)) == reference
    if full is not None:
        assert str(reference) == full


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("debian", "docker.io", None),
        ("quay.io/x", "quay.io", None),
        ("quay.io:5000/x", "quay.io", 5000),
        ("[::1]/x", "::1", None),
        ("[::1]:5000/x", "::1", 5000),
        ("oci:dir", "", None),
    ],
)
def test_host_and_port(text: str, host: str, port: int | None) -> None:
    reference = parse(text)
    assert (reference.host, reference.port) == (host, port)


def test_a_host_of_the_longest_labels() -> None:
    host = f"{'a' * 63}.{'b' * 61}-c"
    assert parse(f"docker://{host}:5000/x").registry == f"{host}:5000"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("a" * 10_000, "long"),
        ("quay.io/" + "a" * 300, "longer than 255"),
        ("a." * 120 + "/" + "b" * 100, "longer than 255"),
        ("debian\n", "control"),
        ("oci:dir\0", "control"),
        ("oci:d\udcffir", "control"),
        ("debian ", "blank"),
        ("--help", "option"),
        ("oci:-rf", "option"),
        ("Debian", "lower-case"),
        ("quay.io/A/b", "lower-case"),
        ("./dir", "path"),
        ("../dir", "path"),
        ("/abs/dir", "path"),
        ("a//b", "empty"),
        ("quay.io/", "empty"),
        ("quay.io/../x", "'..' is not a name"),
        ("debian:", "tag"),
        ("debian:-1", "tag"),
        ("debian:" + "t" * 129, "tag"),
        ("debian@sha256:abc", "digest"),
        ("debian@latest", "digest"),
        ("oci:dir@sha256:abc", "digest"),
        ("oci:", "path"),
        ("oci::tag", "path"),
        ("oci:dir:", "tag"),
        ("oci:dir:../../x\u00e9", "tag"),
        ("dir:x", "dir:"),
        ("docker-archive:x.tar", "docker-archive:"),
        ("https://quay.io/x", "https:"),
        ("docker://", "empty"),
        ("docker:///x", "empty"),
        ("quay.io:port/x", "HOST"),
        ("-quay.io/x", "option"),
        ("docker://" + "a" * 64 + ".example/x", "HOST"),
        ("containers-storage:[vfs@/r", "no end"),
        ("containers-storage:", "empty"),
        ("a__b___c", "name"),
        ("a..b", "name"),
    ],
)
def test_refused(text: str, says: str) -> None:
    with pytest.raises(BadReference) as caught:
        parse(text)
    assert says in caught.value.message
    assert "docker://HOST[:PORT]/NAME" in caught.value.hint and "oci:DIR" in caught.value.hint
    assert len(caught.value.message) < 600 and caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("dockr://quay.io/a/b:1", "docker://quay.io/a/b:1"),
        ("docker:quay.io/a/b:1", "docker://quay.io/a/b:1"),
        ("docker:/quay.io/a/b:1", "docker://quay.io/a/b:1"),
        ("https://quay.io/a/b:1", "docker://quay.io/a/b:1"),
        ("oras://quay.io/a/b:1", "docker://quay.io/a/b:1"),
        ("oci-arhive:x.tar", "oci-archive:x.tar"),
        ("container-storage:localhost/x", "containers-storage:localhost/x"),
        ("dcoker-daemon:x:1", "docker-daemon:x:1"),
        ("oic:x", "oci:x"),
        ("oic:./x:1", "oci:./x:1"),
        ("ocii:out/x:1.0", "oci:out/x:1.0"),
        ("ocii:x", "oci:x"),
        ("oc:x", "oci:x"),
    ],
)
def test_a_misspelt_transport(text: str, meant: str) -> None:
    with pytest.raises(BadReference) as caught:
        parse(text)
    assert caught.value.hint.startswith(f"did you mean {meant}?") and parse(meant)


@pytest.mark.parametrize(
    "text", ["debian:", "docker://", "oci:", "Debian:1", "docker-demon:" + "a" * 5000, "docker:a/B"]
)
def test_nothing_is_meant_that_is_no_reference(text: str) -> None:
    with pytest.raises(BadReference) as caught:
        parse(text)
    assert "did you mean" not in caught.value.hint


@pytest.mark.parametrize("text", ["docker-dind:1", "docker-daemon/x:1", "quay.io/oci-archives/x:1", "dockr:1"])
def test_names_like_a_transport(text: str) -> None:
    assert parse(text).transport == "docker"


@pytest.mark.parametrize(
    "text",
    [
        *("lock.json", "spack.lock", "out/image.tar", "team/stack.closure", "records.jsonl"),
        *("readme.md", "a/notes.txt", "index.rst", "pyproject.toml", "build.log", "slurm-1.out"),
        *("job.sh", "setup.py", "app.spec", "app.def", "app.sqsh", "app.simg", "disk.img"),
    ],
)
def test_a_file_that_is_not_there(text: str) -> None:
    with pytest.raises(BadReference) as caught:
        parse(text)
    assert f"{text!r} is not an image reference: it looks like a file" in caught.value.message
    assert f"docker://{text} is an image" in caught.value.hint and parse(f"docker://{text}").registry == "docker.io"


@pytest.mark.parametrize(
    "text", ["README.md", "docs/README.md", "CMakeLists.txt", "My notes.TXT", "Spack.lock", "a__b___.md"]
)
def test_a_file_whose_name_is_no_image_s(text: str) -> None:
    with pytest.raises(BadReference) as caught:
        parse(text)
    assert caught.value.message == f"{text!r} is not an image reference: it looks like a file"
    assert caught.value.hint.startswith("is it there?; accepted are docker://HOST")


@pytest.mark.parametrize(
    "text", ["quay.io/A/README.md", "docker://README.md", "docker.io/README.md", "README.md@sha256:1"]
)
def test_what_only_an_image_is_called(text: str) -> None:
    with pytest.raises(BadReference) as caught:
        parse(text)
    assert "file" not in caught.value.message


@pytest.mark.parametrize(
    "text",
    ["node.js", "lock.json:1", "docker.io/a/lock.json", "quay.io/a/lock.json", f"a/lock.json@{D}", "json", "x.ebb"],
)
def test_names_like_a_file(text: str) -> None:
    assert parse(text).transport == "docker"


@given(st.sampled_from(["docker", "dockr", "oci", "oc", "https", "oci-archve", "docker-damon"]), st.text(max_size=12))
def test_what_may_be_meant_is_a_reference(transport: str, rest: str) -> None:
    try:
        parse(f"{transport}:{rest}")
    except BadReference as error:
        if error.hint.startswith("did you mean "):
            assert parse(
                error.hint.removeprefix("did you mean ").partition("? docker://")[0].partition("?; accepted")[0]
            )


def test_neighbours() -> None:
    reference = parse("quay.io/a/b:1")
    assert str(reference.at(D)) == f"docker://quay.io/a/b@{D}"
    assert str(reference.at(D).with_tag("2")) == "docker://quay.io/a/b:2"
    with pytest.raises(BadReference):
        reference.at("../../etc")
    with pytest.raises(BadReference):
        reference.with_tag("a/b")


def misspells_oci(word: str) -> bool:
    return sorted(word) == ["c", "i", "o"] or bool(difflib.get_close_matches(word, ["oci"], cutoff=0.8))


# A dot in the first part would make it a registry, and `oci:1` is a path.
PART = r"[a-z0-9]{1,8}([._-][a-z0-9]{1,4}){0,2}"
NAME = st.from_regex(rf"[a-z0-9]{{1,8}}([_-][a-z0-9]{{1,4}}){{0,2}}(/{PART}){{0,2}}", fullmatch=True)
NAME = NAME.filter(lambda name: name not in {"oci", *OTHER_TRANSPORTS} and not misspells_oci(name))
NAME = NAME.filter(
    lambda name: not name.endswith((".lock", ".json", ".yaml", ".yml", ".eb", ".tar", ".tgz", ".gz", ".sif"))
)
TAGS = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
HOST = st.sampled_from(["", "docker.io/", "quay.io/", "localhost/", "localhost:5000/", "[::1]:5000/"])
PREFIX = st.sampled_from(["", "docker://", "containers-storage:", "docker-daemon:", "oci:", "oci-archive:"])


@settings(deadline=None)
@given(PREFIX, HOST, NAME, TAGS, st.booleans())
def test_round_trip(prefix: str, host: str, name: str, tag: str | None, digest: bool) -> None:
    if prefix == "containers-storage:" and host.startswith("["):
        host = ""  # skopeo reads a [driver@root] there
    text = f"{prefix}{'' if prefix.startswith('oci') else host}{name}"
    text += (f":{tag}" if tag else "") + (f"@{D}" if digest else "")
    reference = parse(text)
    assert parse(str(reference)) == reference
    assert reference.digest == (D if digest else None)
    implied = "latest" if not digest and not reference.is_path else None
    assert reference.image_id or reference.tag == (tag or implied)


@settings(deadline=None)
@given(st.text(max_size=80) | st.from_regex(r"[a-zA-Z0-9:/@.\[\]_ -]{0,60}", fullmatch=True), PREFIX)
def test_any_text_is_a_reference_or_refused(text: str, prefix: str) -> None:
    try:
        reference = parse(prefix + text)
    except BadReference:
        return
    assert parse(str(reference)) == reference
    assert reference.name.isprintable() or "\xa0" in reference.name or reference.is_path
    assert not reference.name.startswith("-")


def test_names_of_base_images() -> None:
    assert of_base("ubi8").name == "library/ubi8"
    assert of_base(f"example.org:5000/x/y:1@{D}").registry == "example.org:5000"


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("oci:out/x:1", "; podman pull oci:out/x:1 brings it, and podman tag gives it such a name"),
        ("docker-daemon:x:1", "; podman pull docker-daemon:x:1 brings it, and podman tag gives it such a name"),
        ("docker://debian:12", "; write it without docker://"),
        ("debian:12 AS x", ""),
        ("", ""),
    ],
)
def test_what_from_does_not_take(text: str, advice: str) -> None:
    with pytest.raises(BadReference) as caught:
        of_base(text)
    assert caught.value.message == f"{text!r} is not the name of a base image"
    assert caught.value.hint == f"FROM takes [HOST[:PORT]/]NAME[:TAG][@DIGEST]{advice}"
