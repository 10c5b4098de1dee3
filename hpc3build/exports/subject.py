"""What every export is written from, and what it gives: values in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hpc3build.errors import InputError
from hpc3build.facts import Key
from hpc3build.facts import vocabulary as voc
from hpc3build.host.fingerprint import Fingerprint
from hpc3build.jsonread import EMPTY
from hpc3build.reference import DOCKER, Reference


@dataclass(frozen=True)
class Subject:
    """One image: where it is, and what it says.

    ``pairs`` are its labels over its annotations (rule R10), ``labels`` the labels alone, ``env`` what its
    configuration sets; the latter two are empty where only an index's descriptor was read. ``index`` is the digest of
    the index that the reference names, empty where it names the image. ``image`` is the name by which the consumer
    finds it, empty where nobody said one, ``insecure`` whether that is a registry without TLS; ``host`` is the machine
    that an export for a site is about.
    """

    reference: Reference
    digest: str
    platform: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    pairs: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    env: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    index: str = ""
    image: str = ""
    insecure: bool = False
    host: Fingerprint = field(default_factory=Fingerprint)

    def value(self, key: Key) -> str | None:
        """What the image says of ``key``; None where it says nothing, or what is no value of that key."""
        value = key.value_in(self.pairs)
        return value if value is not None and key.holds(value) else None

    def items(self, key: Key) -> tuple[str, ...]:
        """The items of a LIST, none where it says ``none`` or nothing."""
        value = self.value(key)
        return () if value in (None, "none") else tuple(str(value).split(","))

    def unbelieved(self, *keys: Key) -> tuple[str, ...]:
        """A note for each of ``keys`` whose value is none of its grammar."""
        wrong = [key for key in keys if key.value_in(self.pairs) is not None and self.value(key) is None]
        return tuple(f"{key.name}: its value is not of the key's form, and was left out" for key in wrong)

    def in_registry(self, consumer: str) -> str:
        """``HOST/NAME`` without tag and digest. Raises InputError for an image that lies elsewhere."""
        if self.reference.transport != DOCKER:
            raise InputError(
                f"{self.reference}: {consumer} names images of registries",
                hint="--image NAME is the name that it will have there; "
                "hpc3build annotate REF --to docker://HOST/NAME:TAG brings it there",
            )
        return self.reference.repository

    def pinned(self, digest: str) -> str:
        """``HOST/NAME@DIGEST``, for lines that people complete where the image lies in no registry."""
        repository = self.reference.repository if self.reference.transport == DOCKER else "HOST/NAME"
        return f"{repository}@{digest}"

    @property
    def described(self) -> str:
        """The image in a few words, as far as it says them."""
        title, version = self.value(voc.TITLE), self.value(voc.IMAGE_VERSION)
        named = (
            *(("CPU", voc.CPU_VERSION), ("GPU", voc.GPU), ("CUDA", voc.CUDA_VERSION), ("ROCm", voc.ROCM_VERSION)),
            ("MPI", voc.MPI),
        )
        words = [" ".join(filter(None, (title, version)))] if title else []
        words += [f"{name} {value}" for name, key in named if (value := self.value(key)) is not None]
        system = [value for key in (voc.OS_VENDOR, voc.OS_VERSION) if (value := self.value(key)) is not None]
        return "; ".join([*words, *([" ".join(system)] if system else [])])


@dataclass(frozen=True)
class Export:
    """A text for a consumer, empty where there is nothing to write, and notes on what it cannot say, for people."""

    text: str
    notes: tuple[str, ...] = ()
