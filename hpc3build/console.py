"""What all commands of the command line share: how options are declared, and how errors are told."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from hpc3build.errors import Hpc3BuildError, InputError
from hpc3build.urls import without_logins

Command = Callable[[argparse.Namespace], int]
_EVERYWHERE = re.compile(r"-[qv]+|--quiet|--verbose|--debug")

#: How other tools spell what ours do, for those whose fingers know them.
THEIRS = {
    "--optarch": "give --target an archspec name, such as x86_64_v3",
    "--robot": "dependencies are always resolved; --robot-paths names folders of your own easyconfigs",
    "--containerize": "hpc3build render writes the Containerfile",
    "--annotation": "give -a KEY=VALUE",
    "--label": "give -a KEY=VALUE with --labels",
    "--creds": "give --username NAME --password-stdin",
    "--src-tls-verify": "give --tls-verify=false",
    "--dest-tls-verify": "give --tls-verify=false",
    "--insecure": "give --plain-http or --tls-verify=false",
}
#: The same for commands that have no ``-a``.
WITHOUT_PAIRS = dict.fromkeys(
    ("--annotation", "--label"), "labels: of hpc3build.yaml, or afterwards hpc3build annotate -a KEY=VALUE --labels"
)


class Parser(argparse.ArgumentParser):
    """argparse with our exit code and form of message."""

    def error(self, message: str) -> NoReturn:
        theirs = THEIRS if "-a" in self._option_string_actions else {**THEIRS, **WITHOUT_PAIRS}
        hints = [f"{option}: {hint}" for option, hint in theirs.items() if f" {option}" in message] or self._near(
            message
        )
        if "are required" in message and self.epilog:
            hints.append(self.epilog)
        if self.usage and not hints:
            hints.append(self.usage % {"prog": self.prog})
        told = "; ".join([*hints, f"{self.prog} --help"]).replace("?; ", "? ")
        self.exit(InputError.exit_code, f"hpc3build: error: {visible(message)}\nhint: {visible(told)}\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse's; but a command tells itself what it does not know, since it knows what might be meant.

        An empty value is mostly a variable that is not set, and would be taken for an option that is not given.
        """
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        for action in self._actions:
            value = getattr(found, action.dest, None)
            empty = value == "" != action.default and action.nargs is None
            if action.option_strings and (empty or (isinstance(value, list) and "" in value)):
                told = "/".join(action.option_strings)
                raise InputError(f"{told}: its value is empty", hint="a variable that is not set? leave the option out")
        return found, unknown

    def _near(self, message: str) -> list[str]:
        """What may have been meant by an option or a choice that is not there."""
        import difflib

        wrong = re.search(r"unrecognized arguments: (?:.* )?(--?[\w-]+)", message)
        there = re.findall(r"--[a-z][a-z-]*", self.format_help())
        if wrong is None and (wrong := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)):
            there = re.findall(r"[\w-]+", wrong[2])
        near = difflib.get_close_matches(wrong[1], there, n=1, cutoff=0.7) if wrong else []
        return [f"did you mean {near[0]}?"] if near else []


def add_everywhere(parser: Any, **default: Any) -> None:
    """The options that every command takes, wherever they stand; ``default`` SUPPRESS leaves what stood before."""
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but results and errors", **default)
    parser.add_argument("-v", "--verbose", action="store_true", help="say more", **default)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error", **default)


def behind_command(arguments: Sequence[str]) -> list[str]:
    """``-q COMMAND …`` as ``COMMAND -q …``: a command's own defaults would undo what stood before it."""
    first = next((place for place, word in enumerate(arguments) if not _EVERYWHERE.fullmatch(word)), None)
    return [*arguments[first : first + 1], *arguments[:first], *arguments[first + 1 :]] if first else list(arguments)


def add_command(
    commands: Any, common: argparse.ArgumentParser, name: str, run: Command, text: str, example: str
) -> argparse.ArgumentParser:
    """A command with its one-line description and a real example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, parents=[common], help=text, description=text, epilog=f"example: {example}"
    )
    parser.set_defaults(run=run)
    return parser


def tell(error: Hpc3BuildError) -> int:
    """Message and hint on stderr; returns the exit code."""
    print(f"hpc3build: error: {visible(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {visible(error.hint)}", file=sys.stderr)
    return error.exit_code


def visible(text: str) -> str:
    """Messages quote what people and images gave: no control character of it reaches the terminal, nor a
    URL's password.

    Of line breaks only those stay that our own lists put in front of their indented lines.
    """
    text = re.sub(r"\n(?!  )", "\ufffd", without_logins(text).expandtabs())
    kept = "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)
    return kept.encode(sys.stderr.encoding or "utf-8", "replace").decode(sys.stderr.encoding or "utf-8")
