"""Rules that need no image of their own: the table, what is owed when, and engines played by a function."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc3build import conformance
from hpc3build.conformance import declarations
from hpc3build.containerfile import ENTRYPOINTS
from hpc3build.engines import DEFAULT, ENTRY_POINT, GROUPS, How
from hpc3build.engines.reenacted import Reenacted
from hpc3build.errors import ToolError
from hpc3build.findings import Finding, Outcome
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import Manifest
from hpc3build.run import Completed
from tests.images import make_layout

GPU = "org.supercontainers.gpu"
ARCHITECTURE = "org.supercontainers.hardware.gpu.architecture"
CUDA = "org.supercontainers.hardware.gpu.cuda.version"
ROCM = "org.supercontainers.hardware.gpu.rocm.version"
PATH = "/opt/app/bin:/usr/bin:/bin"


def image(folder: Path, pairs: dict[str, str] | None = None, **config: Any) -> conformance.Image:
    from hpc3build.stores import read_blob
    from hpc3build.stores.layout import Layout

    given = pairs or {}
    manifest: Manifest = make_layout(folder / "image", [{}], annotations=given, labels=given, config=config)
    with Layout(folder / "image") as store:
        parsed = ImageConfig.parse(read_blob(store, manifest.config.digest))
    return conformance.Image(manifest, parsed)


# ---- the table


def test_every_rule_says_where_it_comes_from_and_what_mends_it() -> None:
    for rule in conformance.RULES:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.id) and rule.sentence and rule.source and rule.mend
        assert (rule.check is None) == (rule.level is conformance.Level.LIVE)
    assert len(conformance.BY_ID) == len(conformance.RULES)


@pytest.mark.parametrize(
    ("gpu", "owed"),
    [("none", set()), ("cuda", {ARCHITECTURE, CUDA}), ("rocm", {ARCHITECTURE, ROCM}), ("opencl", {ARCHITECTURE})],
)
def test_a_gpu_owes_its_own_keys(tmp_path: Path, gpu: str, owed: set[str]) -> None:
    remarks = list(declarations.mandatory(image(tmp_path, {GPU: gpu})))
    assert {one.key for one in remarks if one.key.startswith("org.supercontainers.hardware.gpu")} == owed
    assert {remark.outcome for remark in remarks} == {Outcome.UNKNOWN}


def test_both_places_are_looked_at(tmp_path: Path) -> None:
    """A wrong label does not hide behind a right annotation, nor the other way round."""
    given = image(tmp_path, {GPU: "cuda"})
    for config in (given.config.with_labels({GPU: "Tesla"}), given.config):
        annotation = "none" if config is not given.config else "Tesla"
        both = replace(given, config=config, manifest=given.manifest.with_annotations({GPU: annotation}))
        assert [remark.key for remark in declarations.well_formed(both)] == [GPU]


def test_a_secret_is_never_repeated(tmp_path: Path) -> None:
    given = image(tmp_path, Env=["PATH=/bin", "API_TOKEN=hunter2", "INDEX=https://me:hunter2@x/"])
    told = [finding for finding in conformance.static(given) if finding.rule == "credentials"]
    assert len(told) == 2 and "hunter2" not in repr(told)


# ---- engines


class Container:
    """An engine whose image does what ``does`` says of argv and how; ``does`` may return None: as a shell would."""

    name = "fake"
    store = "containers-storage"

    def __init__(self, does: Callable[[Sequence[str], How], Completed | None] | None = None, *lacks: str) -> None:
        self.does = does or (lambda argv, how: None)
        self.lacks = frozenset(lacks)
        self.seen: list[tuple[tuple[str, ...], How]] = []
        self._lock = threading.Lock()

    def prepared(self, image: str) -> AbstractContextManager[str]:
        return nullcontext(image)

    def run(self, image: str, argv: Sequence[str], how: How = DEFAULT) -> Completed:
        with self._lock:
            self.seen.append((tuple(argv), how))
        status, stdout = self._answer(tuple(argv), how)
        return self.does(argv, how) or Completed(tuple(argv), status, stdout, "")

    @staticmethod
    def _answer(argv: tuple[str, ...], how: How) -> tuple[int, str]:
        answers: dict[tuple[str, ...], tuple[int, str]] = {
            (): (0, "42\n"),
            ("printenv", "PATH"): (0, f"{PATH}\n"),
            ("printf", "<%s>", "a  b", "*", "c"): (0, "<a  b><*><c>"),
            ("sh", "-c", "exit 3"): (3, ""),
            ("sh", "-c", "echo one two | tr a-z A-Z"): (0, "ONE TWO\n"),
            ("cat",): (0, how.stdin or ""),
            ("readlink", "/proc/self"): (0, "1\n"),
        }
        if argv[:1] == ("touch",):
            (Path(how.mounts[0][0]) / argv[1]).touch()
        if argv[:1] == ("echo",):
            return 0, f"{argv[1]}\n"
        return answers.get(argv, (0, "5000\n" if "EPOCHREALTIME" in " ".join(argv) else ""))


def live(engine: Container, folder: Path, entry: str = "hpc3-exec") -> list[Finding]:
    given = image(folder, Env=[f"PATH={PATH}"], Entrypoint=list(ENTRYPOINTS[entry]))
    return list(conformance.live(engine, "image", given))


def failing(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings if finding.outcome not in (Outcome.OK, Outcome.UNKNOWN)}


def test_a_container_that_does_it_all(tmp_path: Path) -> None:
    findings = live(Container(), tmp_path)
    assert {finding.outcome for finding in findings} == {Outcome.OK} and len(findings) == 44
    claims = ("any-uid", "env-baked", "exec-args", "exit-code", "login", "nobody")
    assert conformance.proven(findings) == claims
    given = image(tmp_path / "2", Env=[f"PATH={PATH}"])
    assert conformance.proven(conformance.prove(Container(), "image", given)) == claims


def test_it_is_asked_as_every_user(tmp_path: Path) -> None:
    engine = Container()
    live(engine, tmp_path)
    asked = {(how.user, how.groups) for argv, how in engine.seen if argv == ("cat",)}
    assert asked == {("0:0", ()), ("65534:65534", ()), ("12345:54321", ()), ("12345:54321", (4242,))}


@pytest.mark.parametrize("status", [125, 126])
def test_an_engine_that_starts_nothing_says_nothing_of_the_image(tmp_path: Path, status: int) -> None:
    engine = Container(lambda argv, how: Completed(tuple(argv), status, "", "crun: setrlimit RLIMIT_NOFILE"))
    (finding,) = live(engine, tmp_path)
    assert finding.outcome is Outcome.UNKNOWN and "RLIMIT_NOFILE" in finding.message
    assert "troubleshooting" in finding.hint
    assert conformance.proven([finding]) == ()


def test_an_engine_that_cannot_unpack_says_nothing_either(tmp_path: Path) -> None:
    class Broken(Container):
        def prepared(self, image: str) -> AbstractContextManager[str]:
            raise ToolError("podman failed with exit status 125:\n  no space left on device")

    (finding,) = live(Broken(), tmp_path)
    assert finding.outcome is Outcome.UNKNOWN and "no space" in finding.message


def test_a_user_that_the_engine_cannot_be_is_not_applicable(tmp_path: Path) -> None:
    def does(argv: Sequence[str], how: How) -> Completed | None:
        return Completed((), 126, "", "cannot map 12345") if how.user == "12345:54321" else None

    findings = live(Container(does), tmp_path)
    assert failing(findings) <= {"quiet", "fast", "strict", "signals"}
    assert "cannot map" in next(one.message for one in findings if one.outcome is Outcome.UNKNOWN)
    assert "any-uid" not in conformance.proven(findings) and "nobody" in conformance.proven(findings)


@pytest.mark.parametrize(
    ("rule", "argv", "completed"),
    [
        ("login-shell", (), (0, "")),
        ("arguments", ("printenv", "PATH"), (0, "/usr/bin:/bin\n")),
        ("quoting", ("printf", "<%s>", "a  b", "*", "c"), (0, "<a><b><c>")),
        ("exit-status", ("sh", "-c", "exit 3"), (0, "")),
        ("shell-pipe", ("sh", "-c", "echo one two | tr a-z A-Z"), (0, "\n")),
        ("stdin", ("cat",), (0, "")),
        ("scratch", ("touch", "hpc3build-probe"), (1, "")),
        ("signals", ("readlink", "/proc/self"), (0, "7\n")),
    ],
)
def test_one_wrong_answer_breaks_one_rule(tmp_path: Path, rule: str, argv: Any, completed: Any) -> None:
    def does(given: Sequence[str], how: How) -> Completed | None:
        wrong = tuple(given) == argv and (how.entrypoint or rule not in ("arguments",))
        return Completed(argv, *completed, "") if wrong else None

    findings = live(Container(does), tmp_path)
    assert failing(findings) == {rule}
    assert all(finding.hint for finding in findings if finding.outcome is Outcome.FAILS)


@pytest.mark.parametrize("said", ["9" * 5000, "\u00b2", "--5", "", "fast"])
def test_a_clock_that_tells_no_time_is_none(tmp_path: Path, said: str) -> None:
    def does(argv: Sequence[str], how: How) -> Completed | None:
        return Completed((), 0, f"{said}\n", "") if "EPOCHREALTIME" in " ".join(argv) else None

    told = [finding for finding in live(Container(does), tmp_path) if finding.rule == "fast"]
    assert told and all("no clock" in finding.message for finding in told)


def test_output_that_was_lost_once_is_asked_for_again(tmp_path: Path) -> None:
    lost: list[str] = []

    def does(argv: Sequence[str], how: How) -> Completed | None:
        if tuple(argv) == ("cat",) and not lost:
            lost.append("once")
            return Completed((), 0, "", "")
        return None

    assert failing(live(Container(does), tmp_path)) == set() and lost


@pytest.mark.parametrize(("said", "rules"), [("Welcome!\n{}\n", set()), ("{}\nBye!\n", {"read-only", "any-home"})])
def test_a_greeting_before_the_answer_is_the_fault_of_quiet_alone(tmp_path: Path, said: str, rules: set[str]) -> None:
    def does(argv: Sequence[str], how: How) -> Completed | None:
        return Completed((), 0, said.format(argv[1]), "") if tuple(argv[:1]) == ("echo",) else None

    assert failing(live(Container(does), tmp_path)) == rules


def test_what_hpc3_loses_by_its_definition_degrades(tmp_path: Path) -> None:
    def does(argv: Sequence[str], how: How) -> Completed | None:
        return Completed((), 0, "", "") if tuple(argv[:2]) == ("sh", "-c") else None

    for entry, outcome in (("hpc3", Outcome.DEGRADED), ("hpc3-exec", Outcome.FAILS)):
        findings = live(Container(does), tmp_path / entry, entry)
        assert {one.outcome for one in findings if one.rule in ("exit-status", "shell-pipe")} == {outcome}


def test_what_an_engine_lacks_is_never_green(tmp_path: Path) -> None:
    findings = live(Container(None, ENTRY_POINT, GROUPS), tmp_path)
    told = [finding for finding in findings if finding.outcome is Outcome.UNKNOWN]
    assert {finding.rule for finding in told if not finding.where.endswith("group")} == {"login-shell", "signals"}
    assert len([finding for finding in told if finding.where.endswith("group")]) == 10
    assert all(finding.message.startswith("n/a: fake lacks ") for finding in told)
    assert "login" not in conformance.proven(findings) and "nobody" in conformance.proven(findings)


SMOKE = {"true": 0, "sh -c 'exit 3'": 1, "echo one | grep -q two": 1, "true && exit 4": 1, "true; false": 1, "-x": 1}


@pytest.mark.parametrize(("line", "wrong"), SMOKE.items())
@pytest.mark.parametrize("entry", [*ENTRYPOINTS.values(), None, ("/usr/bin/env", "MINE=1")])
def test_a_smoke_test_is_a_line_of_shell(tmp_path: Path, entry: tuple[str, ...] | None, line: str, wrong: int) -> None:
    """Run by a real shell, as an engine would: what must fail fails through every entry point, and round it."""

    def does(argv: Sequence[str], how: How) -> Completed | None:
        import subprocess

        if line not in argv:
            return None
        given = [*(entry or ()), *argv] if how.entrypoint else list(argv)
        env = {"HOME": str(tmp_path), "PATH": PATH}
        done = subprocess.run(given, env=env, capture_output=True, text=True, check=False)
        return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)

    given = image(tmp_path / "i", Env=[f"PATH={PATH}"], Entrypoint=list(entry) if entry else None)
    found = [one for one in conformance.live(Container(does), "image", given, line) if one.rule.startswith("smoke")]
    assert {one.rule for one in found} == {"smoke", "smoke-bypassed"} and len(found) == 8
    assert {one.outcome for one in found} == {Outcome.FAILS if wrong else Outcome.OK}, found


@pytest.mark.parametrize("entry", ENTRYPOINTS.values())
def test_a_smoke_test_has_the_login_shells_environment_and_round_it_the_configurations(
    tmp_path: Path, entry: tuple[str, ...]
) -> None:
    engine = Container()
    list(conformance.live(engine, "image", image(tmp_path, Entrypoint=list(entry)), "app --x"))
    asked = {argv: how.entrypoint for argv, how in engine.seen if "app --x" in argv}
    assert asked == {("/bin/bash", "-l", "-c", "--", "app --x"): False, ("/bin/bash", "-c", "--", "app --x"): False}


# ---- run scripts re-enacted


def script(name: str, folder: Path, **config: Any) -> tuple[str, ...]:
    engine = Container()
    launcher = Reenacted(name, engine, image(folder, **config).config)
    launcher.run("image", ["echo", "a b"], How(user="1:1"))
    ((argv, how),) = engine.seen
    assert how.read_only and not how.entrypoint and how.user == "1:1"
    return argv


def shell(argv: Sequence[str]) -> str:
    import subprocess

    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["apptainer", "enroot"])
def test_the_run_script_joins_entry_point_and_arguments(name: str, tmp_path: Path) -> None:
    entry = ["/bin/sh", "-c", 'printf "<%s>" "$0" "$@" $HOME_OF_NOBODY', "x y"]
    assert shell(script(name, tmp_path, Entrypoint=entry, Cmd=["unused"])) == "<x y><echo><a b>"


@pytest.mark.parametrize("name", ["apptainer", "enroot"])
def test_without_arguments_it_is_the_command(name: str, tmp_path: Path) -> None:
    engine = Container()
    config = image(tmp_path, Entrypoint=["/bin/echo"], Cmd=["a  b", "$c"]).config
    Reenacted(name, engine, config).run("image", [])
    assert shell(engine.seen[0][0]) == "a  b $c\n"


def test_apptainer_evaluates_its_arguments_as_enroot_does_not(tmp_path: Path) -> None:
    """A known trap of apptainer run; the product's own probes avoid it."""
    told = {}
    for name in ("apptainer", "enroot"):
        engine = Container()
        config = image(tmp_path / name, Entrypoint=["/bin/echo"]).config
        Reenacted(name, engine, config).run("image", ["$((6*7))"])
        told[name] = shell(engine.seen[0][0])
    assert told == {"apptainer": "42\n", "enroot": "$((6*7))\n"}


# ---- the page


def test_the_page_has_todays_rules() -> None:
    from hpc3build.conformance.markdown import rules_markdown, with_rules

    page = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")
    assert rules_markdown() in page and with_rules(page) == page, "python -m hpc3build.conformance.markdown"
    for rule in conformance.RULES:
        assert f"| `{rule.id}` |" in page
