"""Rule R9 on one image: what its files say when every record of a stack is out of sight, beside what is known of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from hpc3build.facts import Facts, Source, subjects
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.agreement import agree
from hpc3build.frontends import frontends
from hpc3build.reference import parse
from hpc3build.run import run
from hpc3build.stores import open_store
from hpc3build.workflows import describe as product
from hpc3build.workflows.describe import DEFAULT, Depth, Described

_PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"
#: The keys that docs/evidence.md lists, each with its reason.
CANNOT_PROVE = frozenset(re.findall(r"^\| `(org[^`]+)` \|", _PAGE.read_text(), re.MULTILINE))


def described(reference: str, *, labels: bool = True, depth: Depth = DEFAULT) -> Described:
    """The image as the product reads it."""
    parsed = parse(reference)
    with open_store(parsed, run) as store:
        return product.describe(store, parsed, labels=labels, depth=depth)


def files_alone(reference: str, *, depth: Depth = DEFAULT) -> Facts:
    """The facts without labels and without any file that Spack's or EasyBuild's frontend asks for."""
    asked, records = product.wanted, [frontend.wanted for frontend in frontends().values()]

    def without_records(path: str) -> int | None:
        return None if any(record(path) is not None for record in records) else asked(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(product, "wanted", without_records)
        found = described(reference, labels=False, depth=depth)
    assert found.stack is None, "the records are out of sight"
    return found.facts


def records_alone(reference: str) -> Facts:
    """The facts of the stack that the image's records tell of, whatever lies beside them."""
    stack = described(reference, labels=False).stack
    assert stack is not None, "without records nothing is compared"
    return subjects.of_stack(stack)


def contradictions(alone: Facts, *known: Mapping[str, str]) -> list[str]:
    """Where ``alone`` neither agrees with all that is ``known`` nor is rightly silent: nowhere, as R9 wants it.

    ``known`` are pairs of the vocabulary: the records', the recipe's. A key may be absent where docs/evidence.md says
    why, or where it is the publisher's word and no file's.
    """
    told = [f"{conflict.key.name}: {conflict.message}" for conflict in alone.conflicts]
    told += [f"{fact.key.name}: from {fact.source.name}" for fact in alone.values() if fact.source is not Source.FILES]
    pairs = [(voc.BY_NAME[name], value) for each in known for name, value in each.items() if name in voc.BY_NAME]
    told += [f"{key.name}: only files tell it" for key in alone.keys() - {key for key, _ in pairs}]
    for key, value in pairs:
        if key in alone:
            if not agree(key, value, alone[key].value):
                told.append(f"{key.name}: {value}, and files say {alone[key].value} ({alone[key].evidence})")
        elif key.name not in CANNOT_PROVE and key.subject != "provenance":
            told.append(f"{key.name}: {value}, and files say nothing")
    return told
