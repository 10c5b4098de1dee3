"""Downloaded sources and options of single easyconfigs: a real build, beside what a real `eb --easystack` installs.

A folder of easyconfigs as EasyBuild ships them (by letter and name, with checksums), two folders of sources; nothing
can be fetched. The same three entries go to `eb` on this machine and to hpc3build.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.integration.conftest import loaded
from tests.integration.support import ROOT, Built, hpc3build, missing, sh
from tests.real_eb import easyconfig, eb, needed

GREET = ROOT / "tests" / "data" / "easybuild" / "greet"
P = "org.supercontainers."
EASYSTACK = """\
easyconfigs:
  - greet-1.0-GCC-system.eb:
      options:
        optarch: 'GCC:-march=x86-64-v3'
        max-parallel: 2
  - plain-1.0-GCC-system
  - libgreet-1.0-GCC-system.eb:
      options:
        optarch: GENERIC
"""
#: The first entry brings its dependencies with its own options; what is there already stays as it is.
FLAGS = {
    "hpcdata/1.0": None,
    "libgreet/1.0-GCC-system": "-march=x86-64-v3",
    "greet/1.0-GCC-system": "-march=x86-64-v3",
    "plain/1.0-GCC-system": "-march=x86-64 -mtune=generic",
}
#: All that EasyBuild takes of this module, for a Python without PyYAML.
YAML = """\
from ruamel.yaml import YAML as _YAML
from ruamel.yaml.error import YAMLError


def safe_load(text):
    return _YAML(typ="safe").load(text)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``easyconfigs``, the folders ``one`` and ``two`` of sources, and ``easystack.yaml``."""
    folder = tmp_path_factory.mktemp("easystack")
    one, two = folder / "one", folder / "two"
    wanted = {"greet": one / "g" / "greet", "libgreet": two / "libgreet", "hpcdata": two}
    for name, where in wanted.items():
        where.mkdir(parents=True, exist_ok=True)
        source = GREET / "src" / f"{name}-1.0"
        with tarfile.open(where / f"{name}-1.0.tar.gz", "w:gz") as archive:
            archive.add(source, source.name)
    (one / "plain.c").write_text("int main(void) { return 0; }\n")
    for other in ("one/g/greet/greet-2.0.tar.gz", "two/secret.tar.gz"):
        (folder / other).write_text("for others")
    for file in (*GREET.glob("*.eb"), *GREET.glob("*.patch")):
        name = file.name.partition("-")[0]
        target = folder / "easyconfigs" / name[0] / name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        if file.suffix == ".eb":
            digest = hashlib.sha256((wanted[name] / f"{name}-1.0.tar.gz").read_bytes()).hexdigest()
            target.write_text(f"{file.read_text()}checksums = [{{'{name}-1.0.tar.gz': '{digest}'}}]\n")
    (folder / "easyconfigs" / "p" / "plain").mkdir(parents=True)
    (folder / "easyconfigs" / "p" / "plain" / "plain-1.0-GCC-system.eb").write_text(easyconfig("plain"))
    (folder / "easystack.yaml").write_text(EASYSTACK)
    return folder


def options(place: Path) -> list[str]:
    return ["--robot-paths", f"{place}/easyconfigs:", "--sourcepath", f"{place}/one:{place}/two"]


def flags(records: Mapping[str, str]) -> dict[str, str | None]:
    """The target's flags by module, from the records that EasyBuild leaves."""
    found = {
        name: re.search(r"^export CFLAGS='.*?(-march=.*?) -fno-math-errno", text, re.M)
        for name, text in records.items()
    }
    return {name: match.group(1) if match else None for name, match in found.items() if name in FLAGS}


@pytest.mark.easybuild
def test_real_eb(place: Path, tmp_path: Path) -> None:
    """eb --easystack easystack.yaml --robot --robot-paths=… --sourcepath=… --optarch=GENERIC"""
    needed()
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "yaml.py").write_text(YAML)
    robot, paths, sourcepath, sources = options(place)
    argv = [robot, paths, sourcepath, f"{tmp_path}/fetched:{sources}", "--optarch=GENERIC"]
    eb(tmp_path, "--easystack", place / "easystack.yaml", *argv, PYTHONPATH=f"{tmp_path}/python")
    software = tmp_path / "software"
    records = {"/".join(path.parts[-5:-3]): path.read_text() for path in software.glob("*/*/easybuild/reprod/*.env")}
    assert flags(records) == FLAGS


@pytest.fixture(scope="module")
def image(place: Path, base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    layout = tmp_path_factory.mktemp("built") / "easystack"
    argv = ["build", str(place / "easystack.yaml"), "-t", f"oci:{layout}:1.0", "--engine", "buildah", "--base", base]
    done = hpc3build(*argv, *options(place), "--title", "greetings")
    with loaded(layout, "1.0") as name:
        yield Built(layout, "1.0", name, base, done.stdout, done.stderr)


@pytest.mark.engine
@pytest.mark.long
@pytest.mark.skipif(bool(missing("objdump")), reason=missing("objdump"))
def test_a_real_build(image: Built) -> None:
    members: dict[str, bytes] = {}
    for layer in image.layers():
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() else None
                members[member.name] = stream.read() if stream else b""
    software = re.compile(r"opt/easybuild/software/([^/]+/[^/]+)/easybuild/reprod/[^/]+\.env")
    found = {match.group(1): data.decode() for name, data in members.items() if (match := software.fullmatch(name))}
    assert flags(found) == {name: its for name, its in FLAGS.items() if name != "hpcdata/1.0"}
    assert not [name for name in members if name.endswith((".tar.gz", ".patch")) or "run/sources" in name]
    assert image.annotations[P + "hardware.cpu.optimized.version"] == "x86_64_v3"
    assert "all sources are there" in image.stderr
    (path,) = [entry.split(":") for entry in image.config["config"]["Env"] if entry.startswith("PATH=")]
    assert any("/greet/" in entry for entry in path) and not any("/libgreet/" in entry for entry in path)
    if {"avx2", "fma"} <= set(Path("/proc/cpuinfo").read_text().split()):
        assert image.podman("greet").stdout == "Hello from a chain: 4224\n"


@pytest.mark.easybuild
def test_what_travels(place: Path, tmp_path: Path) -> None:
    hpc3build("render", place / "easystack.yaml", *options(place), "--context", tmp_path / "context")
    sources = tmp_path / "context" / "sources"
    assert sorted(str(path.relative_to(sources)) for path in sources.rglob("*") if path.is_file()) == [
        "application/g/greet/greet-1.0.tar.gz",
        "application/l/libgreet/libgreet-1.0.tar.gz",
        "application/p/plain/plain.c",
        "dependencies/h/hpcdata/hpcdata-1.0.tar.gz",
    ]
    ours = tmp_path / "context" / "hpc3build" / "easybuild"
    for part in ("application", "dependencies"):
        sh("sha256sum", "--check", "--strict", ours / part / "sources.txt", cwd=sources / part)
    text = (tmp_path / "context" / "Containerfile").read_text()
    assert text.count("--mount=type=bind,source=sources/") == 2 and "COPY sources" not in text
