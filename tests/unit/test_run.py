"""The one door for processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpc3build.errors import ToolError, ToolMissing
from hpc3build.run import LAST_LINES, PACKAGES, Completed, clean_up, failure, missing, run

SH = ["/bin/sh", "-c"]
each_way = pytest.mark.parametrize("stream", [False, True])


def test_streams_and_status() -> None:
    done = run([*SH, 'echo out; echo err >&2; exit "$1"', "x", "0"])
    assert done == Completed((*SH, 'echo out; echo err >&2; exit "$1"', "x", "0"), 0, "out\n", "err\n")
    assert run([*SH, "exit 7"], check=False).returncode == 7


def test_no_shell_reads_the_arguments(tmp_path: Path) -> None:
    words = ["a b", "$HOME", "`id`", "'\"", "\\n", "*", ""]
    program = "import sys; print(sys.argv[1:])"
    assert run([sys.executable, "-c", program, *words], cwd=tmp_path).stdout == f"{words}\n"


def test_environment_folder_and_input(tmp_path: Path) -> None:
    done = run([*SH, 'echo "$A-${HOME-none}"; pwd; cat'], env={"A": "1"}, cwd=tmp_path, input="täxt")
    assert done.stdout == f"1-none\n{tmp_path}\ntäxt"


@each_way
def test_without_input_nobody_waits_for_a_terminal(stream: bool, tmp_path: Path) -> None:
    (tmp_path / "typed").write_text("typed by a person")
    saved = os.dup(0)
    try:
        with (tmp_path / "typed").open() as typed:
            os.dup2(typed.fileno(), 0)
            assert run(["cat"], stream=stream).stdout == ""
    finally:
        os.dup2(saved, 0)
        os.close(saved)


@each_way
def test_bytes_that_are_no_text(stream: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SH, r"printf 'a\377b'"], stream=stream).stdout == "a\ufffdb"


@each_way
@pytest.mark.parametrize("command", ["hpc3build-no-such-command", "/no/such/command", *PACKAGES])
def test_missing_command(command: str, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissing) as raised:
        run([command, "x"], stream=stream)
    assert command in raised.value.message and raised.value.exit_code == 3
    assert PACKAGES.get(command, command) in raised.value.hint
    assert missing(command).message == raised.value.message


@each_way
def test_other_ways_not_to_start(stream: bool, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    with pytest.raises(ToolError, match="Permission denied"):
        run([str(tmp_path / "plain")], stream=stream)
    with pytest.raises(ToolError, match=r"folder .*none does not exist"):
        run(["/bin/true"], cwd=tmp_path / "none", stream=stream)
    with pytest.raises(ToolError, match="Not a directory"):
        run(["/bin/true"], cwd=tmp_path / "plain", stream=stream)


@each_way
def test_failure_tells_the_last_lines(stream: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ToolError) as raised:
        run([*SH, "echo no; seq 100 >&2; exit 9", "two words"], stream=stream)
    lines = raised.value.message.splitlines()
    assert lines[0] == "sh failed with exit status 9:"
    assert lines[1:] == [f"  {number}" for number in range(101 - LAST_LINES, 101)]
    assert raised.value.hint.startswith("the command was: /bin/sh -c ") and "'two words'" in raised.value.hint


def test_failure_that_says_nothing_or_only_on_stdout() -> None:
    assert failure(Completed(("/x/tool",), 2, "", "")) == "tool failed with exit status 2"
    assert failure(Completed(("tool",), 2, "told\n", " \n")) == "tool failed with exit status 2:\n  told"


@each_way
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_signal_by_name(number: signal.Signals, stream: bool) -> None:
    with pytest.raises(ToolError, match=f"sh was ended by signal {number.name}"):
        run([*SH, f"kill -{number.value} $$"], stream=stream)


def test_a_signal_without_a_name() -> None:
    """Real-time signals between SIGRTMIN and SIGRTMAX have none in Python."""
    number = signal.SIGRTMIN + 1
    assert f"signal {int(number)}" in failure(Completed(("tool",), -number, "", ""))


@each_way
def test_time_out(stream: bool) -> None:
    start = time.monotonic()
    with pytest.raises(ToolError, match=r"sleep did not finish within 0\.2 s"):
        run(["sleep", "20"], timeout=0.2, stream=stream)
    assert time.monotonic() - start < 10


@each_way
def test_in_time(stream: bool) -> None:
    assert run(["true"], timeout=60, stream=stream).returncode == 0


def test_streaming_shows_both_on_stderr_and_keeps_them(capsys: pytest.CaptureFixture[str]) -> None:
    done = run([*SH, "echo one; echo two >&2; cat; printf three"], stream=True)
    assert (done.stdout, done.stderr) == ("one\ntwo\nthree", "")
    assert capsys.readouterr() == ("", "one\ntwo\nthree")


def test_what_is_streamed_takes_no_input() -> None:
    """Both pipes would have to be served at once: a megabyte of input was never written, nor read."""
    with pytest.raises(ValueError, match="takes no input"):
        run(["cat"], stream=True, input="x" * (1 << 20))


def test_streaming_shows_lines_as_they_come(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command goes on only when its first line was shown."""
    seen: list[str] = []

    class Terminal:
        def write(self, text: str) -> None:
            seen.append(text)
            (tmp_path / "shown").touch()

        def flush(self) -> None: ...

    monkeypatch.setattr(sys, "stderr", Terminal())
    wait = 'for _ in $(seq 600); do [ -e "$0" ] && break; sleep 0.1; done; [ -e "$0" ] && echo second'
    run([*SH, f"echo first; {wait}", str(tmp_path / "shown")], stream=True)
    assert seen == ["first\n", "second\n"]


