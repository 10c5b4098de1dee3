"""The command line: flags only. Each command calls one function of workflows, and errors are caught once, here."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hpc3build import __version__, cli_annotate, cli_check, cli_ci, cli_export, cli_host
from hpc3build import options as shared
from hpc3build.console import Command, Parser, add_everywhere, behind_command, visible
from hpc3build.console import add_command as _command
from hpc3build.console import tell as _tell
from hpc3build.errors import Hpc3BuildError, InputError, ToolError
from hpc3build.interrupts import Once


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code (docs/cli.md) and never lets an error of ours become a traceback."""
    if sys.stderr is None:  # closed: what is told there is lost, and print would take standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 (to the process's end)
    arguments = behind_command(sys.argv[1:] if argv is None else argv)
    # What stands behind run's -- is another program's; argparse would give it to the positional before the options.
    own = arguments.index("--") if arguments[:1] == ["run"] and "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:own]
    try:
        try:
            return _run(arguments[:own], arguments[own + 1 :])
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # of a help text, too
    except Hpc3BuildError as error:
        if debug:
            raise
        return _tell(error)
    except KeyboardInterrupt as interrupt:
        print("hpc3build: interrupted", file=sys.stderr)
        return 128 + (interrupt.number if isinstance(interrupt, _Ended) else signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # A path that the system refuses as such: a name of 5000 characters, a folder that cannot be read.
        if debug:
            raise
        if error.filename is None:
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 (or Python tries to flush the rest at its end)
            return _tell(ToolError(f"cannot write the output: {error.strerror or error}"))
        return _tell(InputError(f"{error.filename}: {error.strerror or error}"))


def _run(arguments: Sequence[str], others: Sequence[str]) -> int:
    """The command's exit status; ``others`` is what the program that ``run`` starts is given."""
    parser = _parser(arguments[0] if arguments else "")
    options = parser.parse_args(arguments)
    options.argv = list(others)
    if options.command is None:
        parser.print_help(sys.stderr)
        return InputError.exit_code
    command: Command = options.run
    if sys.stdout is None:
        return _tell(ToolError("standard output is closed"))
    # Schedulers, CI and closed terminals end jobs so: what was put aside must go, and the engine must hear of it.
    ends = Once(_Ended)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, ends)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return command(options)


