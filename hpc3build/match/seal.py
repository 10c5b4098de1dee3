"""The seal of an index's descriptor: it says all that its image says of what decides, so the image need not be read.

``index create`` and ``index annotate`` read each image and set the seal; it is a digest over the image's own digest,
its platform, the size of its layers and the value, or the absence, of every key that decides. Whoever changes one of
them, or puts another image there, breaks it, and an hpc3build to which more keys matter does not know it: then the
image is read, as without a seal. It proves nothing against people who write to the registry, as no annotation does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from hpc3build.facts import Key
from hpc3build.facts import vocabulary as voc
from hpc3build.match.matcher import PLATFORM, RULES
from hpc3build.oci import Descriptor

#: All that an answer depends on, in the vocabulary's order.
DECIDING: tuple[Key, ...] = tuple(key for key in voc.KEYS if key is voc.RANK or any(key in rule.keys for rule in RULES))


def seal(digest: str, platform: Mapping[str, object], pairs: Mapping[str, str], size: int) -> str:
    """The seal of ``pairs`` for an image and the bytes of its layers: ``sha256:`` and 64 hexadecimal digits."""
    said = {key.name: key.value_in(pairs) for key in DECIDING}
    text = json.dumps([digest, [platform.get(name) for name in PLATFORM], size, said], separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def sealed_size(descriptor: Descriptor) -> int | None:
    """The bytes of the layers, as a descriptor whose seal holds says; None where it has none, or it does not hold."""
    told = descriptor.annotations
    size = told.get(voc.SIZE.name, "")
    if voc.SEAL.name not in told or not voc.SIZE.pattern.fullmatch(size) or descriptor.platform is None:
        return None
    holds = told[voc.SEAL.name] == seal(descriptor.digest, descriptor.platform, told, int(size))
    return int(size) if holds else None
