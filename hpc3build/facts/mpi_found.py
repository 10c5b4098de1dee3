"""MPI by an image's files: which library the applications load, whose it is, and whether it can be exchanged (R8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import MappingProxyType

from hpc3build.evidence.applications import Program
from hpc3build.evidence.binary import Binary, is_libmpi
from hpc3build.evidence.image import Evidence
from hpc3build.evidence.layers import ImageFile
from hpc3build.evidence.loader import Loaded
from hpc3build.evidence.packages import Installed
from hpc3build.facts import Fact, Facts, Key, Note, Source, Statement
from hpc3build.facts import vocabulary as voc
from hpc3build.mpinames import SELVES
from hpc3build.sonames import MPI_FAMILIES

#: Packages whose version is that of the MPI itself. OpenHPC names launcher, fabric and compiler, too
#: (openmpi4-pmix-gnu12-ohpc), and installs below _OPENHPC (openhpc/ohpc, components/mpi-families/*/SPECS).
_PACKAGES = MappingProxyType(
    {
        "openmpi": re.compile(r"libopenmpi\d+(?:t64)?|openmpi(?:-libs|-bin)?|openmpi\d*(?:-\w+){1,2}-ohpc"),
        "mpich": re.compile(r"libmpich\d+(?:t64)?|mpich(?:-libs)?|mpich(?:-\w+){1,3}-ohpc"),
        "mvapich2": re.compile(r"mvapich2(?:(?:-\w+){1,2}-ohpc)?"),
        "intel-mpi": re.compile(r"impi[-_]rt|intel-oneapi-mpi(?:-20[\d.]+)?"),
    }
)
_OPENHPC = "/opt/ohpc/pub/mpi/"
_ANY_PACKAGE = re.compile(r"(?:lib)?(?:openmpi|mpich|mvapich|impi|intel-?mpi|intel-oneapi-mpi|hpcx)[a-z0-9._+-]*")
#: Implementations whose releases are archives of this name.
_ARCHIVES = frozenset({"openmpi", "mpich", "mvapich", "mvapich2"})
_PREFIX = re.compile(r"--prefix[= ](/[^\s\"';&|]+)")
_STATIC = MappingProxyType(
    {"ompi_mpi_init": "openmpi", "MPID_Init": "mpich", "MPIR_CVAR_ABORT_ON_LEAKED_HANDLES": "mpich"}
)
#: How a library may be found so that another of its name, put first or in its place, is taken instead (R8).
_EXCHANGEABLE = frozenset({"environment", "runpath", "cache", "standard"})


@dataclass(frozen=True)
class Use:
    """A program that uses MPI; ``library`` is None where it is linked into it."""

    program: Program
    family: str
    library: Loaded | None
    evidence: str


def uses(evidence: Evidence) -> tuple[Use, ...]:
    """The applications that use MPI; programs of the distribution's own folders only where no other does."""
    found = [use for program in evidence.applications.programs if (use := _use(program)) is not None]
    return tuple([use for use in found if use.program.chosen] or found)


def _use(program: Program) -> Use | None:
    for library in program.libraries:
        if library.name in MPI_FAMILIES:
            way = "" if library.by == program.path else f" by {library.by}, which it loads"
            return Use(program, MPI_FAMILIES[library.name], library, f"{program.path}: NEEDED {library.name}{way}")
    for mark in sorted(program.binary.marks & set(_STATIC)):
        return Use(program, _STATIC[mark], None, f"{program.path}: {mark} inside, no MPI library needed")
    return None


