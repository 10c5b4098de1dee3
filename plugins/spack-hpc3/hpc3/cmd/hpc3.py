"""``spack hpc3``: hpc3build for the active environment. Runs inside Spack, on any Python that Spack runs on."""

import os
import shlex
import shutil
import subprocess

import spack.environment
import spack.paths

try:
    import spack.llnl.util.tty as tty
except ImportError:  # before Spack 1.0
    import llnl.util.tty as tty

description = "build and annotate container images that conform to HPC3"
section = "container"
level = "short"


def setup_parser(subparser):
    """Our own words end here; every other argument is hpc3build's."""
    commands = subparser.add_subparsers(metavar="SUBCOMMAND", dest="hpc3_command")
    containerize = commands.add_parser(
        "containerize",
        help="write the Containerfile of the environment, or its build context",
        description="hpc3build render of the active environment, or of the one in this folder; further arguments are "
        "those of hpc3build render, say -o Containerfile, --context DIR or --concretize host",
    )
    containerize.set_defaults(hpc3=_containerize)
    annotate = commands.add_parser(
        "annotate",
        help="annotate an image with what the environment's lock says",
        description="hpc3build annotate with the lock of the active environment, or of the one in this folder; further "
        "arguments are those of hpc3build annotate: references, and say --labels or --dry-run",
    )
    annotate.set_defaults(hpc3=_annotate)


def hpc3(parser, args, unknown_args):
    """Spack hands over ``unknown_args`` because the third parameter is called so."""
    return subprocess.call(_hpc3build() + args.hpc3(list(unknown_args)))


def _containerize(arguments):
    if _option(arguments, "--concretize") == "host" and _option(arguments, "--spack") is None:
        arguments += ["--spack", spack.paths.prefix]
    return ["render", _folder("spack.yaml")] + arguments


def _annotate(arguments):
    if not any(not argument.startswith("-") for argument in arguments):
        tty.die("spack hpc3 annotate: which image?", "example: spack -e . hpc3 annotate oci:out/app:1.0")
    return ["annotate", "--from", os.path.join(_folder("spack.lock"), "spack.lock")] + arguments


def _option(arguments, name):
    """The value of an option, as ``--name value`` or ``--name=value``."""
    for position, argument in enumerate(arguments):
        if argument == name and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(name + "="):
            return argument[len(name) + 1 :]
    return None


def _folder(needed):
    active = spack.environment.active_environment()
    folder = active.path if active else os.getcwd()
    if not os.path.isfile(os.path.join(folder, needed)):
        hint = (
            "spack concretize makes the lock" if needed == "spack.lock" else "activate an environment, or spack -e DIR"
        )
        tty.die("no {0} in {1}".format(needed, folder), hint)
    return folder


def _hpc3build():
    given = os.environ.get("HPC3BUILD")
    found = shlex.split(given) if given else ["hpc3build"]
    if not found or shutil.which(found[0]) is None:
        tty.die(
            "{0}: command not found".format(found[0] if found else "hpc3build"),
            "pip install hpc3build, or name it in the variable HPC3BUILD",
        )
    return found
