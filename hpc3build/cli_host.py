"""The commands about hosts and choices: fingerprint, match, pick, index, run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hpc3build import options as shared
from hpc3build.console import add_command, add_everywhere, tell
from hpc3build.errors import InputError

if TYPE_CHECKING:
    from hpc3build.host.fingerprint import Fingerprint
    from hpc3build.run import Runner
    from hpc3build.workflows.candidates import Reading

#: name, what runs it, its help, an example.
COMMANDS = (
    ("fingerprint", "this host, as far as images care", "hpc3build fingerprint --json"),
    ("match", "will it run here, and why not", "hpc3build match oci:out/mpi-hello:1.0 --allow-unknown"),
    ("pick", "best image for the host", "hpc3build pick oci:out/mpi-hello:1.0 --explain --allow-unknown"),
    (
        "index",
        "several images as one index, best practice order",
        "hpc3build index annotate registry.example/hpc/app:1.0",
    ),
    (
        "run",
        "pick, match, then the engine with the right flags",
        "hpc3build run registry.example/hpc/app:1.0 -- app --help",
    ),
)


def add_fingerprint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", help="write the JSON, or the script, there")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--fast", action="store_true", help="files only, no commands")
    parser.add_argument("--script", action="store_true", help="print a POSIX shell script that collects the same")
    parser.add_argument("--from-probe", metavar="FILE", help="interpret what that script printed; - is standard input")
    parser.add_argument(
        "--injects",
        metavar="LIBRARY",
        action="append",
        default=[],
        help="a library that the site binds into every container",
    )
    parser.add_argument("--nfd-features", metavar="DIR", help="write a local feature file of NFD there")


def run_fingerprint(options: argparse.Namespace) -> int:
    from hpc3build.run import run

    if options.script and (
        options.from_probe or options.json or options.nfd_features or options.fast or options.injects
    ):
        raise InputError("--script prints a script that looks at another host: of the options it takes -o alone")
    if options.from_probe and (options.fast or options.injects):
        raise InputError("--fast and --injects are about this host, and --from-probe reads what another one said")
    if options.script:
        from hpc3build.host.script import script

        if options.output:
            from hpc3build.workflows.outputs import write_atomically

            write_atomically(options.output, script())
        else:
            sys.stdout.write(script())
        return 0
    from hpc3build import report, report_match
    from hpc3build.host.probe import MAX_BYTES
    from hpc3build.workflows import fingerprint as workflow

    if options.from_probe:
        host = workflow.from_probe(options.from_probe, shared.text_of(options.from_probe, MAX_BYTES, "a probe"))
    else:
        runner: Runner | None = None if options.fast else run
        host = workflow.fingerprint(os.environ, *machine(), runner, injects=tuple(options.injects))
    if options.nfd_features:
        path = workflow.write_nfd_features(options.nfd_features, host)
        if not options.quiet:
            print(f"wrote {path}", file=sys.stderr)
    if options.output:
        from hpc3build.workflows.outputs import write_atomically

        write_atomically(options.output, report.dumps(host.to_json()))
    elif options.json:
        sys.stdout.write(report.dumps(host.to_json()))
    elif not options.nfd_features:
        sys.stdout.write(report_match.fingerprint_text(host))
    return 0


def machine() -> tuple[str, str]:
    """What the machine is called by uname -m, and the user's name, as /etc/subuid has it."""
    import pwd

    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return os.uname().machine, user


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Options of every command that judges images."""
    parser.add_argument("--host", metavar="FILE", help="a recorded fingerprint or probe (default: this host)")
    parser.add_argument("--allow-unknown", action="store_true", help="take UNKNOWN for good enough")
    shared.add_registry(parser)


def reading(options: argparse.Namespace) -> Reading:
    """How images are read, and for which host."""
    from hpc3build.run import run
    from hpc3build.workflows.candidates import Reading

    return Reading(run, shared.access(options), _host(options))


def _host(options: argparse.Namespace) -> Fingerprint:
    from hpc3build.run import run
    from hpc3build.workflows import fingerprint as workflow

    if options.host is not None:
        return workflow.recorded(options.host)
    return workflow.for_matching(os.environ, *machine(), run)


def add_match(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", metavar="REF", help=shared.REF)
    parser.add_argument("--json", action="store_true")
    add_choice(parser)


def run_match(options: argparse.Namespace) -> int:
    from hpc3build import report, report_match
    from hpc3build.workflows.match import choose

    choice = choose((options.reference,), reading(options))
    if options.json:
        sys.stdout.write(report.dumps(report_match.match_json(choice)))
    else:
        sys.stdout.write(report_match.match_text(choice, verbose=options.verbose))
    return 0 if choice.runs(allow_unknown=options.allow_unknown) else 1


def add_pick(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "reference", nargs="+", metavar="REF", help="references, REPOSITORY:* for its tags, or a file of image records"
    )
    parser.add_argument("--explain", action="store_true", help="show all candidates and why, on standard error")
    parser.add_argument("--json", action="store_true")
    add_choice(parser)


def run_pick(options: argparse.Namespace) -> int:
    from hpc3build import report, report_match
    from hpc3build.workflows.engine_names import name_picked
    from hpc3build.workflows.match import choose

    how = reading(options)
    choice = choose(tuple(options.reference), how)
    picked = choice.best if choice.runs(allow_unknown=options.allow_unknown) else None
    name, note = name_picked(picked.candidate, how.runner) if picked is not None else ("", "")
    for _, error in choice.missing:
        tell(error)
    if options.explain:
        sys.stderr.write(report_match.explain_text(choice))
    if options.json:
        sys.stdout.write(report.dumps(report_match.pick_json(choice, picked, name)))
    elif picked is not None:
        print(name)
    if picked is not None and note and not options.quiet:
        print(f"hpc3build: note: {report.plain(note)}", file=sys.stderr)
    elif picked is None and not options.json and not options.quiet:
        deciding = choice.best.match.deciding
        why = f"{choice.best.match.verdict.value}: {deciding.message}" if deciding else ""
        print(f"hpc3build: no image fits; the nearest: {report.plain(why)}", file=sys.stderr)
    # What could not be read might have been the answer, where nothing else is.
    return 0 if picked is not None else max([1, *(error.exit_code for _, error in choice.missing)])


def add_index(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="create|annotate", required=True)
    create = actions.add_parser("create", help="make an index of images", description="make an index of images")
    create.add_argument("reference", metavar="REF", help="the index, with its tag")
    create.add_argument("image", nargs="+", metavar="IMAGE", help="images, or indexes whose images are meant")
    text = "reorder an index, and annotate its descriptors with what its images say; no image changes"
    create.add_argument("--digest-file", metavar="FILE", help="write the index's digest there, when it is in place")
    annotate = actions.add_parser("annotate", help=text, description=text)
    annotate.add_argument("reference", metavar="REF", help="the index")
    for action in (create, annotate):
        action.add_argument(
            "--first-as-default",
            action="store_true",
            help="no image runs on every host: the first one is what plain runtimes get",
        )
        action.add_argument("--dry-run", action="store_true", help="show the index, write nothing")
        action.add_argument("--json", action="store_true", help="print the index")
        # Said behind the action as well as before it; a default here would undo what stood before.
        add_everywhere(action, default=argparse.SUPPRESS)
        shared.add_registry(action)


def run_index(options: argparse.Namespace) -> int:
    from hpc3build import report, report_match
    from hpc3build.run import run
    from hpc3build.workflows import index as workflow
    from hpc3build.workflows.outputs import check_writable, write_atomically

    digest_file = getattr(options, "digest_file", None)
    check_writable(digest_file)
    choices = {"first_as_default": options.first_as_default, "dry_run": options.dry_run}
    reference, access = shared.reference(options.reference), shared.access(options)
    if options.action == "create":
        done = workflow.create(reference, [*map(shared.reference, options.image)], run, access, **choices)
    else:
        done = workflow.annotate(reference, run, access, **choices)
    if digest_file and not options.dry_run:
        write_atomically(digest_file, f"{done.manifest.digest}\n")
    for warning in done.warnings if not options.quiet else ():
        print(f"hpc3build: warning: {report.plain(warning)}", file=sys.stderr)
    if options.json:
        sys.stdout.write(report.dumps(dict(done.manifest.json)))
    else:
        sys.stdout.write(report_match.index_text(done, dry_run=options.dry_run))
    return 0


def add_run(parser: argparse.ArgumentParser) -> None:
    """Options of run; the command line itself cuts the program's own words off, behind --."""
    parser.usage = "%(prog)s [options] REF -- CMD"
    parser.add_argument("reference", metavar="REF", help="as pick takes it")
    parser.add_argument(
        "--engine", default="auto", metavar="E", help="auto, podman, docker, apptainer, singularity, sarus"
    )
    parser.add_argument("--print", dest="show", action="store_true", help="print the engine's line, run nothing")
    parser.add_argument("--force", action="store_true", help="run it though it does not fit")
    parser.add_argument("--log", metavar="FILE", help="append one JSON line: digest, key facts, verdict")
    add_choice(parser)


