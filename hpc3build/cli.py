"""The command line: flags only. Each command calls one function of workflows, and errors are caught once, here."""

from __future__ import annotations

import argparse
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hpc3build import __version__
from hpc3build import options as shared
from hpc3build.errors import Hpc3BuildError, InputError, ToolError

Command = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """argparse with our exit code and form of message."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(InputError.exit_code, f"hpc3build: error: {_visible(message)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code (docs/cli.md) and never lets an error of ours become a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(arguments[0] if arguments else "")
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return InputError.exit_code
    command: Command = options.run
    if sys.stdout is None:
        return _tell(ToolError("standard output is closed"))
    # Schedulers and CI end jobs with it: what was put aside must go, and the engine must hear of it.
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = command(options)
        sys.stdout.flush()
        return status
    except Hpc3BuildError as error:
        if options.debug:
            raise
        return _tell(error)
    except KeyboardInterrupt as interrupt:
        print("hpc3build: interrupted", file=sys.stderr)
        return 143 if isinstance(interrupt, _Terminated) else 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # A path that the system refuses as such: a name of 5000 characters, a folder that cannot be read.
        if options.debug:
            raise
        if error.filename is None:
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 (or Python tries to flush the rest at its end)
            return _tell(ToolError(f"cannot write the output: {error.strerror or error}"))
        return _tell(InputError(f"{error.filename}: {error.strerror or error}"))


class _Terminated(KeyboardInterrupt):
    """SIGTERM, taken like an interrupt from the keyboard."""


def _terminate(number: int, frame: object) -> NoReturn:
    raise _Terminated


def _tell(error: Hpc3BuildError) -> int:
    print(f"hpc3build: error: {_visible(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {_visible(error.hint)}", file=sys.stderr)
    return error.exit_code


def _visible(text: str) -> str:
    """Messages quote what people and images gave: no control character of it reaches the terminal.

    Of line breaks only those stay that our own lists put in front of their indented lines.
    """
    text = re.sub(r"\n(?!  )", "\ufffd", text.expandtabs())
    kept = "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)
    return kept.encode(sys.stderr.encoding or "utf-8", "replace").decode(sys.stderr.encoding or "utf-8")


def _parser(only: str = "") -> argparse.ArgumentParser:
    """The parser; with the options of the command ``only`` alone where that is one."""
    common = _Parser(add_help=False)
    group = common.add_argument_group("everywhere")
    group.add_argument("-q", "--quiet", action="store_true", help="say nothing but results and errors")
    group.add_argument("-v", "--verbose", action="store_true", help="say more")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(prog="hpc3build", description="HPC container images that describe themselves.")
    parser.add_argument("--version", action="version", version=f"hpc3build {__version__}")
    parser.set_defaults(command=None, debug=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    adders = {
        "render": _add_render,
        "build": _add_build,
        "facts": _add_facts,
        "annotate": _add_annotate,
        "inspect": _add_inspect,
        "check": _add_check,
        "spack-extension": _add_spack_extension,
    }
    for add in [adders[only]] if only in adders else adders.values():
        add(commands, common)
    return parser


def _command(
    commands: Any, common: argparse.ArgumentParser, name: str, run: Command, text: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, parents=[common], help=text, description=text, epilog=f"example: {example}"
    )
    parser.set_defaults(run=run)
    return parser


def _add_render(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(
        commands,
        common,
        "render",
        _render,
        "write the Containerfile, or the whole build context",
        "hpc3build render recipes/gromacs-cuda --context out/context",
    )
    parser.add_argument("recipe", nargs="+", metavar="RECIPE")
    parser.add_argument("-o", "--output", metavar="FILE", help="the Containerfile (default: standard output)")
    parser.add_argument("--context", metavar="DIR", help="the whole build context")
    shared.add_recipe(parser, building=True)


def _render(options: argparse.Namespace) -> int:
    from hpc3build.workflows.render import render, write_atomically

    planned = render(tuple(options.recipe), shared.settings(options), shared.runner(options))
    if options.context:
        planned.context.write(Path(options.context))
    if options.output:
        write_atomically(options.output, planned.context.containerfile)
    elif not options.context:
        sys.stdout.write(planned.context.containerfile)
    return 0


def _add_build(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(
        commands,
        common,
        "build",
        _build,
        "build, read what was installed, label and annotate",
        "hpc3build build recipes/mpi-hello -t oci:out/mpi-hello:1.0",
    )
    parser.add_argument("recipe", nargs="+", metavar="RECIPE")
    parser.add_argument(
        "-t",
        "--tag",
        required=True,
        metavar="REF",
        help="oci:DIR:TAG, containers-storage:NAME or docker://HOST/NAME:TAG",
    )
    parser.add_argument("--engine", default="auto", metavar="auto|buildah|podman")
    parser.add_argument("--secret", action="append", default=[], metavar="id=ID,src=FILE", help="a build secret")
    parser.add_argument("--no-cache", action="store_true", help="build every layer anew")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    shared.add_recipe(parser, building=True)
    shared.add_registry(parser)


def _build(options: argparse.Namespace) -> int:
    from hpc3build import report
    from hpc3build.engines import choose
    from hpc3build.reference import parse
    from hpc3build.run import run, run_quietly
    from hpc3build.workflows.build import build
    from hpc3build.workflows.render import render

    target = parse(options.tag)
    if target.registry == "docker.io" and not options.tag.startswith(("docker://", "docker.io/")):
        raise InputError(
            f"-t {options.tag}: a name without a place",
            hint=f"-t containers-storage:localhost/{options.tag} keeps it on "
            f"this machine, -t docker://HOST/{options.tag} pushes it",
        )
    secrets = dict(map(shared.secret, options.secret))
    planned = render(tuple(options.recipe), shared.settings(options), shared.runner(options))
    engine = choose(options.engine, run_quietly if options.quiet else run)
    access = shared.access(options)
    built = build(planned, target, engine, run, secrets=secrets, no_cache=options.no_cache, access=access)
    if options.json:
        document = report.facts_json(str(built.reference), built.facts)
        sys.stdout.write(report.dumps({**document, "digest": built.digest}))
    else:
        sys.stdout.write(report.facts_text(built.facts))
        print(f"\n{built.reference} {built.digest}")
    return 0


def _add_facts(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(
        commands,
        common,
        "facts",
        _facts,
        "what is known of a recipe, a lock or an image, with evidence",
        "hpc3build facts spack.lock --json",
    )
    parser.add_argument("source", metavar="SOURCE", help="a recipe, a spack.lock, or an image reference")
    parser.add_argument("--json", action="store_true")
    shared.add_recipe(parser, building=False)
    shared.add_registry(parser)


def _facts(options: argparse.Namespace) -> int:
    from hpc3build import report
    from hpc3build.workflows.describe import facts_of

    subject, facts = facts_of(options.source, shared.settings(options), shared.runner(options), shared.access(options))
    if options.json:
        sys.stdout.write(report.dumps(report.facts_json(subject, facts)))
    else:
        sys.stdout.write(report.facts_text(facts))
    return 0


def _add_annotate(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(
        commands,
        common,
        "annotate",
        _annotate,
        "rewrite manifests; nothing else moves",
        "hpc3build annotate oci:out/mpi-hello:1.0 -a org.supercontainers.gpu=none --labels",
    )
    parser.add_argument("reference", nargs="+", metavar="REF")
    parser.add_argument("-a", dest="pairs", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--from", dest="source", metavar="RECIPE|LOCK", help="what is planned there")
    parser.add_argument("--detect", action="store_true", help="what the evidence inside the image says")
    parser.add_argument("--remove", action="append", default=[], metavar="KEY")
    parser.add_argument("--labels", action="store_true", help="write labels too: the image ID changes")
    parser.add_argument(
        "--platform",
        dest="platforms",
        action="append",
        default=[],
        metavar="OS/ARCH[/VARIANT]",
        help="of an index, these images and their descriptors (default: the index itself, and what tells its images "
        "apart on their descriptors; no image changes)",
    )
    parser.add_argument("--all-children", action="store_true", help="of an index, itself and every image in it")
    parser.add_argument("--index-only", action="store_true", help="of an index, its own annotations alone")
    parser.add_argument("--descriptors", action="store_true", help="of an index, its images' descriptors alone")
    parser.add_argument("--attach", action="store_true", help="write a referrer: the image and its digest stay")
    parser.add_argument("--expect-digest", metavar="D", help="refuse when the tag names another digest")
    parser.add_argument("--dry-run", action="store_true", help="say what would change")
    parser.add_argument("--json", action="store_true")
    shared.add_registry(parser)


def _annotate(options: argparse.Namespace) -> int:
    from hpc3build import report
    from hpc3build.reference import parse
    from hpc3build.rewrite import Platform, Target
    from hpc3build.run import run
    from hpc3build.workflows.annotate import Wish, annotate, parse_pairs

    wish = Wish(
        pairs=parse_pairs(options.pairs),
        remove=tuple(options.remove),
        source=options.source,
        detect=options.detect,
        labels=options.labels,
        expect_digest=options.expect_digest,
        dry_run=options.dry_run,
        target=Target(
            platforms=tuple(map(Platform.parse, options.platforms)),
            all_children=options.all_children,
            index_only=options.index_only,
            descriptors=options.descriptors,
        ),
        attach=options.attach,
    )
    if not (wish.pairs or wish.remove or wish.source or wish.detect):
        raise InputError("annotate: nothing to write", hint="-a KEY=VALUE, --from, --detect or --remove say what")
    access = shared.access(options)
    results: list[tuple[str, Any, str | None]] = []
    status = 0
    for text in options.reference:
        try:
            result = annotate(parse(text), wish, run, access)
        except Hpc3BuildError as error:
            if options.debug:
                raise
            status = status or _tell(error)
            results.append((text, None, error.message))
            continue
        results.append((text, result, None))
        for warning in result.warnings if not options.quiet else ():
            print(f"hpc3build: warning: {_visible(warning)}", file=sys.stderr)
        if not options.json:
            sys.stdout.write(report.annotate_text(text, result, dry_run=options.dry_run))
    if options.json:
        sys.stdout.write(report.dumps(report.annotate_json(results)))
    return status


def _add_inspect(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(
        commands,
        common,
        "inspect",
        _inspect,
        "annotations and labels, without layers",
        "hpc3build inspect oci:out/mpi-hello:1.0",
    )
    parser.add_argument("reference", metavar="REF")
    parser.add_argument("--json", action="store_true")
    shared.add_registry(parser)


def _inspect(options: argparse.Namespace) -> int:
    from hpc3build import report
    from hpc3build.reference import parse
    from hpc3build.run import run
    from hpc3build.workflows.inspect import inspect

    found = inspect(parse(options.reference), run, shared.access(options))
    sys.stdout.write(report.dumps(report.inspect_json(found)) if options.json else report.inspect_text(found))
    return 0


def _add_check(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(
        commands,
        common,
        "check",
        _check,
        "conformance with HPC3: static, and live under engines",
        "hpc3build check oci:out/mpi-hello:1.0 --run podman",
    )
    parser.add_argument("reference", metavar="REF")
    parser.add_argument("--run", dest="engines", action="append", default=[], metavar="ENGINE")
    parser.add_argument("--json", action="store_true")
    shared.add_registry(parser)


def _check(options: argparse.Namespace) -> int:
    from hpc3build import report
    from hpc3build.reference import parse
    from hpc3build.run import run
    from hpc3build.workflows.check import check

    findings = check(parse(options.reference), tuple(options.engines), run, shared.access(options))
    sys.stdout.write(report.dumps(report.check_json(findings)) if options.json else report.check_text(findings))
    return 0 if report.verdict(findings) == "CONFORMS" else 1


def _add_spack_extension(commands: Any, common: argparse.ArgumentParser) -> None:
    _command(
        commands,
        common,
        "spack-extension",
        _spack_extension,
        "the folder that gives Spack the command spack hpc3, for its config:extensions",
        "hpc3build spack-extension",
    )


def _spack_extension(options: argparse.Namespace) -> int:
    from hpc3build.resources import spack_extension

    print(spack_extension())
    return 0
