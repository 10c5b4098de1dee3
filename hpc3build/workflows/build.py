"""Recipe to annotated image: build, read what was really installed, compare, then one rewrite and the tag last."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

from hpc3build import rewrite, site
from hpc3build.containerfile import LOGIN_SHELL
from hpc3build.engines import Engine, How
from hpc3build.environment import baked_environment
from hpc3build.errors import Contradiction, InputError, ToolError
from hpc3build.facts import Fact, Facts, Source, Statement, gather
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.agreement import of_packages, reconcile
from hpc3build.frontends.spack_context import SpackRecipe
from hpc3build.frontends.spack_fit import missing_externals, off_target
from hpc3build.frontends.spack_manifest import ENVIRONMENT as ENVIRONMENT_OF_SPACK
from hpc3build.reference import Reference
from hpc3build.run import Runner, failure
from hpc3build.stores.access import Access
from hpc3build.workflows import publish
from hpc3build.workflows.describe import Described, describe, planned_facts
from hpc3build.workflows.prove import prove
from hpc3build.workflows.render import Planned

#: What the base image or the engine said under these prefixes is about something else, and would lie about the image.
_OURS = ("org.opencontainers.image.", "org.supercontainers.", "io.github.hpc3build.")
SMOKE_SECONDS = 300


@dataclass(frozen=True)
class Built:
    """What ``build`` published."""

    reference: Reference
    digest: str
    facts: Facts


def build(
    planned: Planned,
    target: Reference,
    engine: Engine,
    runner: Runner,
    *,
    secrets: Mapping[str, Path],
    no_cache: bool = False,
    access: Access | None = None,
    by_digest: bool = False,
) -> Built:
    """Build and publish under ``target``, in a registry, an OCI layout or containers-storage.

    ``by_digest`` leaves out the tag, for what an index will name. Until the last step nothing bears the target's name;
    the engine keeps the layers, as its cache. Raises ToolError when a step fails, Contradiction when the image is not
    what was planned (R9), InputError for a target of another kind, and for a secret that no step mounts.
    """
    secrets_not_given(planned, secrets)
    target = publish.check_place(target, runner, access, by_digest=by_digest)
    epoch = _source_date_epoch()
    plan = planned_facts(planned.recipe, planned.stack)
    image = _run_engine(planned, engine, runner, secrets, no_cache)
    _smoke(planned, engine, image)
    with publish.readable(engine, image, target, runner) as (store, built):
        found = describe(store, built, labels=False)
        _check_target(planned, found)
        _check_externals(planned, found)
        facts = reconcile(plan, found.facts, of_packages(planned.stack, found.stack))
        env = baked_environment(found.files, found.config.env, planned.context.expected)
        extra: list[Statement] = [*_extra(planned, found, engine, epoch)]
        extra += prove(engine, image, found.manifest, found.config, env, runner)
        facts = gather((*facts.values(), *extra, *facts.conflicts, *facts.notes))
        pairs = {**planned.recipe.settings.labels, **facts.annotations()}
        done = rewrite.plan(
            store,
            built,
            annotations=pairs,
            remove=_stale(found.manifest.annotations, pairs),
            labels=pairs,
            remove_labels=_stale(found.config.labels, pairs),
            env=env,
        )
        target = target.at(done.new_digest) if by_digest else target
        digest = publish.publish(store, done, target, runner, access)
    return Built(target, digest, facts)


def secrets_not_given(planned: Planned, secrets: Mapping[str, Path]) -> tuple[str, ...]:
    """The ids that the recipe declares and nobody gives. Raises InputError for a secret that no step mounts."""
    mounts = [line for line in planned.context.containerfile.splitlines() if "type=secret" in line]
    for name in secrets:
        if not any(re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", line) for line in mounts):
            raise InputError(
                f"--secret id={name}: no step of this build mounts it",
                hint=f"secrets: [{name}] in hpc3build.yaml mounts it in the step that installs",
            )
    return tuple(name for name in planned.recipe.settings.secrets if name not in secrets)


def _check_target(planned: Planned, found: Described) -> None:
    """The target was required of every package in the builder; what it made of that is looked at, not believed."""
    target, stack = planned.recipe.settings.target, found.stack
    if target and stack and stack.manager == "spack" and (others := off_target(stack, target)):
        raise Contradiction(
            f"{stack.origin}: the target is {target}, and there are packages {others}",
            hint="nothing was published; what do their own requirements in packages: say?",
        )


def _check_externals(planned: Planned, found: Described) -> None:
    """What a lock beside the recipe is asked before the build, one from the builder is asked here."""
    recipe, stack = planned.recipe, found.stack
    if not isinstance(recipe, SpackRecipe) or stack is None:
        return
    if lacking := missing_externals(stack, recipe.container, recipe.settings):
        names = ", ".join(f"{package.name}@{package.version}" for package in lacking)
        raise InputError(
            f"{recipe.origin}: external, and nothing brings them into the final image: {names}",
            hint="nothing was published; os_packages:final with what has them, or --host-provided "
            f"{lacking[0].name} where the host gives it",
        )


def _source_date_epoch() -> datetime | None:
    """$SOURCE_DATE_EPOCH (reproducible-builds.org), None when unset. Raises InputError."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        return datetime.fromtimestamp(int(text), timezone.utc) if text else None
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(f"SOURCE_DATE_EPOCH={text!r}: expected seconds since 1970") from error


