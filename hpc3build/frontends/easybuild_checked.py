"""A closure in a file of its own, which anybody may have written: checked before it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc3build.errors import InputError
from hpc3build.frontends.easybuild_flags import optarch_by_family
from hpc3build.yamlread import kind


def is_closure(data: Any) -> bool:
    """Whether ``data`` is a document of the resolver, or of EasyBuild's hooks in plugins/, in its outlines."""
    needed = {"name", "version", "module", "easyconfig", "deps", "builddeps"}
    return (
        isinstance(data, Mapping)
        and isinstance(data.get("roots"), list)
        and isinstance(data.get("modules"), list)
        and all(isinstance(module, Mapping) and needed <= set(module) for module in data["modules"])
    )


def check_closure(closure: Mapping[str, Any], where: str) -> None:
    """Raise InputError, naming the file ``where`` and the place, for what a closure cannot hold."""
    top = f"{where}: "
    _check_texts(closure, "roots", top)
    _check(closure, "easybuild_version", str, top)
    _check(closure, "easybuild_options", Mapping, top)
    for number, module in enumerate(closure["modules"]):
        at = f"{top}modules[{number}]."
        _check_named(module, ("name", "version", "module", "easyconfig"), at)
        for key in ("deps", "builddeps"):
            _check(module, key, list, at, needed=True)
            for position, dependency in enumerate(module[key]):
                _check_named(dependency, ("name", "version"), f"{at}{key}[{position}].")
        for key in ("toolchainopts", "told", "built"):
            _check(module, key, Mapping, at)
        for key in ("mpi_module", "cuda_compute_capabilities"):
            _check_texts(module, key, at)
        _check(module, "mpi_family", str, at)
        _check_told(module.get("told") or {}, f"{at}told.")


def _check_named(module: Any, texts: tuple[str, ...], at: str) -> None:
    if not isinstance(module, Mapping):
        raise _refused(at.rstrip("."), Mapping, module)
    for key in texts:
        _check(module, key, str, at, needed=True)
    _check(module, "versionsuffix", str, at)
    _check(module, "toolchain", Mapping, at)


def _check_told(told: Mapping[str, Any], at: str) -> None:
    _check(told, "cuda_compute_capabilities", str, at)
    _check(told, "optarch", str, at)
    try:
        optarch_by_family(told.get("optarch") or "-")
    except ValueError as error:
        raise InputError(f"{at}optarch: {error}") from error


def _check(fields: Mapping[str, Any], key: str, wanted: type, at: str, *, needed: bool = False) -> None:
    value = fields.get(key)
    if not isinstance(value, wanted) and (needed or value is not None):
        raise _refused(f"{at}{key}", wanted, value)


def _check_texts(fields: Mapping[str, Any], key: str, at: str) -> None:
    _check(fields, key, list, at)
    for position, value in enumerate(fields.get(key) or ()):
        if not isinstance(value, str):
            raise _refused(f"{at}{key}[{position}]", str, value)


def _refused(place: str, wanted: type, value: object) -> InputError:
    words: dict[type, str] = {str: "text", list: "a list", Mapping: "a mapping"}
    return InputError(
        f"{place}: expected {words[wanted]}, found {kind(value)}", hint="hpc3build's hooks for eb write it"
    )