def run_run(options: argparse.Namespace) -> int:
    import shlex

    from hpc3build import report
    from hpc3build.run import replace
    from hpc3build.workflows import run as workflow
    from hpc3build.workflows.engine_names import Place
    from hpc3build.workflows.match import choose

    how = reading(options)
    choice = choose((options.reference,), how)
    best = choice.best
    deciding = best.match.deciding
    why = f"{best.match.verdict.value}: {deciding.message}" if deciding else best.match.verdict.value
    if best.match.verdict.value == "NO" and not options.force:
        print(f"hpc3build: not run: {report.plain(why)}\nhint: --force runs it all the same", file=sys.stderr)
        return 1
    if best.match.verdict.value != "RUN" and not options.quiet:
        print(f"hpc3build: {report.plain(why)}", file=sys.stderr)
    terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    access = how.access or shared.access(options)
    place = Place(how.runner, shared.run_folders())
    plan = workflow.plan(best, options.argv, how.host, access, place, engine=options.engine, terminal=terminal)
    if options.show:
        print(shlex.join(plan.line))
        return 0
    if options.log:
        import datetime

        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        workflow.append_log(options.log, plan, how.host, now)
    return replace(plan.line)


ADD: dict[str, Any] = {
    "fingerprint": add_fingerprint,
    "match": add_match,
    "pick": add_pick,
    "index": add_index,
    "run": add_run,
}
RUN: dict[str, Any] = {
    "fingerprint": run_fingerprint,
    "match": run_match,
    "pick": run_pick,
    "index": run_index,
    "run": run_run,
}


def _adder(name: str, text: str, example: str) -> Callable[[Any, argparse.ArgumentParser], None]:
    return lambda commands, common: ADD[name](add_command(commands, common, name, RUN[name], text, example))


ADDERS = {name: _adder(name, text, example) for name, text, example in COMMANDS}
