"""Options that several commands share, and the values they become."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from hpc3build.errors import InputError

#: What stands for an image, and for a recipe (docs/cli.md).
REF = "docker://HOST/NAME:TAG, oci:DIR:TAG, oci-archive:FILE:TAG, containers-storage:NAME or docker-daemon:NAME"
RECIPE = "a spack.yaml, a folder that holds one, easyconfigs or their names, or an easystack"
#: The time limit of a concretization; the largest environments known take some minutes.
SECONDS = 1800
# What Spack may see of this process: where programs and homes are, its own Python and caches, the way to the net.
_FOR_SPACK = frozenset(
    {
        "PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "SPACK_PYTHON", "SPACK_USER_CACHE_PATH", "SSL_CERT_FILE",
        "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
        "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    }
)  # fmt: skip


def _form(text: str) -> str:
    """A format by our name; docker and singularity are those of container:format in a spack.yaml."""
    from hpc3build.frontends.spack_container import FORMATS

    return FORMATS.get(text, text)


_FORMAT: dict[str, Any] = {
    "type": _form,
    "choices": ("containerfile", "apptainer"),
    "metavar": "containerfile|apptainer",
    "help": "what to write (default: what container:format of a spack.yaml says, else a Containerfile)",
}
# Engines build no Apptainer definition; the option says so of a spack.yaml that asks for one.
_FORMAT_TO_BUILD = {**_FORMAT, "metavar": "containerfile", "help": "build it though container:format says singularity"}


def add_recipe(parser: argparse.ArgumentParser, *, building: bool, to_build: bool = False) -> None:
    """Options of recipes; those that only ``building`` needs are left out elsewhere.

    ``to_build`` tells ``build`` from what only writes.
    """
    parser.add_argument(
        "--target", metavar="T", help="CPU target, an archspec name (x86_64_v3, zen3); for EasyBuild also native"
    )
    parser.add_argument("--cuda-compute-capabilities", metavar="C", help="for EasyBuild, as 8.0,9.0")
    parser.add_argument("--title", help="title of the image")
    _add_concretize(parser)
    parser.add_argument("--packages-source", metavar="DIR|URL", help="git repository of spack-packages")
    _add_easybuild(parser, building=building)
    if building:
        parser.add_argument("--base", metavar="IMAGE", help="base image of both stages")
        parser.add_argument(
            "--entrypoint",
            choices=("hpc3", "hpc3-exec"),
            help="hpc3 is HPC3's line to the letter; hpc3-exec keeps quoting and exit codes",
        )
        parser.add_argument("--mpi", dest="mpi_provider", metavar="NAME", help="for Spack, what provides MPI")
        parser.add_argument("--spack-ref", metavar="REF", help="tag or commit of Spack in the builder")
        parser.add_argument("--spack-source", metavar="DIR|URL", help="git repository of Spack: a clone here, or a URL")
        parser.add_argument("--format", **(_FORMAT_TO_BUILD if to_build else _FORMAT))
        parser.add_argument(
            "--pin",
            action="store_true",
            help="base images by digest, Spack and its packages by commit, as they are now",
        )
        parser.add_argument("--spack-mirrors", metavar="FILE", help="a mirrors.yaml, given to the build as a secret")
        parser.add_argument("--spack-keys", metavar="FILE", help="public keys that sign these mirrors' packages")
        parser.add_argument(
            "--host-provided",
            metavar="NAME",
            action="append",
            default=[],
            help="an external package that the base or the host provides",
        )


def _add_concretize(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("concretization of a spack.yaml")
    group.add_argument(
        "--concretize",
        choices=("lock", "builder", "host"),
        help="by the lock beside it, in the builder, or by the Spack of this machine "
        "(default: the lock where there is one, else the builder)",
    )
    group.add_argument("--spack", metavar="DIR", help="for host, a Spack's own folder (default: spack on PATH)")
    group.add_argument("--spack-config", metavar="DIR", help="for host, a user configuration (default: an empty one)")
    group.add_argument(
        "--concretize-seconds", metavar="N", type=_seconds, help=f"for host, the time limit (default: {SECONDS})"
    )
    group.add_argument("--save-lock", metavar="FILE", help="keep the lock that counts, as spack.lock beside it, say")


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return int(text)


def _add_easybuild(parser: argparse.ArgumentParser, *, building: bool) -> None:
    group = parser.add_argument_group("EasyBuild", "as eb takes them, and under `easybuild:` in hpc3build.yaml")
    group.add_argument(
        "--robot-paths",
        metavar="DIR[:DIR]",
        action="append",
        default=[],
        help="folders of easyconfigs that come before EasyBuild's own",
    )
    group.add_argument("--include-easyblocks", metavar="FILE", action="append", default=[], help="own easyblocks")
    group.add_argument("--hooks", metavar="FILE", help="own hooks")
    if not building:
        group.add_argument("--no-cache", action="store_true", help="resolve easyconfigs anew")
        return
    group.add_argument(
        "--sourcepath",
        metavar="DIR[:DIR]",
        action="append",
        default=[],
        help="folders of downloaded sources: those that the easyconfigs name travel into the build",
    )
    group.add_argument(
        "--accept-eula-for",
        metavar="NAME[,NAME]",
        action="append",
        default=[],
        help="software whose licence you accept, as CUDA,Intel-oneAPI",
    )
    group.add_argument(
        "--modules",
        choices=("flat", "lmod"),
        help="flat: the modules' environment alone; lmod: Lmod and the module files in the image",
    )
    group.add_argument(
        "--keep-compilers",
        action="store_true",
        default=None,
        help="of compilers keep more than their run-time libraries",
    )


def _cache(options: argparse.Namespace) -> Path | None:
    """Where resolved easyconfigs are kept; None for ``--no-cache``."""
    return None if getattr(options, "no_cache", False) else cache_folder()


def stdin() -> TextIO:
    """Standard input, as text. Raises InputError where it is closed."""
    if sys.stdin is None:
        raise InputError("standard input is closed", hint="give what is to be read, or </dev/null")
    return sys.stdin


def text_of(path: str, limit: int, what: str) -> str:
    """The text of a file that a person gave, ``-`` for standard input. Raises InputError."""
    from hpc3build.yamlread import read_text

    if path != "-":
        return read_text(Path(path), limit, what)
    content = stdin().buffer.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"standard input: larger than {limit >> 10} KiB", hint=f"expected {what}")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError("standard input: not UTF-8 text", hint=f"expected {what}") from error


def cache_folder() -> Path | None:
    """Our folder by the XDG base directory specification; None where the environment names none.

    A home that is not there is nobody's (/nonexistent, of a user without one), and is not made.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given.startswith("/"):
        return Path(given) / "hpc3build"
    home = os.environ.get("HOME", "")
    there = home.startswith("/") and os.path.isdir(home)  # noqa: PTH112 (False for what is no path)
    return Path(home) / ".cache" / "hpc3build" if there else None


