"""``hpc3build annotate``: its options, its list of references, its receipt."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpc3build import options as shared
from hpc3build.cli_receipt import Receipt, add_way_back
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
    parser.add_argument("reference", nargs="*", metavar="REF", help="an image, docker://HOST/NAME:* or docker://HOST/*")
    parser.add_argument(
        "-a",
        dest="pairs",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what it is to say; may be given several times",
    )
    parser.add_argument("--from", dest="source", metavar="RECIPE|LOCK|FACTS", help="what is planned, or said, there")
    parser.add_argument("--detect", action="store_true", help="what the evidence inside the image says")
    parser.add_argument("--remove", action="append", default=[], metavar="KEY", help="what it is to say no longer")
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
    several.add_argument("--journal", metavar="FILE", help="keep what is done; the same command goes on from there")
    several.add_argument("--shard", metavar="I/N", help="do the I-th of N shares, I from 1 (for runners side by side)")
    several.add_argument("--rate", type=float, metavar="N", help="ask a registry at most N times a second")
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
    group.add_argument(
        "--coordinate",
        action="store_true",
        help="several write this tag: leave what is meant where the others see it, and write what all mean",
    )
    group.add_argument("--writer", metavar="NAME", help="what no other has, for tags that the registry never deletes")
    group.add_argument("--lease", type=float, metavar="SECONDS", help="how long a killed writer is waited for (180)")
    add_way_back(group)
    group.add_argument("--undo", metavar="RECEIPT", help="put back what a receipt says, and nothing else")


def _annotate(options: argparse.Namespace) -> int:
    from hpc3build.interrupts import Interrupts
    from hpc3build.run import run
    from hpc3build.stores.pace import Pace
    from hpc3build.workflows.annotate import prepare
    from hpc3build.workflows.batch import Outcome, annotate_all

    if options.undo is not None:
        return _undo(options)
    wish, texts, jobs = _checked(options)
    access = shared.access(options)
    wish = prepare(wish, run)
    with _journal(options, wish) as journal:
        names = _names(options, texts, access, journal)
        receipt = Receipt(options.receipt)
        printer = _Printer(options, names.expected if not names.single else lambda: 1)

        def done(outcome: Outcome) -> None:
            receipt.add(outcome.result)  # first: printing may fail
            printer.print(outcome)

        def ended(outcome: Outcome) -> None:
            if journal is not None and outcome.result is not None:
                journal.add(outcome.result)

        jobs = 1 if names.single else jobs
        told = {"done": done, "ended": ended}
        pace = Pace(options.rate)
        with Interrupts() as interrupts:  # the receipt is written before they have their effect
            try:
                annotate_all(names, wish, run, access, jobs=jobs, **told, pace=pace, interrupts=interrupts)
            finally:
                receipt.write()
                printer.finish()
    printer.summarise(names.left_out)
    return max(printer.tally.exit_code, int(journal is not None and journal.undecided))


def _checked(options: argparse.Namespace) -> tuple[Any, tuple[str, ...], int]:
    """The wish, what is named, and how many at once. Raises InputError for what cannot be meant."""
    from hpc3build.workflows.batch import JOBS, MAX_JOBS
    from hpc3build.workflows.names import is_wild

    wish = _wish(options)
    texts = (*options.reference, *_listed(options))
    if not texts:
        raise InputError("annotate: no image is named", hint="REF…, or --batch FILE")
    if wish.to is not None and (len(texts) > 1 or is_wild(texts[0])):
        raise InputError(f"--to {options.to}: one place for {len(texts) if len(texts) > 1 else 'several'} images")
    if not 1 <= (jobs := JOBS if options.jobs is None else options.jobs) <= MAX_JOBS:
        raise InputError(f"--jobs {jobs}: expected a number from 1 to {MAX_JOBS}")
    if options.rate is not None and not 0.001 <= options.rate <= 1e6:
        raise InputError(f"--rate {options.rate}: expected requests a second, 0.001 or more")
    if options.journal is not None and (options.dry_run or wish.to is not None):
        other = "--dry-run" if options.dry_run else "--to"
        raise InputError(f"--journal keeps which images were annotated in their place: it cannot go with {other}")
    return wish, texts, jobs


def _journal(options: argparse.Namespace, wish: Any) -> AbstractContextManager[Any]:
    if options.journal is None:
        return nullcontext()
    from hpc3build.workflows.journal import Journal

    return Journal(options.journal, wish)


def _names(options: argparse.Namespace, texts: tuple[str, ...], access: Any, journal: Any) -> Any:
    from hpc3build.run import run
    from hpc3build.workflows.names import WHOLE, Names, Shard

    shard = Shard.parse(options.shard) if options.shard is not None else WHOLE
    wanted = (lambda reference: not journal.has(reference)) if journal is not None else (lambda _: True)
    return Names(texts, shared.reference, run, access, shard=shard, wanted=wanted)


def _wish(options: argparse.Namespace) -> Any:
    from hpc3build.rewrite import Platform, Target
    from hpc3build.workflows.annotate import Wish
    from hpc3build.workflows.given_pairs import parse_pairs

    wish = Wish(
        pairs=parse_pairs(options.pairs),
        remove=tuple(options.remove),
        source=options.source,
        detect=options.detect,
        depth=shared.depth(options) if options.detect else None,
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
        coordinate=(options.writer or "") if options.coordinate else None,
        lease=_lease(options),
    )
    if not wish.detect and (options.fast or options.thorough or options.roots):
        raise InputError("--fast, --thorough and --root say how --detect looks into an image")
    if not (wish.pairs or wish.remove or wish.source or wish.detect or wish.to):
        raise InputError("annotate: nothing to write", hint="-a KEY=VALUE, --from, --detect or --remove say what")
    return wish


def _lease(options: argparse.Namespace) -> float:
    from hpc3build.rewrite.intent import check_slot
    from hpc3build.workflows.coordinate import LEASE

    if not options.coordinate:
        if options.lease is not None or options.writer is not None:
            raise InputError("--lease and --writer are about --coordinate")
        return LEASE
    if options.writer is not None:
        check_slot(options.writer)
    if options.receipt:
        raise InputError("--coordinate writes what others mean, too: no receipt of one writer could take it back")
    lease = LEASE if options.lease is None else float(options.lease)
    if not 1 <= lease <= 3600:
        raise InputError(f"--lease {options.lease}: expected seconds from 1 to 3600")
    return lease


def _listed(options: argparse.Namespace) -> tuple[str, ...]:
    from hpc3build.workflows.batch import read_list

    if options.batch is None:
        return ()
    if options.batch == "-" and options.password_stdin:
        raise InputError("--batch - and --password-stdin both read standard input", hint="give the list as a file")
    where = "standard input" if options.batch == "-" else options.batch
    return read_list(shared.text_of(options.batch, 64 << 20, "references, one a line"), where)


class _Printer:
    """What is told of each reference as it is done, and of all at the end."""

    def __init__(self, options: argparse.Namespace, expected: Callable[[], int]) -> None:
        from hpc3build.report import Progress
        from hpc3build.workflows.batch import Tally

        self._options = options
        self._progress = Progress(expected, quiet=options.quiet)
        self._told: set[str] = set()
        self._repeated = 0
        self._results: list[tuple[str, Any, str | None]] = []  # for JSON, which is one document
        self.tally = Tally()

    def print(self, outcome: Any) -> None:
        from hpc3build import report

        self.tally.add(outcome)
        if self._options.json:
            kept = replace(outcome.result, undo=None) if outcome.result is not None else None
            self._results.append((outcome.reference, kept, outcome.error.message if outcome.error else None))
        with self._progress.step(failed=outcome.error is not None):
            if outcome.error is not None:
                if self._options.debug:
                    import traceback

                    traceback.print_exception(outcome.error)
                tell(outcome.error)
                return
            self._warn(outcome.result)
            if not self._options.json:
                text = report.annotate_text(outcome.reference, outcome.result, dry_run=self._options.dry_run)
                sys.stdout.write(text)

    def _warn(self, result: Any) -> None:
        """Of hundreds of images most are warned of alike: once is enough, and JSON has them all."""
        for warning in result.warnings if not self._options.quiet else ():
            without_name = warning.replace(str(result.reference), "").replace(result.new_digest, "")
            if without_name in self._told:
                self._repeated += 1
            else:
                self._told.add(without_name)
                print(f"hpc3build: warning: {visible(warning)}", file=sys.stderr)

    def finish(self) -> None:
        self._progress.close()

    def summarise(self, left_out: int = 0) -> None:
        from hpc3build import report

        tally = self.tally
        counts = {"changed": tally.changed, "unchanged": tally.unchanged, "failed": tally.failed}
        if self._options.json:
            sys.stdout.write(report.dumps(report.annotate_json(self._results, counts)))
        elif (sum(counts.values()) > 1 or left_out) and not self._options.quiet:
            sys.stdout.flush()
            text = report.annotate_summary(counts)
            text += f", {left_out} done before, as the journal says" if left_out else ""
            text += f"; warnings repeated and not shown: {self._repeated} (--json has them)" if self._repeated else ""
            print(f"hpc3build: {text}", file=sys.stderr)


#: What says what to write, where or how; a receipt says that itself.
_NOT_OF_UNDO = (
    *("pairs", "remove", "source", "detect", "labels", "attach", "to", "platforms", "all_children", "index_only"),
    *("descriptors", "fast", "thorough", "roots", "batch", "jobs", "journal", "shard", "rate", "expect_digest"),
    *("coordinate", "writer", "lease", "receipt", "backup_tag"),
)


def _undo(options: argparse.Namespace) -> int:
    from hpc3build.recipe import refuse_options
    from hpc3build.rewrite.receipt import MAX_BYTES, read
    from hpc3build.run import run
    from hpc3build.workflows.batch import Outcome
    from hpc3build.workflows.undo import undo
    from hpc3build.yamlread import read_text

    if options.reference:
        raise InputError("--undo RECEIPT puts back what the receipt says, and takes no REF")
    refuse_options(
        (name for name in _NOT_OF_UNDO if getattr(options, name) not in (None, False, [])),
        "--undo puts back what a receipt says",
    )
    entries = read(read_text(Path(options.undo), MAX_BYTES, "a receipt").encode(), options.undo)
    if not entries and not options.quiet:
        print(f"hpc3build: {visible(options.undo)}: nothing was written, so there is nothing to undo", file=sys.stderr)
    access = shared.access(options)
    printer = _Printer(options, lambda: len(entries))
    for entry in reversed(entries):  # a tag that was written twice goes back step by step
        try:
            result = undo(entry, run, access, dry_run=options.dry_run, verify=options.verify)
            printer.print(Outcome(str(entry.reference), result))
        except Hpc3BuildError as error:
            printer.print(Outcome(str(entry.reference), error=error))
    printer.finish()
    printer.summarise()
    return printer.tally.exit_code
