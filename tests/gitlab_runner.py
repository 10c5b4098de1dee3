"""A small GitLab: reads a .gitlab-ci.yml and runs its jobs one by one in a shell, with GitLab's variables.

What it knows is what our pipelines use: include:local, extends, parallel:matrix, rules about merge requests, needs,
artifacts:paths, before_script and script in one shell. Anything else is an error, so that nothing is skipped unseen.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

GLOBAL = {"stages", "variables", "workflow", "include"}
KNOWN = {
    "extends", "image", "tags", "interruptible", "retry", "before_script", "script", "cache", "stage", "rules", "needs",
    "resource_group", "artifacts", "parallel", "variables",
}  # fmt: skip
MERGE_REQUEST = '$CI_PIPELINE_SOURCE == "merge_request_event"'


@dataclass(frozen=True)
class Ran:
    """How a job ended, and its log."""

    status: int
    log: str


@dataclass(frozen=True)
class Job:
    """One job of a pipeline, a matrix's each by itself."""

    name: str
    keys: Mapping[str, Any]
    variables: Mapping[str, str]

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]

    def runs(self, source: str) -> bool:
        """Whether the rules let it into a pipeline of that source."""
        for rule in self.keys.get("rules", [{}]):
            assert rule.get("if", MERGE_REQUEST) == MERGE_REQUEST, rule
            if "if" not in rule or source == "merge_request_event":
                return bool(rule.get("when") != "never")
        return False


def document(path: Path) -> dict[str, Any]:
    """The whole configuration, with what it includes."""
    text: dict[str, Any] = YAML(typ="safe").load(path)
    merged: dict[str, Any] = {}
    for entry in text.pop("include", []):
        merged |= document(path.parent / entry["local"])
    return merged | text


def jobs(configuration: Mapping[str, Any]) -> list[Job]:
    """All jobs, in the order of the stages."""
    found = []
    for name, keys in configuration.items():
        if name in GLOBAL or name.startswith("."):
            continue
        keys = _extended(configuration, name)
        assert set(keys) <= KNOWN, (name, set(keys) - KNOWN)
        for cell in _cells(keys.get("parallel", {}).get("matrix", [{}])):
            label = f"{name}: [{', '.join(cell.values())}]"
            found.append(Job(label, keys, {**configuration.get("variables", {}), **keys.get("variables", {}), **cell}))
    return sorted(found, key=lambda job: configuration["stages"].index(job.keys["stage"]))


def _extended(configuration: Mapping[str, Any], name: str) -> dict[str, Any]:
    keys = dict(configuration[name])
    parents = keys.pop("extends", [])
    merged: dict[str, Any] = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        merged = _over(merged, _extended(configuration, parent))
    return _over(merged, keys)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """GitLab merges mappings and replaces lists."""
    both = {**below}
    for key, value in above.items():
        both[key] = _over(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both


def _cells(matrix: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    for entry in matrix:
        lists = [value if isinstance(value, list) else [value] for value in entry.values()]
        for values in itertools.product(*lists):
            yield dict(zip(entry, values, strict=True))


@dataclass
class GitLab:
    """One pipeline of the repository ``source``; ``given`` are the variables of the project, which win."""

    source: Path
    folder: Path
    given: Mapping[str, str]
    event: str = "push"
    artifacts: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.jobs = [job for job in jobs(document(self.source / ".gitlab-ci.yml")) if job.runs(self.event)]

    def named(self, kind: str) -> list[Job]:
        return [job for job in self.jobs if job.kind == kind]

    def run(self, job: Job, *, kill_when: Callable[[], bool] | None = None) -> Ran:
        """One job in a fresh checkout, with the artifacts of what it needs. ``kill_when`` loses the runner."""
        work = self.folder / "builds" / re.sub(r"[^A-Za-z0-9]+", "-", job.name)
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self.source, work, symlinks=True)
        for need in (other for other in self.jobs if other.kind in job.keys.get("needs", ())):
            if need.name in self.artifacts:
                shutil.copytree(self.artifacts[need.name], work, dirs_exist_ok=True)
        lines = [*job.keys["before_script"], *job.keys["script"]]
        process = subprocess.Popen(
            ["bash", "-c", "set -eo pipefail\n" + "\n".join(lines)],
            cwd=work, env=self._environment(job, work), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        while kill_when is not None and process.poll() is None:
            if kill_when():
                os.killpg(process.pid, signal.SIGKILL)
                log, _ = process.communicate()
                return Ran(-9, log.decode(errors="replace"))
            time.sleep(0.005)
        log, _ = process.communicate(timeout=600)
        self._keep(job, work)
        return Ran(process.returncode, log.decode(errors="replace"))

    def run_all(self) -> dict[str, Ran]:
        """Every job; the first that fails ends it, as GitLab does with the stages behind it."""
        done: dict[str, Ran] = {}
        for job in self.jobs:
            done[job.name] = self.run(job)
            if done[job.name].status:
                break
        return done

    def _environment(self, job: Job, work: Path) -> dict[str, str]:
        own = {
            "CI": "true",
            "CI_PROJECT_DIR": str(work),
            "TMPDIR": str(self.folder),
            "CI_PIPELINE_SOURCE": self.event,
            "CI_COMMIT_REF_SLUG": "main",
            "CI_COMMIT_TIMESTAMP": "2026-01-02T03:04:05+00:00",
            "CI_REGISTRY": "registry.invalid",
            "CI_REGISTRY_IMAGE": "registry.invalid/group/project",
        }
        all_of_them = {**own, **job.variables, **self.given}
        expanded = {
            name: re.sub(r"\$(\w+)", lambda found: all_of_them.get(found[1], ""), value)
            for name, value in all_of_them.items()
        }
        return {**os.environ, **expanded}

    def _keep(self, job: Job, work: Path) -> None:
        kept = self.folder / "artifacts" / re.sub(r"[^A-Za-z0-9]+", "-", job.name)
        shutil.rmtree(kept, ignore_errors=True)
        for pattern in job.keys["artifacts"]["paths"]:
            for path in work.glob(pattern):
                (kept / path.relative_to(work)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, kept / path.relative_to(work))
        kept.mkdir(parents=True, exist_ok=True)
        self.artifacts[job.name] = kept
