"""What the files of an image tell: its login scripts, who may read it, and what a build left behind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from hpc3build.conformance.rule import Check, Image, Remark
from hpc3build.environment import ENVIRONMENT, ENVIRONMENT_BYTES
from hpc3build.evidence.layers import SCAN, ImageFiles
from hpc3build.findings import Outcome

#: Files that only a build needs, or that tell of the site that built: by rule, what each is and its paths.
LEFTOVERS: Mapping[str, Sequence[tuple[str, str]]] = {
    "build-tools": (
        (
            "a compiler",
            r"/(?:usr/)?(?:local/)?bin/(?:[\w.-]*-)?(?:gcc|g\+\+|gfortran|clang|clang\+\+|cc|c\+\+|nvcc|icx|ifx)"
            r"(?:-\d[\d.]*)?",
        ),
        ("a compiler", r"/(?:.*/)?(?:cc1|cc1plus|f951|lto1)"),
        ("a linker or assembler", r"/(?:usr/)?bin/(?:[\w.-]*-)?(?:ld|as)(?:\.bfd|\.gold|\.lld)?"),
        ("a build tool", r"/(?:usr/)?bin/(?:make|gmake|cmake|ninja|eb)"),
        ("a build dependency", r"/usr/include/.*\.h"),
        ("a build dependency", r"/usr/lib/(?:.*/)?openmpi/include/.*\.h"),
        ("the package manager that built", r"/opt/(?:spack/bin/spack|hpc3build/(?:build|tools|work)(?:/.*)?)"),
    ),
    "secrets": (
        ("a build secret", r"/run/secrets/.+"),
        ("a private key", r"/(?:.*/)?(?:id_(?:rsa|dsa|ecdsa|ed25519)|[^/]*\.(?:key|p12|pfx))"),
        ("a password file", r"/(?:root|home/[^/]+)/(?:\.netrc|\.git-credentials|\.pypirc|\.pgpass)"),
        ("a registry's password", r"/(?:root|home/[^/]+)/(?:\.docker/config\.json|\.config/containers/auth\.json)"),
        ("a cloud's password", r"/(?:root|home/[^/]+)/\.(?:aws/credentials|config/gcloud/.*|azure/.*)"),
        ("a password for packages", r"/etc/apt/auth\.conf|/etc/apt/auth\.conf\.d/.+"),
    ),
    "site-files": (
        ("a site's CA", r"/usr/local/share/ca-certificates/.*\.crt|/etc/pki/ca-trust/source/anchors/.*"),
        ("a proxy or mirror setting", r"/etc/apt/apt\.conf|/etc/apt/apt\.conf\.d/.*(?:proxy|artifact|mirror).*"),
        ("a pip setting", r"/etc/pip\.conf|/etc/xdg/pip/.*|/root/\.(?:config/pip|pip)/.*|/etc/pip/.*"),
    ),
    "caches": (
        (
            "a package cache",
            r"/var/cache/(?:apt/(?:archives/.*\.deb|.*pkgcache\.bin)|dnf/.*|yum/.*|zypp/.*|apk/.*)|/root/\.cache/.+"
            r"|/var/lib/apt/lists/.*_(?:Packages|InRelease).*",
        ),
        ("a builder's log", r".*/easybuild/(?:[^/]*\.log(?:\.gz)?|[^/]*_test_report\.md)"),
        ("a build's log", r"/opt/.*/\.spack/(?:spack-build-[^/]*|.*-out\.txt(?:\.gz)?)"),
    ),
    "driver": (
        ("the host's driver", r".*/(?:libcuda|libnvidia-ml|libcudadebugger)\.so[.\d]*"),
        ("a stub of the driver", r".*/stubs/lib(?:cuda|nvidia-ml)\.so[.\d]*"),
    ),
}
_LEFTOVERS = {
    rule: tuple((what, re.compile(pattern)) for what, pattern in patterns) for rule, patterns in LEFTOVERS.items()
}
#: Where input, results and scratch belong: mounted, never part of the image (bioinformatics paper, 6).
_DATA = re.compile(r"/(?:data|input|output|scratch|work)/.+|/home/[^/]+/[^.].*")
#: Where applications lie.
_APPLICATIONS = re.compile(r"/(?:opt|usr/local)(?:/.*)?")
#: The set-UID and set-GID files of Debian's, Fedora's and SUSE's own base packages.
_BASE_SETUID = re.compile(
    r"/(?:usr/)?s?bin/(?:su|mount|umount|passwd|chsh|chfn|newgrp|sg|gpasswd|chage|expiry|wall|write|sudo|"
    r"unix_chkpwd|pam_timestamp_check|grub2-set-bootflag|utempter|crontab|ssh-agent|fusermount3?|newuidmap|newgidmap)"
    r"|/usr/lib(?:exec)?/(?:.*/)?(?:dbus-daemon-launch-helper|ssh-keysign|utempter|polkit-agent-helper-1|pt_chown)"
)
#: A call that prints names of users or groups, and complains of those that have none: as a regular expression that
#: grep -E takes, too. The same as in containerfiles/hpc3build/finish.sh, which takes such calls out.
ASKS_FOR_A_NAME = (
    r"(^|[^-$.{a-zA-Z0-9_])(whoami|logname)([^-=.(a-zA-Z0-9_]|$)"
    r"|\bid( +-[-a-zA-Z]+)* +(-[agruzGZ]*n[agnruzGZ]*|--name)\b"
    r"|[(`] *(/usr/bin/)?groups *[)`]"
    r"|(^|[;&|({!`]|\b(if|then|do|else|elif|while|until) ) *(/usr/bin/)?groups([ ;&|<>]|$)"
)
_ASKS = re.compile(rf"{ASKS_FOR_A_NAME}|\bgetent +passwd\b", re.MULTILINE)
USERS_FILE = "/etc/passwd"
_SHELLS = ("/bin/bash", "/usr/bin/bash")


def wanted(path: str) -> int | None:
    """What is read of a file for the rules: the names of all, login scripts, and the sections of applications."""
    if path == ENVIRONMENT:
        return ENVIRONMENT_BYTES
    if is_login_script(path) or path == USERS_FILE:
        return 64 << 10
    return SCAN if _APPLICATIONS.fullmatch(path) else 0


def is_login_script(path: str) -> bool:
    """Whether bash reads it for a login shell, directly or by the distribution's own /etc/profile."""
    return (
        path in ("/etc/profile", "/etc/bash.bashrc", "/etc/bashrc")
        or re.fullmatch(r"/etc/profile\.d/[^/]+\.sh", path) is not None
    )


