"""What the configuration makes of a container: its entry point, command, environment, user, folders."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpc3build.conformance.rule import Image, Remark
from hpc3build.containerfile import CMD, ENTRYPOINTS
from hpc3build.environment import ENVIRONMENT
from hpc3build.findings import Outcome
from hpc3build.urls import WITH_PASSWORD

_SITE_VARIABLES = re.compile(
    r"(?i)(?:https?|ftp|all|no)_proxy|PIP_.*|SSL_CERT_FILE|SSL_CERT_DIR|CURL_CA_BUNDLE|"
    r"REQUESTS_CA_BUNDLE|GIT_SSL_CAINFO|APT_CONFIG"
)
_SECRET_NAMES = re.compile(
    r"(?i)(?:.*[_.-])?(?:pass(?:word|wd|phrase)?|secret(?:_access)?(?:_key)?|token|api_?key|private_key|credentials?)"
)
#: Folders that a site's other users cannot enter.
_CLOSED = re.compile(r"/(?:root|home)(?:/.*)?")


def entrypoint(image: Image) -> Iterator[Remark]:
    """Both of our entry points conform; what the one to the letter loses is told."""
    found = image.config.entrypoint
    if found == ENTRYPOINTS["hpc3"]:
        loses = "it loses quoting and exit codes, --entrypoint hpc3-exec keeps them"
        yield Remark(f"the entry point is HPC3's to the letter; {loses}", outcome=Outcome.OK)
    elif found != ENTRYPOINTS["hpc3-exec"]:
        yield Remark(f"the entry point is {list(found or ())}", hint=f"HPC3 asks for {list(ENTRYPOINTS['hpc3'])}")


def command(image: Image) -> Iterator[Remark]:
    if image.config.cmd != CMD:
        yield Remark(f"the command is {list(image.config.cmd or ())}")


def environment(image: Image) -> Iterator[Remark]:
    path = image.config.env.get("PATH", "")
    if not path or not all(entry.startswith("/") for entry in path.split(":")):
        yield Remark(f"config.Env has PATH={path!r}", hint="an absolute PATH, with the application's")
    elif image.files is None:
        yield Remark("what the application needs lies in a layer, which was not read", outcome=Outcome.UNKNOWN)
    elif ENVIRONMENT not in image.files:
        unknown = "the image does not record which environment its application needs"
        yield Remark(unknown, outcome=Outcome.UNKNOWN)
    elif "/opt/" not in path:
        yield Remark(f"the application is not on config.Env's PATH={path}")


def site_variables(image: Image) -> list[str]:
    """Names in config.Env that only mean something where the image was built."""
    return sorted(name for name in image.config.env if _SITE_VARIABLES.fullmatch(name))


def site_settings(image: Image) -> Iterator[Remark]:
    if left := site_variables(image):
        yield Remark(f"config.Env keeps settings of a site: {', '.join(left)}")


def credentials(image: Image) -> Iterator[Remark]:
    """Never the value itself: a report is no place for it either."""
    for where, pairs in (("config.Env", image.config.env), ("the labels", image.config.labels)):
        for name, value in pairs.items():
            if (value and _SECRET_NAMES.fullmatch(name)) or WITH_PASSWORD.search(value):
                yield Remark(f"{name} in {where} looks like a password or a token")
    for number, step in enumerate(image.config.history):
        if WITH_PASSWORD.search(str(step.get("created_by", ""))):
            yield Remark(f"the history's step {number} holds a URL with a password")


def user(image: Image) -> Iterator[Remark]:
    """Kubernetes' runAsNonRoot compares numbers (kubernetes.io, security context), and a name wants a passwd file."""
    if image.config.user and not re.fullmatch(r"\d+(?::\d+)?", image.config.user):
        yield Remark(f"USER is {image.config.user!r}")


def working_folder(image: Image) -> Iterator[Remark]:
    folder = image.config.working_dir
    if _CLOSED.fullmatch(folder):
        yield Remark(f"WORKDIR is {folder}, which other users cannot enter")
    elif folder and not folder.startswith("/"):
        yield Remark(f"WORKDIR is {folder!r}, which is no absolute path")


def volumes(image: Image) -> Iterator[Remark]:
    if image.config.volumes:
        yield Remark(f"the image declares volumes: {', '.join(sorted(image.config.volumes))}")
