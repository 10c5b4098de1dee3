"""Compiler flags of CPU targets, and back, both from archspec's own table (rule R2)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from functools import cache

from hpc3build.errors import InputError
from hpc3build.facts import cpu

# -m flags that choose no instructions.
_NEUTRAL = re.compile(
    r"-m(?:tune=|no-|fpmath=|cmodel=|prefer-vector-width=|veclibabi=|recip|stack|red-zone|64$|little-endian$|big-endian$)"
)
# Intel's -xHost and PGI's -tp=host, which decide for their compilers.
_OTHERS = re.compile(r"-x[A-Z]|-tp\b")
# What EasyBuild 5.4.1 gives its compilers for GENERIC (easybuild/toolchains/compiler) and archspec has no entry for.
_GENERIC = (
    ("gcc", "-mcpu=generic", "aarch64"),
    ("clang", "-mcpu=generic", "aarch64"),
    ("fujitsu", "-mcpu=generic", "aarch64"),
    ("intel", "-xSSE2", "x86_64"),
    ("oneapi", "-march=x86-64", "x86_64"),
    ("nvhpc", "-tp=px", "x86_64"),
    ("nvhpc", "-tp=x64", "x86_64"),
)
# Fujitsu's compilers, which archspec does not have: what EasyBuild says they choose on A64FX.
_FUJITSU = {"a64fx": "-mcpu=a64fx"}


def flags(target: str, compiler: str, version: str) -> str:
    """The flags with which ``compiler`` (archspec's name) of ``version`` builds for ``target``.

    Raises InputError when that compiler cannot.
    """
    if compiler == "fujitsu":
        found: object = _FUJITSU.get(cpu.known(target))
    else:
        found = _of_archspec(target, compiler, version)
    if not found:
        raise InputError(f"no flags of {compiler} for {target} are known")
    # archspec writes "-tp zen3"; EasyBuild writes, and its records hold, -tp=zen3.
    return re.sub(r"-tp ", "-tp=", str(found))


def _of_archspec(target: str, compiler: str, version: str) -> object:
    from archspec.cpu import TARGETS, UnsupportedMicroarchitecture

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Intel's word about other makers' processors
            return TARGETS[cpu.known(target)].optimization_flags(compiler, version)
    except UnsupportedMicroarchitecture as error:
        raise InputError(
            f"{compiler} {version} cannot build for {target}",
            hint="choose a generic target (x86_64_v3), or a newer toolchain",
        ) from error


def target_of(text: str, compiler: str = "gcc") -> tuple[str | None, str]:
    """The target that flags of ``compiler`` (archspec's name) name, and the flags that decide it.

    ``(None, "")`` when no flag decides; ``(None, flags)`` when archspec does not know them (``-march=native``, or
    ``-mavx2`` alone).
    """
    decisive = _deciding(text)
    if not decisive:
        return None, ""
    return _table(compiler).get(decisive), " ".join(sorted(decisive))


def may_be_of(target: str, text: str, compiler: str = "gcc") -> bool:
    """Whether flags that name no one target are those that some release of ``compiler`` takes for ``target``."""
    from archspec.cpu import TARGETS

    known = TARGETS.get(target)
    entries = known.compilers.get(compiler, []) if known else []
    return any(_deciding(_text_of(entry, target)) == _deciding(text) for entry in entries)


def _text_of(entry: Mapping[str, object], target: str) -> str:
    from archspec.cpu import TARGETS

    return str(entry.get("flags", "")).format(name=entry.get("name", target), family=TARGETS[target].family)


def _deciding(text: str) -> frozenset[str]:
    """The flags that decide the target; of several ``-march=`` (or ``-mcpu=``) the last counts, as for the compiler."""
    found: dict[str, str] = {}
    for word in re.sub(r"-tp (?=\w)", "-tp=", text).split():
        if (word.startswith("-m") and not _NEUTRAL.match(word)) or _OTHERS.match(word):
            found[word.partition("=")[0]] = word
    return frozenset(found.values())


@cache
def _table(compiler: str) -> dict[frozenset[str], str]:
    """Deciding flags to target, from all of archspec's entries for the compiler.

    Where several targets are built with the same flags it is the one that all the others satisfy; none such: unknown.
    """
    from archspec.cpu import TARGETS

    claims: dict[frozenset[str], set[str]] = {}
    for name, target in TARGETS.items():
        for entry in target.compilers.get(compiler, []):
            if found := _deciding(_text_of(entry, name)):
                claims.setdefault(found, set()).add(name)
    for its, generic, family in _GENERIC:
        if its == compiler:
            claims[frozenset({generic})] = {family}
    for name, own in _FUJITSU.items() if compiler == "fujitsu" else ():
        claims[frozenset({own})] = {name}
    table = {}
    for found, names in claims.items():
        lowest = [name for name in names if all(cpu.satisfies(other, name) for other in names)]
        if lowest:
            table[found] = lowest[0]
    return table
