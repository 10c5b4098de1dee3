"""Labels beside annotations: of one key the label counts, whatever the spellings (rules N1 and R10)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpc3build.facts import Key, gather
from hpc3build.facts import vocabulary as voc
from hpc3build.jsonread import EMPTY


def declared(
    annotations: Mapping[str, str], labels: Mapping[str, str], told: Mapping[str, str] = EMPTY
) -> dict[str, str]:
    """What an image says of itself, as a runtime sees it: its labels, its annotations, what its descriptor told.

    Where labels spell one key in several ways and do not agree, nobody knows what it is: nothing is said of it.
    """
    pairs = over(over(told, annotations), labels)
    for key in {voc.BY_NAME[name] for name in labels if name in voc.BY_NAME}:
        names = [name for name in _spellings(key.name) if name in labels]
        if len({labels[name] for name in names}) < 2:
            continue
        word = _agreed(key, {name: labels[name] for name in names})
        for name in _spellings(key.name):
            if word is None:
                pairs.pop(name, None)
            elif name in pairs:
                pairs[name] = word
    return pairs


def over(lower: Mapping[str, str], upper: Mapping[str, str]) -> dict[str, str]:
    """``lower`` and ``upper`` together; where both speak of a key, each spelling of it says what ``upper`` does."""
    pairs = {**lower, **upper}
    for name in lower.keys() - upper.keys():
        key = voc.BY_NAME.get(name)
        if key is not None and (word := key.value_in(upper)) is not None:
            pairs[name] = word
    return pairs


def contradicting(name: str, value: str, labels: Mapping[str, str]) -> Iterator[str]:
    """The labels that say otherwise than the annotation, under any spelling of its key."""
    return (other for other in _spellings(name) if labels.get(other, value) != value)


def _spellings(name: str) -> tuple[str, ...]:
    """The newest first."""
    key = voc.BY_NAME.get(name)
    return (name,) if key is None else (key.name, *key.aliases)


def _agreed(key: Key, labels: Mapping[str, str]) -> str | None:
    # All subjects: only where it is asked for.
    from hpc3build.facts.agreement import agree
    from hpc3build.facts.subjects import of_labels

    return gather(of_labels(labels), agree).value(key)
