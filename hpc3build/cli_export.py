"""``hpc3build export`` and ``hpc3build docs``: what an image says, for other tools and for people."""

from __future__ import annotations

import argparse
import os
import re
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from hpc3build import options as shared
from hpc3build.console import add_command, visible

if TYPE_CHECKING:
    from hpc3build.reference import Reference
    from hpc3build.workflows.candidates import Reading
    from hpc3build.workflows.export import Wanted

#: As hpc3build.exports.FORMATS, which is slow to load, has them.
FORMATS = ("edf", "sarus", "podman", "apptainer", "charliecloud", "nfd", "compspec", "metahub", "oci-env")
NOTHING = 1


def add_export(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare ``export``."""
    parser = add_command(
        commands,
        common,
        "export",
        _export,
        "what other tools want of an image: docs/export.md has each",
        "hpc3build export podman oci:out/mpi-hello:1.0",
    )
    parser.add_argument("form", choices=FORMATS, metavar="|".join(FORMATS), help="for whom")
    _add_choice(parser)
    parser.add_argument("--image", metavar="NAME", help="the name by which the consumer finds it (default: REF)")
    parser.add_argument("-o", "--output", metavar="FILE", help="write it there (default: standard output)")
    shared.add_registry(parser)


def add_docs(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare ``docs``."""
    parser = add_command(
        commands,
        common,
        "docs",
        _docs,
        "the documentation that an image carries, as markdown",
        "hpc3build docs registry.example/hpc/app:1.0",
    )
    _add_choice(parser)
    shared.add_registry(parser)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", metavar="REF", help=shared.REF)
    parser.add_argument("--platform", metavar="P", help="of an index, the image for OS/ARCHITECTURE[/VARIANT]")
    parser.add_argument(
        "--host",
        metavar="FILE",
        help="of an index, the best for this recorded fingerprint or probe (default: this host)",
    )


def _export(options: argparse.Namespace) -> int:
    from hpc3build.workflows.export import export
    from hpc3build.workflows.outputs import check_writable, write_atomically

    output = None if options.output == "-" else options.output
    check_writable(output)
    reference, wanted, reading = _asked(options)
    made = export(options.form, reference, wanted, reading)
    if not made.text:
        return _nothing(options, made.notes)
    _tell(options, made.notes)
    if output is not None:
        write_atomically(output, made.text)
    else:
        sys.stdout.write(made.text)
    return 0


def _docs(options: argparse.Namespace) -> int:
    from hpc3build.workflows.export import docs

    text, notes = docs(*_asked(options))
    if not text:
        return _nothing(options, notes)
    _tell(options, notes)
    # An image's text may come to a terminal: of control characters only those that lay out text stay.
    shown = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text.replace("\r\n", "\n"))
    sys.stdout.write(shown if shown.endswith("\n") else f"{shown}\n")
    return 0


def _asked(options: argparse.Namespace) -> tuple[Reference, Wanted, Reading]:
    from hpc3build.cli_host import machine
    from hpc3build.rewrite.target import Platform
    from hpc3build.run import run
    from hpc3build.workflows import fingerprint as workflow
    from hpc3build.workflows.candidates import Reading
    from hpc3build.workflows.export import Wanted

    platform = Platform.parse(options.platform) if options.platform is not None else None
    if options.host is not None:
        recorded = workflow.recorded(options.host)  # a file that is none is told, also where nothing asks for the host
        host = lambda: recorded  # noqa: E731
    else:
        host = cache(lambda: workflow.fingerprint(os.environ, *machine(), run))
    wanted = Wanted(host, platform, getattr(options, "image", None) or "")
    return shared.reference(options.reference), wanted, Reading(run, shared.access(options))


def _tell(options: argparse.Namespace, notes: tuple[str, ...]) -> None:
    for note in dict.fromkeys(notes) if not options.quiet else ():
        print(f"hpc3build: note: {visible(note)}", file=sys.stderr)


def _nothing(options: argparse.Namespace, notes: tuple[str, ...]) -> int:
    """The last note is the reason."""
    _tell(options, notes[:-1])
    print(f"hpc3build: nothing to write: {visible(notes[-1])}", file=sys.stderr)
    return NOTHING
