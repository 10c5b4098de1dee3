"""Spack: a spack.yaml with its ``container:`` section, and the spack.lock beside it."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hpc3build import bases
from hpc3build.errors import InputError
from hpc3build.evidence.layers import ImageFiles
from hpc3build.facts import cpu
from hpc3build.frontends import Context
from hpc3build.frontends.spack_lock import MAX_BYTES, read_lock
from hpc3build.recipe import Recipe, Section, Settings, line_of, read_settings, read_text, read_yaml
from hpc3build.run import Runner
from hpc3build.stack import Stack

YAML, LOCK = "spack.yaml", "spack.lock"
#: Where the image keeps the environment, as ``spack containerize`` does; evidence is looked for there.
ENVIRONMENT = "/opt/spack-environment"
DEFAULT_BASE = "ubuntu:22.04"  # spack containerize's
DEFAULT_REF = "v0.23.1"
SPACK_URL = "https://github.com/spack/spack.git"
CONTAINER_KEYS = (
    "format",
    "images",
    "os_packages",
    "strip",
    "labels",
    "template",
    "extra_instructions",
    "singularity",
    "docker",
    "depfile",
)
_LATER = ("template", "singularity", "depfile")
#: Externals that every builder has, or that are part of the system itself.
_SYSTEM = frozenset({"gcc", "glibc", "llvm", "gcc-runtime", "musl"})


@dataclass(frozen=True, kw_only=True)
class Container:
    """The ``container:`` section."""

    build_image: str
    final_image: str
    spack_url: str = SPACK_URL
    spack_ref: str = DEFAULT_REF
    manager: str | None = None
    update: bool = True
    build_packages: tuple[str, ...] = ()
    final_packages: tuple[str, ...] = ()
    strip: bool = True
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    extra_build: str = ""
    extra_final: str = ""


@dataclass(frozen=True, kw_only=True)
class SpackRecipe(Recipe):
    """A spack.yaml; ``manifest`` is it without the container section, ``lock`` the text of the lock, if it counts."""

    manifest: Any
    container: Container
    lock: str | None


def recognises(source: str) -> bool:
    """A spack.yaml or spack.lock, or a folder that holds one."""
    path = Path(source)
    return (
        path.name in (YAML, LOCK)
        or path.suffix in (".yaml", ".yml")
        or (path / YAML).is_file()
        or ((path / LOCK).is_file())
    )


def load(sources: tuple[str, ...], settings: Settings, runner: Runner) -> SpackRecipe:
    """Read the recipe. ``settings`` are the command line's and win over hpc3build.yaml. Raises InputError."""
    if len(sources) > 1:
        raise InputError(f"{sources[1]}: one spack.yaml at a time", hint="several specs go into one spack.yaml")
    path = Path(sources[0])
    path = path / YAML if path.is_dir() else path
    if path.name == LOCK:
        path = path.with_name(YAML)
    settings = _over(read_settings(path.parent), settings)
    data = read_yaml(path)
    document = Section(path, data)
    top = "spack" if "spack" in data else "env"
    if top not in data:
        raise InputError(f"{path}:1: expected the key spack:", hint="an environment's manifest starts with spack:")
    document.only((top,))
    spack = document.section(top)
    lock = path.with_name(LOCK)
    use_lock = lock.is_file() and settings.concretize is None
    container = _container(spack, settings)
    settings = replace(settings, labels=container.labels)
    recipe = SpackRecipe(
        origin=path,
        folder=path.resolve().parent,
        settings=settings,
        container=container,
        manifest=_manifest(spack, settings),
        lock=read_text(lock, MAX_BYTES, "a spack.lock") if use_lock else None,
    )
    if settings.target is not None:
        cpu.known(settings.target)
    return recipe


def _over(beside: Settings, given: Settings) -> Settings:
    default = Settings()
    changed = {name: value for name, value in vars(given).items() if value != getattr(default, name)}
    return beside.overridden(**changed)


def _container(spack: Section, settings: Settings) -> Container:
    section = spack.section("container")
    section.only(CONTAINER_KEYS)
    for key in _LATER:
        if section.data.get(key):
            raise InputError(f"{section.where(key)}: hpc3build does not render this key yet")
    section.choice("format", ("docker", "podman", "containerfile"))
    images = _images(section, settings)
    packages = section.section("os_packages")
    packages.only(("command", "update", "build", "final"))
    extra = section.section("extra_instructions")
    extra.only(("build", "final"))
    _refuse_hidden_from(section, extra)
    return Container(
        **images,
        manager=packages.choice("command", bases.MANAGERS),
        update=packages.boolean("update", True),
        build_packages=packages.packages("build") + settings.build_packages,
        final_packages=packages.packages("final") + settings.final_packages,
        strip=section.boolean("strip", True),
        labels=MappingProxyType({**section.pairs("labels"), **settings.labels}),
        extra_build=extra.text("build", one_line=False) or "",
        extra_final=extra.text("final", one_line=False) or "",
    )


