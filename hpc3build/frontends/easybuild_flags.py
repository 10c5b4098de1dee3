"""``--optarch`` of a target for every compiler family of a closure, and a target back from an easyconfig's own flags.

A family that ``--optarch`` does not name is built for the builder's CPU, so all of them are named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hpc3build.errors import InputError
from hpc3build.facts import cpu_flags

#: Decided in the builder, by archspec.
NATIVE = "native"
GENERIC = "GENERIC"
_GENERIC_TARGETS = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Family:
    """Archspec's name of a compiler family's compiler, and the modules whose version is the compiler's."""

    compiler: str
    modules: tuple[str, ...]


_CLANG = Family("clang", ("LLVM", "llvm-compilers", "Clang"))
#: By EasyBuild's own name (COMPILER_FAMILY in easybuild/toolchains/compiler of 5.4.1).
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "GCC": Family("gcc", ("GCCcore", "GCC")),
        "Intel": Family("oneapi", ("intel-compilers", "iccifort", "icc")),
        "NVHPC": Family("nvhpc", ("nvidia-compilers", "NVHPC")),
        "PGI": Family("nvhpc", ("PGI",)),
        "LLVM": _CLANG,
        "Clang": _CLANG,
        "ClangGCC": _CLANG,
        "ROCm": Family("clang", ("rocm-compilers",)),
        "Fujitsu": Family("fujitsu", ("FCC", "lang")),
    }
)
#: From this release on EasyBuild uses icx where it used icc (easybuild/toolchains/compiler/intel_compilers.py).
_ONEAPI_SINCE = (2022, 2)
#: What a compiler's command says of the compiler, in the records of an installation.
_OF_COMMAND: Mapping[str, str] = MappingProxyType(
    {
        "icx": "oneapi",
        "icc": "intel",
        "nvc": "nvhpc",
        "pgcc": "nvhpc",
        "clang": "clang",
        "amdclang": "clang",
        "fcc": "fujitsu",
        "fccpx": "fujitsu",
    }
)


def of_command(command: str) -> str:
    """Archspec's name of the compiler behind a command (``CC`` of EasyBuild's records); GCC where it is another."""
    return _OF_COMMAND.get(command.rsplit("/", 1)[-1], "gcc")


def compiler_of(module: Mapping[str, Any]) -> str:
    """Archspec's name of the compiler that builds a module; GCC where EasyBuild's family is not known."""
    family = FAMILIES.get(str(module.get("compiler_family")))
    return family.compiler if family else "gcc"


def optarch_by_family(text: str) -> dict[str, str]:
    """``--optarch`` as EasyBuild reads it: flags by compiler, empty where ``text`` is for all. Raises ValueError."""
    parts = text.split(";")
    counts = [part.count(":") for part in parts]
    if not text or any(count != 1 for count in counts[1:]) or counts[0] > 1 or (len(parts) > 1 and counts[0] != 1):
        raise ValueError(f"{text!r} is neither flags nor FAMILY:FLAGS;FAMILY:FLAGS")
    pairs = [part.partition(":")[::2] for part in parts if ":" in part]
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"{text!r} names a compiler twice")
    return found


def own_flags(module: Mapping[str, Any]) -> tuple[str, str]:
    """The flags, or GENERIC, that one easyconfig is built with whatever the whole is built for, and who says so.

    A string ``optarch`` of the easyconfig wins over any option, then comes the easystack (measured with 5.4.1).
    """
    own = module.get("optarch") or (module.get("toolchainopts") or {}).get("optarch")
    if isinstance(own, str) and own:
        return own, "the easyconfig's own optarch"
    told = (module.get("told") or {}).get("optarch")
    if not told:
        return "", ""
    by_family = optarch_by_family(told)
    flags = by_family.get(str(module.get("compiler_family")), "") if by_family else told
    return flags, "its optarch in the easystack" if flags else ""


def own_target(module: Mapping[str, Any]) -> tuple[str | None, str]:
    """The target that these flags name, and those of them that name none; GENERIC is no target of its own."""
    own, _ = own_flags(module)
    if not own or own == GENERIC:
        return None, ""
    target, flag = cpu_flags.target_of(own if own.startswith("-") else f"-{own}", compiler_of(module))
    return target, "" if target else (flag or own)


def built_target(module: Mapping[str, Any]) -> tuple[str | None, str]:
    """The target of the flags that a module was really built with, where the hooks in plugins/ have written them."""
    built = module.get("built") or {}
    compiler = of_command(str(built.get("CC_SEQ") or built.get("CC") or "gcc"))
    target, flag = cpu_flags.target_of(str(built.get("CFLAGS") or ""), compiler)
    return target, "" if target else flag


def compilers(modules: Iterable[Mapping[str, Any]], gcc_of_base: str) -> dict[str, dict[str, str]]:
    """By family: archspec's name of its compiler, and the lowest of its versions, whose flags all of them know.

    Families that only the build needs are left out.
    """
    modules = list(modules)
    found = {}
    for name in sorted({str(module.get("compiler_family")) for module in modules if not module.get("builddep")}):
        family = FAMILIES.get(name)
        if family is None:
            continue
        given = [str(module["version"]) for module in modules if module["name"] in family.modules]
        versions = sorted((version for version in given if version[:1].isdigit()), key=_numbers)
        # `system` is the base's own; without any it is the frame of an HPC system, which nobody can see from here.
        version = versions[0] if versions else gcc_of_base if name == "GCC" else ""
        compiler = family.compiler
        if name == "Intel" and version and _numbers(version) < _ONEAPI_SINCE:
            compiler = "intel"
        found[name] = {"compiler": compiler, "version": version}
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,9}", version))


def optarch(modules: Iterable[Mapping[str, Any]], target: str | None, gcc_of_base: str) -> str:
    """The value of ``--optarch`` for ``target`` (rule R2: generic when none is named). Raises InputError."""
    if target is None or target in _GENERIC_TARGETS:
        return GENERIC
    modules = list(modules)
    known = compilers(modules, gcc_of_base)
    given = {str(module.get("compiler_family")): module for module in modules}
    parts = []
    for family in sorted(set(given) - {"None", "SYSTEM"}):
        if all(module.get("builddep") for module in modules if str(module.get("compiler_family")) == family):
            parts.append(f"{family}:{GENERIC}")
        elif family in known and known[family]["version"]:
            parts.append(f"{family}:{cpu_flags.flags(target, **known[family])}")
        else:
            raise InputError(
                f"--target {target}: EasyBuild's compiler family {family} ({given[family]['easyconfig']}) has no flags "
                "that are known here",
                hint="GCC-based toolchains, or the generic target of the family",
            )
    return ";".join(parts) if parts else GENERIC
