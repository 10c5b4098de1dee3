"""Keys, facts and their merging, and what rule N2 allows in a pair."""

from __future__ import annotations

import re

import pytest

from hpc3build.errors import InputError
from hpc3build.facts import Conflict, Fact, Facts, Need, Note, Place, Source, gather
from hpc3build.facts import vocabulary as voc
from hpc3build.pairs import MAX_PAIR_BYTES, check_pair

L, D, R = Place.LABEL, Place.DESCRIPTOR, Place.REFERRER
DIGEST = "sha256:" + "0a" * 32

GOOD_AND_BAD: dict[str, tuple[list[str], list[str]]] = {
    "CPU_MODE": (["generic", "microarch"], ["", "Generic", "native", "generic,microarch"]),
    "CPU_VERSION": (["x86_64_v3", "zen3", "neoverse_v1", "armv8.4a"], ["", "Zen3", "x86 64", "zen2,zen3", "-zen"]),
    "GPU": (["cuda", "none", "cuda,rocm", "cuda,opencl,rocm,sycl"], ["", "CUDA", "cuda, rocm", "none,cuda", "cuda,"]),
    "GPU_ARCHITECTURE": (
        ["sm_80", "sm_90a", "sm_100f", "compute_90,sm_80", "gfx90a", "gfx90a:xnack-", "gfx906:sramecc+:xnack-"],
        ["", "80", "sm80", "sm_8.0", "sm_80 sm_90", "sm_90b", "SM_80", "gfx90a:xnack", "gfx", "none", "sm_1234"],
    ),
    "CUDA_VERSION": (["12", "12.4", "11.8.0", "12.4.1-rc1"], ["", "v12", ".4", "12 4", ">=12", "\u0661\u0662"]),
    "ROCM_VERSION": (["6", "6.2.4"], ["", "rocm", "6,2", "6.2.4\n"]),
    "GPU_DRIVER": (["525.60.13", "550"], ["", ">=525", "latest"]),
    "MPI": (["mpich", "openmpi", "none", "mpi-abi,openmpi", "mpich,openmpi"], ["", "ompi", "none,mpich", "MPICH"]),
    "MPI_IMPLEMENTATION": (
        ["mpich", "openmpi", "intel-mpi", "mvapich", "mvapich2", "cray-mpich", "parastation", "hpcx", "spectrum",
         "mpitrampoline", "threadmpi", "none", "intel-mpi,openmpi"],
        ["", "impi", "OpenMPI", "none,openmpi", "openmpi, mpich", "mvapich3"],
    ),
    "MPI_VERSION": (["4.1.5", "5.0.0rc1", "2021.14"], ["", "main", "system", "4 1"]),
    "MPI_ABI": (["12.5.0", "40.40.7", "1.0.0"], ["", "12.5.", "so.12", "12.5.0-1", "40.40.7a"]),
    "MPI_MODE": (
        ["mpi_replace", "mpi_system,libfabric_inject", "ucx_inject", "mpi_translate,mpi_system"],
        ["", "replace", "mpi_replace;mpi_system", "none"],
    ),
    "MPI_OPTIMIZATION": (["stock", "cray_xc-CNL10"], ["", "cray xc", "a,b"]),
    "FRAMEWORK": (
        ["libfabric", "libfabric,ucx", "nccl", "rccl", "verbs", "psm2", "tcp", "shm"],
        ["", "ofi", "none", "ucx libfabric", "UCX"],
    ),
    "LIBFABRIC_ABI": (["1.6", "1"], ["", "v1.6", "FABRIC_1.6"]),
    "PMI": (["1", "2", "pmix", "pmix-4.2.6", "2,pmix-5.0.1", "1,2"], ["", "pmi2", "3", "pmix-", "pmix-main", "pmix4"]),
    "LIBC_PROVIDER": (["glibc", "musl", "none"], ["", "gnu", "glibc,musl"]),
    "GLIBC": (["2.36", "2.36.1"], ["", "2", "2.36-9", "2.36.1.2", "\u0662.\u0663"]),
    "OS_VENDOR": (["debian", "rocky", "opensuse-leap"], ["", "Debian", "a b"]),
    "OS_VERSION": (["12", "22.04", "v3.20", "2023"], ["", "12 (bookworm)", "V1"]),
    "KERNEL_VERSION": (["3.2", "5.10.0-1"], ["", ">=3", "linux"]),
    "KERNEL_MODULES": (["nvidia_uvm", "nvidia_uvm,xpmem?"], ["", "xpmem??", "a b", "Nvidia", "a,"]),
    "TOOLS": (["jq,wget", "g++", "python3.11"], ["", "/bin/sh", "a b", "jq,,wget"]),
    "DOCUMENTATION": (["YQ==", "YWJj"], ["", "not base64!", "YQ==\n", "=", "# text"]),
    "VOCABULARY": (["0", "12"], ["", "v0", "0.1", "-1"]),
    "CONFORMANCE": (
        ["login", "any-uid,env-baked,exec-args,exit-code,login,nobody"],
        ["", "ok", "login nobody", "none"],
    ),
    "LOCK": ([DIGEST], ["", DIGEST[:-1], DIGEST.upper(), DIGEST + "0", "sha512:" + "0" * 128]),
    "RANK": (["0", "-3", "100"], ["", "1.5", "+1", "high", "\u0661"]),
    "SIZE": (["0", "812345678"], ["", "-1", "1.5", "1e9", "\u0661", "9" * 19]),
    "SEAL": (["sha256:" + "0f" * 32], ["", "0f" * 32, "sha256:" + "0F" * 32, "sha512:" + "0f" * 32]),
    "TITLE": (["gromacs", "Gr\u00f6\u00dfe \u2013 $x `y` \"z\""], ["", "a\nb", "a\tb", "\x7f", "a\x00"]),
    "IMAGE_VERSION": (["2021.5", "main"], ["", "1\n2"]),
    "CREATED": (
        ["2024-01-31T00:00:00Z", "2024-01-31T10:20:30.123+02:00"],
        ["", "2024-01-31", "2024-01-31 00:00:00", "yesterday", "2024-01-31T00:00:00"],
    ),
    "LICENSES": (
        ["MIT", "LGPL-2.1-or-later", "Apache-2.0 WITH LLVM-exception", "(MIT OR Apache-2.0) AND BSD-3-Clause"],
        ["", " MIT", "MIT  OR X", "MIT, BSD", "M\u00eft"],
    ),
    "REVISION": (["abc123", "v1-3-gabc"], ["", "a\rb"]),
    "SOURCE_URL": (["https://example.org/x.git", "ssh://git@host/x"], ["", "example.org", "https://a b", "HTTPS://x"]),
    "BASE_NAME": (["docker.io/library/debian:12", "debian:12"], ["", "debian 12"]),
    "BASE_DIGEST": ([DIGEST], ["", "sha256:0", DIGEST[7:]]),
}  # fmt: skip


