"""The application's environment: captured in the builder, recorded in the image, baked into its configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hpc3build import bases
from hpc3build.errors import ImageError
from hpc3build.evidence.layers import ImageFile
from hpc3build.jsonread import as_object, get_pairs, get_texts, parsed

#: Where the final image keeps what the builder captured (containerfiles/hpc3build/capture.py).
ENVIRONMENT = "/opt/hpc3build/environment.json"
#: Bytes of it that are read; a record broken off would be no record.
ENVIRONMENT_BYTES = 1 << 20


def baked_environment(
    files: Mapping[str, ImageFile], env: Mapping[str, str], expected: Collection[str] = ()
) -> dict[str, str]:
    """Variables of ``config.Env``, as ``env`` has them now, for engines that skip the entry point.

    Of the entries of PATH that were ``expected`` before the build, those go that the builder did not find: a library
    has no programs. None without a record. Raises ImageError when the record that our own build wrote is not as it
    should be.
    """
    record = files.get(ENVIRONMENT)
    if record is None:
        return {}
    try:
        document = as_object(parsed(record.data), "the record")
        if {"set", "prepend"} - set(document):
            raise ValueError("set and prepend belong there")
        baked = dict(get_pairs(document, "set", "the record"))
        prepended = as_object(document["prepend"], "prepend")
        found = {name: get_texts(prepended, name, "prepend") or () for name in prepended}
    except (ValueError, ImageError) as error:
        raise ImageError(f"{ENVIRONMENT} of the image is not what the build writes: {error}") from error
    for name, entries in {**({"PATH": ()} if expected else {}), **found}.items():
        old = env.get(name) or baked.get(name) or (bases.PATH if name == "PATH" else "")
        gone = expected if name == "PATH" else ()
        rest = [entry for entry in old.split(":") if entry and entry not in entries and entry not in gone]
        baked[name] = ":".join([*entries, *rest])
    return dict(sorted(baked.items()))
