"""How an image runs: ways to ask, users to ask as, engines to ask through. What an engine lacks is never green."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from hpc3build import bases
from hpc3build.conformance.rule import Image, Remark, Rule
from hpc3build.conformance.rules import BY_ID
from hpc3build.containerfile import ENTRYPOINTS, LOGIN_SHELL, SHELL
from hpc3build.engines import DEFAULT, ENTRY_POINT, FOLDER, GROUPS, MOUNTS, PID_NAMESPACE, READ_ONLY, How, Launcher
from hpc3build.errors import ToolError
from hpc3build.findings import Finding, Outcome
from hpc3build.run import Completed

_Cell = Callable[[], Finding]
PROBE = "hpc3build-probe"
SECONDS = 120
#: podman-run(1): the engine itself, or its runtime, failed before any command ran.
ENGINE_FAILED = (125, 126)
#: Runs at the same time: most of a run is the engine's own start.
AT_ONCE = 4


@dataclass(frozen=True)
class User:
    """Who starts the container: ``id`` is UID:GID."""

    name: str
    id: str
    groups: tuple[int, ...] = ()


#: Users that an HPC site may start a container as; the last two are in no passwd file, and the group in no group file.
NOBODY = User("nobody", "65534:65534")
UNKNOWN = User("an unknown user", "12345:54321")
USERS = (User("root", "0:0"), NOBODY, UNKNOWN, replace(UNKNOWN, name="an unknown supplementary group", groups=(4242,)))


@dataclass(frozen=True)
class Way:
    """One way to ask, and the answer that the rule wants: ``expected`` is the last line, None whatever it prints."""

    rule: Rule
    argv: tuple[str, ...]
    expected: str | None
    how: How = DEFAULT
    status: int = 0
    needs: frozenset[str] = frozenset()
    #: HPC3's entry point to the letter joins its arguments with blanks: what that breaks by its definition.
    lost_by_hpc3: bool = False


def _tests(image: Image, smoke: str) -> tuple[Way, ...]:
    """A line of shell: through the entry point, then in a shell that has config.Env alone.

    Our entry points are a login shell, which runs the line itself: HPC3's would lose its quotes and its status.
    """
    bypassed = How(entrypoint=False)
    through = (LOGIN_SHELL, bypassed) if image.config.entrypoint in ENTRYPOINTS.values() else (SHELL, DEFAULT)
    return tuple(
        Way(BY_ID[rule], (*shell, smoke), None, how)
        for rule, (shell, how) in (("smoke", through), ("smoke-bypassed", (SHELL, bypassed)))
    )


def ways(image: Image, smoke: str = "") -> tuple[Way, ...]:
    """Every way that is asked as every user; ``smoke`` is the application's own test."""
    path = application_path(image)
    return (
        *(_tests(image, smoke) if smoke else ()),
        Way(BY_ID["login-shell"], (), "42", How(stdin="echo $((6*7))\n"), needs=frozenset({ENTRY_POINT})),
        Way(BY_ID["arguments"], ("printenv", "PATH"), path),
        Way(BY_ID["quoting"], ("printf", "<%s>", "a  b", "*", "c"), "<a  b><*><c>", lost_by_hpc3=True),
        Way(BY_ID["exit-status"], ("sh", "-c", "exit 3"), "", status=3, lost_by_hpc3=True),
        Way(BY_ID["shell-pipe"], ("sh", "-c", "echo one two | tr a-z A-Z"), "ONE TWO", lost_by_hpc3=True),
        Way(BY_ID["stdin"], ("cat",), PROBE, How(stdin=PROBE)),
        Way(BY_ID["read-only"], ("echo", PROBE), PROBE, How(read_only=True), needs=frozenset({READ_ONLY})),
        Way(BY_ID["any-home"], ("echo", PROBE), PROBE, How(env={"HOME": "/nonexistent"})),
        Way(BY_ID["bypassed"], ("printenv", "PATH"), path, How(entrypoint=False)),
    )


def live(launcher: Launcher, name: str, image: Image, smoke: str = "") -> Iterator[Finding]:
    """Ask in every way as every user, then once what does not depend on the user.

    ``name`` is the image's, unprepared; ``smoke`` a line of shell that proves the application.

    An engine that starts nothing here says nothing of the image: one finding, UNKNOWN.
    """

    def cells(run: _Run) -> Iterator[_Cell]:
        for user in USERS:
            yield from (partial(run.ask, way, user) for way in ways(image, smoke))
            yield partial(run.scratch, user)
        yield from (partial(asked, UNKNOWN) for asked in (run.signals, run.quiet, run.fast, run.strict))

    return _asked(launcher, name, image, cells)


#: What io.github.hpc3build.conformance claims rests on these: a fifth of all cells.
_PROOF = ("login-shell", "arguments", "quoting", "exit-status", "bypassed")