def run_folders() -> tuple[Path, ...]:
    """Where layouts of one image may be put for engines, the most lasting first."""
    cache, runtime = cache_folder(), os.environ.get("XDG_RUNTIME_DIR", "")
    found = [cache / "run"] if cache is not None else []
    if runtime.startswith("/"):
        found.append(Path(runtime) / "hpc3build" / "run")
    temporary = os.environ.get("TMPDIR", "")
    return (*found, Path(temporary if temporary.startswith("/") else "/tmp") / f"hpc3build-run-{os.geteuid()}")  # noqa: S108 (made private)


def settings(options: argparse.Namespace) -> Any:
    """Settings with what the command line gives; a frontend puts them over those of hpc3build.yaml."""
    from hpc3build.recipe import Settings

    names = ("target", "cuda_compute_capabilities", "title", "base", "entrypoint", "mpi_provider")
    of_lock = ("concretize", "save_lock")
    of_files = ("format", "pin", "spack_mirrors", "spack_keys")
    of_spack = ("spack_ref", "spack_source", "packages_source", "spack", "spack_config", "concretize_seconds")
    of_easybuild = ("hooks", "modules", "keep_compilers")
    given = {name: getattr(options, name, None) for name in (*names, *of_lock, *of_files, *of_spack, *of_easybuild)}
    for name in ("spack", "spack_config", "concretize_seconds"):
        if given[name] is not None and given["concretize"] != "host":
            raise InputError(f"--{name.replace('_', '-')} is for --concretize host")
    if given["concretize"] == "host":
        given["concretize_seconds"] = given["concretize_seconds"] or SECONDS
    of_paths = ("robot_paths", "include_easyblocks", "sourcepath")
    lists = {name: tuple(getattr(options, name, ())) for name in ("host_provided", *of_paths)}
    accepted = tuple(name for text in getattr(options, "accept_eula_for", ()) for name in text.split(",") if name)
    _check_texts({**given, **lists})
    seen = {name: value for name, value in os.environ.items() if name in _FOR_SPACK and value}
    return Settings().overridden(**given, **lists, accept_eula_for=accepted, environment=seen, cache=_cache(options))


def _check_texts(given: Mapping[str, Any]) -> None:
    """Raise InputError for values that would be more than one line of what is written, and name the option."""
    from hpc3build.facts.vocabulary import TITLE
    from hpc3build.pairs import check_line
    from hpc3build.recipe import option_of
    from hpc3build.reference import of_base

    for name, value in given.items():
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str):
                check_line(option_of(name), text)
    for name, check in (("title", TITLE.check), ("base", of_base)):
        if given[name] is not None:
            try:
                check(given[name])
            except InputError as error:
                raise InputError(f"--{name}: {error.message}", hint=error.hint) from error