def from_files(evidence: Evidence) -> Iterator[Statement]:
    """Family, implementation, version, ABI and portability of the MPI in use; ``none``, or a note, without any."""
    found = uses(evidence)
    if not found:
        yield from _without(evidence)
        return
    why = f" ({found[0].program.why})" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
    by_family = {use.family: use for use in reversed(found)}
    texts = "; ".join(use.evidence for _, use in sorted(by_family.items()))
    yield Fact(voc.MPI, ",".join(sorted(by_family)), Source.FILES, texts + why)
    libraries = {use.library.file.path: use for use in found if use.library and use.library.file}
    dynamic = len(libraries) > 0 and all(use.library and use.library.file for use in found)
    implementations = {path: _implementation(use, evidence) for path, use in libraries.items()}
    if dynamic and all(implementations.values()):
        yield _joined(voc.MPI_IMPLEMENTATION, implementations.values())
        yield from _version(evidence, {name for name, _ in filter(None, implementations.values())}, tuple(libraries))
    if dynamic:
        yield from _abi(libraries.values())
        yield from _portability(tuple(libraries.values()))


def _joined(key: Key, found: Iterable[tuple[str, str] | None]) -> Fact:
    pairs = dict(filter(None, found))
    return Fact(key, ",".join(sorted(pairs)), Source.FILES, "; ".join(pairs[name] for name in sorted(pairs)))


def _implementation(use: Use, evidence: Evidence) -> tuple[str, str] | None:
    """Its name, and what tells it."""
    file = use.library.file if use.library else None
    if file is None:
        return None
    if "/hpcx" in file.path and use.family == "openmpi":
        return "hpcx", file.path
    marks = file.extract.marks if isinstance(file.extract, Binary) else frozenset()
    for mark, implementation in SELVES:
        if mark in marks:
            return implementation, f"{file.path} calls itself {mark.removesuffix(' v').removesuffix(' Version')}"
    owners = {name: found[0] for name, pattern in _PACKAGES.items() if (found := _of(evidence, pattern, file.path))}
    return next(((name, package.origin) for name, package in owners.items()), None) if len(owners) == 1 else None


def _of(evidence: Evidence, pattern: re.Pattern[str], path: str | None = None) -> list[Installed]:
    """The packages of these names; with ``path`` those that may have put that file there."""
    found = (package for package in evidence.packages if pattern.fullmatch(package.name.lower()))
    return [package for package in found if path is None or _may_have_put(package, path)]


def _may_have_put(package: Installed, path: str) -> bool:
    if package.name.endswith("-ohpc"):
        return path.startswith(_OPENHPC) and f"/{package.upstream}/" in path
    return path.startswith(_folders(package))


def _folders(package: Installed) -> tuple[str, ...]:
    """Where the files of a package lie: an MPI that was built elsewhere is none of its business."""
    if package.manager == "conda":
        return (package.path.partition("conda-meta/")[0],)
    if package.manager == "pip":
        return (re.sub(r"lib(?:64)?/python[^/]*/.*", "", package.path),)
    return ("/usr/lib", "/lib", "/opt/intel/")


def _version(evidence: Evidence, implementations: set[str], paths: tuple[str, ...]) -> Iterator[Statement]:
    if len(implementations) != 1 or (pattern := _PACKAGES.get(*implementations)) is None:
        return
    owners = [_of(evidence, pattern, path) for path in paths]
    if not all(owners):
        return
    packages = [package for found in owners for package in found if voc.is_version(package.upstream)]
    if len({package.upstream for package in packages}) == 1:
        first = packages[0]
        yield Fact(voc.MPI_VERSION, first.upstream, Source.FILES, first.origin)


def from_history(evidence: Evidence, known: Facts) -> Iterator[Statement]:
    """The release of an MPI that was built where no package manager looks.

    Only where it is unknown otherwise, and the command that made the library's own layer names one release's archive
    and the prefix that the library lies in.
    """
    name = known.value(voc.MPI_IMPLEMENTATION)
    if name not in _ARCHIVES or voc.MPI_VERSION in known:
        return
    files = {use.library.file.path: use.library.file for use in uses(evidence) if use.library and use.library.file}
    built = [_built(name, file, evidence.history.commands.get(file.layer, "")) for file in files.values()]
    releases = dict(filter(None, built))
    if all(built) and len(releases) == 1:
        yield from (Fact(voc.MPI_VERSION, release, Source.LABEL, told) for release, told in releases.items())


