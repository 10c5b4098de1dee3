"""The commands about hosts: fingerprint, match, pick."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from hpc3build import options as shared

if TYPE_CHECKING:
    from hpc3build.host.fingerprint import Fingerprint
    from hpc3build.run import Runner
    from hpc3build.workflows.candidates import Reading

#: name, what runs it, its help, an example.
COMMANDS = (
    ("fingerprint", "this host, as far as images care", "hpc3build fingerprint --json"),
    ("match", "will it run here, and why not", "hpc3build match oci:out/mpi-hello:1.0 --allow-unknown"),
    ("pick", "best image for the host", "hpc3build pick oci:out/mpi-hello:1.0 --explain --allow-unknown"),
)


def add_fingerprint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", help="write the JSON there")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--fast", action="store_true", help="files only, no commands")
    parser.add_argument("--script", action="store_true", help="print a POSIX shell script that collects the same")
    parser.add_argument("--from-probe", metavar="FILE", help="interpret what that script printed")
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

    if options.script:
        from hpc3build.host.script import script

        sys.stdout.write(script())
        return 0
    from hpc3build import report, report_match
    from hpc3build.workflows import fingerprint as workflow

    if options.from_probe:
        host = workflow.from_probe(options.from_probe)
    else:
        machine, user = _machine()
        runner: Runner | None = None if options.fast else run
        host = workflow.fingerprint(os.environ, machine, user, runner, injects=tuple(options.injects))
    if options.nfd_features:
        path = workflow.write_nfd_features(options.nfd_features, host)
        if not options.quiet:
            print(f"wrote {path}", file=sys.stderr)
    if options.output:
        from hpc3build.workflows.render import write_atomically

        write_atomically(options.output, report.dumps(host.to_json()))
    elif options.json:
        sys.stdout.write(report.dumps(host.to_json()))
    elif not options.nfd_features:
        sys.stdout.write(report_match.fingerprint_text(host))
    return 0


def _machine() -> tuple[str, str]:
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
    return workflow.for_matching(os.environ, *_machine(), run)


def add_match(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", metavar="REF")
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
    from hpc3build.workflows.match import choose

    choice = choose(tuple(options.reference), reading(options))
    picked = choice.best if choice.runs(allow_unknown=options.allow_unknown) else None
    if options.explain:
        sys.stderr.write(report_match.explain_text(choice))
    if options.json:
        sys.stdout.write(report.dumps(report_match.pick_json(choice, picked)))
    elif picked is not None:
        print(picked.candidate.name)
    elif not options.quiet:
        deciding = choice.best.match.deciding
        why = f"{choice.best.match.verdict.value}: {deciding.message}" if deciding else ""
        print(f"hpc3build: no image fits; the nearest: {report.plain(why)}", file=sys.stderr)
    return 0 if picked is not None else 1


ADD: dict[str, Any] = {"fingerprint": add_fingerprint, "match": add_match, "pick": add_pick}
RUN: dict[str, Any] = {"fingerprint": run_fingerprint, "match": run_match, "pick": run_pick}