def test_every_key_has_its_values_here() -> None:
    named = {name for name, value in vars(voc).items() if any(value is key for key in voc.KEYS)}
    assert named == set(GOOD_AND_BAD)


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, (good, _) in GOOD_AND_BAD.items() for v in good])
def test_a_value_of_the_grammar_is_accepted(name: str, value: str) -> None:
    getattr(voc, name).check(value)


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, (_, bad) in GOOD_AND_BAD.items() for v in bad])
def test_any_other_value_is_refused_and_the_grammar_told(name: str, value: str) -> None:
    key = getattr(voc, name)
    with pytest.raises(InputError) as refused:
        key.check(value)
    assert key.name in refused.value.message
    assert "\n" not in refused.value.message
    assert key.grammar in refused.value.hint


def test_key_and_value_together_are_at_most_4096_bytes() -> None:
    room = MAX_PAIR_BYTES - len(voc.TITLE.name)
    voc.TITLE.check("x" * room)
    voc.TITLE.check("\u00e9" * (room // 2))
    for value in ("x" * (room + 1), "\u00e9" * (room // 2 + 1)):
        with pytest.raises(InputError, match="4096"):
            voc.TITLE.check(value)


def test_documentation_holds_3045_bytes_of_markdown() -> None:
    import base64

    voc.DOCUMENTATION.check(base64.b64encode(b"x" * 3045).decode())
    with pytest.raises(InputError, match="4096"):
        voc.DOCUMENTATION.check(base64.b64encode(b"x" * 3046).decode())


@pytest.mark.parametrize("key", ["a", "org.example.x", "Maintainer", "org.x/y", "a-b_c.d", "io.k8s.display-name"])
def test_keys_of_others_are_allowed(key: str) -> None:
    check_pair(key, "value")
    check_pair(key, "")


@pytest.mark.parametrize("key", ["", ".a", "a.", "a b", "a\nb", "a=b", 'a"b', "a$b", "-a", "\u00e9", "a\x00", "a\n"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(InputError) as refused:
        check_pair(key, "value")
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("value", ["a\nb", "a\r", "\t", "\x00", "\x1b[31m", "\x7f", "\udcff", "a\ud800b"])
def test_what_is_no_line_of_utf8_is_refused_in_any_pair(value: str) -> None:
    with pytest.raises(InputError) as refused:
        check_pair("org.example.x", value)
    refused.value.message.encode()
    assert "\n" not in refused.value.message


def fact(key: str, value: str, source: Source, evidence: str = "here") -> Fact:
    return Fact(getattr(voc, key), value, source, evidence)


def test_the_better_source_wins_and_keeps_its_evidence() -> None:
    assert Source.USER > Source.STACK > Source.FILES > Source.LABEL
    order = [Source.LABEL, Source.FILES, Source.STACK, Source.USER]
    found = gather([fact("GLIBC", "2.36", source, source.name) for source in order])
    assert found[voc.GLIBC].source is Source.USER
    assert found[voc.GLIBC].evidence == "USER; LABEL; FILES; STACK"


def test_equal_values_add_up_their_evidence_once() -> None:
    found = gather([fact("GLIBC", "2.36", Source.FILES, text) for text in ("a", "b", "a")])
    assert found[voc.GLIBC].evidence == "a; b"


def test_the_first_of_equal_sources_that_agree_wins_with_its_own_evidence_alone() -> None:
    several = [fact("CUDA_VERSION", "12.4", Source.STACK, "a"), fact("CUDA_VERSION", "12.4.1", Source.STACK, "b")]
    found = gather(several, lambda _key, one, other: other.startswith(one) or one.startswith(other))
    assert (found.value(voc.CUDA_VERSION), found[voc.CUDA_VERSION].evidence) == ("12.4", "a")
    assert not found.conflicts


def test_facts_that_do_not_agree_are_a_conflict_without_a_value() -> None:
    found = gather([fact("GLIBC", "2.31", Source.LABEL, "label"), fact("GLIBC", "2.36", Source.FILES, "libc.so.6")])
    assert voc.GLIBC not in found
    assert found.value(voc.GLIBC) is None
    (conflict,) = found.conflicts
    assert conflict.key is voc.GLIBC
    assert [fact.value for fact in conflict.values] == ["2.36", "2.31"]
    assert re.search(r"2\.36 \(libc\.so\.6\).*2\.31 \(label\)", conflict.message)


def test_a_stated_conflict_hides_facts_of_its_key() -> None:
    stated = Conflict(voc.MPI, (), "two")
    found = gather([fact("MPI", "mpich", Source.STACK), stated, Conflict(voc.MPI, (), "again")])
    assert len(found) == 0
    assert found.conflicts == (stated,)


@pytest.mark.parametrize("first", [True, False])
def test_the_user_decides_a_conflict(first: bool) -> None:
    decided = fact("MPI", "mpich", Source.USER)
    others = [Conflict(voc.MPI, (), "two"), fact("MPI", "openmpi", Source.STACK)]
    found = gather([decided, *others] if first else [*others, decided])
    assert found.annotations() == {voc.MPI.name: "mpich"}
    assert not found.conflicts


def test_a_conflict_of_one_key_leaves_the_others() -> None:
    found = gather([Conflict(voc.MPI, (), "two"), fact("GPU", "none", Source.STACK)])
    assert found.annotations() == {voc.GPU.name: "none"}


def test_notes_are_kept_and_decide_nothing() -> None:
    note = Note(voc.MPI, "seen", "there")
    found = gather([note])
    assert (found.notes, len(found), found.conflicts) == ((note,), 0, ())


def test_a_value_outside_its_grammar_never_becomes_a_fact() -> None:
    with pytest.raises(InputError, match=re.escape(voc.GPU.name)):
        gather([fact("GPU", "nvidia", Source.USER)])


def test_a_value_of_the_user_is_refused_with_where_it_came_from() -> None:
    with pytest.raises(InputError, match=r"hpc3build\.yaml or an option: .*mpi\.portability\.mode") as refused:
        gather([fact("MPI_MODE", "nonsense", Source.USER, "hpc3build.yaml or an option")])
    assert "best first" in refused.value.hint


@pytest.mark.parametrize("source", [Source.LABEL, Source.FILES, Source.STACK])
def test_a_value_of_others_that_breaks_its_grammar_leaves_the_key_unknown(source: Source) -> None:
    long = "9" * 5000
    found = gather(
        [
            fact("OS_VERSION", long, source, f"/etc/os-release: VERSION_ID={long}"),
            fact("GPU_ARCHITECTURE", "weird", source, "a.eb: cuda_compute_capabilities"),
            fact("OS_VENDOR", "debian", source, "/etc/os-release: ID=debian"),
        ]
    )
    assert found.annotations() == {voc.OS_VENDOR.name: "debian"} and not found.conflicts
    assert [note.key for note in found.notes] == [voc.OS_VERSION, voc.GPU_ARCHITECTURE]
    version, architecture = found.notes
    assert version.evidence.startswith("/etc/os-release: VERSION_ID=999") and len(version.message) < 1000
    assert len(version.evidence) < 500 and "4096" in version.message
    assert "'weird' is not a value of this key" in architecture.message and architecture.evidence.startswith("a.eb")


def test_a_better_source_that_breaks_its_grammar_leaves_the_word_to_the_next() -> None:
    found = gather([fact("GLIBC", "2.36", Source.FILES), fact("GLIBC", "two", Source.STACK)])
    assert found.value(voc.GLIBC) == "2.36" and len(found.notes) == 1


def test_facts_are_a_mapping_and_their_annotations_are_sorted() -> None:
    found = gather(
        [fact("TITLE", "x", Source.USER), fact("GPU", "none", Source.USER), fact("MPI", "none", Source.USER)]
    )
    assert list(found) == [voc.TITLE, voc.GPU, voc.MPI]
    assert list(found.annotations()) == sorted(found.annotations())
    assert found == Facts(found.facts)
    with pytest.raises(TypeError):
        found.facts[voc.GPU] = found[voc.MPI]  # type: ignore[index]


def test_need_and_place_are_written_as_the_vocabulary_writes_them() -> None:
    assert [need.value for need in (Need.MANDATORY, Need.OPTIONAL, Need.CONDITIONAL)] == ["M", "O", "C"]
    assert D in (L | D)
    assert R not in (L | D)