def _built(name: str, file: ImageFile, command: str) -> tuple[str, str] | None:
    """Which release of the MPI ``name`` the ``command`` of its layer built ``file`` from, and what tells it."""
    releases = set(re.findall(rf"(?<![\w.-]){name}-(\d+(?:\.\d+)+\w*)\.tar\b", command))
    prefixes = [prefix for prefix in _PREFIX.findall(command) if file.path.startswith(f"{prefix.rstrip('/')}/lib")]
    if len(releases) != 1 or not prefixes:
        return None
    (release,) = releases
    return release, f"history of {file.layer}: {name}-{release}.tar, --prefix={prefixes[0]} of {file.path}"


def _abi(found: Iterable[Use]) -> Iterator[Statement]:
    versions: dict[str, str] = {}
    for use in found:
        if use.library and use.library.file:
            match = re.search(r"\.so\.(\d+(?:\.\d+)+)$", use.library.file.path)
            if match is None:
                return
            versions.setdefault(match[1], f"{use.evidence}, which is {use.library.file.path}")
    if len(versions) == 1:
        yield from (Fact(voc.MPI_ABI, version, Source.FILES, told) for version, told in versions.items())


def _portability(found: tuple[Use, ...]) -> Iterator[Statement]:
    """R8: only where every application's own look-up would take another library of the name."""
    ways = {use.library.how: use for use in found if use.library}
    fixed = next((use for how, use in ways.items() if how not in _EXCHANGEABLE), None)
    if fixed is not None and fixed.library is not None:
        yield Note(
            voc.MPI_MODE,
            f"{fixed.library.name} is found by {'DT_RPATH' if fixed.library.how == 'rpath' else 'its full path'} "
            "alone: the host's cannot take its place",
            fixed.evidence,
        )
        return
    how = "; ".join(_told(use.program, use.library) for use in ways.values() if use.library)
    modes = "mpi_replace"
    fabric = [_libfabric(use) for use in found]
    if all(library is not None and library.how in _EXCHANGEABLE for library in fabric):
        modes += ",libfabric_inject"
        how += "; libfabric.so.1 is found alike"
    yield Fact(voc.MPI_MODE, modes, Source.FILES, how)


def _told(program: Program, library: Loaded) -> str:
    way = {"runpath": "DT_RUNPATH, which LD_LIBRARY_PATH precedes", "environment": "LD_LIBRARY_PATH",
           "cache": "ld.so.conf", "standard": "the standard directories"}[str(library.how)]  # fmt: skip
    alias = "; a host's libmpi.so.12 needs the alias libmpich.so.12" if library.name == "libmpich.so.12" else ""
    return f"{program.path} finds {library.name} by {way}{alias}"


def _libfabric(use: Use) -> Loaded | None:
    return use.program.by_name.get("libfabric.so.1")


def _without(evidence: Evidence) -> Iterator[Statement]:
    """No application uses MPI: ``none`` where the image has none at all."""
    present = next((path for path in sorted(evidence.files) if is_libmpi(path)), None)
    if present is None:
        record = _of(evidence, _ANY_PACKAGE)
        present = record[0].origin if record else None
    programs = evidence.applications.chosen
    if present is not None:
        yield Note(voc.MPI, "an MPI is in the image, and no application is known to use it", present)
    elif programs and evidence.complete:
        told = f"no MPI library in the image, none inside {evidence.applications.in_words}"
        yield Fact(voc.MPI, "none", Source.FILES, told)
        # GROMACS brings a thread-MPI of its own, which its files do not tell from none.
        if not any(library.name.startswith("libgromacs") for program in programs for library in program.libraries):
            yield Fact(voc.MPI_IMPLEMENTATION, "none", Source.FILES, told)
