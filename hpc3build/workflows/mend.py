"""``check --fix``: what a configuration or a manifest can mend, without a layer; what it cannot needs a rebuild."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from hpc3build import bases, conformance, rewrite
from hpc3build.conformance.configuration import site_variables
from hpc3build.conformance.files import USERS_FILE, is_login_script
from hpc3build.conformance.live import application_path
from hpc3build.conformance.rules import REBUILD
from hpc3build.containerfile import CMD, ENTRYPOINTS
from hpc3build.environment import baked_environment
from hpc3build.facts import vocabulary as voc
from hpc3build.findings import Finding, Outcome
from hpc3build.imageconfig import ImageConfig
from hpc3build.reference import Reference
from hpc3build.run import Runner
from hpc3build.stores import open_store
from hpc3build.stores.access import Access
from hpc3build.workflows.check import read_image
from hpc3build.workflows.placing import IN_PLACE, Placing, keeps_annotations, leaves_storage, pack, place

_Edit = Callable[[ImageConfig], ImageConfig]


@dataclass(frozen=True)
class Mended:
    """What was changed, in words; what the new image still lacks; and how the rewrite went."""

    changes: tuple[str, ...]
    left: tuple[Finding, ...]
    result: rewrite.Result


@dataclass(frozen=True)
class _Mending:
    """One change: in words, to the configuration, to labels and annotations."""

    words: str
    edit: _Edit | None = None
    pairs: Mapping[str, str] | None = None
    remove: tuple[str, ...] = ()


def mend(
    reference: Reference,
    runner: Runner,
    access: Access | None = None,
    *,
    entrypoint: str = "hpc3",
    how: Placing = IN_PLACE,
    begin: Callable[[], None] = lambda: None,
) -> Mended:
    """Mend what the static rules find, in one rewrite of the image; the image ID changes.

    ``entrypoint`` names the one to set where the image has none of ours, ``how`` says where the result goes.
    ``begin`` is called before a tag is written. Raises what reading and writing the stores do.
    """
    with open_store(reference, runner, access) as store:
        if leaves_storage(reference, how.to):
            pack(store)
        image = read_image(store, reference, layers=True)
        broken = {finding.rule for finding in conformance.static(image) if finding.outcome is not Outcome.OK}
        mendings = [one for rule, mends in _HOW.items() if rule in broken for one in mends(image, entrypoint)]
        pairs: dict[str, str] = {}
        removed: list[str] = []
        for one in mendings:
            pairs |= one.pairs or {}
            removed += one.remove
        pairs = {key: value for key, value in pairs.items() if key not in removed}

        def configure(config: ImageConfig) -> ImageConfig:
            for one in mendings:
                config = one.edit(config) if one.edit else config
            return config

        kept = keeps_annotations(how.to or reference, labels=True)
        plan = rewrite.plan(
            store, reference, annotations=pairs if kept else {}, remove=removed if kept else (), labels=pairs,
            remove_labels=removed, configure=configure, expect_digest=image.manifest.digest,
        )  # fmt: skip
        result = place(store, plan, how, runner, access, begin=begin)
        config = plan.configs[-1][1] if plan.configs else image.config
        after = conformance.static(replace(image, manifest=plan.new, config=config))
    left = tuple(_left(finding) for finding in after if finding.outcome in (Outcome.FAILS, Outcome.DEGRADED))
    return Mended(tuple(one.words for one in mendings), left, result)


def _left(finding: Finding) -> Finding:
    """What --fix did not mend it will not mend the next time."""
    fix, _, other = finding.hint.partition(", or ")
    return replace(finding, hint=other or REBUILD) if fix == "hpc3build check --fix" else finding


def _entrypoint(image: conformance.Image, name: str) -> Iterator[_Mending]:
    """Not where the login shell would lose what only config.Env says: that wants a script in a layer."""
    line = ENTRYPOINTS[name]
    if _keeps_path(image) and _has_shell(image):
        yield _Mending(f"the entry point becomes {name}'s", lambda config: config.with_run({"Entrypoint": list(line)}))


def _keeps_path(image: conformance.Image) -> bool:
    """Whether a login script sets the application's PATH anew after /etc/profile has set its own."""
    needed = [entry for entry in application_path(image).split(":") if entry]
    texts = [file.data for path, file in (image.files or {}).items() if is_login_script(path)]
    return all(any(entry.encode() in text for text in texts) for entry in needed)


def _has_shell(image: conformance.Image) -> bool:
    return not any(finding.outcome is Outcome.FAILS for finding in conformance.BY_ID["shell"].findings(image))


def _command(image: conformance.Image, name: str) -> Iterator[_Mending]:
    if _has_shell(image):
        yield _Mending("the command becomes /bin/bash", lambda config: config.with_run({"Cmd": list(CMD)}))


def _environment(image: conformance.Image, name: str) -> Iterator[_Mending]:
    env = dict(baked_environment(image.files or {}, image.config.env))
    if not env and not image.config.env.get("PATH"):
        env = {"PATH": bases.PATH}
    if env:
        yield _Mending(f"config.Env gets {', '.join(env)}", lambda config: config.with_env(env))


def _site_settings(image: conformance.Image, name: str) -> Iterator[_Mending]:
    names = site_variables(image)
    yield _Mending(f"config.Env loses {', '.join(names)}", lambda config: config.without_env(names))


def _user(image: conformance.Image, name: str) -> Iterator[_Mending]:
    """The number that the image's own passwd file gives the name; without one it needs a rebuild."""
    number = _number_of(image)
    if number is not None:
        yield _Mending(f"USER {image.config.user} becomes {number}", lambda config: config.with_run({"User": number}))


def _number_of(image: conformance.Image) -> str | None:
    passwd = image.files.get(USERS_FILE) if image.files is not None else None
    user, _, group = image.config.user.partition(":")
    for line in passwd.data.decode("utf-8", "replace").splitlines() if passwd else ():
        fields = line.split(":")
        if len(fields) > 3 and fields[0] == user and (not group or group.isdecimal()):
            return f"{fields[2]}:{group or fields[3]}"
    return None


def _working_folder(image: conformance.Image, name: str) -> Iterator[_Mending]:
    yield _Mending(f"WORKDIR {image.config.working_dir} becomes /", lambda config: config.with_run({"WorkingDir": "/"}))


def _volumes(image: conformance.Image, name: str) -> Iterator[_Mending]:
    told = ", ".join(image.config.volumes)
    yield _Mending(f"no volume is declared any more: {told}", lambda config: config.with_run({}, ["Volumes"]))


def _labels(image: conformance.Image, name: str) -> Iterator[_Mending]:
    """Labels are the ground truth; what only the annotations say becomes a label."""
    ours = {key: value for key, value in image.declared.items() if key in voc.BY_NAME}
    if ours:
        yield _Mending("labels and annotations say the same; where they differed, the label counted", pairs=ours)


def _gone(rule: str) -> Callable[[conformance.Image, str], Iterator[_Mending]]:
    def how(image: conformance.Image, name: str) -> Iterator[_Mending]:
        keys = tuple(finding.key for finding in conformance.BY_ID[rule].findings(image) if finding.key)
        yield _Mending(f"without {', '.join(keys)}", remove=keys)

    return how


_HOW: Mapping[str, Callable[[conformance.Image, str], Iterator[_Mending]]] = {
    "entrypoint": _entrypoint,
    "command": _command,
    "environment": _environment,
    "site-settings": _site_settings,
    "user": _user,
    "working-folder": _working_folder,
    "volumes": _volumes,
    "labels": _labels,
    "forbidden": _gone("forbidden"),
    "stale-labels": _gone("stale-labels"),
}
