"""The ``container:`` section of a spack.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hpc3build import bases
from hpc3build.errors import InputError
from hpc3build.recipe import Section, Settings

DEFAULT_BASE = "ubuntu:22.04"  # spack containerize's
SPACK_URL = "https://github.com/spack/spack.git"
KEYS = (
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
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


@dataclass(frozen=True, kw_only=True)
class Container:
    """The ``container:`` section; ``spack_ref`` is None where nobody names a Spack."""

    build_image: str
    final_image: str
    spack_url: str = SPACK_URL
    spack_ref: str | None = None
    manager: str | None = None
    update: bool = True
    build_packages: tuple[str, ...] = ()
    final_packages: tuple[str, ...] = ()
    strip: bool = True
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    extra_build: str = ""
    extra_final: str = ""


def read_container(spack: Section, settings: Settings) -> Container:
    """The section, with the settings over it. Raises InputError with file:line for what it cannot hold."""
    section = spack.section("container")
    section.only(KEYS)
    for key in _LATER:
        if section.data.get(key):
            raise InputError(f"{section.where(key)}: hpc3build does not render this key yet")
    section.choice("format", ("docker", "podman", "containerfile"))
    images = _images(section, settings)
    packages = section.section("os_packages")
    packages.only(("command", "update", "build", "final"))
    extra = section.section("extra_instructions")
    extra.only(("build", "final"))
    _refuse_hidden_from(extra)
    return Container(
        **images,
        manager=packages.choice("command", bases.MANAGERS),
        update=packages.boolean("update", True),
        build_packages=packages.packages("build") + settings.build_packages,
        final_packages=packages.packages("final") + settings.final_packages,
        strip=section.boolean("strip", True),
        labels=MappingProxyType({**section.labels("labels"), **settings.labels}),
        extra_build=extra.text("build", one_line=False) or "",
        extra_final=extra.text("final", one_line=False) or "",
    )


def _refuse_hidden_from(extra: Section) -> None:
    """Extra instructions are the user's own lines, but they must not end the stage or swallow what comes after."""
    for key in ("build", "final"):
        text = (extra.text(key, one_line=False) or "").rstrip()
        if re.search(r"^\s*FROM\s", text, re.MULTILINE | re.IGNORECASE):
            raise InputError(f"{extra.where(key)}: FROM starts another stage and can't stand here")
        if text.endswith("\\"):
            raise InputError(f"{extra.where(key)}: the last line ends with a backslash and would swallow the next one")
        if re.search(r"<<-?\s*[\"']?\w", text):
            raise InputError(
                f"{extra.where(key)}: heredocs are not known to buildah 1.28 and docker 20.10",
                hint="printf, or a script among the recipe's files",
            )


def _images(section: Section, settings: Settings) -> dict[str, Any]:
    images = section.section("images")
    images.only(("os", "spack", "build", "final"))
    build, final = images.text("build"), images.text("final")
    if build or final:
        if not build or not final:
            raise InputError(f"{section.where('images')}: build and final go together")
    else:
        build = final = images.text("os") or DEFAULT_BASE
    url, ref = _spack(images)
    ref = settings.spack_ref or settings.pins.get("spack") or ref
    if ref is not None and not _REF.fullmatch(ref):
        raise InputError(f"{images.where('spack')}: {ref!r} is not a git reference")
    return {
        "build_image": settings.base or build,
        "final_image": settings.base or final,
        "spack_url": settings.spack_source or url or SPACK_URL,
        "spack_ref": ref,
    }


def _spack(images: Section) -> tuple[str | None, str | None]:
    """Where Spack comes from, and which: ``{url, ref}``, or the tag of Spack's own images."""
    if isinstance(images.data.get("spack"), Mapping):
        details = images.section("spack")
        details.only(("url", "ref", "resolve_sha", "verify"))
        for key in ("resolve_sha", "verify"):
            details.boolean(key, False)
        url = details.text("url")
        if url is not None and url.startswith("-"):
            raise InputError(f"{details.where('url')}: {url!r} is neither a git URL nor a folder")
        return url, details.text("ref")
    tag = images.text("spack")
    if tag is None or tag == "latest":
        return None, None
    if re.fullmatch(r"\d+\.\d+", tag):
        return None, f"releases/v{tag}"
    return None, f"v{tag}" if re.fullmatch(r"\d+(\.\d+)+", tag) else tag
