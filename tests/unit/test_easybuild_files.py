"""Which files EasyBuild takes for an easyconfig, told by the real one; and what it makes of them itself."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_easybuild_closure import closure, pytestmark, refused, write

__all__ = ["pytestmark"]
S = {letter: letter * 64 for letter in "abcdefgh"}


def files(*arguments: str | Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = closure(*arguments, "--files")["modules"][-1]["files"]
    return found


def test_sources_patches_and_extensions(tmp_path: Path) -> None:
    (tmp_path / "mend.patch").write_text("")
    text = f"""
sources = [
    SOURCE_TAR_GZ,
    'https://example.org/x/%(name)s.zip',
    {{'filename': 'data.tgz', 'alt_location': 'Other', 'extract_cmd': 'tar -C %(installdir)s -xzf %s'}},
]
patches = ['mend.patch', ('gone.patch', 1)]
postinstallpatches = [{{'name': 'late.txt', 'copy': 'x', 'alt_location': 'Other'}}]
checksums = [
    '{S["a"]}',
    ('{S["b"]}', '{S["c"]}'),
    {{'data.tgz': ('sha1', 'x')}},
    ('size', 5),
    None,
    ['{S["d"]}'],
]
exts_defaultclass = 'PythonPackage'
exts_default_options = {{'source_urls': ['https://example.org']}}
exts_list = [
    'built in',
    ('one', '1'),
    ('two', '2', {{
        'source_tmpl': 'TWO-%(version)s.zip', 'patches': ['two.patch'], 'checksums': ['{S["e"]}', '{S["f"]}'],
    }}),
    ('three', '3', {{'sources': [{{'filename': '3.tgz'}}], 'checksums': [{{'3.tgz': '{S["g"]}'}}]}}),
    ('four', '4', {{'nosource': True, 'patches': ['four.patch'], 'checksums': ['{S["e"]}', '{S["h"]}']}}),
]
"""
    found = files("--easyconfig", write(tmp_path, "mine", text))
    told = [(file["name"], file["software"], file["extension"], file["checksum"]) for file in found]
    assert told == [
        ("mine-1.0.tar.gz", "mine", False, {"sha256": S["a"]}),
        ("https://example.org/x/mine.zip", "mine", False, {"any": [{"sha256": S["b"]}, {"sha256": S["c"]}]}),
        ("data.tgz", "Other", False, {"sha1": "x"}),
        ("mend.patch", "mine", False, {"size": 5}),
        ("gone.patch", "mine", False, None),
        ("late.txt", "Other", False, {"all": [{"sha256": S["d"]}]}),
        ("one-1.tar.gz", "mine", True, None),
        ("TWO-2.zip", "mine", True, {"sha256": S["e"]}),
        ("two.patch", "mine", True, {"sha256": S["f"]}),
        ("3.tgz", "mine", True, {"sha256": S["g"]}),
        ("four.patch", "mine", True, {"sha256": S["h"]}),
    ]
    assert {file["name"]: file["path"] for file in found if file["path"]} == {"mend.patch": f"{tmp_path}/mend.patch"}


def test_components_of_a_bundle(tmp_path: Path) -> None:
    text = f"""
