"""Compiler flags of CPU targets, and back, both from archspec's own table (rule R2)."""

from __future__ import annotations

import re
from functools import cache

from hpc3build.errors import InputError
from hpc3build.facts import cpu

#: EasyBuild's compiler families and archspec's names of their compilers.
COMPILERS = {"GCC": "gcc", "Clang": "clang", "LLVM": "clang", "Intel": "oneapi", "NVHPC": "nvhpc"}
_FLAG = re.compile(r"-(?:march|mcpu|x|tp)[= ]?([A-Za-z0-9._+-]+)")
_DECIDES = re.compile(r"(?:^|\s)(-march=\S+|-mcpu=\S+|-x[A-Z]\S*|-tp=?\s*\S+)")


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


@cache
def _table() -> dict[str, str]:
    """``march`` or ``mcpu`` value → target, from the newest entry of every target for GCC.

    Where several targets share a value the one named like it wins, else the lowest: a lower bound that holds for all.
    """
    from archspec.cpu import TARGETS

    found: dict[str, str] = {}
    for name, target in TARGETS.items():
        for entry in reversed(target.compilers.get("gcc", [])):
            match = _FLAG.search(str(entry.get("flags", "")).format(name=entry.get("name", name), family=target.family))
            if match is None:
                continue
            value = match.group(1)
            other = found.get(value)
            exact = value.replace("-", "_") == name
            if other is None or exact or (value.replace("-", "_") != other and cpu.satisfies(other, name)):
                found[value] = name
            break
    found["x86-64"] = "x86_64"
    found["generic"] = "aarch64"
    return found


def target_of(text: str) -> tuple[str | None, str]:
    """The target that compiler flags name, and the flag that decides it.

    ``(None, "")`` when no flag decides; ``(None, flag)`` when archspec does not know it (``-march=native``, or
    ``-mavx2``).
    """
    decisive = _DECIDES.findall(text)
    extensions = re.findall(r"(?:^|\s)(-m(?:avx|sse|fma|bmi|sve)\S*)", text)
    if not decisive:
        return None, extensions[0] if extensions else ""
    flag = decisive[-1].strip()
    match = _FLAG.match(flag)
    target = _table().get(match.group(1)) if match else None
    return (None, f"{flag} {extensions[0]}") if target and extensions else (target, flag)
