"""Fabric and process management by an image's files: what the MPI in use loads, and what its plug-ins would."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import MappingProxyType

from hpc3build.evidence.applications import Program
from hpc3build.evidence.binary import elf_of
from hpc3build.evidence.image import Evidence
from hpc3build.evidence.layers import ImageFile
from hpc3build.evidence.loader import Loader
from hpc3build.facts import Fact, Source, Statement, mpi_found
from hpc3build.facts import vocabulary as voc

FRAMEWORKS = MappingProxyType(
    {"libucp.so.0": "ucx", "libfabric.so.1": "libfabric", "libibverbs.so.1": "verbs", "libpsm2.so.2": "psm2"}
)
_PMI = MappingProxyType({"libpmix.so.2": "pmix", "libpmi2.so.0": "2", "libpmi.so.0": "1"})
#: Open MPI's components, and where it keeps them below the folder of its library.
_PLUGIN = re.compile(r"/(?:openmpi/lib/)?openmpi\d*/mca_(?P<kind>[a-z]+)_(?P<name>\w+)\.so$")
_CARRIERS = frozenset({"btl", "mtl", "pml", "common"})
_INTERNAL_PMIX = re.compile(r"(?:ext)?\d+x|pmix\d*x?|ext\d+x?")
_FABRIC_VERSION = re.compile(r"FABRIC_(\d{1,6})\.(\d{1,6})")


def from_files(evidence: Evidence) -> Iterator[Statement]:
    """``communication.framework``, ``pmi.version`` and libfabric's ABI of the MPI libraries in use."""
    frameworks: dict[str, str] = {}
    flavours: dict[str, str] = {}
    fabric: ImageFile | None = None
    for file, needed in _parts(evidence):
        for name in needed:
            library = needed[name]
            if library is None:
                continue
            if name in FRAMEWORKS:
                frameworks.setdefault(FRAMEWORKS[name], f"{file.path}: NEEDED {name}")
            if name in _PMI:
                flavours.setdefault(_PMI[name], f"{file.path}: NEEDED {name}")
            if name == "libfabric.so.1":
                fabric = library
        plugin = _PLUGIN.search(file.path)
        if plugin and plugin["kind"] == "pmix" and _INTERNAL_PMIX.fullmatch(plugin["name"]):
            flavours.setdefault("pmix", file.path)
    flavours = {_with_version(evidence, flavour): told for flavour, told in flavours.items()}
    for key, found in ((voc.FRAMEWORK, frameworks), (voc.PMI, flavours)):
        if found:
            yield Fact(key, ",".join(sorted(found)), Source.FILES, "; ".join(dict.fromkeys(found.values())))
    if fabric is not None:
        yield from _abi(fabric)


def _parts(evidence: Evidence) -> Iterator[tuple[ImageFile, dict[str, ImageFile | None]]]:
    """The MPI libraries in use and their plug-ins, each with what it needs itself."""
    seen: set[str] = set()
    for use in mpi_found.uses(evidence):
        library = use.library.file if use.library else None
        if library is None or library.path in seen:
            continue
        seen.add(library.path)
        loader = Loader(evidence.files, _library_path(evidence))
        yield library, _needs(use.program, library)
        folder = library.path.rpartition("/")[0]
        if use.family == "openmpi":
            for path in sorted(evidence.files):
                plugin = _PLUGIN.search(path)
                if plugin and path.startswith(f"{folder}/") and plugin["kind"] in {*_CARRIERS, "pmix"}:
                    file = evidence.files[path]
                    yield file, {each.name: each.file for each in loader.libraries(file) if each.by == file.path}


def _library_path(evidence: Evidence) -> tuple[str, ...]:
    return tuple(folder for folder in evidence.env.get("LD_LIBRARY_PATH", "").split(":") if folder.startswith("/"))


def _needs(program: Program, library: ImageFile) -> dict[str, ImageFile | None]:
    elf = elf_of(library)
    names = elf.needed if elf else ()
    return {name: program.by_name[name].file for name in names if name in program.by_name}


def _with_version(evidence: Evidence, flavour: str) -> str:
    """``pmix-4.2.2`` where a package says so."""
    versions = {
        package.upstream
        for package in evidence.packages
        if re.fullmatch(r"libpmix\d+(?:t64)?|pmix", package.name) and voc.is_version(package.upstream)
    }
    return f"pmix-{versions.pop()}" if flavour == "pmix" and len(versions) == 1 else flavour


def _abi(library: ImageFile) -> Iterator[Statement]:
    """The newest of its symbol versions, which libfabric counts with its ABI (fabric(7))."""
    elf = elf_of(library)
    found = [
        (int(match[1]), int(match[2]))
        for text in (elf.version_definitions if elf else ())
        if (match := _FABRIC_VERSION.fullmatch(text))
    ]
    if found:
        major, minor = max(found)
        told = f"{library.path}: defines FABRIC_{major}.{minor}"
        yield Fact(voc.LIBFABRIC_ABI, f"{major}.{minor}", Source.FILES, told)