default_easyblock = 'ConfigureMake'
components = [
    ('one', '1', {{'sources': [SOURCE_TGZ], 'patches': ['1.patch'], 'checksums': ['{S["a"]}', '{S["b"]}']}}),
    ('two', '2', {{'sources': [SOURCE_TGZ], 'checksums': ['{S["c"]}']}}),
]
"""
    path = write(tmp_path, "mine", text)
    path.write_text(path.read_text().replace("easyblock = 'ConfigureMake'", "easyblock = 'Bundle'", 1))
    found = files("--easyconfig", path)
    assert [(file["name"], file["checksum"]) for file in found] == [
        ("one-1.tgz", {"sha256": S["a"]}),
        ("two-2.tgz", {"sha256": S["c"]}),
        ("1.patch", {"sha256": S["b"]}),
    ]


def test_a_list_of_checksums_beside_the_easyconfig(tmp_path: Path) -> None:
    (tmp_path / "checksums.json").write_text(json.dumps({"mine-1.0.tar.gz": S["a"]}))
    (file,) = files("--easyconfig", write(tmp_path, "mine", "sources = [SOURCE_TAR_GZ]\n"))
    assert file["checksum"] == {"sha256": S["a"]}


def test_the_robot_path_is_searched_by_easybuild(tmp_path: Path) -> None:
    robot = tmp_path / "robot"
    (robot / "m" / "mine").mkdir(parents=True)
    (robot / "m" / "mine" / "mine-1.0.tar.gz").write_text("")
    (file,) = files("--easyconfig", write(tmp_path, "mine", "sources = [SOURCE_TAR_GZ]\n"), f"--robot-paths={robot}:")
    assert file["path"] == f"{robot}/m/mine/mine-1.0.tar.gz"


def test_what_easybuild_refuses(tmp_path: Path) -> None:
    path = write(tmp_path, "mine", "sources = [{'filename': 'x', 'what': 'y'}]\n")
    report = refused("--easyconfig", path, "--files")
    assert report["file"] == str(path) and "unexpected keys in 'sources'" in report["error"]
    assert "files" not in closure("--easyconfig", path)["modules"][-1], "only where somebody asks"


@pytest.mark.parametrize("wrong", [False, True])
def test_eb_finds_and_checks_the_same(tmp_path: Path, wrong: bool) -> None:
    """eb mine-1.0.eb --fetch --sourcepath=FETCHED:ONE:TWO"""
    places = ("one/m/mine/mine-1.0.tar.gz", "two/mine/b.zip", "two/mend.patch", "one/mine/extensions/ext-1.tar.gz")
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(place)
    sums = [hashlib.sha256(place.encode()).hexdigest() for place in places]
    sums[3] = S["a"] if wrong else sums[3]
    path = write(
        tmp_path,
        "mine",
        f"sources = [SOURCE_TAR_GZ, 'b.zip']\npatches = ['mend.patch']\nchecksums = {sums[:3]}\n"
        f"exts_defaultclass = 'PythonPackage'\nexts_list = [('ext', '1', {{'checksums': ['{sums[3]}']}})]\n",
    )
    where = f"--sourcepath={tmp_path}/fetched:{tmp_path}/one:{tmp_path}/two"
    argv = [f"{sys.prefix}/bin/eb", str(path), "--fetch", where, f"--prefix={tmp_path}", f"--tmpdir={tmp_path}"]
    argv += ["--allow-use-as-root-and-accept-consequences"] if os.geteuid() == 0 else []
    done = subprocess.run(
        argv,
        env={"HOME": "/nonexistent", "PATH": f"{sys.prefix}/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    script = (
        "import json, sys; from pathlib import Path; "
        "from hpc3build.frontends.easybuild_sourcepath import find, listed; "
        "found = find(json.loads(sys.argv[1]), (), tuple(map(Path, sys.argv[2:]))); "
        "print([str(file.path) for file in found.given]); listed(found.given)"
    )
    modules = json.dumps(closure("--easyconfig", path, "--files")["modules"])
    folders = (str(tmp_path / "one"), str(tmp_path / "two"))
    ours = subprocess.run(
        [sys.executable, "-c", script, modules, *folders], capture_output=True, text=True, check=False
    )
    assert all(f"{tmp_path}/{place}" in ours.stdout for place in places)
    assert all(f">> {tmp_path}/{place} [SHA256" in done.stdout for place in places[:3]), done.stdout
    assert (done.returncode != 0) == (ours.returncode != 0) == wrong, done.stdout + done.stderr + ours.stderr
    if wrong:
        assert "Checksum verification for extension source ext-1.tar.gz failed" in done.stdout + done.stderr
        assert "ext-1.tar.gz: its sha256 is" in ours.stderr
