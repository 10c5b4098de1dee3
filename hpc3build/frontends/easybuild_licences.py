"""Licences that somebody has to accept: EasyBuild stops at them, hours into a build, so they are told before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any

from hpc3build.errors import InputError

_NONE: Mapping[str, Iterable[str]] = MappingProxyType({})


def check(
    modules: Iterable[Mapping[str, Any]], accepted: Iterable[str], told: Mapping[str, Iterable[str]] = _NONE
) -> None:
    """Raise InputError for licences of the closure that nobody has accepted.

    ``accepted`` are names or patterns, as ``--accept-eula-for`` takes them; ``told`` are others in their place, by
    module. What EasyBuild itself would ask for is
    in the closure (``eula``); an easyconfig with ``accept_eula = True`` asks for nothing.
    """
    accepted = tuple(accepted)
    told = {name: tuple(its) for name, its in told.items()}
    for pattern in dict.fromkeys((*accepted, *chain.from_iterable(told.values()))):
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(f"--accept-eula-for {pattern}: neither a name nor a pattern: {error}") from error
        if re.search(r"[\s,]", pattern):
            raise InputError(f"--accept-eula-for {pattern!r}: expected names with commas between them")
    wanted: dict[str, tuple[str, list[str]]] = {}
    for module in modules:
        eula = module.get("eula") or {}
        name = eula.get("name")
        if name and not any(re.match(pattern, name) for pattern in told.get(module["module"], accepted)):
            wanted.setdefault(name, (eula["url"], []))[1].append(module["module"])
    if not wanted:
        return
    listed = "".join(f"\n  {name} for {', '.join(who)}: {url}" for name, (url, who) in sorted(wanted.items()))
    raise InputError(
        f"nobody has accepted the licence of what is to be installed:{listed}",
        hint=f"if you do: --accept-eula-for {','.join(sorted(wanted))}, or accept_eula_for under easybuild: in "
        "hpc3build.yaml",
    )
