"""What other tools want of an image, written from what it says of itself. Values in, text out: nothing here reads.

Unknown facts are left out, never assumed. Keys that engines act upon (rule N6) are written only into files that a user
or a site gives to its own engine, never into an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from hpc3build.exports import compspec, edf, environment, lines, metahub, nfd, sarus
from hpc3build.exports.subject import Export as Export
from hpc3build.exports.subject import Subject as Subject


@dataclass(frozen=True)
class Format:
    """``write`` writes it of one image, with ``every`` of all images of an index.

    ``named``: it names the image, where ``engine`` is set as that engine of engines/launch.py takes it. ``for_host``
    asks for the host's facts.
    """

    write: Callable[[Sequence[Subject]], Export]
    every: bool = False
    named: bool = False
    engine: str = ""
    for_host: bool = False


def _one(write: Callable[[Subject], Export]) -> Callable[[Sequence[Subject]], Export]:
    return lambda subjects: write(subjects[0])


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "edf": Format(_one(edf.write), named=True),
        "sarus": Format(_one(sarus.write), for_host=True),
        "podman": Format(_one(lines.podman), named=True, engine="podman", for_host=True),
        "apptainer": Format(_one(lines.apptainer), named=True, engine="apptainer"),
        "charliecloud": Format(_one(environment.charliecloud)),
        "nfd": Format(nfd.write, every=True),
        "compspec": Format(_one(compspec.write)),
        "metahub": Format(metahub.write, every=True, named=True),
        "oci-env": Format(_one(environment.oci_env)),
    }
)
