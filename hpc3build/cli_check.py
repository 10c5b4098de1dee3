"""``hpc3build check``: conformance, and what of it can be mended."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from hpc3build import options as shared
from hpc3build.cli_receipt import Receipt, add_way_back
from hpc3build.console import add_command
from hpc3build.errors import InputError, ToolError


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        common,
        "check",
        _check,
        "conformance with HPC3: static, and live under engines",
        "hpc3build check oci:out/mpi-hello:1.0 --run podman",
    )
    parser.add_argument("reference", metavar="REF", help=shared.REF)
    parser.add_argument(
        "--run",
        dest="engines",
        action="append",
        default=[],
        metavar="ENGINE",
        help="run it too: podman, buildah, docker, charliecloud, and the run scripts of apptainer and enroot",
    )
    parser.add_argument("--smoke", metavar="LINE", help="with --run, a line of shell that tests the application")
    parser.add_argument(
        "--static",
        choices=("config", "layers"),
        default="layers",
        help="how deep to look: config downloads no layer (default: layers)",
    )
    fixing = parser.add_argument_group("mending", "what manifest and configuration can mend, without a layer")
    fixing.add_argument("--fix", action="store_true", help="rewrite the image in its place; its ID changes")
    fixing.add_argument(
        "--entrypoint", choices=("hpc3", "hpc3-exec"), help="the one to set where there is none of ours (default: hpc3)"
    )
    fixing.add_argument("--to", metavar="REF", help="write the result there; what REF names stays as it is")
    add_way_back(fixing)
    fixing.add_argument("--dry-run", action="store_true", help="show what would change")
    parser.add_argument("--junit", metavar="FILE", help="write JUnit XML too")
    parser.add_argument("--sarif", metavar="FILE", help="write SARIF 2.1.0 too")
    parser.add_argument("--json", action="store_true")
    shared.add_registry(parser)


def _check(options: argparse.Namespace) -> int:
    from hpc3build import report, report_check
    from hpc3build.run import run
    from hpc3build.workflows.check import check
    from hpc3build.workflows.outputs import check_writable, write_atomically

    if options.fix:
        return _fix(options)
    for name in ("dry_run", "entrypoint", "to", "receipt", "backup_tag"):
        if getattr(options, name) not in (None, False):
            raise InputError(f"--{name.replace('_', '-')} goes with --fix")
    if options.smoke is not None and not options.engines:
        raise InputError("--smoke is run under an engine: name one with --run")
    check_writable(options.junit, options.sarif)
    checked = check(
        shared.reference(options.reference),
        tuple(options.engines),
        run,
        shared.access(options),
        layers=options.static == "layers",
        smoke=shared.line_of_shell("--smoke", options.smoke),
    )
    if options.junit:
        write_atomically(options.junit, report_check.as_junit(checked))
    if options.sarif:
        write_atomically(options.sarif, report.dumps(report_check.as_sarif(checked)))
    if options.json:
        sys.stdout.write(report.dumps(report_check.as_json(checked)))
    else:
        sys.stdout.write(report_check.as_text(checked))
    if checked.not_run:
        sys.stdout.flush()
        told = "; ".join(one.message.removeprefix("n/a: ") for one in checked.not_run)
        raise ToolError(f"--run: the image was not tried: {told}", hint="docs/troubleshooting.md")
    return 0 if report_check.verdict(checked.findings) == "CONFORMS" else 1


def _fix(options: argparse.Namespace) -> int:
    from hpc3build import report, report_check
    from hpc3build.interrupts import Interrupts
    from hpc3build.run import run
    from hpc3build.workflows.mend import mend
    from hpc3build.workflows.placing import Placing

    if options.engines or options.static == "config" or options.smoke is not None:
        raise InputError("--fix looks at configuration and layers: it cannot go with --run, --smoke and --static")
    if options.junit or options.sarif:
        raise InputError("--junit and --sarif are of a check: they cannot go with --fix", hint="check again, behind it")
    reference = shared.reference(options.reference)
    to = shared.reference(options.to) if options.to is not None else None
    how = Placing(to=to, backup_tag=options.backup_tag, dry_run=options.dry_run)
    entrypoint, access = options.entrypoint or "hpc3", shared.access(options)
    receipt = Receipt(options.receipt)
    with Interrupts() as interrupts:  # what was written is in the receipt before they have their effect
        try:
            with interrupts.prompt():
                mended = mend(reference, run, access, entrypoint=entrypoint, how=how, begin=interrupts.wait)
            receipt.add(mended.result)
        finally:
            receipt.write()
    if options.json:
        sys.stdout.write(report.dumps(report_check.mended_json(mended)))
    else:
        sys.stdout.write(report_check.mended_text(options.reference, mended, dry_run=options.dry_run))
    return 0 if report_check.verdict(mended.left) == "CONFORMS" else 1
