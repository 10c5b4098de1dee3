"""The closure's modules as a graph: what each needs, who is asked for, and in which step each is installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

#: Layers, lowest first: a change of the application leaves those below as they are.
PARTS = ("toolchain", "dependencies", "application")
Module = Mapping[str, Any]


def full_version(module: Module) -> str:
    """The version as a module's name and a toolchain's version have it: 22.7-CUDA-11.7.0."""
    return f"{module['version']}{module.get('versionsuffix') or ''}"


def identity(module: Module) -> tuple[str, str, str, str]:
    """What tells a module, or a dependency on one, from all others."""
    chain = module.get("toolchain") or {}
    name = str(chain.get("name", "system")).lower()
    return module["name"], full_version(module), name, "" if name == "system" else str(chain.get("version", ""))


def needs(modules: Iterable[Module]) -> dict[str, tuple[str, ...]]:
    """By a module's name the modules that are installed before it: dependencies, build dependencies, the toolchain."""
    modules = list(modules)
    by_identity = {identity(module): module["module"] for module in modules}
    by_version = {(module["name"], full_version(module)): module["module"] for module in modules}
    found = {}
    for module in modules:
        chain = module.get("toolchain") or {}
        names = [by_identity.get(identity(needed)) for needed in (*module["deps"], *module["builddeps"])]
        names.append(by_version.get((str(chain.get("name")), str(chain.get("version")))))
        found[module["module"]] = tuple(name for name in names if name is not None)
    return found


def reached(start: Iterable[str], below: Mapping[str, Iterable[str]]) -> set[str]:
    """``start``, and everything that it needs."""
    seen: set[str] = set()
    queue = list(start)
    while queue:
        name = queue.pop()
        if name not in seen:
            seen.add(name)
            queue += below.get(name, ())
    return seen


def roots_of(easyconfig: str, modules: Iterable[Module]) -> list[str]:
    """The modules of one easyconfig that was asked for, by its absolute path or its name."""
    path = Path(easyconfig)
    if path.is_absolute():
        return [module["module"] for module in modules if module.get("path") == str(path)]
    return [module["module"] for module in modules if module["easyconfig"] in (easyconfig, f"{easyconfig}.eb")]


def parts_of(modules: Sequence[Module], roots: Iterable[str]) -> dict[str, list[Module]]:
    """The modules by the layer that they end in, in the order of installation, without empty layers.

    The toolchain's is all that the roots' toolchains need; a root is never part of it.
    """
    roots = set(roots)
    by_version = {(module["name"], full_version(module)): module["module"] for module in modules}
    chains = [module["toolchain"] for module in modules if module["module"] in roots]
    starts = {by_version.get((chain["name"], chain["version"])) for chain in chains} - {None, *roots}
    # A root that a toolchain needs stops the search, as another layer has what it needs.
    open_ones = {name: [each for each in its if each not in roots] for name, its in needs(modules).items()}
    below = reached((name for name in starts if name is not None), open_ones)
    parts: dict[str, list[Module]] = {name: [] for name in PARTS}
    for module in modules:
        name = module["module"]
        parts["application" if name in roots else "toolchain" if name in below else "dependencies"].append(module)
    return {name: found for name, found in parts.items() if found}


def steps_of(modules: Sequence[Module], parts: Mapping[str, Iterable[Module]]) -> dict[str, list[Module]]:
    """The modules by the part whose step installs them: that of the first module that needs them.

    It is the layer's own but for a root that others need: it is asked for, and has to be there before them.
    """
    names = list(parts)
    step = {module["module"]: names.index(part) for part, its in parts.items() for module in its}
    below = needs(modules)
    for module in reversed(modules):
        for needed in below[module["module"]]:
            step[needed] = min(step[needed], step[module["module"]])
    return {
        part: [module for module in modules if step[module["module"]] == number] for number, part in enumerate(names)
    }
