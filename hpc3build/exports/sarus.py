"""A site's hook file that lets Sarus replace the MPI of images that say that they can stand it.

Sources: eth-cscs/sarus doc/config/mpi-hook.rst, etc/templates/hooks.d/05-mpi-hook.json.in, src/hooks/mpi/MpiHook.cpp
(a container without the library in its ld cache is refused), src/runtime/ConfigsMerger.cpp (labels become annotations)
and src/runtime/OCIHook.cpp (an expression must match the whole key and value); containers/common
pkg/hooks/docs/oci-hooks.5.md (1.0.0) and pkg/hooks/1.0.0/when.go (there it need match a part). The image itself never
says com.hooks.*: that would change every site (rule N6).
"""

from __future__ import annotations

import json
import re

from hpc3build.exports.subject import Export, Subject
from hpc3build.facts import vocabulary as voc

HOOK = "/opt/sarus/default/bin/mpi_hook"  # etc/templates' @INSTALL_PATH@, as the user documentation has it
LDCONFIG = "/sbin/ldconfig"
#: The hook's mpich: "a hook able to import native MPICH-based MPI implementations".
FAMILY = "mpich"


def write(subject: Subject) -> Export:
    """JSON for hooksDir, with the MPICH-based libraries of ``subject.host``; nothing where no hook would do."""
    notes = list(subject.unbelieved(voc.MPI, voc.MPI_MODE))
    if (why := _why_not(subject)) is not None:
        return Export("", (*notes, why))
    paths = sorted({mpi.path for mpi in subject.host.mpi or () if mpi.family == FAMILY and mpi.path is not None})
    if not paths:
        why = f"the host has no MPI of the family {FAMILY} that a hook could put in: --host names one that has"
        return Export("", (*notes, why))
    when = {_exact(voc.MPI.name): _holds(FAMILY), _exact(voc.MPI_MODE.name): _holds("mpi_replace")}
    document = {
        "version": "1.0.0",
        "hook": {
            "path": HOOK,
            # full: the host's minor version at least the image's, as the ABI initiative has it.
            "env": [f"LDCONFIG_PATH={LDCONFIG}", f"MPI_LIBS={':'.join(paths)}", "MPI_COMPATIBILITY_TYPE=full"],
        },
        "when": {"annotations": when},
        "stages": ["createContainer"],
    }
    absent = [key.name for key in (voc.MPI, voc.MPI_MODE) if key.name not in subject.labels]
    if absent:
        notes.append(f"Sarus sees labels alone, and the image has no label {', '.join(absent)}: annotate --labels")
    notes.append(
        f"for the site's hooksDir, root's; {HOOK} and the libraries' own dependencies (MPI_DEPENDENCY_LIBS, "
        "BIND_MOUNTS) are the site's to fill in"
    )
    return Export(json.dumps(document, indent=2) + "\n", tuple(notes))


def _why_not(subject: Subject) -> str | None:
    families, modes = subject.items(voc.MPI), subject.items(voc.MPI_MODE)
    if FAMILY not in families:
        told = subject.value(voc.MPI)
        return f"Sarus's hook replaces MPI of the family {FAMILY}; the image says {told or 'nothing of its MPI'}"
    if "mpi_replace" not in modes:
        told = ",".join(modes) or "nothing"
        return f"{voc.MPI_MODE.name} says {told}, not mpi_replace: where it finds nothing to replace, the hook fails"
    return None


def _exact(text: str) -> str:
    return f"^{re.escape(text)}$"


def _holds(item: str) -> str:
    """An expression for a LIST that holds ``item``; POSIX's, and true of the whole text as of a part of it."""
    return f"^(.*,)?{item}(,.*)?$"
