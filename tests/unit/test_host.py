"""The host: collecting below a root folder, the text form, interpretation, and JSON that is none of ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc3build import mpinames
from hpc3build.errors import InputError, ToolError
from hpc3build.host import sources
from hpc3build.host.collect import collect, marks
from hpc3build.host.fingerprint import Fingerprint, numbers, read
from hpc3build.host.gpu import CAPABILITIES
from hpc3build.host.interpret import interpret
from hpc3build.host.probe import Library, Probe
from hpc3build.host.script import script
from hpc3build.run import Completed, run
from hpc3build.workflows.fingerprint import nfd_features, recorded, write_nfd_features

DATA = Path(__file__).resolve().parents[1] / "data" / "hosts"
HOSTS = sorted(path.stem for path in DATA.glob("*.probe"))
ROOT = Path(__file__).resolve().parents[2]


def host(name: str) -> Fingerprint:
    return recorded(str(DATA / f"{name}.probe"))


def make_root(folder: Path, files: dict[str, bytes | str]) -> Path:
    for path, content in files.items():
        file = folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def collected(root: Path, **environ: str) -> Fingerprint:
    return interpret(collect(root, environ, machine="x86_64", user="nobody"))


# Text form


@pytest.mark.parametrize("name", HOSTS)
def test_recorded_hosts(name: str) -> None:
    text = (DATA / f"{name}.probe").read_text()
    assert Probe.parse(text, name).dump() == text
    document = interpret(Probe.parse(text, name)).to_json()
    jsonschema.validate(document, json.loads((ROOT / "hpc3build/schemas/fingerprint.json").read_text()))
    assert Fingerprint.from_json(json.loads(json.dumps(document)), name).to_json() == document
    for section, found in document.items():
        for entry in found if isinstance(found, list) else [found] if isinstance(found, dict) else []:
            told = {key for key, value in entry.items() if value is not None} - {"sources"}
            assert told <= set(entry["sources"]), (section, entry)


words = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\t\r\n\0"), min_size=1, max_size=12)
texts = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\r"), max_size=40)


@settings(max_examples=40)
@given(
    st.builds(
        Probe,
        values=st.dictionaries(words, words),
        files=st.dictionaries(words, texts),
        names=st.lists(words, unique=True).map(tuple),
        programs=st.dictionaries(words, words),
        libraries=st.dictionaries(words, st.builds(Library, words, st.lists(words).map(tuple))),
        commands=st.dictionaries(words, texts),
    )
)
def test_text_form_keeps_everything(probe: Probe) -> None:
    assert Probe.parse(probe.dump(), "x") == probe
    interpret(probe)


@settings(max_examples=50)
@given(st.text())
def test_no_text_is_a_failure_of_ours(text: str) -> None:
    for whole in (text, f"hpc3build-probe 1\n{text}\nend\n"):
        try:
            interpret(Probe.parse(whole, "x"))
        except InputError as error:
            assert error.message.startswith("x:")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ":1: no probe"),
        ("hpc3build-probe 2\nend\n", ":1: a newer probe"),
        ("hpc3build-probe 1\nname\t/dev/kfd\n", ":2: the probe was cut off"),
        ("hpc3build-probe 1\n|x\nend\n", ":2: content without"),
        ("hpc3build-probe 1\nfile\nend\n", ":2: 'file' is no record"),
        ("hpc3build-probe 1\nrm -rf\nend\n", "is no record"),
    ],
)
def test_bad_probes(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Probe.parse(text, "x")


# Interpretation, where the table of test_match.py does not look


def test_values_and_where_they_were_read() -> None:
    found = host("a100")
    assert found.driver.nvidia == "535.104.05" and found.driver.cuda == "12.2"
    assert found.driver.sources == {"nvidia": "/proc/driver/nvidia/version", "cuda": "nvidia-smi"}
    assert [gpu.architecture for gpu in found.gpus or ()] == ["sm_80"] * 4
    assert found.launcher.pmi == ("pmi2", "pmix", "pmix_v4")
    assert found.fabric.devices == ("mlx5_0",) and found.kernel.modules_complete
    cray = host("cray-mi250")
    assert (cray.mpi or ())[0].implementation == "cray-mpich" and (cray.mpi or ())[0].version == "8.1.25.17"
    assert cray.fabric.libfabric == "1.6" and cray.fabric.devices == ("cxi0", "cxi1")
    assert (
        cray.driver.rocm == "6.2.4" and [gpu.architecture for gpu in cray.gpus or ()] == ["gfx90a:sramecc+:xnack-"] * 2
    )


def test_modules_are_of_their_family_without_an_abi() -> None:
    assert [(mpi.family, mpi.version, mpi.abi) for mpi in host("mpich-module").mpi or ()] == [
        ("mpich", "4.2.2", None),
        ("openmpi", "4.1.6", None),
    ]


def test_nothing_read_is_unknown_and_not_none() -> None:
    found = interpret(Probe())
    assert (
        found.gpus is None and found.cpu.target is None and found.kernel.modules is None and found.libc.version is None
    )


def test_gpus_on_the_bus_without_a_driver() -> None:
    (gpu,) = host("workstation-no-driver").gpus or ()
    assert (gpu.vendor, gpu.driver, gpu.architecture, gpu.pci) == ("nvidia", False, None, "0000:01:00.0")


def test_jetson_has_no_gpu_on_the_bus() -> None:
    files = {"/proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0000nvidia,p3701-0000nvidia,tegra234"}
    (gpu,) = interpret(Probe(files=files, names=("/sys/bus/pci/devices",))).gpus or ()
    assert (gpu.vendor, gpu.architecture) == ("nvidia", "sm_87")


@pytest.mark.parametrize(
    ("version", "name"), [("90402", "gfx942"), ("90010", "gfx90a"), ("100300", "gfx1030"), ("110501", "gfx1151")]
)
def test_gfx_names(version: str, name: str) -> None:
    path = "/sys/class/kfd/kfd/topology/nodes/1/properties"
    (gpu,) = interpret(Probe(files={path: f"simd_count 1\ngfx_target_version {version}"})).gpus or ()
    assert gpu.architecture == name


@pytest.mark.parametrize(
    ("model", "capability"),
    [
        ("Tesla V100-SXM2-32GB", "70"),
        ("NVIDIA A100-SXM4-80GB", "80"),
        ("NVIDIA GH200 120GB", "90"),
        ("NVIDIA L40S", "89"),
        ("NVIDIA GeForce RTX 4090", "89"),
        ("NVIDIA RTX A6000", "86"),
        ("NVIDIA GB200", "100"),
        ("NVIDIA T1000", None),
    ],
)
def test_capability_by_product(model: str, capability: str | None) -> None:
    assert next((value for pattern, value in CAPABILITIES if re.search(pattern, model)), None) == capability


def test_cpu_as_archspec_says_of_this_machine() -> None:
    archspec = pytest.importorskip("archspec.cpu")
    found = interpret(collect(Path("/"), {}, machine=os.uname().machine, user="nobody"))
    assert found.cpu.target == archspec.host().name


def test_numbers() -> None:
    assert numbers("6.5.0-21-generic") == (6, 5, 0) and numbers("") == () and numbers("v1") == ()
    assert numbers("9" * 400) == ()


# Collecting

CPUINFO = "processor : 0\nvendor_id : GenuineIntel\nflags : fpu sse sse2 lm\n\nprocessor : 1\n"


def test_a_root_folder(tmp_path: Path) -> None:
    library = b"\x7fELF" + b"\0".join([b"", b"GLIBC_2.17", b"GLIBC_2.9", b"Open MPI v4.1.5, package: x", b"GLIBC_x"])
    root = make_root(
        tmp_path,
        {
            "/proc/cpuinfo": CPUINFO,
            "/proc/sys/kernel/osrelease": "5.14.0-1\n",
            "/proc/modules": "overlay 1 0 - Live 0x0\nxpmem 1 0 - Live 0x0\n",
            "/lib/modules/5.14.0-1/modules.builtin": "kernel/fs/ext4/ext4.ko\nkernel/a/foo-bar.ko.xz\n",
            "/lib/modules/6.0.0/modules.builtin": "kernel/fs/btrfs/btrfs.ko\n",
            "/etc/subuid": "somebody:1:2\n",
            "/opt/mpi/lib/libmpi.so.40.30.5": library,
            "/opt/mpi/lib/libmpi_cxx.so.40": library,
            "/opt/mpi/bin/mpirun": "",
            "/sys/bus/pci/devices/0000:00:02.0/uevent": "PCI_CLASS=30000\nPCI_ID=1002:7408\nPCI_SLOT_NAME=0:2.0\n",
            "/sys/bus/pci/devices/0000:00:03.0/uevent": "PCI_CLASS=10802\nPCI_ID=144D:A80A\n",
        },
    )
    (root / "opt/mpi/lib/libmpi.so.40").symlink_to("libmpi.so.40.30.5")
    found = collected(root, PATH="/usr/bin:/opt/mpi/bin", SECRET="s3cret")
    assert found.cpu.vendor == "GenuineIntel" and found.cpu.features == ("fpu", "lm", "sse", "sse2")
    (mpi,) = found.mpi or ()
    assert (mpi.family, mpi.implementation, mpi.version, mpi.abi, mpi.glibc) == (
        "openmpi", "openmpi", "4.1.5", "40.30.5", "2.17")  # fmt: skip
    assert found.kernel.modules == ("ext4", "foo_bar", "overlay", "xpmem") and found.kernel.subuid is False
    assert [(gpu.vendor, gpu.driver) for gpu in found.gpus or ()] == [("amd", False)]
    assert "s3cret" not in collect(root, {"SECRET": "s3cret"}, machine="x86_64", user="x").dump()


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    root = make_root(tmp_path, {"/proc/modules/inside": "", "/proc/cpuinfo": b"\xff\0\x1b[31m : \xfe\n" * 9000})
    (root / "etc").mkdir()
    os.mkfifo(root / "etc/os-release")
    (root / "proc/sys/kernel").mkdir(parents=True)
    (root / "proc/sys/kernel/osrelease").symlink_to("/nowhere/at/all")
    found = collected(root, PATH="relative:\t:/no", LD_LIBRARY_PATH="::x")
    assert found.os.id is None and found.kernel.version is None and found.kernel.modules is None
    assert Probe.parse(collect(root, {"PATH": "a\nb"}, machine="m", user="u").dump(), "x")


def test_commands_that_fail_or_hang_are_left_out(tmp_path: Path) -> None:
    root = make_root(tmp_path, {f"/bin/{name}": "" for name in ("podman", "mpirun", "nvidia-smi", "srun")})
    for file in (root / "bin").iterdir():
        file.chmod(0o755)
    asked: list[tuple[str, ...]] = []

    def runner(argv: Any, **options: Any) -> Completed:
        asked.append(tuple(argv))
        assert options["timeout"] == sources.COMMAND_SECONDS
        if argv[0] == "mpirun":
            raise ToolError("mpirun did not finish within 2 s")
        return Completed(tuple(argv), 1 if argv[0] == "nvidia-smi" else 0, "podman version 4.3.1\n", "")

    probe = collect(root, {"PATH": "/bin"}, machine="x86_64", user="x", runner=runner)
    assert set(probe.commands) == {"podman", "srun", "srun-mpi"} and len(asked) == 6
    assert next(e for e in interpret(probe).engines or () if e.name == "podman").version == "4.3.1"
    assert collect(root, {"PATH": "/bin"}, machine="x86_64", user="x").commands == {}


@given(
    st.lists(
        st.sampled_from([b"GLIBC_2.17", b"GLIBC_PRIVATE", b"FABRIC_1.6", b"Open MPI v5.0.3rc1", b"\0\n", b"MPICH "])
    )
)
def test_marks_are_those_of_grep(parts: list[bytes]) -> None:
    content = b"".join(parts)
    assert marks(content) == {text.decode().rstrip(".") for text in re.findall(sources.MARKS.encode(), content)}


# The shell's collector


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "busybox"])
def test_the_script_collects_the_same(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"not installed: {shell}")
    (tmp_path / "probe.sh").write_text(script())
    argv = [shell, *(["sh"] if shell == "busybox" else []), str(tmp_path / "probe.sh"), "--fast"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    theirs = interpret(Probe.parse(done.stdout, "probe")).to_json()
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=False).stdout.strip()
    ours = interpret(collect(Path("/"), os.environ, machine=os.uname().machine, user=user)).to_json()
    assert theirs == ours


def test_the_script_runs_commands(tmp_path: Path) -> None:
    (tmp_path / "podman").write_text("#!/bin/sh\necho podman version 9.8.7\n")
    (tmp_path / "srun").write_text("#!/bin/sh\nsleep 600\n")
    for name in ("podman", "srun"):
        (tmp_path / name).chmod(0o755)
    (tmp_path / "probe.sh").write_text(script())
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", tmp_path / "probe.sh"], capture_output=True, text=True, check=True, env=env, timeout=300
    )
    found = Probe.parse(done.stdout, "probe")
    assert found.commands["podman"] == "podman version 9.8.7" and "srun" not in found.commands


# JSON


def good() -> dict[str, Any]:
    return host("a100").to_json()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema": 2}, "schema 2"),
        ({"schema": True}, "schema is True"),
        ({"schema": None}, "schema is None"),
        ({"cpu": []}, r"x: cpu: \[\] where an object"),
        ({"cpu": {"features": "avx"}}, "features: 'avx' where a list"),
        ({"cpu": {"features": [1]}}, r"features\[0\]: 1 where a text"),
        ({"gpus": {}}, "gpus: {} where a list"),
        ({"gpus": [{"driver": "yes"}]}, "truth value"),
        ({"kernel": {"sources": {"version": 3}}}, "sources.version"),
        ({"mpi": [[]]}, r"mpi\[0\]"),
    ],
)
def test_bad_fingerprints(change: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Fingerprint.from_json({**good(), **change}, "x")


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 100_000, '{"schema": "1"}', '{"cpu": {}}', "{" * 9])
def test_foreign_json(text: str) -> None:
    with pytest.raises(InputError):
        read(text, "x")


def test_more_members_are_passed_over() -> None:
    assert (
        Fingerprint.from_json({**good(), "weather": 1, "cpu": {"target": "zen3", "cores": 64}}, "x").cpu.target
        == "zen3"
    )


# NFD


def test_nfd_features(tmp_path: Path) -> None:
    path = write_nfd_features(str(tmp_path), host("cray-mi250"))
    lines = path.read_text().splitlines()
    assert "org.supercontainers.host.cpu.target=zen3" in lines and "org.supercontainers.host.mpi.mpich=12.0.0" in lines
    assert "org.supercontainers.host.gpu.architecture=gfx90a_sramecc__xnack" in lines
    with pytest.raises(InputError, match="no such folder"):
        write_nfd_features(str(tmp_path / "no"), host("a100"))
    for name in HOSTS:
        for _, value in nfd_features(host(name)):
            assert 0 < len(value) <= 63 and value[0].isalnum() and value[-1].isalnum()


def test_this_host_with_commands() -> None:
    found = interpret(collect(Path("/"), os.environ, machine=os.uname().machine, user="nobody", runner=run))
    assert found.kernel.version == os.uname().release


def test_a_generation_without_end_is_none() -> None:
    text = (DATA / "power9.probe").read_text().replace("POWER9", "POWER" + "9" * 5000)
    found = interpret(Probe.parse(text, "x.probe"))
    assert (found.cpu.architecture, found.cpu.target) == ("ppc64le", "ppc64le")


@pytest.mark.parametrize(("said", "implementation"), mpinames.SELVES)
def test_a_library_is_whose_it_says_it_is(said: str, implementation: str) -> None:
    """All but Open MPI hold MPICH's own text, too."""
    inside = f"{said}{'5.0.3' if said.endswith(' v') else ' version 8.1.25' if said == 'CRAY MPICH' else ''}"
    content = f"\0{inside}\0{'' if implementation == 'openmpi' else 'MPICH Version:'}\0GLIBC_2.17\0".encode()
    library = Library("/usr/lib/libmpi.so.12.1.8", tuple(sorted(marks(content))))
    (found,) = interpret(Probe(libraries={"/usr/lib/libmpi.so.12": library})).mpi or ()
    assert found.implementation == implementation


@pytest.mark.parametrize(
    ("module", "family", "implementation"),
    [
        ("MVAPICH2/2.3.7-GCC-13.2.0", "mpich", "mvapich2"),
        ("mvapich2-gdr/2.3.7", "mpich", "mvapich2"),
        ("hpcx/2.18", "openmpi", "hpcx"),
        ("cray-mpich-abi/8.1.25", "mpich", "cray-mpich"),
        ("psmpi/5.9.2", "mpich", "parastation"),
        ("spectrum-mpi/10.4", None, "spectrum"),
    ],
)
def test_modules_are_called_as_packages_are(module: str, family: str | None, implementation: str) -> None:
    (found,) = interpret(Probe(values={"env.LOADEDMODULES": f"NVHPC/24.9:{module}"})).mpi or ()
    assert (found.family, found.implementation) == (family, implementation)