def _refuse_hidden_from(section: Section, extra: Section) -> None:
    """Extra instructions are the user's own lines, but a FROM among them would end the stage unseen."""
    for key in ("build", "final"):
        if re.search(r"^\s*FROM\s", extra.text(key, one_line=False) or "", re.MULTILINE | re.IGNORECASE):
            raise InputError(f"{extra.where(key)}: FROM starts another stage and can't stand here")


def _images(section: Section, settings: Settings) -> dict[str, Any]:
    images = section.section("images")
    images.only(("os", "spack", "build", "final"))
    pinned = settings.spack_ref or settings.pins.get("spack")
    if images.data.get("build") or images.data.get("final"):
        build, final = images.text("build"), images.text("final")
        if not build or not final:
            raise InputError(f"{section.where('images')}: build and final go together")
        return {
            "build_image": settings.base or build,
            "final_image": settings.base or final,
            "spack_ref": pinned or DEFAULT_REF,
        }
    base = settings.base or images.text("os") or DEFAULT_BASE
    found: dict[str, Any] = {"build_image": base, "final_image": base}
    spack = images.data.get("spack")
    if isinstance(spack, Mapping):
        details = images.section("spack")
        details.only(("url", "ref", "resolve_sha", "verify"))
        found["spack_url"] = details.text("url") or SPACK_URL
        found["spack_ref"] = pinned or details.text("ref") or DEFAULT_REF
        for key in ("resolve_sha", "verify"):
            details.boolean(key, False)
    else:
        tag = images.text("spack")
        release = f"v{tag}" if tag and re.fullmatch(r"\d+(\.\d+)*", tag) else tag
        found["spack_ref"] = pinned or release or DEFAULT_REF
    for key, pattern in (
        ("spack_ref", r"[A-Za-z0-9][A-Za-z0-9._/-]*"),
        ("spack_url", r"[a-z+]+://[A-Za-z0-9._:/@~-]+"),
    ):
        if key in found and not re.fullmatch(pattern, found[key]):
            raise InputError(f"{images.where('spack')}: {found[key]!r} is not a git reference or URL")
    return found


def _manifest(spack: Section, settings: Settings) -> Any:
    """The document for Spack itself: no container section; install tree and view where the image has them."""
    manifest: Any = copy.deepcopy(spack.data)
    manifest.pop("container", None)
    config = manifest.setdefault("config", {})
    if not isinstance(config, dict):
        raise InputError(f"{spack.where('config')}: expected a mapping")
    config["install_tree"] = {"root": "/opt/software"}
    manifest["view"] = "/opt/views/view"
    packages = manifest.setdefault("packages", {})
    if not isinstance(packages, dict) or not isinstance(packages.get("all", {}), dict):
        raise InputError(f"{spack.where('packages')}: expected a mapping of mappings")
    target = settings.target or (None if _names_a_target(manifest) else "x86_64")
    if target is not None:
        everything = packages.setdefault("all", {})
        require = everything.get("require", [])
        require = [require] if isinstance(require, str) else list(require)
        everything["require"] = [*require, f"target={target}"]
    return manifest


def _names_a_target(manifest: Mapping[str, Any]) -> bool:
    everything = manifest.get("packages", {}).get("all", {})
    text = f"{everything.get('target', '')} {everything.get('require', '')} {manifest.get('specs', '')}"
    return bool(everything.get("target")) or "target=" in text or "arch=" in text


def stack(recipe: SpackRecipe) -> Stack | None:
    """The lock's stack; None when the builder will concretize."""
    if recipe.lock is None:
        return None
    found = read_lock(recipe.lock, str(recipe.origin.with_name(LOCK)))
    target = recipe.settings.target
    if target is not None:
        _same_target(found, target)
    return found


def _same_target(found: Stack, target: str) -> None:
    others = {package.target for package in found.counted if package.target and not package.external} - {target}
    if others:
        raise InputError(
            f"{found.origin}: concretized for {', '.join(sorted(others))}, and --target says {target}",
            hint="--concretize builder sets the lock aside",
        )