def runner(options: argparse.Namespace) -> Any:
    """What starts processes: it shows on standard error what takes long, unless ``--quiet`` is given."""
    from hpc3build.run import run, run_quietly

    if getattr(options, "concretize", None) == "host" and not options.quiet:
        limit = options.concretize_seconds or SECONDS
        print(f"hpc3build: Spack concretizes on this machine, for {limit} s at most", file=sys.stderr)
    return run_quietly if options.quiet else run


def secret(text: str) -> tuple[str, Path]:
    """The id and file of ``id=ID,src=FILE``. Raises InputError."""
    pairs = dict(part.partition("=")[::2] for part in text.split(","))
    source = pairs.get("src") or pairs.get("source") or ""
    named = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", pairs.get("id", ""))
    if set(pairs) - {"id", "src", "source"} or not named or not os.path.isfile(source):  # noqa: PTH113
        raise InputError(f"--secret {text}: expected id=ID,src=FILE, and a file that is there")
    return pairs["id"], Path(source)


def reference(text: str) -> Any:
    """A reference, as a person types it. Raises BadReference, also where a path was meant."""
    from hpc3build.errors import BadReference
    from hpc3build.reference import DOCKER, parse

    path = Path(text)
    if not text.startswith(("docker:", "oci:", "oci-archive:")) and len(text) < 4096:
        head, colon, tag = text.rpartition(":")
        for path, tail in ((Path(text), ""), (Path(head), colon + tag)):
            what = _place_of(path)
            if what:
                kind = "an OCI layout" if what == "oci" else "a file"
                remote = "" if text.startswith((".", "/")) else f"; docker://{text} is the registry's"
                raise BadReference(
                    f"{text!r} has no transport, and there is {kind} of this name", hint=f"{what}:{path}{tail}{remote}"
                )
    found = parse(text)
    if found.transport == DOCKER and found.registry == "localhost" and not text.startswith("docker:"):
        raise BadReference(
            f"{text!r} has no transport: images of localhost are kept by engines",
            hint=f"containers-storage:{text} is podman's and buildah's, docker-daemon:{text} docker's; "
            f"docker://{text} is that of a registry on this machine",
        )
    return found


def _place_of(path: Path) -> str:
    """The transport of a path that holds images, else empty."""
    try:
        if (path / "oci-layout").is_file():
            return "oci"
        return "oci-archive" if path.is_file() else ""
    except (OSError, ValueError):
        return ""


def line_of_shell(option: str, text: str | None) -> str:
    """A command line, empty where none is given. Raises InputError for an empty one and a missing quote."""
    import shlex

    if text is None:
        return ""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"{option} {text!r}: {error}") from error
    if not words:
        raise InputError(f"{option}: its value is empty", hint="leave it out")
    return text


def add_depth(parser: argparse.ArgumentParser) -> None:
    """How far an image is looked into, for commands that read its layers."""
    group = parser.add_argument_group("how far an image is looked into")
    group.add_argument(
        "--fast", action="store_true", help="stop at the first record of a package manager's whole stack"
    )
    group.add_argument("--thorough", action="store_true", help="look into every file, not only programs and libraries")
    group.add_argument(
        "--root", dest="roots", action="append", default=[], metavar="PATH",
        help="a program or folder of the image that is its application (default: the stack's roots, else the entry "
        "point and what is on the login PATH)",
    )  # fmt: skip


def depth(options: argparse.Namespace) -> Any:
    """What ``add_depth`` was given. Raises InputError."""
    from hpc3build.workflows.describe import Depth

    return Depth(fast=options.fast, thorough=options.thorough, roots=tuple(options.roots))


def add_registry(parser: argparse.ArgumentParser) -> None:
    """How registries are reached, for commands that read references."""
    group = parser.add_argument_group(
        "registries",
        "credentials come from $REGISTRY_AUTH_FILE, $DOCKER_CONFIG, "
        "~/.docker/config.json, podman's auth.json and credential helpers, or",
    )
    group.add_argument("--username", metavar="NAME")
    group.add_argument("--password-stdin", action="store_true", help="the password is standard input")
    group.add_argument("--plain-http", action="store_true", help="loopback registries are tried so anyway")
    group.add_argument("--tls-verify", default="true", choices=("true", "false"))
    group.add_argument("--ca-file", metavar="FILE", help="PEM bundle to trust beside the system's")


def access(options: argparse.Namespace) -> Any:
    """How registries are reached. Raises InputError for half of a credential and a CA file that is not there."""
    from hpc3build.stores.access import Access

    if (options.username is None) == options.password_stdin:
        raise InputError("--username and --password-stdin go together")
    if options.ca_file is not None and not os.path.isfile(options.ca_file):  # noqa: PTH113
        raise InputError(f"--ca-file {options.ca_file}: no such file")
    return Access(
        username=options.username,
        password=stdin().readline().rstrip("\r\n") if options.password_stdin else None,
        plain_http=options.plain_http,
        tls_verify=options.tls_verify == "true",
        ca_file=Path(options.ca_file) if options.ca_file else None,
    )