INTERRUPTED = """\
import signal, sys
from hpc3build.run import run

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, interrupt)
run(sys.argv[1:], stream=True)
"""


def test_what_a_command_started_ends_with_it() -> None:
    """As a build step that changed its user: in a session of its own, deaf to the signal, its parent gone at once."""
    step = "trap '' TERM; exec sleep 300"
    started = f'setsid sh -c "{step}" & echo "step $!"; trap "exit 0" TERM; wait'
    command = [sys.executable, "-c", INTERRUPTED, *SH, started]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        left = int(process.stderr.readline().split()[1])
        os.kill(left, 0)
        process.terminate()
        process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while alive(left) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(left)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_failure_is_told_without_the_colours_of_a_terminal() -> None:
    done = Completed(("eb",), 1, "", "\x1b[0;31mERROR: no\x1b[0m\nlast\x1b[K")
    assert failure(done) == "eb failed with exit status 1:\n  ERROR: no\n  last"


@pytest.mark.parametrize(("statuses", "times"), [([-2, 0], 2), ([-15, -2, 0], 3), ([0], 1), ([1], 1), ([-2] * 9, 3)])
def test_what_cleans_up_is_run_again_where_a_signal_ended_it(statuses: list[int], times: int) -> None:
    """The signal went to all processes of the job, perhaps twice; a failure of its own is none of that."""
    asked = []

    def runner(argv: Sequence[str], *, check: bool = True, **_: object) -> Completed:
        asked.append((argv, check))
        return Completed(tuple(argv), statuses.pop(0), "", "")

    clean_up(runner, ["tool", "rm", "x"])
    assert asked == [(["tool", "rm", "x"], False)] * times


CLEANING = """\
import os, signal, sys
from hpc3build.run import clean_up, run

ours = os.getpid()
step = "for n in $(seq 5); do sleep 0.1; kill -$0 $1; kill -$0 -$1; done; touch $2"
try:
    clean_up(run, ["/bin/sh", "-c", step, "INT", str(ours), sys.argv[1]])
except KeyboardInterrupt:
    print("interrupted")
"""


def test_what_cleans_up_is_not_cut_short(tmp_path: Path) -> None:
    """Ctrl-C, again and again, while a container is removed: it is removed, and then the run ends."""
    mark = tmp_path / "removed"
    done = subprocess.run(
        [sys.executable, "-c", CLEANING, mark],
        capture_output=True, text=True, start_new_session=True, timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert done.stdout == "interrupted\n" and mark.exists(), done