def prove(launcher: Launcher, name: str, image: Image) -> Iterator[Finding]:
    """The cells that a build looks at before it publishes, as nobody and as an unknown user."""

    def cells(run: _Run) -> Iterator[_Cell]:
        asked = [way for way in ways(image) if way.rule.id in _PROOF]
        return (partial(run.ask, way, user) for user in (NOBODY, UNKNOWN) for way in asked)

    return _asked(launcher, name, image, cells)


def _asked(launcher: Launcher, name: str, image: Image, cells: Callable[[_Run], Iterable[_Cell]]) -> Iterator[Finding]:
    """The findings of ``cells``, several at a time and in order; one finding where the engine starts nothing here."""
    try:
        with launcher.prepared(name) as prepared:
            started = launcher.run(prepared, ["true"], How(user="0:0", entrypoint=False, timeout=SECONDS))
            if started.returncode in ENGINE_FAILED:
                yield starts_nothing(launcher, started.stderr)
                return
            with ThreadPoolExecutor(AT_ONCE) as pool:
                yield from pool.map(lambda cell: cell(), cells(_Run(launcher, prepared, image)))
    except ToolError as error:
        yield starts_nothing(launcher, error.message)


def starts_nothing(launcher: Launcher, why: str) -> Finding:
    """The one finding about an engine that starts nothing here: it says nothing of the image."""
    last = why.strip().splitlines()[-1] if why.strip() else "no output"
    remark = Remark(
        f"n/a: {launcher.name} starts nothing here: {last}", outcome=Outcome.UNKNOWN,
        hint="docs/troubleshooting.md; this says nothing of the image",
    )  # fmt: skip
    return BY_ID["engine"].fault(remark, launcher.name)


def application_path(image: Image) -> str:
    """The entries of config.Env's PATH that are not every base's: where the application lies."""
    entries = image.config.env.get("PATH", "").split(":")
    usual = {*bases.PATH.split(":"), ""}
    return ":".join(entry for entry in entries if entry not in usual)


