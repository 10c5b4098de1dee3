"""The scripts that run inside build stages, run here as they run there: paths of theirs are put below tmp_path."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from hpc3build import bases
from hpc3build.conformance.files import ASKS_FOR_A_NAME
from hpc3build.environment import ENVIRONMENT, baked_environment
from hpc3build.evidence.layers import ImageFile, ImageFiles
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import Manifest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "containerfiles"
PROFILES = ROOT / "tests" / "data" / "profile"
SHELLS = [shell for shell in ("/bin/dash", "/bin/bash") if Path(shell).exists()]
each_shell = pytest.mark.parametrize("shell", SHELLS)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

VALUES = {
    "SINGLE": "it's",
    "DOUBLE": 'say "x"',
    "DOLLAR": "$HOME ${X} $(id)",
    "TICK": "`id`",
    "BACKSLASH": "a\\nb\\",
    "BREAK": "two\nlines\n",
    "GLOB": "* ? [a]",
    "BLANK": "  a  b  ",
    "EMPTY": "",
    "LETTERS": "Größe",
}


# capture.py


def captured(tmp_path: Path, activate: str, own: dict[str, str] | None = None) -> Path:
    """Run capture.py on an activation script; returns the root it wrote."""
    build, root = tmp_path / "build", tmp_path / "root"
    build.mkdir(exist_ok=True)
    shutil.copy(SCRIPTS / "hpc3build" / "capture.py", build)
    (build / "env.json").write_text(json.dumps(own or {}))
    (build / "activate.sh").write_text(activate)
    subprocess.run([sys.executable, build / "capture.py", build / "activate.sh", root], check=True)
    return root


def profile_of(root: Path) -> Path:
    return root / "etc/profile.d/z10_hpc3build.sh"


def exports(values: dict[str, str]) -> str:
    quote = "'\\''"
    return "".join(f"export {name}='{value.replace(chr(39), quote)}'\n" for name, value in values.items())


def sourced(shell: str, profile: Path, times: int = 2, **env: str) -> dict[str, str]:
    """The environment after sourcing under set -eu, which prints nothing of its own."""
    script = 'set -eu; n=$1; while [ "$n" -gt 0 ]; do . "$2"; n=$((n - 1)); done; env -0'
    done = subprocess.run(
        [shell, "-c", script, "x", str(times), str(profile)],
        env={"PATH": PATH, "HOME": "/home/me", **env},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    return dict(os.fsdecode(entry).split("=", 1) for entry in done.stdout.split(b"\0") if entry)


ACTIVATE = "export PATH=/app/bin:/dep/bin:$PATH LD_LIBRARY_PATH=/app/lib:/app/lib64\nexport APP_ROOT=/app\nunset LC_X\n"


@each_shell
def test_sourcing_twice_is_sourcing_once(shell: str, tmp_path: Path) -> None:
    profile = profile_of(captured(tmp_path, ACTIVATE))
    once, twice = sourced(shell, profile, 1), sourced(shell, profile, 3)
    assert once == twice
    assert twice["PATH"] == f"/app/bin:/dep/bin:{PATH}", "in the order of the activation, in front"
    assert twice["LD_LIBRARY_PATH"] == "/app/lib:/app/lib64", "no empty entry, which means the current folder"
    assert twice["APP_ROOT"] == "/app" and twice["HOME"] == "/home/me"
    assert {name for name in twice if name.startswith("hpc3")} == set()


@each_shell
def test_values_survive(shell: str, tmp_path: Path) -> None:
    root = captured(tmp_path, exports(VALUES))
    found = sourced(shell, profile_of(root))
    assert {name: found[name] for name in VALUES} == VALUES
    assert json.loads((root / "opt/hpc3build/environment.json").read_text())["set"] == VALUES


@each_shell
def test_hostile_list_entries(shell: str, tmp_path: Path) -> None:
    entries = ["/a b", "/$(touch x)", "/`id`", '/"q"', "/it's", "/*", "/back\\slash"]
    root = captured(tmp_path, exports({"MY_PATH": ":".join(entries)}))
    assert sourced(shell, profile_of(root), MY_PATH="/user")["MY_PATH"] == ":".join([*entries, "/user"])
    assert json.loads((root / "opt/hpc3build/environment.json").read_text())["prepend"] == {"MY_PATH": entries}


@each_shell
def test_what_the_user_set_wins(shell: str, tmp_path: Path) -> None:
    profile = profile_of(captured(tmp_path, ACTIVATE + "export OMP_NUM_THREADS=8\n", {"FROM_RECIPE": "recipe"}))
    found = sourced(shell, profile, OMP_NUM_THREADS="1", FROM_RECIPE="", LD_LIBRARY_PATH="/host/mpi")
    assert found["OMP_NUM_THREADS"] == "1" and found["FROM_RECIPE"] == "", "even when it is empty"
    assert found["LD_LIBRARY_PATH"] == "/app/lib:/app/lib64:/host/mpi"
    assert sourced(shell, profile)["FROM_RECIPE"] == "recipe"


@each_shell
def test_home_and_session_of_a_user_without_name(shell: str, tmp_path: Path) -> None:
    profile = profile_of(captured(tmp_path, ACTIVATE))
    assert sourced(shell, profile, HOME="")["HOME"] == "/tmp"
    assert "TMPDIR" not in sourced(shell, profile)
    gone = str(tmp_path / "gone")
    elsewhere = "/dev/shm" if os.access("/dev/shm", os.W_OK) else gone
    assert sourced(shell, profile, TMPDIR=gone)["TMPDIR"] == elsewhere


def test_scalars_that_the_shell_had_before_are_no_lists(tmp_path: Path) -> None:
    """LC_ALL and USER are set when the capture starts; a module that sets them does not make lists of them."""
    root = captured(tmp_path, "export LC_ALL=C.UTF-8 USER=app:x\n")
    document = json.loads((root / "opt/hpc3build/environment.json").read_text())
    assert document["set"]["LC_ALL"] == "C.UTF-8" and "LC_ALL" not in document["prepend"]
    assert "USER" not in document["prepend"]
    assert sourced(SHELLS[0], profile_of(root))["LC_ALL"] == "C.UTF-8"


def test_state_of_the_builder_is_dropped(tmp_path: Path) -> None:
    names = [
        "LOADEDMODULES",
        "_LMFILES_",
        "LMOD_VERSION",
        "MODULEPATH",
        "SPACK_ENV",
        "EBDEVELX",
        "LIBRARY_PATH",
        "CPATH",
    ]
    activate = "".join(f"export {name}=x\n" for name in [*names, "EBROOTX"])
    activate += "f() { :; }\nexport -f f\ncd /tmp\nexport PATH=/usr/bin:/usr/share/lmod/lmod/libexec:/app/bin:$PATH\n"
    root = captured(tmp_path, activate + "export LD_LIBRARY_PATH=/usr/lib:/lib64:/app/lib\n")
    document = json.loads((root / "opt/hpc3build/environment.json").read_text())
    assert document == {
        "set": {"EBROOTX": "x"},
        "prepend": {"PATH": ["/app/bin"], "LD_LIBRARY_PATH": ["/app/lib"]},
    }


def test_nothing_of_the_builders_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "SSL_CERT_FILE", "PIP_INDEX_URL", "SECRET_TOKEN"):
        monkeypatch.setenv(name, "of-the-site")
    root = captured(tmp_path, ACTIVATE)
    assert [path for path in root.rglob("*") if path.is_file() and "of-the-site" in path.read_text()] == []
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*") if path.is_file()} == {0o644}


def test_an_activation_that_fails_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        captured(tmp_path, "echo hello\nfalse\nexport A=1\n")
    assert not (tmp_path / "root").exists()


def test_what_an_activation_prints_is_no_variable(tmp_path: Path) -> None:
    root = captured(tmp_path, "echo NOT=THIS\n" + ACTIVATE)
    assert "NOT" not in (root / "opt/hpc3build/environment.json").read_text()


# Login shells


def system(tmp_path: Path, name: str) -> Path:
    """An /etc in tmp_path after one of the data folders, its scripts pointing there."""
    etc = tmp_path / "etc"
    shutil.copytree(PROFILES / name, etc, dirs_exist_ok=True)
    (etc / "profile.d").mkdir(exist_ok=True)
    for file in [path for path in etc.rglob("*") if path.is_file()]:
        file.write_text(file.read_text().replace(" /etc/", f" {etc}/"))
    return etc


def finish(tmp_path: Path, etc: Path) -> subprocess.CompletedProcess[str]:
    """finish.sh with /etc and the cache in tmp_path, and an ldconfig that leaves a mark."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "ldconfig").write_text(f"#!/bin/sh\ntouch {tmp_path}/ldconfig-ran\n")
    (tools / "ldconfig").chmod(0o755)
    (tmp_path / "aux-cache").write_text("x")
    text = (SCRIPTS / "hpc3build/finish.sh").read_text()
    script = tmp_path / "finish.sh"
    script.write_text(text.replace("/etc/", f"{etc}/").replace("/var/cache/ldconfig/", f"{tmp_path}/"))
    return subprocess.run(
        ["/bin/sh", script], env={"PATH": f"{tools}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )


def login(etc: Path, shell: str, **env: str) -> dict[str, str]:
    """Source /etc/profile with an ``id`` and a ``whoami`` that know no name, as under an unknown UID."""
    tools = etc.parent / "nameless"
    tools.mkdir(exist_ok=True)
    (tools / "id").write_text(
        '#!/bin/sh\ncase $1 in *n*) echo "id: cannot find name for user ID 12345" >&2; exit 1;; *[gG]*) echo 54321;;'
        " *) echo 12345;; esac\n"
    )
    for tool in ("whoami", "groups"):
        (tools / tool).write_text(f"#!/bin/sh\necho '{tool}: cannot find name' >&2; exit 1\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    profile = etc / "profile"
    for file in (profile, etc / "bashrc", *(etc / "profile.d").glob("*.sh")):
        if file.exists():
            file.write_text(file.read_text().replace("/usr/bin/id", f"{tools}/id").replace("/usr/bin/whoami", "whoami"))
    unset = "" if shell.endswith("bash") else "UID=; EUID=; "
    done = subprocess.run(
        [shell, "-c", f'{unset}PATH={tools}:$PATH; . "{profile}"; PATH={PATH}:$PATH; env -0'],
        env={"PATH": PATH, **env},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b"", done.stderr
    return dict(os.fsdecode(entry).split("=", 1) for entry in done.stdout.split(b"\0") if entry)


@pytest.mark.parametrize("name", ["rhel9", "ubuntu22"])
def test_the_fixture_is_worth_its_name(name: str, tmp_path: Path) -> None:
    """Without finish.sh a user without a name meets errors; otherwise the tests below would show nothing."""
    with pytest.raises(AssertionError, match="cannot find name"):
        login(system(tmp_path, name), "/bin/bash")


def test_ubuntus_login_is_quiet_for_a_user_without_name(tmp_path: Path) -> None:
    etc = system(tmp_path, "ubuntu22")
    finish(tmp_path, etc)
    login(etc, "/bin/bash", HOME="/nonexistent")


#: Calls that print a name, and what they become.
ASKING = {
    "whoami": "id -u",
    "/usr/bin/whoami": "/usr/bin/id -u",
    "logname": "id -u",
    "groups": "id -G",
    "/usr/bin/groups": "/usr/bin/id -G",
    "groups 2>/dev/null": "id -G 2>/dev/null",
    "id -un": "id -u",
    "id -nu": "id -u",
    "id  -un": "id  -u",
    "id -u -n": "id -u",
    "id -n -u": "id -u",
    "id -u --name": "id -u",
    "id --user --name": "id --user",
    "id --name --group": "id --group",
    "id -nru": "id -ru",
    "id -r -un": "id -r -u",
    "id -gn": "id -g",
    "id -Gn": "id -G",
    "id -nGz": "id -Gz",
    "/usr/bin/id -un": "/usr/bin/id -u",
}
#: Where a call may stand in a script.
PLACES = ["x=$({})", "x=`{}`", 'x="$( {} )"', "{}", "if {} | grep -q x; then :; fi", "true && {}", "{}; {}", "  {} >x"]
#: What only looks like such a call.
NO_CALL = [
    "groups=$(id -G)",
    "for group in $groups ${groups} $logname ${whoami}; do :; done",
    'case $1 in\n    groups) id -u ;;\nesac',
    "groups() { id -G; }",
    "logname=$LOGNAME whoami=me site_whoami=x",
    "valid -number; id -u; id -G; id --user; id root",
    "getent --groups -n",
    'usermod --groups wheel x; [ "$id" -ne 0 ] && [ $id -ne 0 ]',
    ". /etc/whoami.sh",
]  # fmt: skip


def login_scripts_remarks(script: Path) -> list[str]:
    """What hpc3build check says of a login script."""
    from hpc3build.conformance import Image, files

    data = script.read_bytes()
    file = ImageFile("/etc/profile", "file", 0o644, 0, 0, len(data), "", data, "sha256:0")
    image = Image(cast(Manifest, None), cast(ImageConfig, None), files=ImageFiles({"/etc/profile": file}))
    return [remark.message for remark in files.login_scripts(image)]


@pytest.mark.parametrize("call", ASKING)
def test_calls_for_a_name_are_found_and_taken_out(call: str, tmp_path: Path) -> None:
    """The conformance rule sees what finish.sh mends, and no more of it afterwards."""
    (tmp_path / "etc").mkdir()
    script = tmp_path / "etc/profile"
    for place in PLACES:
        script.write_text("# first\n" + place.replace("{}", call) + "\n")
        assert len(login_scripts_remarks(script)) == 1, place
        finish(tmp_path, tmp_path / "etc")
        assert script.read_text() == "# first\n" + place.replace("{}", ASKING[call]) + "\n"
        assert login_scripts_remarks(script) == []


@pytest.mark.parametrize("text", NO_CALL)
def test_what_only_looks_like_a_call_for_a_name_stays(text: str, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    script = tmp_path / "etc/profile"
    script.write_text(text + "\n")
    assert login_scripts_remarks(script) == []
    finish(tmp_path, tmp_path / "etc")
    assert script.read_text() == text + "\n"


def test_script_and_rule_look_for_the_same() -> None:
    assert f"\nnames='{ASKS_FOR_A_NAME}'\n" in (SCRIPTS / "hpc3build/finish.sh").read_text()


@each_shell
def test_finished_login_is_quiet_for_a_user_without_name(shell: str, tmp_path: Path) -> None:
    etc = system(tmp_path, "rhel9")
    before = (etc / "profile.d/plain.sh").read_bytes()
    done = finish(tmp_path, etc)
    assert done.stdout == done.stderr == ""
    assert (etc / "profile.d/plain.sh").read_bytes() == before, "what only looks like such a call stays"
    assert (tmp_path / "ldconfig-ran").exists() and not (tmp_path / "aux-cache").exists()
    found = login(etc, shell)
    assert found["USER"] == "12345" and found["plain_uid"] == "12345" and found["site_whoami"] == "me"
    assert (found["site_user"], found["site_again"], found["site_name"]) == ("12345",) * 3
    assert found["site_group"] == "54321"


def test_finishing_twice_changes_nothing_more(tmp_path: Path) -> None:
    etc = system(tmp_path, "rhel9")
    finish(tmp_path, etc)
    once = {path: path.read_bytes() for path in etc.rglob("*") if path.is_file()}
    finish(tmp_path, etc)
    assert once == {path: path.read_bytes() for path in etc.rglob("*") if path.is_file()}


def test_finish_on_a_base_with_no_login_scripts(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    assert finish(tmp_path, tmp_path / "etc").stderr == ""


@each_shell
@pytest.mark.parametrize("name", ["debian12", "rhel9"])
def test_environment_survives_the_distributions_profile(name: str, shell: str, tmp_path: Path) -> None:
    root = captured(tmp_path, ACTIVATE, {"FROM_RECIPE": "x y"})
    etc = system(tmp_path, name)
    shutil.copy(profile_of(root), etc / "profile.d")
    finish(tmp_path, etc)
    found = login(etc, shell, HOME="/home/me", LD_LIBRARY_PATH="/host")
    entries = found["PATH"].removeprefix(f"{PATH}:").split(":")
    assert entries[:2] == ["/app/bin", "/dep/bin"] and "/usr/bin" in entries
    assert found["LD_LIBRARY_PATH"] == "/app/lib:/app/lib64:/host"
    assert found["APP_ROOT"] == "/app" and found["FROM_RECIPE"] == "x y"


OWN_PATH = ["/mine/bin", "/mine/bin:/usr/bin:/bin", "/usr/bin:/bin:/mine/bin", "/mine/bin:/usr/bin:/bin:/mine/sbin"]
OWN_PATH += [bases.with_own(path) for path in ("/mine/bin", "$PATH:/mine/bin", "/mine/bin:$PATH:/mine/sbin")]
OWN = {"JAVA_HOME": "/mine/it's", "MANPATH": "/mine/man:", "INFOPATH": "/mine/info", "XDG_DATA_DIRS": "/mine/share"}
#: What scripts of a distribution do to variables: set anew (a plain one and a list), set where unset, add to.
THEIRS = """\
export JAVA_HOME=/usr/lib/jvm INFOPATH=/usr/info
[ -n "${MANPATH-}" ] || export MANPATH=/usr/man
export XDG_DATA_DIRS="/usr/share${XDG_DATA_DIRS:+:$XDG_DATA_DIRS}"
"""


def own_login(
    tmp_path: Path, name: str, shell: str, own: dict[str, str]
) -> tuple[Callable[..., dict[str, str]], dict[str, str]]:
    """A login into an image whose recipe has ``own`` in env, and what config.Env says there."""
    root = captured(tmp_path, ACTIVATE, own)
    etc = system(tmp_path, name)
    shutil.copy(profile_of(root), etc / "profile.d")
    (etc / "profile.d/a_theirs.sh").write_text(THEIRS)
    finish(tmp_path, etc)
    data = (root / "opt/hpc3build/environment.json").read_bytes()
    record = ImageFile(ENVIRONMENT, "file", 0o644, 0, 0, len(data), "", data, "sha256:0")
    configuration = baked_environment({ENVIRONMENT: record}, {"PATH": PATH, **own})

    def start(**env: str) -> dict[str, str]:
        found = login(etc, shell, **env)
        # The harness's own: the folder of its id, and what it needs to run env.
        found["PATH"] = found["PATH"].removeprefix(f"{PATH}:")
        return found

    return start, configuration


@each_shell
@pytest.mark.parametrize("name", ["debian12", "rhel9"])
@pytest.mark.parametrize("path", OWN_PATH)
def test_a_recipes_own_path_survives_the_distributions_profile(
    path: str, name: str, shell: str, tmp_path: Path
) -> None:
    start, configuration = own_login(tmp_path, name, shell, {"PATH": path})
    assert configuration["PATH"] == f"/app/bin:/dep/bin:{path}"
    ours = [entry for entry in configuration["PATH"].split(":") if entry.startswith(("/app", "/dep", "/mine"))]
    for user in (configuration["PATH"], PATH, "/user/bin:/usr/bin:/bin"):
        entries = start(PATH=user)["PATH"].split(":")
        assert [entry for entry in entries if entry in ours] == ours, "the order of config.Env"
        assert "/usr/bin" not in path or (entries.index("/mine/bin") < entries.index("/usr/bin")) == (path[1] == "m")
        assert ("/usr/local/bin" in entries) >= (name == "debian12"), "what the distribution has stays"
    # A PATH of the user's is kept where the distribution's /etc/profile keeps it.
    assert ("/user/bin" in entries) == (name == "rhel9")


@pytest.mark.parametrize("name", ["debian12", "rhel9"])
def test_a_recipes_variable_wins_over_the_distributions_and_the_users_over_it(name: str, tmp_path: Path) -> None:
    start, configuration = own_login(tmp_path, name, "/bin/bash", OWN)
    assert {key: configuration[key] for key in OWN} == OWN
    added = {"INFOPATH": "/mine/info:/usr/info", "XDG_DATA_DIRS": "/usr/share:/mine/share"}
    found = start(**configuration)
    assert {key: found[key] for key in OWN} == {**OWN, **added}
    assert start()["JAVA_HOME"] == OWN["JAVA_HOME"], "from an environment without the image's"
    user = {"JAVA_HOME": "", "MANPATH": "/user/man", "INFOPATH": "/user/info", "XDG_DATA_DIRS": "/user/share"}
    found = start(**{**configuration, **user})
    added = {"INFOPATH": "/user/info:/usr/info", "XDG_DATA_DIRS": "/usr/share:/user/share"}
    assert {key: found[key] for key in OWN} == {**user, **added}


@each_shell
@pytest.mark.parametrize("name", ["debian12", "rhel9"])
def test_a_recipes_variables_with_any_shell(name: str, shell: str, tmp_path: Path) -> None:
    """No distribution's script sets these; the user's word counts, even where it is empty."""
    own = {"MINE": "/a b", "DATA_PATH": "/mine/data", "LD_LIBRARY_PATH": "/mine/lib"}
    start, configuration = own_login(tmp_path, name, shell, own)
    lists = {"LD_LIBRARY_PATH": "/app/lib:/app/lib64:/mine/lib"}
    for env in (configuration, {}):
        found = start(**env)
        assert {key: found[key] for key in own} == {**own, **lists} == {key: configuration[key] for key in own}
    user = {"MINE": "", "DATA_PATH": "/user/data", "LD_LIBRARY_PATH": "/user/lib"}
    found = start(**{**configuration, **user})
    assert {key: found[key] for key in own} == {**user, "LD_LIBRARY_PATH": "/app/lib:/app/lib64:/user/lib"}


@each_shell
def test_a_recipes_variable_that_the_shell_keeps_to_itself(shell: str, tmp_path: Path) -> None:
    profile = profile_of(captured(tmp_path, "", {"UID": "7", "PPID": "7", "X": "7"}))
    assert sourced(shell, profile)["X"] == "7"


# site.sh


def site(tmp_path: Path, shell: str, **secrets: str) -> dict[str, str]:
    folder = tmp_path / "secrets"
    folder.mkdir(exist_ok=True)
    for name, text in secrets.items():
        (folder / f"hpc3build_{name}").write_text(text)
    script = tmp_path / "site.sh"
    script.write_text((SCRIPTS / "hpc3build/site.sh").read_text().replace("/run/secrets", str(folder)))
    return sourced(shell, script, 1)


@each_shell
def test_site_without_secrets(shell: str, tmp_path: Path) -> None:
    found = site(tmp_path, shell)
    assert found["DEBIAN_FRONTEND"] == "noninteractive"
    assert [name for name in found if "PROXY" in name.upper() or "CERT" in name or "CA" in name] == []
    assert "APT_CONFIG" not in found


@each_shell
def test_site_with_secrets(shell: str, tmp_path: Path) -> None:
    found = site(tmp_path, shell, env="export https_proxy='http://p:1/?a=b c'\n", ca="PEM", apt="Acquire")
    assert found["https_proxy"] == "http://p:1/?a=b c"
    ca = str(tmp_path / "secrets/hpc3build_ca")
    for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO"):
        assert found[name] == ca
    assert found["APT_CONFIG"] == str(tmp_path / "secrets/hpc3build_apt")


# install.sh


def test_install_gives_easybuild_a_clean_environment(tmp_path: Path) -> None:
    build, tools, work = tmp_path / "build", tmp_path / "tools", tmp_path / "work"
    (tools / "bin").mkdir(parents=True)
    for folder in ("toolchain/easyconfigs", "application", "own/easyblocks/generic", "native"):
        (build / folder).mkdir(parents=True)
    for file in ("own/hooks.py", "own/easyblocks/b.py", "own/easyblocks/generic/a.py"):
        (build / file).write_text("")
    (build / "native/options.txt").write_text("--optarch=GCC:-march=znver4\n")
    text = (SCRIPTS / "easybuild/install.sh").read_text()
    text = text.replace("/opt/hpc3build/tools", str(tools)).replace("/opt/hpc3build/work", str(work))
    (build / "install.sh").write_text(text)
    (build / "application/easyconfigs.txt").write_text("a b.eb\nc$(id).eb\n")
    (build / "options.txt").write_text("--optarch=GCC:march=x86-64-v3 -mtune=x\n")
    (tools / "bin/eb").write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >{tmp_path}/argv\nenv -0 >{tmp_path}/env\n')
    (tools / "bin/eb").chmod(0o755)
    kept = {"https_proxy": "http://p:1 x", "NO_PROXY": "a,b", "SSL_CERT_FILE": "/ca"}
    leaked = {"SECRET_TOKEN": "s", "PIP_INDEX_URL": "u", "PYTHONPATH": "/x", "EASYBUILD_PREFIX": "/y", "BASH_ENV": "/z"}
    subprocess.run(
        ["/bin/bash", build / "install.sh", "/opt/easybuild", "application"],
        env={"PATH": PATH, "HOME": "/root", "USER": "root", "http_proxy": "", **kept, **leaked},
        check=True,
        capture_output=True,
    )
    env = dict(entry.split("=", 1) for entry in (tmp_path / "env").read_text().split("\0") if entry)
    assert {name: env.get(name) for name in kept} == kept and "http_proxy" not in env
    assert not set(leaked.items()) & set(env.items()) and env["HOME"] == str(work) and env["USER"] == "easybuild"
    argv = (tmp_path / "argv").read_text().split("\0")[:-1]
    assert argv[:3] == ["a b.eb", "c$(id).eb", "--optarch=GCC:march=x86-64-v3 -mtune=x"]
    assert "--installpath=/opt/easybuild" in argv and "--ignoreconfigfiles=" in argv
    robot = f"{build}/toolchain/easyconfigs"
    assert f"--robot-paths={robot}:" in argv and f"--sourcepath=/opt/hpc3build/sources:{robot}" in argv
    assert f"--hooks={build}/own/hooks.py" in argv and "--optarch=GCC:-march=znver4" in argv
    blocks = f"{build}/own/easyblocks"
    assert f"--include-easyblocks={blocks}/b.py,{blocks}/generic/a.py" in argv


def test_install_runs_eb_for_each_set_of_options(tmp_path: Path) -> None:
    """Easyconfigs and their own options, an empty line between two runs; the first that fails is the last."""
    build, tools, given = tmp_path / "build", tmp_path / "tools", tmp_path / "given"
    fetched, own = tmp_path / "fetched", build / "dependencies/easyconfigs"
    robot = f"{given}:{own}:"
    for folder in (tools / "bin", build / "application", own, given / "fetched/p/PyYAML", fetched):
        folder.mkdir(parents=True)
    (given / "fetched/p/PyYAML/6.tgz").write_text("x")
    text = (SCRIPTS / "easybuild/install.sh").read_text().replace("/opt/hpc3build/tools", str(tools))
    (build / "install.sh").write_text(text.replace("/opt/hpc3build/sources", str(fetched)))
    (build / "application/easyconfigs.txt").write_text("a b.eb\n\nb.eb\nc.eb\n--optarch=x y\n--debug\n\nd.eb\n\ne.eb\n")
    (build / "options.txt").write_text("--optarch=GENERIC\n")
    (tools / "bin/eb").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" "" >>{tmp_path}/argv\n[ "$1" != d.eb ] || exit 4\n')
    (tools / "bin/eb").chmod(0o755)
    argv = ["/bin/bash", build / "install.sh", "/opt/easybuild", "application", given]
    done = subprocess.run(argv, env={"PATH": PATH}, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (4, "")
    runs = [run.splitlines() for run in (tmp_path / "argv").read_text().split("\n\n") if run]
    assert [run[: run.index("--robot")] for run in runs] == [
        ["a b.eb", "--optarch=GENERIC", f"--robot-paths={robot}"],
        ["b.eb", "c.eb", "--optarch=GENERIC", f"--robot-paths={robot}", "--optarch=x y", "--debug"],
        ["d.eb", "--optarch=GENERIC", f"--robot-paths={robot}"],
    ]
    assert all(f"--sourcepath={fetched}:{given}:{own}" in run for run in runs)
    assert (fetched / "p/PyYAML/6.tgz").read_text() == "x", "where EasyBuild would have put it"


def test_install_without_any_own_file(tmp_path: Path) -> None:
    build, tools = tmp_path / "build", tmp_path / "tools"
    (tools / "bin").mkdir(parents=True)
    (build / "application").mkdir(parents=True)
    text = (SCRIPTS / "easybuild/install.sh").read_text().replace("/opt/hpc3build/tools", str(tools))
    (build / "install.sh").write_text(text.replace("/tmp/eb-", f"{tmp_path}/eb-"))
    (build / "application/easyconfigs.txt").write_text("a.eb\n")
    (build / "options.txt").write_text("")
    (tools / "bin/eb").write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >{tmp_path}/argv\nexit 3\n')
    (tools / "bin/eb").chmod(0o755)
    argv = ["/bin/bash", build / "install.sh", "/opt/easybuild", "application"]
    done = subprocess.run(argv, env={"PATH": PATH}, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    given = (tmp_path / "argv").read_text()
    assert not [name for name in ("--robot-paths", "--hooks", "--include-easyblocks") if name in given]
