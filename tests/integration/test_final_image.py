"""What must not be in the final image, looked for in its whole file system and in each of its layers."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import CA_FILES
from tests.integration.support import MARKERS, RECIPE, ROOT, SITE_CA, Built, hpc3build, sh

pytestmark = pytest.mark.engine

#: What is looked for. Each pattern must match something in the builder stage, or the list itself has rotted.
FORBIDDEN = {
    "a compiler": r"/usr/bin/(?:[\w-]+-)?(?:gcc|g\+\+|cc|c\+\+|cpp|gfortran|clang)(?:-\d+)?",
    "a compiler's inside": r"/.*/(?:cc1|cc1plus|f951|lto1|lto-wrapper|collect2)",
    "a linker or assembler": r"/usr/bin/(?:[\w-]+-)?(?:as|ld|ld\.bfd|ld\.gold|ar|ranlib|nm|objdump|strip)",
    "a build tool": r"/usr/bin/(?:make|patch|git|file|unzip)",
    "a header": r"(?:/usr/include|/usr/lib/[\w-]+/openmpi/include|/opt)/.*\.h",
    "a static library or object": r"/.*/(?:lib[^/]*\.(?:a|la)|[^/]*\.o)",
    "a development link": r"/usr/lib/[\w-]+/(?:libmpi|libc|libm|libpthread)\.(?:so|a)",
    "EasyBuild": r"/.*/(?:easybuild/(?:framework|easyblocks|tools)|easybuild_framework-[^/]*)(?:/.*)?|/.*/bin/eb",
    "the builder's own folder": r"/opt/hpc3build/(?:build|tools|work|rootfs)(?:/.*)?",
    "the module system": r"/usr/share/lmod/.*",
    "Python": r"/.*/bin/python[\d.]*|/.*/site-packages/.*",
    "a home": r"/home/.+",
}
#: The same, of which the builder keeps nothing either: a path of SAMPLES shows that the pattern finds it.
ALSO_FORBIDDEN = {
    "a module file for developers": r"/.*/easybuild/[^/]*-easybuild-devel",
    "a log": r"/var/log/.+|/opt/.*\.log(?:\.[a-z0-9]+)?",
    "a test report": r"/.*_test_report\.md|/.*/easybuild/[^/]+\.(?:md|xml|bz2|gz)",
    "a pip setting or cache": r"/etc/pip\.conf|/etc/xdg/pip(?:/.*)?|/root/\.(?:config/pip|pip|cache)(?:/.*)?",
    "apt's lists and packages": r"/var/lib/apt/lists/.*_.*|/var/cache/apt/.*\.(?:deb|bin)",
    "a setting of apt's for the site": r"/etc/apt/(?:apt\.conf|auth\.conf|apt\.conf\.d/.*(?:proxy|hpc3build).*)",
    "a CA of the site": r"/usr/local/share/ca-certificates/.+",
    "a temporary file": r"/(?:tmp|var/tmp|run/secrets|run/hpc3build)/.+",
    "a source": r"/opt/.*\.(?:c|cc|cpp|f90|mk)",
}
SAMPLES = {
    "a module file for developers": ["/opt/easybuild/software/a/1/easybuild/a-1-easybuild-devel"],
    "a log": ["/var/log/dpkg.log", "/opt/easybuild/software/a/1/easybuild/easybuild-a-1.log.gz", "/opt/a/config.log"],
    "a test report": ["/opt/a/easybuild/easybuild-a-1-20260101_test_report.md", "/opt/a/easybuild/a-1.log.bz2"],
    "a pip setting or cache": [
        "/etc/pip.conf",
        "/etc/xdg/pip/pip.conf",
        "/root/.config/pip/pip.conf",
        "/root/.cache/x",
    ],
    "apt's lists and packages": [
        "/var/lib/apt/lists/deb.debian.org_debian_dists_bookworm_InRelease",
        "/var/cache/apt/archives/a_1_amd64.deb",
        "/var/cache/apt/pkgcache.bin",
    ],
    "a setting of apt's for the site": ["/etc/apt/apt.conf", "/etc/apt/auth.conf", "/etc/apt/apt.conf.d/80proxy"],
    "a CA of the site": ["/usr/local/share/ca-certificates/site/root.crt"],
    "a temporary file": ["/tmp/a", "/var/tmp/a/b", "/run/secrets/hpc3build_ca", "/run/hpc3build/finish.sh"],
    "a source": ["/opt/easybuild/src/a.c", "/opt/a/b.cpp", "/opt/a/b.f90", "/opt/a/rules.mk"],
}
#: A proxy in a file of settings, in any of the ways that such files have.
PROXY = re.compile(
    rb"(?im)^[^#\n]*(?:(?:https?|ftp|all|no)_proxy\s*[= ]|Acquire::\w+::Proxy"
    rb"|(?:^|\{)\s*proxy(?:::\S+)?(?:\s*=|\s+\"))"
)
#: Files that belong to no package and are not the base's: written by package scripts and by hpc3build.
UNOWNED = re.compile(
    r"/opt/(?:easybuild|hpc3build)/.*|/etc/profile\.d/z10_hpc3build\.sh|/etc/alternatives/.*|/etc/ld\.so\.cache"
    r"|/etc/(?:group|gshadow|passwd|shadow)-?|/etc/\.pwd\.lock|/etc/hosts|/var/lib/dpkg/.*|/var/cache/debconf/.*"
    r"|/var/lib/(?:apt|systemd|ucf|pam|ispell|gconf)/.*|/usr/share/.*|/usr/s?bin/[^/]*|/usr/lib/.*\.cache|/run/.*"
)


@dataclass(frozen=True)
class Entry:
    """One path of a file system; ``data`` is a regular file's content."""

    info: tarfile.TarInfo
    data: bytes


