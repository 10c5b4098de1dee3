"""Which images a text means: one, the tags of a repository, all repositories of a registry; and whose share each is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from hpc3build.errors import Hpc3BuildError, InputError, StoreError
from hpc3build.reference import DOCKER, Reference, parse
from hpc3build.run import Runner
from hpc3build.stores import Store, open_store
from hpc3build.stores.access import Access
from hpc3build.stores.referrers import names_no_image

Named = tuple[str, Reference | Hpc3BuildError]
_WILD = frozenset("*?[")


def is_wild(text: str) -> bool:
    """Whether it holds a wildcard of fnmatch."""
    return not _WILD.isdisjoint(text)


def tag_pattern(text: str) -> tuple[str, str] | None:
    """``REPOSITORY:PATTERN`` in its parts; None for any other text."""
    head, colon, pattern = text.rpartition(":")
    return (head, pattern) if colon and "/" not in pattern and is_wild(pattern) else None


def listing(repository: Reference, pattern: str) -> Reference:
    """What a store is opened with to list tags: errors name the pattern, and no tag that nobody gave."""
    return replace(repository, tag=pattern)


def fitting(store: Store, repository: str, pattern: str) -> list[str]:
    """The tags of images that fit. Raises InputError where none does."""
    there = [tag for tag in store.tags() if not names_no_image(tag)]
    chosen = [tag for tag in there if fnmatchcase(tag, pattern)]
    if not chosen:
        raise InputError(f"{repository}: no tag fits {pattern}", hint=f"tags there: {', '.join(there[:8])}")
    return chosen


@dataclass(frozen=True)
class Shard:
    """The share of one of several runs that do not know of each other; numbers begin with 1."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``I/N``. Raises InputError."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise InputError(f"--shard {text}: expected I/N, as 1/3, 2/3 and 3/3")
        return cls(int(found[1]), int(found[2]))

    def has(self, text: str, reference: Reference | Hpc3BuildError) -> bool:
        """By the digest of what is written to: a tag, or a whole layout or archive, is never in two shares."""
        if self.of == 1:
            return True
        key = text
        if isinstance(reference, Reference):
            key = f"{reference.transport}:{reference.repository}"
            if reference.transport == DOCKER:
                key += f":{reference.tag or reference.digest}"
        digest = hashlib.sha256(key.encode(errors="surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.number - 1


WHOLE = Shard()


class Names:
    """References one by one, each list read when it is come to; what cannot be read or listed comes as its error.

    ``read`` makes a reference of a text, ``wanted`` says whether it is to be done still. Not for two threads at once.
    """

    def __init__(
        self,
        texts: Sequence[str],
        read: Callable[[str], Reference],
        runner: Runner,
        access: Access | None = None,
        *,
        shard: Shard = WHOLE,
        wanted: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._texts = texts
        self._read, self._runner, self._access = read, runner, access
        self._shard, self._wanted = shard, wanted
        self._found = 0
        self._through = 0.0  # how many of the texts
        self.left_out = 0  # of this share, not wanted

    @property
    def single(self) -> bool:
        """Whether one image is named, and named in full."""
        return len(self._texts) == 1 and not is_wild(self._texts[0])

    def expected(self) -> int:
        """How many there will be, as far as can be told from the lists that were read."""
        return round(self._found * len(self._texts) / self._through) if self._through else self._found

    def __iter__(self) -> Iterator[Named]:
        for number, text in enumerate(self._texts):
            for share, named in self._lists(text):
                mine = [one for one in named if self._shard.has(*one)]
                wanted = [one for one in mine if isinstance(one[1], Hpc3BuildError) or self._wanted(str(one[1]))]
                self.left_out += len(mine) - len(wanted)
                self._found += len(wanted)
                self._through = number + share
                yield from wanted

    def _lists(self, text: str) -> Iterator[tuple[float, list[Named]]]:
        """Lists, each with how far through the text it leads, 1 at the end."""
        try:
            if (registry := _catalog(text)) is not None:
                yield from self._repositories(*registry)
            elif (wild := tag_pattern(text)) is not None:
                yield 1.0, self._tags(*wild)
            else:
                yield 1.0, [(text, self._read(text))]
        except Hpc3BuildError as error:
            yield 1.0, [(text, error)]

    def _tags(self, repository: str, pattern: str) -> list[Named]:
        reference = self._read(repository)
        with open_store(listing(reference, pattern), self._runner, self._access) as store:
            named = map(reference.with_tag, fitting(store, repository, pattern))
            return [(str(one), one) for one in named]

    def _repositories(self, host: Reference, pattern: str, tags: str) -> Iterator[tuple[float, list[Named]]]:
        from hpc3build.stores.repositories import repositories

        there = repositories(host, self._runner, self._access)
        chosen = [name for name in there if fnmatchcase(name, pattern)]
        if not chosen:
            raise InputError(f"docker://{host.registry}: no repository fits {pattern}")
        for number, name in enumerate(chosen, start=1):
            repository = f"docker://{host.registry}/{name}"
            try:
                named = self._tags(repository, tags)
            except InputError:  # no such tags
                named = []
            except Hpc3BuildError as error:  # of a repository whose images were all deleted the name stays
                gone = isinstance(error, StoreError) and error.status == 404
                named = [] if gone else [(f"{repository}:{tags}", error)]
            yield number / len(chosen), named


def _catalog(text: str) -> tuple[Reference, str, str] | None:
    """``docker://HOST/PATTERN[:TAGS]`` in its parts, all tags where none are named; None for any other text."""
    if not text.startswith("docker://"):
        return None
    host, _, rest = text.removeprefix("docker://").partition("/")
    pattern, colon, tags = rest.partition(":")
    if not is_wild(pattern):
        return None
    if colon and not tags:
        raise InputError(f"{text}: the tag after the : is empty")
    if parse(f"docker://{host}/all").registry != host:
        raise InputError(f"{text}: {host} is not a registry's HOST[:PORT]")
    return Reference(DOCKER, "", host), pattern, tags if colon else "*"
