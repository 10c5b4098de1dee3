"""Pairs that a person gives, by ``-a`` or under ``labels:``: what is nearly ours is a typing error, and told."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from hpc3build.errors import InputError
from hpc3build.facts import cpu
from hpc3build.facts import vocabulary as voc
from hpc3build.pairs import check_pair
from hpc3build.urls import with_password

_OWN = tuple(name for name in voc.BY_NAME if name.startswith(voc.PREFIXES))


def typed(key: str, value: str) -> str:
    """``value`` as it is written (rule N3), of a pair that a person typed. Raises InputError.

    A CPU target must be one that archspec knows, too.
    """
    value = checked(key, value)
    if voc.BY_NAME.get(key) is voc.CPU_VERSION:
        try:
            cpu.known(value)
        except InputError as error:
            raise InputError(f"{key}: {error.message}", hint=error.hint) from error
    return value


def checked(key: str, value: str) -> str:
    """``value`` as it is written (rule N3), checked against the vocabulary where the key is of it.

    Raises InputError, also for what is nearly a key of the vocabulary and for keys that are never written.
    """
    refuse_forbidden((key,))
    _refuse_nearly(key)
    refuse_password(key, value)
    if (known := voc.BY_NAME.get(key)) is not None and known.name == key:
        known.check(value)
        if known is voc.DOCUMENTATION:
            refuse_password(key, voc.markdown(value))
        return known.normal(value)
    check_pair(key, value)
    return value


def refuse_password(where: str, text: str) -> None:
    """Raise InputError for a text that becomes public and has a URL with a password, which is not repeated."""
    if (url := with_password(text)) is not None:
        raise InputError(
            f"{where}: the password of {url} would be public", hint="leave it out: whoever may read the image reads it"
        )


def refuse_forbidden(keys: Iterable[str]) -> None:
    """Raise InputError for keys that are never written (rule N6)."""
    for key in keys:
        if key.startswith(voc.FORBIDDEN_PREFIXES):
            raise InputError(
                f"{key}: privileged runtimes act on this key, so hpc3build never writes it",
                hint="leave it out; who runs the image asks its runtime for it (podman run --annotation, an EDF)",
            )


def _refuse_nearly(key: str) -> None:
    if key in voc.BY_NAME:
        return
    # Of keys that are not ours a near one is a typing error only where it is nearly one of ours.
    near = difflib.get_close_matches(key.lower(), _OWN, n=1, cutoff=0.93)
    if near or key.lower() in voc.BY_NAME:
        meant = key.lower() if key.lower() in voc.BY_NAME else near[0]
        raise InputError(f"{key} is not a key of the vocabulary", hint=f"did you mean {meant}?")


def unknown_keys(pairs: Iterable[str]) -> Iterator[str]:
    """What to tell of keys that begin as ours do and are none: a later vocabulary may have them (rule N1)."""
    for key in pairs:
        if key.startswith(voc.PREFIXES) and key not in voc.BY_NAME:
            near = _nearest(key)
            told = f"; did you mean {near}?" if near else ""
            yield f"{key} is no key of the vocabulary: it is written, and nothing of hpc3build's reads it{told}"


def _nearest(key: str) -> str:
    """The keys that ``key`` is the beginning of, or some words of, else the one that is spelt most alike."""
    prefix = next(one for one in voc.PREFIXES if key.startswith(one))  # which all have in common
    said = key.removeprefix(prefix).lower()
    names = {name.removeprefix(prefix): known.name for name, known in voc.BY_NAME.items() if name.startswith(prefix)}
    longer = [name for name in names if name.startswith(said) or f".{said}." in f".{name}."]
    near = longer or difflib.get_close_matches(said, names, n=1)
    return " or ".join(list(dict.fromkeys(names[name] for name in near))[:3])