Files = Mapping[str, Entry]


def exported(name: str) -> Files:
    """The whole file system of an image as podman gives it to a container."""
    container = sh("podman", "create", "--pull=never", name, "true").stdout.strip()
    try:
        data = subprocess.run(["podman", "export", container], stdout=subprocess.PIPE, check=True).stdout
    finally:
        sh("podman", "rm", container)
    return dict(entries(data))


def entries(data: bytes) -> Iterator[tuple[str, Entry]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        links: dict[str, bytes] = {}
        for info in tar:
            path = "/" + info.name.strip("/").removeprefix("./")
            content = tar.extractfile(info) if info.isreg() else None
            links[info.name] = content.read() if content else links.get(info.linkname, b"")
            yield path, Entry(info, links[info.name])


@pytest.fixture(scope="module")
def final(mpi_hello: Built) -> Files:
    return exported(mpi_hello.name)


@pytest.fixture(scope="module")
def base_files(base: str) -> Files:
    return exported(base)


@pytest.fixture(scope="module")
def layers(mpi_hello: Built) -> list[bytes]:
    return list(mpi_hello.layers())


@pytest.fixture(scope="module")
def builder(mpi_hello: Built, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The paths of the builder stage, which the real build left in the engine's cache."""
    context = tmp_path_factory.mktemp("context")
    hpc3build("render", str(RECIPE), "--base", mpi_hello.base, "--context", context)
    argv = ["buildah", "bud", "--layers", "--pull=false", "--target", "builder", "--quiet"]
    image = sh(*argv, "-f", context / "Containerfile", context).stdout.split()[-1]
    script = "find / -xdev -not -path '/proc/*' -not -path '/sys/*'"
    return sh("podman", "run", "--rm", "--entrypoint", "", image, "sh", "-c", script).stdout.splitlines()


def matching(pattern: str, paths: object) -> list[str]:
    return [path for path in paths if re.fullmatch(pattern, path)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("what", [*FORBIDDEN, *ALSO_FORBIDDEN])
def test_not_in_the_image(what: str, final: Files) -> None:
    files = [path for path in final if not final[path].info.isdir()]
    assert matching({**FORBIDDEN, **ALSO_FORBIDDEN}[what], files) == []


@pytest.mark.parametrize("what", [*FORBIDDEN, *ALSO_FORBIDDEN])
def test_not_in_any_layer(what: str, layers: list[bytes]) -> None:
    """A whiteout in a later layer hides a file, and does not take it away."""
    for data in layers:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            names = [info.name.strip("/").removeprefix("./") for info in tar if not info.isdir()]
        paths = [f"/{name}" for name in names if "/.wh." not in f"/{name}"]
        assert matching({**FORBIDDEN, **ALSO_FORBIDDEN}[what], paths) == []


def test_the_list_finds_what_the_builder_has(builder: list[str]) -> None:
    assert [what for what, pattern in FORBIDDEN.items() if not matching(pattern, builder)] == []


def test_the_list_finds_what_no_builder_keeps() -> None:
    assert SAMPLES.keys() == ALSO_FORBIDDEN.keys()
    for what, paths in SAMPLES.items():
        assert matching(ALSO_FORBIDDEN[what], paths) == paths
        # No alternative of a pattern is without a sample.
        assert len(paths) > ALSO_FORBIDDEN[what].count("|/")


def test_packages(final: Files, base_files: Files) -> None:
    def packages(files: Files) -> set[str]:
        return set(re.findall(r"^Package: (\S+)$", files["/var/lib/dpkg/status"].data.decode(), re.MULTILINE))

    added = packages(final) - packages(base_files)
    assert {"openmpi-bin", "libopenmpi3"} <= added
    build_only = {"gcc", "g++", "cpp", "binutils", "make", "git", "lmod", "patch", "file"}
    assert not {name for name in added if name.endswith("-dev") or name.startswith("python3") or name in build_only}
    assert not {name for name in added if re.fullmatch(r"(?:gcc|g\+\+|cpp|gfortran)-\d+", name)}


def test_every_file_is_of_the_base_or_a_package_or_ours(final: Files, base_files: Files) -> None:
    owned: set[str] = set()
    for path, entry in final.items():
        if re.fullmatch(r"/var/lib/dpkg/info/[^/]+\.list", path):
            owned |= {re.sub(r"^/(bin|sbin|lib\w*)/", r"/usr/\1/", line) for line in entry.data.decode().splitlines()}
            owned |= set(entry.data.decode().splitlines())
    files = {
        path
        for path, entry in final.items()
        if not entry.info.isdir() and not entry.info.linkname.startswith("/etc/alternatives/")
    } - set(base_files).union(owned)
    assert [path for path in sorted(files) if not UNOWNED.fullmatch(path)] == []
    assert "/opt/easybuild/software/mpi-hello/1.0-gompi-system/bin/mpi-hello" in files


def test_nothing_of_the_base_was_changed_by_the_site(final: Files, base_files: Files) -> None:
    """Settings of the base are as they were, but for what installing packages changes."""
    may_differ = re.compile(
        r"/etc/(?:group|gshadow|passwd|shadow)-?|/etc/ld\.so\.cache|/etc/hosts|/etc/hostname|/etc/resolv\.conf|/etc/mtab"
    )
    changed = [
        path
        for path, entry in base_files.items()
        if path.startswith(("/etc/", "/root/", "/usr/local/")) and entry.info.isreg()
        if path not in final or final[path].data != entry.data
    ]
    assert [path for path in changed if not may_differ.fullmatch(path)] == []


def test_proxies_in_no_setting(final: Files) -> None:
    settings = [path for path in final if path.startswith(("/etc/", "/root/", "/opt/")) and final[path].info.isreg()]
    assert [path for path in settings if PROXY.search(final[path].data)] == []


@pytest.mark.parametrize(
    "line",
    [
        "export https_proxy=http://p",
        "HTTP_PROXY = http://p",
        "setenv ftp_proxy http://p",
        "all_proxy=socks5://p",
        "no_proxy=.site.example",
        'Acquire::http::Proxy "http://p";',
        'Acquire::https::Proxy::deb.debian.org "http://p";',
        'Acquire::http { Proxy "http://p"; };',
        '  Proxy "http://p";',
        '  Proxy::deb.debian.org "http://p";',
        "proxy=http://p",
        "  proxy = http://p",
    ],
)
def test_a_proxy_in_a_setting_is_seen(line: str) -> None:
    assert PROXY.search(f"[main]\n{line}\n".encode()) and not PROXY.search(f"[main]\n# {line}\n".encode())


def certificates(data: bytes) -> set[bytes]:
    found = re.findall(rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----(.*?)-----END", data, re.DOTALL)
    return {re.sub(rb"\s", b"", body) for body in found}


def test_no_authority_but_the_bases(final: Files, base_files: Files, layers: list[bytes], site: dict[str, str]) -> None:
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    assert final[bundle].data == base_files[bundle].data
    known = set().union(*(certificates(entry.data) for entry in base_files.values()))
    assert len(known) > 100
    assert [path for path, entry in final.items() if certificates(entry.data) - known] == []
    # The site's own: a line of each one's signature, wherever it may lie.
    bundles = [name for name in (site.get("SSL_CERT_FILE"), *CA_FILES) if name and Path(name).is_file()]
    if not bundles:
        pytest.skip("no bundle here: " + ", ".join(CA_FILES))
    theirs = set().union(*(certificates(Path(name).read_bytes()) for name in bundles)) - known
    assert certificates(SITE_CA.read_bytes()) <= theirs
    for body in theirs:
        raw = base64.b64decode(body)
        lines = (body[(start := (len(body) // 64 - 2) * 64) : start + 64], raw[-96:-32])
        assert not [number for number, data in enumerate(layers) for line in lines if line in data]


@pytest.mark.parametrize("what", MARKERS)
def test_what_the_build_was_given_is_nowhere(what: str, mpi_hello: Built, layers: list[bytes]) -> None:
    marker = MARKERS[what].encode()
    forms = [marker, base64.b64encode(marker)[:-4], marker.hex().encode()]
    said = [mpi_hello.stdout.encode(), mpi_hello.stderr.encode(), json.dumps(mpi_hello.config).encode()]
    said += [(mpi_hello.layout / "index.json").read_bytes(), mpi_hello.blob(mpi_hello.digest)]
    said.append(sh("podman", "history", "--no-trunc", mpi_hello.name).stdout.encode())
    for form in forms:
        assert not [number for number, data in enumerate((*said, *layers)) if form in data]


def test_no_path_of_this_machine(mpi_hello: Built, layers: list[bytes]) -> None:
    own = [str(ROOT).encode() + b"/", b"hpc3build-secrets-", b"hpc3build-context-", str(mpi_hello.layout).encode()]
    texts = [json.dumps(mpi_hello.config).encode(), mpi_hello.blob(mpi_hello.digest), *layers[1:]]
    assert not [path for path in own for data in texts if path in data]


def test_the_environment_is_the_applications_alone(mpi_hello: Built) -> None:
    names = {entry.split("=")[0] for entry in mpi_hello.config["config"]["Env"]}
    assert {
        name for name in names if not re.fullmatch(r"PATH|CMAKE_PREFIX_PATH|EB(?:ROOT|VERSION)[A-Z]+", name)
    } == set()


def has_symbols(data: bytes) -> bool:
    """Whether a 64-bit ELF file has a .symtab or sections of debug information."""
    offset, (size, count, names) = struct.unpack_from("<Q", data, 0x28)[0], struct.unpack_from("<3H", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", data, offset + number * size) for number in range(count)]
    strings = sections[names][4]
    called = [data[strings + name : data.index(b"\0", strings + name)] for name, *_ in sections]
    return any(section[1] == 2 for section in sections) or any(name.startswith(b".debug") for name in called)


def test_programs_are_stripped(final: Files) -> None:
    programs = [path for path in final if path.startswith("/opt/") and final[path].data[:4] == b"\x7fELF"]
    assert "/opt/easybuild/software/mpi-hello/1.0-gompi-system/bin/mpi-hello" in programs
    assert [path for path in programs if has_symbols(final[path].data)] == []


def test_the_test_for_symbols_sees_them(tmp_path: Path) -> None:
    """Python's own files serve: a shared library made here with symbols, where there is a compiler."""
    source = tmp_path / "a.c"
    source.write_text("int hpc3build_here(void) { return 1; }\n")
    if sh("sh", "-c", "command -v gcc", check=False).returncode != 0:
        pytest.skip("not installed: gcc")
    sh("gcc", "-g", "-shared", "-o", tmp_path / "a.so", source)
    assert has_symbols((tmp_path / "a.so").read_bytes())


def test_owners(final: Files) -> None:
    """Whoever runs the container can't rewrite the application: it is root's, and closed to others."""
    ours = [entry.info for path, entry in final.items() if path.startswith("/opt")]
    assert [info.name for info in ours if (info.uid, info.gid) != (0, 0)] == []
    assert [info.name for info in ours if info.mode & 0o022 and not info.issym()] == []
    readable = [info.name for info in ours if not info.mode & 0o004 or (info.isdir() and not info.mode & 0o001)]
    assert readable == []


def test_setuid_and_writable_files(final: Files, base_files: Files) -> None:
    """Nothing gains rights but what Debian's packages bring: openssh-client's keysign (mpirun starts by ssh)."""

    def special(files: Files) -> set[str]:
        return {path for path, entry in files.items() if entry.info.isreg() and entry.info.mode & 0o6000}

    def open_to_all(files: Files) -> set[str]:
        return {path for path, entry in files.items() if not entry.info.issym() and entry.info.mode & 0o002}

    assert special(final) - special(base_files) <= {"/usr/lib/openssh/ssh-keysign", "/usr/bin/ssh-agent"}
    assert open_to_all(final) - open_to_all(base_files) == set()
