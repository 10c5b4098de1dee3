"""Decision 1 (docs/architecture.md): a lock is installed only by a builder that is what the lock was made for."""

from __future__ import annotations

import json
import re

from hpc3build import bases
from hpc3build.errors import InputError
from hpc3build.frontends.spack_container import Container
from hpc3build.frontends.spack_local import DEVELOP
from hpc3build.recipe import Settings
from hpc3build.stack import Package, Stack

#: Externals that every builder has, or that are part of the system itself.
_SYSTEM = frozenset({"gcc", "glibc", "llvm", "gcc-runtime", "musl"})
# A reference that is always the same Spack; others are branches.
_EXACT = re.compile(r"v?\d+\.\d+\.\d+|[0-9a-f]{7,40}")


def fit(
    stack: Stack, lock: str, container: Container, base: bases.Base | None, settings: Settings
) -> tuple[str | None, list[str]]:
    """The Spack to install ``lock`` with, and the packages of the lock's compilers.

    Raises InputError naming everything that does not fit at once.
    """
    wrong: list[str] = []
    hints: list[str] = []
    named, image = container.spack_ref, container.build_image
    systems = {package.os for package in stack.packages if package.os}
    if base is not None and base.os and systems and systems != {base.os}:
        wrong.append(f"it is for {', '.join(sorted(systems))}, and the base {image} is {base.os}")
        fits = [row.image for row in bases.BASES if row.os in systems]
        hints.append(f"--base {fits[0]}" if fits else "--base with an image of that system")
    exact = _exact(lock, stack)
    ref = named if settings.spack_ref is not None or not stack.manager_version else _ref(named, exact)
    if ref is None and stack.manager_version:
        wrong.append(f"Spack {stack.manager_version} made it, and the builder would have {named or 'another'}")
        hints.append(f"--spack-ref {exact[0] if exact else 'the commit that made it'}")
    packages = _compilers(stack, base, wrong)
    for package in missing_externals(stack, container, settings):
        wrong.append(f"{package.name}@{package.version} is external, and the final image would lack it")
        hints.append(f"os_packages:final with what has it, or --host-provided {package.name} where the host gives it")
    for package in stack.counted:
        developed = package.variants.get("dev_path")
        if developed is not None and not str(developed).startswith(f"{DEVELOP}/"):
            wrong.append(f"{package.name} is developed in {developed}, which the builder has not")
    if wrong:
        hints.append("or --concretize builder sets the lock aside")
        raise InputError(f"{stack.origin} does not fit the builder: {'; '.join(wrong)}", hint="; ".join(hints))
    return ref, packages


def off_target(stack: Stack, target: str) -> str:
    """The packages that count and are not for ``target``, in words; an empty text when there is none.

    A preferred target (``packages:all:target``) binds nobody: only the result tells. Externals hold no code of ours.
    """
    others: dict[str, list[str]] = {}
    for package in stack.counted:
        if package.target not in (None, target) and not package.external:
            others.setdefault(str(package.target), []).append(f"{package.name}@{package.version}")
    return "; ".join(f"for {found}: {_some(names)}" for found, names in sorted(others.items()))


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def missing_externals(stack: Stack, container: Container, settings: Settings) -> list[Package]:
    """External packages that programs link or run and that nothing brings into the final image.

    What brings them: the base by its name, a package of ``os_packages:final`` that is called after it (libopenmpi3,
    openmpi-bin), or the host by ``--host-provided``.
    """
    brought = bases.provided(container.final_image) | set(settings.host_provided) | _SYSTEM
    return [
        package
        for package in stack.counted
        if package.external
        and package.name not in brought
        and not any(_called_after(package.name, name) for name in container.final_packages)
    ]


def _called_after(package: str, os_package: str) -> bool:
    """Whether an operating system's package is named after Spack's: ``libopenmpi3`` after ``openmpi``."""
    return re.match(rf"(?:lib)?{re.escape(package)}(?![a-z])", os_package) is not None


def _exact(lock: str, stack: Stack) -> list[str]:
    """The git references of the Spack that made the lock, the best first: its tag, its commit."""
    release = stack.manager_version or ""
    found = [f"v{release}", release] if re.fullmatch(r"\d+\.\d+\.\d+", release) else []
    made_by = json.loads(lock).get("spack")
    commit = made_by.get("commit") if isinstance(made_by, dict) else None
    return [*found, commit] if isinstance(commit, str) and re.fullmatch(r"[0-9a-f]{40}", commit) else found


def _ref(named: str | None, exact: list[str]) -> str | None:
    """``named`` where it is the lock's Spack; a branch gives way to it; None for another release or commit."""
    if named is not None and _EXACT.fullmatch(named):
        return named if any(ref == named or (len(named) >= 7 and ref.startswith(named)) for ref in exact) else None
    return exact[0] if exact else None


def _compilers(stack: Stack, base: bases.Base | None, wrong: list[str]) -> list[str]:
    """The base's packages of the lock's compilers; one that the lock itself installs is nobody else's matter."""
    packages = []
    own = {f"{package.name}@{package.version}" for package in stack.packages if not package.external}
    for spec in sorted({spec for package in stack.counted for spec in package.compilers} - own):
        name, _, version = spec.partition("@")
        if base is None or not base.compilers or name not in ("gcc", "clang", "llvm"):
            continue
        if base.compilers.get(name) != version:
            has = base.compilers.get(name, "none")
            wrong.append(f"its compiler is {spec}, and {base.image} has {name} {has}")
        elif name in bases.COMPILER_PACKAGES:
            packages.append(bases.COMPILER_PACKAGES[name])
    return packages