def context(recipe: SpackRecipe, stack: Stack | None) -> Context:
    """Variables and files of the Spack block. Raises InputError where the lock does not fit the builder."""
    container = recipe.container
    base = None if container.manager else bases.find(container.build_image)
    manager = bases.MANAGERS[container.manager] if container.manager else bases.find(container.build_image).manager
    ref = container.spack_ref
    extra: list[str] = []
    if stack is not None:
        ref, extra = _fit(recipe, stack, base)
    files = {"spack/spack.yaml": _dump(recipe.manifest)}
    if recipe.lock is not None:
        files["spack/spack.lock"] = recipe.lock.encode()
    builder = (
        *(base.spack_packages if base else bases.find(manager_example(manager.name)).spack_packages),
        *extra,
        *container.build_packages,
    )
    return Context(
        template="spack.Containerfile.j2",
        variables={
            "builder_image": container.build_image,
            "final_image": container.final_image,
            "manager": manager,
            "builder_packages": sorted(set(builder)),
            "final_packages": list(container.final_packages),
            "update": container.update,
            "strip": ["/opt/software"] if container.strip else [],
            "labels": dict(container.labels),
            "spack_url": container.spack_url,
            "spack_ref": ref,
            "locked": recipe.lock is not None,
            "extra_build": container.extra_build,
            "extra_final": container.extra_final,
            "static_env": {"PATH": "/opt/view/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        },
        files=MappingProxyType(files),
    )


def manager_example(name: str) -> str:
    """A base image of this package manager, for the packages that a builder needs of it."""
    return next(base.image for base in bases.BASES if base.manager.name == name)


def _fit(recipe: SpackRecipe, stack: Stack, base: bases.Base | None) -> tuple[str, list[str]]:
    """Check decision 1 (docs/architecture.md): the builder is what the lock was made for.

    Returns the Spack release to install with and the packages of the lock's compilers. Raises InputError naming
    everything that does not fit at once.
    """
    container, settings = recipe.container, recipe.settings
    wrong: list[str] = []
    hints: list[str] = []
    systems = {package.os for package in stack.packages if package.os}
    if base is not None and systems and systems != {base.os}:
        wrong.append(f"it is for {', '.join(sorted(systems))}, and the base {container.build_image} is {base.os}")
        fits = [row.image for row in bases.BASES if row.os in systems]
        hints.append(f"--base {fits[0]}" if fits else "--base with an image of that system")
    release = stack.manager_version or ""
    ref = container.spack_ref
    if release and settings.spack_ref is None and ref.lstrip("v") != release:
        explicit = isinstance(recipe_images(recipe), Mapping)
        if re.fullmatch(r"\d+\.\d+\.\d+", release) and not explicit:
            ref = f"v{release}"
        else:
            wrong.append(f"Spack {release} made it, and the builder would have {ref}")
            hints.append(f"--spack-ref {'v' + release if 'dev' not in release else 'the commit that made it'}")
    extra = _compilers(stack, base, wrong)
    externals = [
        package
        for package in stack.counted
        if package.external and package.name not in _SYSTEM and package.name not in settings.host_provided
    ]
    for package in externals:
        wrong.append(f"{package.name}@{package.version} is external, and the final image would lack it")
        hints.append(f"--host-provided {package.name}, once os_packages or the base provide it")
    if wrong:
        hints.append("or --concretize builder sets the lock aside")
        raise InputError(f"{stack.origin} does not fit the builder: {'; '.join(wrong)}", hint="; ".join(hints))
    return ref, extra


def recipe_images(recipe: SpackRecipe) -> Any:
    """What the spack.yaml itself says of Spack's version, None where it is silent."""
    data = read_yaml(recipe.origin)
    section = next(iter(data.values())).get("container") or {}
    return (section.get("images") or {}).get("spack")


def _compilers(stack: Stack, base: bases.Base | None, wrong: list[str]) -> list[str]:
    packages = []
    for spec in sorted({package.compiler for package in stack.counted if package.compiler}):
        name, _, version = spec.partition("@")
        if base is None or not base.compilers or name not in ("gcc", "clang", "llvm"):
            continue
        if base.compilers.get(name) != version:
            has = base.compilers.get(name, "none")
            wrong.append(f"its compiler is {spec}, and {base.image} has {name} {has}")
        elif name in bases.COMPILER_PACKAGES:
            packages.append(bases.COMPILER_PACKAGES[name])
    return packages


def _dump(manifest: Any) -> bytes:
    import ruamel.yaml

    writer = ruamel.yaml.YAML(typ="rt")
    writer.width = 4096
    buffer = io.StringIO()
    writer.dump({"spack": manifest}, buffer)
    return buffer.getvalue().encode()


def wanted(path: str) -> int | None:
    """Bytes to read of ``path``: the environment's lock."""
    return MAX_BYTES if path == f"{ENVIRONMENT}/{LOCK}" else None


def read_stack(files: ImageFiles) -> Stack | None:
    """The stack of the lock that the image keeps."""
    found = files.resolve(f"{ENVIRONMENT}/{LOCK}")
    return read_lock(found.data.decode("utf-8", "replace"), f"{ENVIRONMENT}/{LOCK}") if found and found.data else None


__all__ = ["context", "line_of", "load", "read_stack", "recognises", "stack", "wanted"]