class _Ended(KeyboardInterrupt):
    """Ended by SIGTERM or SIGHUP as by an interrupt from the keyboard."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _parser(only: str = "") -> argparse.ArgumentParser:
    """The parser; with the options of the command ``only`` alone where that is one."""
    common = Parser(add_help=False)
    add_everywhere(common.add_argument_group("everywhere"))
    parser = Parser(prog="hpc3build", description="HPC container images that describe themselves.")
    parser.add_argument("--version", action="version", version=f"hpc3build {__version__}")
    add_everywhere(parser)
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    adders: dict[str, Callable[[Any, argparse.ArgumentParser], None]] = {
        "render": _add_render,
        "build": _add_build,
        "facts": _add_facts,
        "annotate": cli_annotate.add,
        "inspect": _add_inspect,
        "check": cli_check.add,
        "spack-extension": _add_spack_extension,
        "easybuild-hooks": _add_easybuild_hooks,
        **cli_host.ADDERS,
        "export": cli_export.add_export,
        "docs": cli_export.add_docs,
        "ci": cli_ci.add,
    }
    for add in [adders[only]] if only in adders else adders.values():
        add(commands, common)
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
    parser.add_argument("recipe", nargs="+", metavar="RECIPE", help=shared.RECIPE)
    parser.add_argument("-o", "--output", metavar="FILE", help="the Containerfile (default: standard output)")
    parser.add_argument("--context", metavar="DIR", help="the whole build context")
    parser.add_argument("--no-cache", action="store_true", help="resolve easyconfigs anew")
    shared.add_recipe(parser, building=True)
    shared.add_registry(parser)


def _render(options: argparse.Namespace) -> int:
    from hpc3build.workflows.outputs import check_writable, write_atomically
    from hpc3build.workflows.render import foreign_target, render

    check_writable(None if options.output == "-" else options.output, options.save_lock)
    planned = render(tuple(options.recipe), shared.settings(options), shared.runner(options), shared.access(options))
    _tell_notes(options, planned)
    if not options.quiet and (told := foreign_target(planned, os.uname().machine)):
        print(f"hpc3build: note: {visible(told)}; build it elsewhere", file=sys.stderr)
    if options.context:
        planned.context.write(Path(options.context))
        if not options.quiet:
            print(f"hpc3build: the build context is in {visible(options.context)}", file=sys.stderr)
    if options.output and options.output != "-":
        write_atomically(options.output, planned.context.containerfile)
    elif options.output or not options.context:
        sys.stdout.write(planned.context.containerfile)
    return 0


def _tell_notes(options: argparse.Namespace, planned: Any, *more: str) -> None:
    for note in (*planned.recipe.notes, *more) if not options.quiet else ():
        print(f"hpc3build: note: {visible(note)}", file=sys.stderr)


def _add_build(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(
        commands,
        common,
        "build",
        _build,
        "build, read what was installed, label and annotate",
        "hpc3build build recipes/mpi-hello -t oci:out/mpi-hello:1.0",
    )
    parser.add_argument("recipe", nargs="+", metavar="RECIPE", help=shared.RECIPE)
    parser.add_argument(
        "-t",
        "--tag",
        required=True,
        metavar="REF",
        help="oci:DIR:TAG, oci-archive:FILE:TAG, containers-storage:NAME or docker://HOST/NAME:TAG",
    )
    parser.add_argument("--engine", default="auto", metavar="auto|buildah|podman|docker")
    parser.add_argument("--secret", action="append", default=[], metavar="id=ID,src=FILE", help="a build secret")
    parser.add_argument("--no-cache", action="store_true", help="build every layer anew, and resolve easyconfigs anew")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.add_argument(
        "--push-by-digest", action="store_true", help="push without a tag: index create names it by its digest"
    )
    parser.add_argument("--digest-file", metavar="FILE", help="write the digest there, when all is done")
    shared.add_recipe(parser, building=True, to_build=True)
    shared.add_registry(parser)


def _build(options: argparse.Namespace) -> int:
    from hpc3build import report
    from hpc3build.engines import choose
    from hpc3build.run import run, run_quietly
    from hpc3build.workflows.build import build, secrets_not_given
    from hpc3build.workflows.outputs import check_writable, write_atomically
    from hpc3build.workflows.render import foreign_target, render

    check_writable(options.digest_file, options.save_lock)
    target = shared.reference(options.tag)
    if target.registry == "docker.io" and not options.tag.startswith(("docker://", "docker.io/")):
        raise InputError(
            f"-t {options.tag}: a name without a place",
            hint=f"-t containers-storage:localhost/{options.tag} keeps it on "
            f"this machine, -t docker://HOST/{options.tag} pushes it",
        )
    secrets = dict(map(shared.secret, options.secret))
    access = shared.access(options)
    planned = render(tuple(options.recipe), shared.settings(options), shared.runner(options), access, building=True)
    absent = (f"no --secret id={name},src=FILE is given" for name in secrets_not_given(planned, secrets))
    _tell_notes(options, planned, *absent)
    remote = options.engine == "docker" and os.environ.get("DOCKER_HOST")  # that daemon's machine may be another
    if not remote and (told := foreign_target(planned, os.uname().machine)):
        raise InputError(told, hint="build it on such a machine: compilers here take none of its options")
    engine = choose(options.engine, run_quietly if options.quiet else run)
    built = build(
        planned, target, engine, run,
        secrets=secrets, no_cache=options.no_cache, access=access, by_digest=options.push_by_digest,
    )  # fmt: skip
    if options.digest_file:
        write_atomically(options.digest_file, f"{built.digest}\n")
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
    parser.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="a recipe (of several easyconfigs, all), a spack.lock, or an image reference",
    )
    parser.add_argument("--json", action="store_true")
    shared.add_recipe(parser, building=False)
    shared.add_depth(parser)
    shared.add_registry(parser)


def _facts(options: argparse.Namespace) -> int:
    from hpc3build import report
    from hpc3build.workflows.describe import facts_of

    subject, facts = facts_of(
        tuple(options.source),
        shared.settings(options),
        shared.runner(options),
        shared.access(options),
        shared.depth(options),
    )
    if options.json:
        sys.stdout.write(report.dumps(report.facts_json(subject, facts)))
    else:
        sys.stdout.write(report.facts_text(facts))
    return 0


def _add_inspect(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = _command(
        commands,
        common,
        "inspect",
        _inspect,
        "annotations and labels, without layers",
        "hpc3build inspect oci:out/mpi-hello:1.0",
    )
    parser.add_argument("reference", metavar="REF", help=shared.REF)
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true")
    shape.add_argument("--records", action="store_true", help="an image record a line, of each image of an index")
    shared.add_registry(parser)


def _inspect(options: argparse.Namespace) -> int:
    from hpc3build import report
    from hpc3build.run import run
    from hpc3build.workflows.inspect import inspect

    if options.records:
        from hpc3build.workflows.candidates import Reading, candidates

        shared.reference(options.reference)  # not a file of records, not a pattern
        for candidate in candidates(options.reference, Reading(run, shared.access(options), whole=True)):
            sys.stdout.write(json.dumps(report.record(candidate), ensure_ascii=False, sort_keys=True) + "\n")
        return 0
    found = inspect(shared.reference(options.reference), run, shared.access(options))
    sys.stdout.write(report.dumps(report.inspect_json(found)) if options.json else report.inspect_text(found))
    return 0


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


def _add_easybuild_hooks(commands: Any, common: argparse.ArgumentParser) -> None:
    _command(
        commands,
        common,
        "easybuild-hooks",
        _easybuild_hooks,
        'the file with which EasyBuild writes facts at the end of an installation, for eb --hooks="$(…)"',
        "hpc3build easybuild-hooks",
    )


def _easybuild_hooks(options: argparse.Namespace) -> int:
    from hpc3build.resources import easybuild_hooks

    print(easybuild_hooks())
    return 0
