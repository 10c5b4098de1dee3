"""``hpc3build annotate``: its options, its list of references, its receipt."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from hpc3build import options as shared
from hpc3build.console import add_command, tell, visible
from hpc3build.errors import Hpc3BuildError, InputError


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        common,
        "annotate",
        _annotate,
        "rewrite manifests; nothing else moves",
        "hpc3build annotate oci:out/mpi-hello:1.0 -a org.supercontainers.gpu=none --labels",
    )
    parser.add_argument("reference", nargs="*", metavar="REF")
    parser.add_argument("-a", dest="pairs", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--from", dest="source", metavar="RECIPE|LOCK|FACTS", help="what is planned, or said, there")
    parser.add_argument("--detect", action="store_true", help="what the evidence inside the image says")
    parser.add_argument("--remove", action="append", default=[], metavar="KEY")
    parser.add_argument("--labels", action="store_true", help="write labels too: the image ID changes")
    _add_target(parser)
    parser.add_argument("--attach", action="store_true", help="write a referrer: the image and its digest stay")
    parser.add_argument("--to", metavar="REF", help="write the result there; what REF names stays as it is")
    parser.add_argument("--dry-run", action="store_true", help="show what would change")
    parser.add_argument("--json", action="store_true")
    _add_safety(parser)
    shared.add_depth(parser)
    several = parser.add_argument_group("several references")
    several.add_argument("--batch", metavar="FILE|-", help="references, one a line; # begins a comment")
    several.add_argument("--jobs", type=int, metavar="N", help="how many at once (default: 8)")
    shared.add_registry(parser)


def _add_target(parser: argparse.ArgumentParser) -> None:
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


def _add_safety(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("safety")
    group.add_argument("--expect-digest", metavar="D", help="refuse when the tag names another digest")
    group.add_argument("--verify", action="store_true", help="read back what was written")
    group.add_argument(
        "--referrers",
        choices=("keep", "move", "ignore"),
        default="keep",
        help="what refers to the old digest: counted and left there, taken along but for signatures, not looked for",
    )
    group.add_argument("--backup-tag", nargs="?", const="", metavar="NAME", help="a tag that keeps the old image")
    group.add_argument("--receipt", metavar="FILE", help="write what --undo needs")
    group.add_argument("--undo", metavar="RECEIPT", help="put back what a receipt says, and nothing else")


def _annotate(options: argparse.Namespace) -> int:
    from hpc3build.workflows.batch import JOBS, MAX_JOBS, Outcome, annotate_all, worst

    if options.undo is not None:
        return _undo(options)
    wish = _wish(options)
    references = [*options.reference, *_listed(options)]
    if not references:
        raise InputError("annotate: no image is named", hint="REF…, or --batch FILE")
    if wish.to is not None and len(references) > 1:
        raise InputError(f"--to {options.to}: one place for {len(references)} images")
    if not 1 <= (jobs := JOBS if options.jobs is None else options.jobs) <= MAX_JOBS:
        raise InputError(f"--jobs {jobs}: expected a number from 1 to {MAX_JOBS}")
    receipt = _Receipt(options.receipt)
    printer = _Printer(options, len(references))

    def done(outcome: Outcome) -> None:
        printer.print(outcome)
        receipt.add(outcome)

    from hpc3build.run import run

    access = shared.access(options)
    try:
        outcomes = annotate_all([(text, _parsed(text)) for text in references], wish, run, access, jobs=jobs, done=done)
    finally:
        printer.finish()
        receipt.write()
    printer.summarise(outcomes)
    return worst(outcomes)


def _wish(options: argparse.Namespace) -> Any:
    from hpc3build.rewrite import Platform, Target
    from hpc3build.workflows.annotate import Wish, parse_pairs

    wish = Wish(
        pairs=parse_pairs(options.pairs),
        remove=tuple(options.remove),
        source=options.source,
        detect=options.detect,
        depth=shared.depth(options),
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
        referrers=options.referrers,
        to=shared.reference(options.to) if options.to is not None else None,
        verify=options.verify,
        backup_tag=options.backup_tag,
    )
    if not (wish.pairs or wish.remove or wish.source or wish.detect or wish.to):
        raise InputError("annotate: nothing to write", hint="-a KEY=VALUE, --from, --detect or --remove say what")
    return wish


def _listed(options: argparse.Namespace) -> tuple[str, ...]:
    from hpc3build.recipe import read_text
    from hpc3build.workflows.batch import read_list

    if options.batch is None:
        return ()
    if options.batch != "-":
        return read_list(read_text(Path(options.batch), 64 << 20, "references, one a line"), options.batch)
    if options.password_stdin:
        raise InputError("--batch - and --password-stdin both read standard input", hint="give the list as a file")
    return read_list(sys.stdin.read(), "standard input")


def _parsed(text: str) -> Any:
    try:
        return shared.reference(text)
    except Hpc3BuildError as error:
        return error


class _Printer:
    """What is told of each reference as it is done, and of all at the end."""

    def __init__(self, options: argparse.Namespace, count: int) -> None:
        from hpc3build.report import Progress

        self._options = options
        self._progress = Progress(count, quiet=options.quiet)

    def print(self, outcome: Any) -> None:
        from hpc3build import report

        with self._progress.step(failed=outcome.error is not None):
            if outcome.error is not None:
                if self._options.debug:
                    import traceback

                    traceback.print_exception(outcome.error)
                tell(outcome.error)
                return
            for warning in outcome.result.warnings if not self._options.quiet else ():
                print(f"hpc3build: warning: {visible(warning)}", file=sys.stderr)
            if not self._options.json:
                text = report.annotate_text(outcome.reference, outcome.result, dry_run=self._options.dry_run)
                sys.stdout.write(text)

    def finish(self) -> None:
        self._progress.close()

    def summarise(self, outcomes: Any) -> None:
        from hpc3build import report

        told = [(one.reference, one.result, one.error.message if one.error else None) for one in outcomes]
        if self._options.json:
            sys.stdout.write(report.dumps(report.annotate_json(told)))
        elif len(told) > 1 and not self._options.quiet:
            sys.stdout.flush()
            print(f"hpc3build: {report.annotate_summary(told)}", file=sys.stderr)


class _Receipt:
    """The file that --undo reads; looked at before anything is written, written also when the run is cut short."""

    def __init__(self, path: str | None) -> None:
        from hpc3build.rewrite.receipt import Entry

        self._path = path
        self._entries: list[Entry] = []
        if path is not None:
            if Path(path).is_file() and Path(path).stat().st_size:
                raise InputError(f"--receipt {path} is there already", hint="name a new file; old receipts are kept")
            self.write()

    def add(self, outcome: Any) -> None:
        if outcome.result is not None and outcome.result.undo is not None:
            self._entries.append(outcome.result.undo)

    def write(self) -> None:
        from hpc3build.report import dumps
        from hpc3build.rewrite.receipt import document
        from hpc3build.workflows.render import write_atomically

        if self._path is not None:
            write_atomically(self._path, dumps(document(self._entries)))


def _undo(options: argparse.Namespace) -> int:
    from hpc3build.recipe import read_text
    from hpc3build.rewrite.receipt import MAX_BYTES, read
    from hpc3build.run import run
    from hpc3build.workflows.batch import Outcome, worst
    from hpc3build.workflows.undo import undo

    if options.reference or options.pairs or options.remove or options.source or options.batch or options.to:
        raise InputError("--undo RECEIPT puts back what the receipt says, and takes no REF or KEY")
    entries = read(read_text(Path(options.undo), MAX_BYTES, "a receipt").encode(), options.undo)
    access = shared.access(options)
    printer = _Printer(options, len(entries))
    outcomes = []
    for entry in reversed(entries):  # a tag that was written twice goes back step by step
        try:
            result = undo(entry, run, access, dry_run=options.dry_run, verify=options.verify)
            outcomes.append(Outcome(str(entry.reference), result))
        except Hpc3BuildError as error:
            outcomes.append(Outcome(str(entry.reference), error=error))
        printer.print(outcomes[-1])
    printer.finish()
    printer.summarise(outcomes)
    return worst(outcomes)