def _files(image: Image) -> ImageFiles:
    return image.files if image.files is not None else ImageFiles({})


def _one_of(paths: Sequence[str]) -> str:
    return min(paths) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def shell(image: Image) -> Iterator[Remark]:
    found = next(filter(None, map(_files(image).resolve, _SHELLS)), None)
    if found is None:
        yield Remark("there is no /bin/bash")
    elif found.mode & 0o005 != 0o005:
        yield Remark(f"{found.path} has mode {found.mode & 0o7777:04o}: other users cannot run it")


def login_scripts(image: Image) -> Iterator[Remark]:
    for path in sorted(filter(is_login_script, _files(image))):
        text = _files(image)[path].data.decode("utf-8", "replace")
        code = "\n".join(line.split("#")[0] for line in text.splitlines())
        if found := _ASKS.search(code):
            yield Remark(f"{path} calls {found.group().strip(' ;&|(){}!`<>')}")


def leftovers(rule: str) -> Check:
    """The check of one of the rules of LEFTOVERS."""

    def check(image: Image) -> Iterator[Remark]:
        found: dict[str, list[str]] = {}
        files = _files(image)
        for path in files:
            if files[path].kind != "directory":
                for what, pattern in _LEFTOVERS[rule]:
                    if pattern.fullmatch(path):
                        found.setdefault(what, []).append(path)
                        break
        for what, paths in found.items():
            yield Remark(f"{what}: {_one_of(paths)}")

    return check


def readable(image: Image) -> Iterator[Remark]:
    """A symbolic link has no mode of its own."""
    closed = []
    for path, file in _files(image).items():
        if _APPLICATIONS.fullmatch(path) or is_login_script(path):
            need = {"directory": 0o005, "file": 0o004}.get(file.kind, 0)
            if file.mode & need != need:
                closed.append(path)
    if closed:
        yield Remark(f"other users cannot read {_one_of(closed)}")


def setuid(image: Image) -> Iterator[Remark]:
    found = [
        path
        for path, file in _files(image).items()
        if file.kind == "file" and file.mode & 0o6000 and not _BASE_SETUID.fullmatch(path)
    ]
    if found:
        yield Remark(f"set-UID or set-GID: {_one_of(found)}")


def stripped(image: Image) -> Iterator[Remark]:
    """By the debugging sections, as the strip step removes them; a symbol table alone costs little."""
    fat, untold = [], []
    for path, file in _files(image).items():
        if isinstance(file.extract, frozenset) and ".debug_info" in file.extract:
            fat.append(path)
        elif file.extract is False:
            untold.append(path)
    if fat:
        yield Remark(f"debugging sections in {_one_of(fat)}")
    elif untold:
        yield Remark(f"no table of sections can be read in {_one_of(untold)}", outcome=Outcome.UNKNOWN)


def data(image: Image) -> Iterator[Remark]:
    found = [path for path, file in _files(image).items() if file.kind == "file" and _DATA.fullmatch(path)]
    if found:
        yield Remark(f"data in the image: {_one_of(found)}")
