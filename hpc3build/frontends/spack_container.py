"""The ``container:`` section of a spack.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hpc3build import bases
from hpc3build.errors import InputError
from hpc3build.frontends.settings import read_labels
from hpc3build.instructions import instruction_fault, section_fault
from hpc3build.recipe import Settings
from hpc3build.yamlread import Section

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
#: What each ``format`` is rendered as; Spack itself knows docker and singularity.
FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "docker": "containerfile",
        "podman": "containerfile",
        "containerfile": "containerfile",
        "singularity": "apptainer",
        "apptainer": "apptainer",
    }
)
_SINGULARITY = ("runscript", "startscript", "test", "help")
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


@dataclass(frozen=True, kw_only=True)
class Container:
    """The ``container:`` section.

    ``where_image`` says who named its images, ``spack_ref`` is None where nobody names a Spack.
    """

    build_image: str
    final_image: str
    where_image: str = ""
    form: str = "containerfile"
    spack_url: str = SPACK_URL
    spack_ref: str | None = None
    resolve_sha: bool = False
    verify: bool = False
    manager: str | None = None
    update: bool = True
    build_packages: tuple[str, ...] = ()
    final_packages: tuple[str, ...] = ()
    strip: bool = True
    depfile: bool = False
    template: str | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    extra_build: str = ""
    extra_final: str = ""
    scripts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def read_container(spack: Section, settings: Settings) -> Container:
    """The section, with the settings over it. Raises InputError with file:line for what it cannot hold."""
    section = spack.section("container")
    section.only(KEYS)
    named = section.choice("format", FORMATS)
    form = settings.format or FORMATS[named or "docker"]
    packages = section.section("os_packages")
    packages.only(("command", "update", "build", "final"))
    extra = section.section("extra_instructions")
    extra.only(("build", "final"))
    _check_extra(extra, form, FORMATS[named or "docker"])
    section.section("docker").only(())
    return Container(
        **_images(section, settings),
        form=form,
        manager=packages.choice("command", bases.MANAGERS),
        update=packages.boolean("update", True),
        build_packages=packages.packages("build") + settings.build_packages,
        final_packages=packages.packages("final") + settings.final_packages,
        strip=section.boolean("strip", True),
        depfile=section.boolean("depfile", False),
        template=_template(section),
        labels=MappingProxyType({**read_labels(section, "labels"), **settings.labels}),
        extra_build=extra.text("build", one_line=False) or "",
        extra_final=extra.text("final", one_line=False) or "",
        scripts=_scripts(section.section("singularity")),
    )


def _check_extra(extra: Section, form: str, of_section: str) -> None:
    """Extra instructions are the user's own lines, but they must not end the stage or swallow what comes after."""
    for key in ("build", "final"):
        text = extra.text(key, one_line=False) or ""
        if text and form != of_section:
            raise InputError(
                f"{extra.where(key)}: these are lines of the recipe's own format, and the other one was asked for",
                hint="os_packages, env and labels are the same in both formats",
            )
        fault = (instruction_fault if form == "containerfile" else section_fault)(text)
        if fault is not None:
            raise InputError(f"{extra.where(key)}: {fault[0]}", hint=fault[1])


def _scripts(section: Section) -> Mapping[str, str]:
    section.only(_SINGULARITY)
    found = {key: text for key in _SINGULARITY if (text := section.text(key, one_line=False))}
    for key, text in found.items():
        if fault := section_fault(text):
            raise InputError(f"{section.where(key)}: {fault[0]}", hint=fault[1])
    return MappingProxyType(found)


def _template(section: Section) -> str | None:
    name = section.text("template")
    if name is not None and (name.startswith("/") or ".." in name.split("/") or not name):
        raise InputError(
            f"{section.where('template')}: {name!r} is not the name of a template",
            hint="its path below one of config:template_dirs, or below the recipe's folder",
        )
    return name


def _images(section: Section, settings: Settings) -> dict[str, Any]:
    images = section.section("images")
    images.only(("os", "spack", "build", "final"))
    build, final = images.text("build"), images.text("final")
    where = settings.where("base") if settings.base else images.where("build" if build else "os")
    if build or final:
        if not build or not final:
            raise InputError(f"{section.where('images')}: build and final go together")
        if images.text("os"):
            raise InputError(f"{images.where('os')}: either os, or build and final")
    else:
        build, final = bases.images(images.text("os") or DEFAULT_BASE)
    if settings.base:
        build, final = bases.images(settings.base)
    url, ref, checks = _spack(images)
    ref = settings.spack_ref or settings.pins.get("spack") or ref
    if ref is not None and not _REF.fullmatch(ref):
        where = "--spack-ref" if settings.spack_ref else images.where("spack")
        raise InputError(f"{where}: {ref!r} is not a git reference")
    return {
        "build_image": build,
        "final_image": final,
        "where_image": where,
        "spack_url": settings.spack_source or url or SPACK_URL,
        "spack_ref": ref,
        **checks,
    }


def _spack(images: Section) -> tuple[str | None, str | None, dict[str, bool]]:
    """Where Spack comes from, and which: ``{url, ref}``, or the tag of Spack's own images; whether to ask there."""
    if isinstance(images.data.get("spack"), Mapping):
        details = images.section("spack")
        details.only(("url", "ref", "resolve_sha", "verify"))
        checks = {key: details.boolean(key, False) for key in ("resolve_sha", "verify")}
        url = details.text("url")
        if url is not None and url.startswith("-"):
            raise InputError(f"{details.where('url')}: {url!r} is neither a git URL nor a folder")
        return url, details.text("ref"), checks
    tag = images.text("spack")
    if tag is None or tag == "latest":
        return None, None, {}
    if re.fullmatch(r"\d+\.\d+", tag):
        return None, f"releases/v{tag}", {}
    return None, f"v{tag}" if re.fullmatch(r"\d+(\.\d+)+", tag) else tag, {}
