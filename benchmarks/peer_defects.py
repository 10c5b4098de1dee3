"""What each tool makes of inputs and faults that others stumble over: hpc3build and the peers on the PATH, in one run.

Every cell is found by reading the registry afterwards (without any of the tools). The columns of docs/peers.md that
come from tools that are not installed are recorded there. Needs docker-registry; crane and regctl from the PATH.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from measure import HPC3BUILD, ROOT, have, show

sys.path.insert(0, str(ROOT))

from hpc3build.oci import DOCKER_LIST, OCI_INDEX, Manifest
from hpc3build.stores.layout import Layout
from tests.fake_http import Answer, Fault, altered, before, cut, status
from tests.images import descriptor_of, make_document, make_layout
from tests.integration.registries import KINDS, fetched, push, running
from tests.proxy import Proxy

REFERENCE, TYPE = "vnd.docker.reference.digest", "vnd.docker.reference.type"
TOOLS: Mapping[str, Callable[[str], list[str]]] = {
    "hpc3build annotate": lambda name: [*HPC3BUILD, "annotate", name, "-a", "k=v"],
    "hpc3build --all-children": lambda name: [*HPC3BUILD, "annotate", name, "-a", "k=v", "--all-children"],
    "crane mutate": lambda name: ["crane", "mutate", "--insecure", "-a", "k=v", "-t", name, name],
    "regctl image mod": lambda name: ["regctl", "image", "mod", "--replace", "--annotation", "k=v", name],
}


def images(folder: Path, **options: Any) -> list[Manifest]:
    return [make_layout(folder, [{n: b"1"}], architecture=n, tag=None, **options) for n in ("amd64", "arm64")]


def index(folder: Path, kind: str, attested: bool = False) -> Manifest:
    docker = kind == DOCKER_LIST
    made = images(folder, docker=docker)
    platforms = [{"os": "linux", "architecture": name} for name in ("amd64", "arm64")]
    entries = [descriptor_of(image, platform=where) for image, where in zip(made, platforms, strict=True)]
    for image in made if attested else ():
        said = {REFERENCE: image.digest, TYPE: "attestation-manifest"}
        unknown = {"os": "unknown", "architecture": "unknown"}
        statement = make_layout(folder, [{"in-toto": image.digest.encode()}], tag=None)
        entries.append(descriptor_of(statement, annotations=said, platform=unknown))
    more = {} if docker else {"annotations": {"vendor": "x"}}
    return make_document(folder, {"schemaVersion": 2, "mediaType": kind, "manifests": entries, **more})


def odd(folder: Path, **members: Any) -> Manifest:
    return make_document(folder, {**images(folder)[0].json, **members}, indent=3)


INPUTS: Mapping[str, Callable[[Path], Manifest]] = {
    "Docker schema 2 image": lambda folder: images(folder, docker=True)[0],
    "OCI image": lambda folder: images(folder)[0],
    "OCI index": lambda folder: index(folder, OCI_INDEX),
    "Docker manifest list": lambda folder: index(folder, DOCKER_LIST),
    "index with attestations": lambda folder: index(folder, OCI_INDEX, attested=True),
    "unknown members of the manifest": lambda folder: odd(folder, vendor={"n": 2e3}),
    "unknown members of the configuration": lambda folder: images(folder, config={"StopTimeout": 7})[0],
    "an artifact's subject": lambda folder: odd(folder, subject=descriptor_of(images(folder)[1])),
    "an annotation that is null": lambda folder: odd(folder, annotations={"n": None}),
}


def verdict(host: str, repository: str, old: Manifest) -> str:
    """What is wrong with what the tag names now, in a few words."""

    def document(what: str) -> dict[str, Any]:
        return dict(json.loads(fetched(f"{host}/{repository}{what}")))

    new, found = document(":1"), []
    if new == old.json:
        return "nothing annotated"
    said = new.get("annotations") or {}
    if "docker" in new["mediaType"]:
        found.append("annotations in Docker's type")
    before_, after = dict(old.json), dict(new)
    if "manifests" in new:
        kept = {entry.digest for entry in old.descriptors}
        now = [document(f"@{entry['digest']}") for entry in new["manifests"]]
        if any("annotations" in child and "docker" in child["mediaType"] for child in now):
            found.append("annotations in Docker's images")
        there = {entry["digest"] for entry in new["manifests"]}
        links = [entry.get("annotations", {}).get(REFERENCE) for entry in new["manifests"]]
        if any(link is not None and link not in there for link in links):
            found.append("attestations detached")
        if any(
            entry["digest"] not in kept for entry in new["manifests"] if entry.get("annotations", {}).get(REFERENCE)
        ):
            found.append("attestations rewritten")
        if "vendor" in (old.annotations or {}) and said.get("vendor") != "x":
            found.append("old annotations lost")
    else:
        if new["config"]["digest"] != old.config.digest:
            found.append("image ID changed")
            config = json.loads(fetched(f"{host}/{repository}@{new['config']['digest']}", "blobs"))
            if "StopTimeout" in str(old_config(host, repository, old)) and "StopTimeout" not in str(config):
                found.append("members of the configuration lost")
        for part in (before_, after):
            for member in ("annotations", "config", "mediaType", "layers"):
                part.pop(member, None)
        if before_ != after:
            found.append(f"lost: {', '.join(sorted(set(before_) - set(after))) or 'values'}")
        if (old.json.get("annotations") or {}).get("n", 1) is None and said.get("n", "") is not None:
            found.append("null became a text")
    return "; ".join(found) or "right"


def old_config(host: str, repository: str, old: Manifest) -> Any:
    return json.loads(fetched(f"{host}/{repository}@{old.config.digest}", "blobs"))


def alter(answer: Answer) -> None:
    answer.body = answer.body.replace(b'"size"', b'"sizE"', 1)


FAULTS: Mapping[str, tuple[str, Fault, int]] = {
    "429 once on PUT": ("PUT", status(429, retry_after="1"), 1),
    "429 three times on PUT": ("PUT", status(429), 3),
    "503 once on PUT": ("PUT", status(503), 1),
    "500 once on PUT": ("PUT", status(500), 1),
    "connection cut on PUT": ("PUT", cut(), 1),
    "429 once on GET": ("GET", status(429, retry_after="1"), 1),
    "503 once on GET": ("GET", status(503), 1),
    "504 once on GET": ("GET", status(504), 1),
    "connection cut on GET": ("GET", cut(), 1),
    "body altered": ("GET", altered(alter), -1),
}


def tried(tool: str, proxy: Proxy, repository: str) -> tuple[int, str]:
    argv = TOOLS[tool](f"{proxy.host}/{repository}:1")
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr
    return -1, "no end"


class Bench:
    def __init__(self, proxy: Proxy, folder: Path) -> None:
        self.proxy, self.folder = proxy, folder

    def image(self, make: Callable[[Path], Manifest]) -> tuple[str, Manifest]:
        repository, folder = f"bench/{uuid.uuid4().hex[:10]}", self.folder / uuid.uuid4().hex
        old = make(folder)
        for entry in [old.subject] if old.subject else ():
            push(folder, Layout(folder).manifest(entry.digest), f"{self.proxy.upstream}/{repository}:subject")
        push(folder, old, f"{self.proxy.upstream}/{repository}:1")
        return repository, old

    def input(self, tool: str, make: Callable[[Path], Manifest]) -> str:
        repository, old = self.image(make)
        code, said = tried(tool, self.proxy, repository)
        found = verdict(self.proxy.upstream, repository, old)
        return found if code == 0 else f"refused ({code}): {re.sub(r'[0-9.:]+/bench.*', '…', said.strip())[-60:]}"

    def fault(self, tool: str, row: str) -> str:
        method, fault, times = FAULTS[row]
        repository, _ = self.image(lambda folder: images(folder)[0])
        self.proxy._rules.clear()
        self.proxy.fail(method, f"{repository}/manifests/", fault, times)
        code, _ = tried(tool, self.proxy, repository)
        new = json.loads(fetched(f"{self.proxy.upstream}/{repository}:1"))
        self.proxy._rules.clear()
        if row == "body altered":
            return "accepted and pushed" if code == 0 else "refused"
        return "ok" if code == 0 and "annotations" in new else "fails"

    def twice(self, tool: str) -> str:
        repository, _ = self.image(lambda folder: images(folder)[0])
        tried(tool, self.proxy, repository)
        once = fetched(f"{self.proxy.upstream}/{repository}:1")
        self.proxy.requests.clear()
        tried(tool, self.proxy, repository)
        same = fetched(f"{self.proxy.upstream}/{repository}:1") == once
        puts = sum(request.method == "PUT" for request in self.proxy.requests)
        return f"{'same digest' if same else 'another digest'}, {puts} writes"

    def moved(self, tool: str) -> str:
        """Another writer, just before the tool looks for the last time or writes."""
        repository, old = self.image(lambda folder: images(folder)[0])
        other = {**old.json, "annotations": {"by": "another"}}
        folder = self.folder / uuid.uuid4().hex
        make_layout(folder, [{"amd64": b"1"}], architecture="amd64", tag=None)
        name = f"{self.proxy.upstream}/{repository}:1"
        method = "HEAD" if tool.startswith("hpc3build") else "PUT"
        write = before(lambda: push(folder, make_document(folder, other), name))
        self.proxy._rules.clear()
        self.proxy.fail(method, f"{repository}/manifests/", write)
        code, _ = tried(tool, self.proxy, repository)
        self.proxy._rules.clear()
        said = json.loads(fetched(name))["annotations"]
        return f"exit {code}, the other's update {'is kept' if 'by' in said else 'is lost'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    tools = [tool for tool in TOOLS if tool.startswith("hpc3build") or have(tool.split()[0])]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpc3build-bench-")))
        host = stack.enter_context(running(KINDS[0], folder / "registry"))
        proxy = stack.enter_context(Proxy(host))
        config = folder / "regctl.json"
        config.write_text(json.dumps({"hosts": {proxy.host: {"tls": "disabled"}}}))
        os.environ["REGCTL_CONFIG"] = str(config)
        bench = Bench(proxy, folder)
        rows = []
        for name, make in INPUTS.items():
            wanted = [tool for tool in tools if "--all" not in tool or "index" in name or "list" in name]
            rows.append([name, *(bench.input(tool, make) if tool in wanted else "-" for tool in tools)])
        few = [tool for tool in tools if "--all" not in tool]
        for row, ask in (("a second run", bench.twice), ("another writer meanwhile", bench.moved)):
            rows.append([row, *(ask(tool) if tool in few else "-" for tool in tools)])
        for row in FAULTS:
            rows.append([row, *(bench.fault(tool, row) if tool in few else "-" for tool in tools)])
    show(("", *tools), rows)


if __name__ == "__main__":
    main()