@dataclass(frozen=True)
class _Run:
    """One image under one launcher."""

    launcher: Launcher
    name: str
    image: Image

    def _where(self, user: User) -> str:
        return f"{self.launcher.name}, {user.name}"

    def _lacking(self, *needs: str) -> str:
        return " and ".join(need for need in needs if need in self.launcher.lacks)

    def _not_applicable(self, rule: Rule, user: User, lacking: str) -> Finding:
        remark = Remark(f"n/a: {self.launcher.name} lacks {lacking}", outcome=Outcome.UNKNOWN)
        return rule.fault(remark, self._where(user))

    def start(self, user: User, argv: Sequence[str], how: How) -> Completed:
        """Run as ``user``; an engine without entry points runs the command as it is, which is how it is used."""
        entrypoint = how.entrypoint and ENTRY_POINT not in self.launcher.lacks
        given = replace(how, user=user.id, groups=user.groups, entrypoint=entrypoint, timeout=SECONDS)
        return self.launcher.run(self.name, argv, given)

    def ask(self, way: Way, user: User) -> Finding:
        """One cell of the matrix."""
        if lacking := self._lacking(*way.needs, *((GROUPS,) if user.groups else ())):
            return self._not_applicable(way.rule, user, lacking)
        done = self.start(user, way.argv, way.how)
        if done.returncode not in ENGINE_FAILED and not _answers(done, way):
            # Seen once in thousands on a busy machine: podman lost what a short container printed.
            done = self.start(user, way.argv, way.how)
        if done.returncode in ENGINE_FAILED:
            return self._engine_failed(way.rule, user, done)
        if _answers(done, way):
            return self._kept(way.rule, user)
        if (
            way.lost_by_hpc3
            and self.image.config.entrypoint == ENTRYPOINTS["hpc3"]
            and done.returncode not in (126, 127)
        ):
            lost = Remark("HPC3's entry point loses it by its definition", outcome=Outcome.DEGRADED)
            return way.rule.fault(lost, self._where(user))
        return way.rule.fault(Remark(_told(done, way)), self._where(user))

    def _kept(self, rule: Rule, user: User, message: str = "") -> Finding:
        return rule.fault(Remark(message or rule.sentence, outcome=Outcome.OK), self._where(user))

    def _engine_failed(self, rule: Rule, user: User, done: Completed) -> Finding:
        remark = Remark(f"n/a: {self.launcher.name} cannot start it so: {_last(done)}", outcome=Outcome.UNKNOWN,
                        hint="docs/troubleshooting.md")  # fmt: skip
        return rule.fault(remark, self._where(user))

    def scratch(self, user: User) -> Finding:
        """A mounted folder that is the working folder, as a batch job has it."""
        rule = BY_ID["scratch"]
        if lacking := self._lacking(MOUNTS, FOLDER, *((GROUPS,) if user.groups else ())):
            return self._not_applicable(rule, user, lacking)
        with _open_folder() as folder:
            how = How(mounts=((folder, "/scratch"),), folder="/scratch")
            done = self.start(user, ["touch", PROBE], how)
            written = (folder / PROBE).exists()
        if done.returncode in ENGINE_FAILED:
            return self._engine_failed(rule, user, done)
        if done.returncode == 0 and written:
            return self._kept(rule, user)
        return rule.fault(
            Remark(f"nothing was written there: exit status {done.returncode}: {_last(done)}"), self._where(user)
        )

    def signals(self, user: User) -> Finding:
        """The process that the engine signals is the first of its namespace: the command must be it."""
        rule = BY_ID["signals"]
        if lacking := self._lacking(PID_NAMESPACE, ENTRY_POINT):
            return self._not_applicable(rule, user, lacking)
        done = self.start(user, ["readlink", "/proc/self"], How())
        if done.stdout.strip().rpartition("\n")[2] == "1":
            return self._kept(rule, user)
        return rule.fault(
            Remark(f"the command is process {done.stdout.strip() or '?'}, not the first"), self._where(user)
        )

    def quiet(self, user: User) -> Finding:
        done = self.start(user, ["bash", "-c", "bash -lc : 2>&1"], How(entrypoint=False))
        if done.returncode == 0 and not done.stdout.strip():
            return self._kept(BY_ID["quiet"], user)
        return BY_ID["quiet"].fault(Remark(f"it prints {_last(done)!r}"), self._where(user))

    def fast(self, user: User) -> Finding:
        """The best of seven, with and without the login scripts, in one container."""
        rule = BY_ID["fast"]
        script = (
            'best() { b=; for i in 1 2 3 4 5 6 7; do s=${EPOCHREALTIME/[.,]/}; bash "$1" :; e=${EPOCHREALTIME/[.,]/}; '
            'd=$((e-s)); if [ -z "$b" ] || [ $d -lt $b ]; then b=$d; fi; done; }; '
            '[ "$EPOCHREALTIME" ] || exit 9; best -c; p=$b; best -lc; echo $((b-p))'
        )
        done = self.start(user, ["bash", "-c", script], How(entrypoint=False))
        words = done.stdout.split()
        if not words or not re.fullmatch(r"-?[0-9]{1,12}", words[-1]):
            remark = Remark("the image's bash has no clock (bash 5 has)", outcome=Outcome.UNKNOWN)
            return rule.fault(remark, self._where(user))
        milliseconds = max(0, int(words[-1])) / 1000
        told = f"the login shell takes {milliseconds:.0f} ms more than bash"
        return self._kept(rule, user, told) if milliseconds < 50 else rule.fault(Remark(told), self._where(user))

    def strict(self, user: User) -> Finding:
        script = 'for s in /etc/profile.d/*.sh; do [ ! -r "$s" ] || bash -euc \'. "$1"\' sh "$s" >&2 || echo "$s"; done'
        done = self.start(user, ["bash", "-c", script], How(entrypoint=False))
        if done.returncode == 0 and not done.stdout.strip():
            return self._kept(BY_ID["strict"], user)
        named = ", ".join(done.stdout.split()) or f"exit status {done.returncode}"
        return BY_ID["strict"].fault(Remark(f"they fail under set -eu: {named}"), self._where(user))


def _answers(done: Completed, way: Way) -> bool:
    """What a login script prints before the answer is the fault of another rule, ``quiet``."""
    got = done.stdout.strip().rpartition("\n")[2]
    if way.rule.id in ("arguments", "bypassed"):
        return done.returncode == 0 and got != "" and _holds(got, way.expected or "")
    return done.returncode == way.status and (not way.expected or got == way.expected)


def _holds(path: str, expected: str) -> bool:
    """Whether the PATH has every entry that is expected."""
    entries = path.split(":")
    return all(entry in entries for entry in expected.split(":") if entry)


def _last(done: Completed) -> str:
    return (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]


def _told(done: Completed, way: Way) -> str:
    if done.returncode != way.status:
        return f"exit status {done.returncode} instead of {way.status}: {_last(done)}"
    if way.rule.id in ("arguments", "bypassed"):
        return f"PATH is {done.stdout.strip()!r}, without {way.expected}"
    return f"it printed {done.stdout.strip()!r} instead of {way.expected!r}"


@contextmanager
def _open_folder() -> Iterator[Path]:
    """A folder that any user can write to, below one that any can pass."""
    with TemporaryDirectory(prefix="hpc3build-scratch-") as name:
        Path(name).chmod(0o1777)
        yield Path(name)
