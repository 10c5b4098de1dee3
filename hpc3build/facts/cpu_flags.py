"""Compiler flags of CPU targets, and back, both from archspec's own table (rule R2)."""

from __future__ import annotations

import re
from functools import cache

from hpc3build.errors import InputError
from hpc3build.facts import cpu

# -m flags that choose no instructions.
_NEUTRAL = re.compile(
    r"-m(?:tune=|no-|fpmath=|cmodel=|prefer-vector-width=|veclibabi=|recip|stack|red-zone|64$|little-endian$|big-endian$)"
)
# Intel's -xHost and PGI's -tp=host, which decide for their compilers.
_OTHERS = re.compile(r"-x[A-Z]|-tp\b")


def flags(target: str, compiler: str, version: str) -> str:
    """The flags with which ``compiler`` (archspec's name) of ``version`` builds for ``target``.

    Raises InputError when that compiler cannot.
    """
    from archspec.cpu import TARGETS, UnsupportedMicroarchitecture

    try:
        found = TARGETS[cpu.known(target)].optimization_flags(compiler, version)
    except UnsupportedMicroarchitecture as error:
        raise InputError(
            f"{compiler} {version} cannot build for {target}",
            hint="choose a generic target (x86_64_v3), or a newer toolchain",
        ) from error
    if not found:
        raise InputError(f"archspec knows no flags of {compiler} for {target}")
    return str(found)


def target_of(text: str) -> tuple[str | None, str]:
    """The target that compiler flags name, and the flags that decide it.

    ``(None, "")`` when no flag decides; ``(None, flags)`` when archspec does not know them (``-march=native``, or
    ``-mavx2`` alone).
    """
    decisive = _deciding(text)
    if not decisive:
        return None, ""
    return _table().get(decisive), " ".join(sorted(decisive))


def _deciding(text: str) -> frozenset[str]:
    """The flags that decide the target; of several ``-march=`` (or ``-mcpu=``) the last counts, as for the compiler."""
    found: dict[str, str] = {}
    for word in text.split():
        if (word.startswith("-m") and not _NEUTRAL.match(word)) or _OTHERS.match(word):
            found[word.partition("=")[0]] = word
    return frozenset(found.values())


@cache
def _table() -> dict[frozenset[str], str]:
    """Deciding flags to target, from all of archspec's entries for GCC.

    Where several targets are built with the same flags it is the one that all the others satisfy; none such: unknown.
    """
    from archspec.cpu import TARGETS

    claims: dict[frozenset[str], set[str]] = {}
    for name, target in TARGETS.items():
        for entry in target.compilers.get("gcc", []):
            text = str(entry.get("flags", "")).format(name=entry.get("name", name), family=target.family)
            if found := _deciding(text):
                claims.setdefault(found, set()).add(name)
    # EasyBuild's GENERIC on Arm; archspec gives its family no flags.
    claims[frozenset({"-mcpu=generic"})] = {"aarch64"}
    table = {}
    for found, names in claims.items():
        lowest = [name for name in names if all(cpu.satisfies(other, name) for other in names)]
        if lowest:
            table[found] = lowest[0]
    return table
