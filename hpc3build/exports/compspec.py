"""A compatibility artifact as compspec-go writes and reads it.

Sources: supercontainers/compspec-go pkg/types/types.go, examples/generated-compatibility-spec.json; the attributes are
the nodes of compspec/schemas supercontainers/compspec.json at 2906f7a (the newest with one namespace, as compspec-go's
examples have it) and archspec/compspec.json at 70b23a1. compspec-go loads the schemas from the addresses given here;
they were not tried. Matching there is equality of texts.
"""

from __future__ import annotations

import json
from types import MappingProxyType

from hpc3build.exports.subject import Export, Subject
from hpc3build.facts import Key
from hpc3build.facts import vocabulary as voc

VERSION = "0.0.0"
_RAW = "https://raw.githubusercontent.com/compspec/schemas"
SCHEMAS = MappingProxyType(
    {
        "org.supercontainers": f"{_RAW}/2906f7ade005286b5178bda1bfe5e7d4823901f3/supercontainers/compspec.json",
        "io.archspec": f"{_RAW}/70b23a1c75d05f0061f4f8ee26968bb4f63240ab/archspec/compspec.json",
    }
)
#: Attribute by attribute. The key org.supercontainers.mpi itself is none: mpi is an inner node of the graph.
ATTRIBUTES: MappingProxyType[str, MappingProxyType[str, Key]] = MappingProxyType(
    {
        "org.supercontainers": MappingProxyType(
            {
                "communication.framework": voc.FRAMEWORK,
                "hardware.gpu.architecture": voc.GPU_ARCHITECTURE,
                "hardware.gpu.cuda.version": voc.CUDA_VERSION,
                "hardware.gpu.driver.version": voc.GPU_DRIVER,
                "mpi.implementation": voc.MPI_IMPLEMENTATION,
                "mpi.portability.mode": voc.MPI_MODE,
                "mpi.portability.optimization": voc.MPI_OPTIMIZATION,
                "mpi.version": voc.MPI_VERSION,
                "os.vendor": voc.OS_VENDOR,
                "os.version": voc.OS_VERSION,
            }
        ),
        "io.archspec": MappingProxyType({"cpu.target": voc.CPU_VERSION}),
    }
)
ENABLED = "hardware.gpu.enabled"


def write(subject: Subject) -> Export:
    """JSON; nothing where the image says none of the attributes."""
    notes = subject.unbelieved(*(key for keys in ATTRIBUTES.values() for key in keys.values()), voc.GPU)
    found = {name: _attributes(subject, name) for name in SCHEMAS}
    found = {name: attributes for name, attributes in found.items() if attributes}
    if not found:
        return Export("", (*notes, "the image says nothing that compspec's schemas have an attribute for"))
    document = {
        "version": VERSION,
        "kind": "CompatibilitySpec",
        "metadata": {
            "name": subject.value(voc.TITLE) or _last(subject.reference.name) or subject.digest,
            "schemas": {name: SCHEMAS[name] for name in found},
        },
        "compatibilities": [
            {"name": name, "version": VERSION, "attributes": attributes} for name, attributes in found.items()
        ],
    }
    return Export(json.dumps(document, indent=2) + "\n", notes)


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _attributes(subject: Subject, schema: str) -> dict[str, str]:
    said = {name: value for name, key in ATTRIBUTES[schema].items() if (value := subject.value(key)) is not None}
    if schema == "org.supercontainers" and (gpu := subject.value(voc.GPU)) is not None:
        said[ENABLED] = "false" if gpu == "none" else "true"
    return dict(sorted(said.items()))