def _run_engine(planned: Planned, engine: Engine, runner: Runner, secrets: Mapping[str, Path], no_cache: bool) -> str:
    from_site = site.settings(os.environ, _home(), runner)
    with TemporaryDirectory(prefix="hpc3build-context-") as folder, site.as_files(from_site) as files:
        planned.context.write(Path(folder))
        return engine.build(Path(folder), secrets={**files, **planned.context.secrets, **secrets}, no_cache=no_cache)


def _home() -> Path:
    """The user's folder; one that nobody has for a number that no passwd file knows, as containers give it to jobs."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


def _smoke(planned: Planned, engine: Engine, image: str) -> None:
    """The recipe's own test, as nobody, in a login shell, before anything is published."""
    smoke = planned.recipe.settings.smoke
    if not smoke:
        return
    how = How(user="65534:65534", entrypoint=False, timeout=SMOKE_SECONDS)
    done = engine.run(image, [*LOGIN_SHELL, smoke], how)
    if done.returncode != 0:
        raise ToolError(
            f"the smoke test {smoke!r} failed as nobody: {failure(done)}",
            hint="nothing was published; if it is the engine that cannot run here, see docs/troubleshooting.md",
        )


def _extra(planned: Planned, found: Described, engine: Engine, epoch: datetime | None) -> Iterator[Fact]:
    """Facts of the build itself, of no subject: the vocabulary, the lock, the base, the time."""
    yield Fact(voc.VOCABULARY, voc.VERSION, Source.STACK, "the version of the vocabulary that hpc3build writes")
    for what, lock in _locks(planned, found):
        yield Fact(voc.LOCK, f"sha256:{hashlib.sha256(lock).hexdigest()}", Source.STACK, what)
    yield Fact(voc.BASE_NAME, planned.context.final_image, Source.STACK, "FROM of the final stage")
    # Not buildah's own annotation: with cached layers that names the last of them.
    if digest := planned.context.final_digest:
        yield Fact(voc.BASE_DIGEST, digest, Source.STACK, "FROM of the final stage")
    elif digest := engine.digest(planned.context.final_image):
        yield Fact(
            voc.BASE_DIGEST, digest, Source.FILES, f"{planned.context.final_image} in the store of {engine.name}"
        )
    if epoch is not None:
        yield Fact(voc.CREATED, epoch.strftime("%Y-%m-%dT%H:%M:%SZ"), Source.USER, "SOURCE_DATE_EPOCH")
    elif found.config.created:
        yield Fact(voc.CREATED, found.config.created, Source.FILES, "the image's configuration")


def _locks(planned: Planned, found: Described) -> Iterator[tuple[str, bytes]]:
    """What pins the stack: the lock that was installed, else the one that the builder wrote, else the easyconfigs."""
    given = planned.context.files.get("hpc3build/spack/spack.lock")
    record = found.files.get(f"{ENVIRONMENT_OF_SPACK}/spack.lock")
    if given is not None:
        yield "spack.lock beside the recipe", given
    elif record is not None:
        yield "spack.lock that the builder concretized", record.data
    elif bundle := _easyconfigs(planned):
        yield "the list of modules, the options and the recipe's own easyconfigs", bundle


def _easyconfigs(planned: Planned) -> bytes:
    """What an EasyBuild image was made from, as one text: its list of modules, its own easyconfigs, its sources."""
    names = sorted(name for name in planned.context.files if name.startswith("hpc3build/easybuild/"))
    ours = (".eb", "keep.json", "options.txt", "sources.txt")
    kept = [name for name in names if name.endswith(ours) or "/own/" in name]
    return b"".join(name.encode() + b"\n" + planned.context.files[name] for name in kept)


def _stale(said: Mapping[str, str], pairs: Mapping[str, str]) -> list[str]:
    return [name for name in said if name.startswith(_OURS) and name not in pairs]
