"""All rules over one image and one host. A rule reads a few keys, so equal values are judged once for all images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from hpc3build.errors import InputError
from hpc3build.facts import Key
from hpc3build.facts import vocabulary as voc
from hpc3build.findings import Finding
from hpc3build.host.fingerprint import Fingerprint
from hpc3build.match import cpu, gpu, mpi, system
from hpc3build.match.judgement import Judgement, Verdict, deciding, unknown, verdict

Values = tuple["str | None", ...]
PLATFORM = ("os", "architecture", "variant")


@dataclass(frozen=True)
class Rule:
    """``judge`` gets the values of ``keys``, behind those of the platform where ``platform`` is set."""

    keys: tuple[Key, ...]
    judge: Callable[[Values, Fingerprint], Judgement]
    platform: bool = False


#: In the order of docs/vocabulary.md: the first rule with the worst outcome decides.
RULES = (
    Rule((voc.CPU_VERSION,), cpu.judge, platform=True),
    Rule(
        (voc.GPU, voc.GPU_ARCHITECTURE, voc.CUDA_VERSION, voc.ROCM_VERSION, voc.GPU_DRIVER, voc.KERNEL_MODULES),
        gpu.judge,
    ),
    Rule(
        (voc.MPI, voc.MPI_ABI, voc.MPI_MODE, voc.PMI, voc.LIBC_PROVIDER, voc.GLIBC, voc.LIBFABRIC_ABI),
        mpi.judge,
    ),
    Rule((voc.LIBC_PROVIDER, voc.GLIBC), system.injected),
    Rule((voc.KERNEL_VERSION, voc.KERNEL_MODULES), system.kernel),
    Rule((voc.VOCABULARY,), system.vocabulary),
)
#: What an index's descriptors must say, so that nothing more has to be read to rank them (rule N4).
DISCRIMINATING = (voc.CPU_VERSION, voc.GPU, voc.MPI)
MAX_RANK = 9999


@dataclass(frozen=True)
class Match:
    """Judgements in the order of RULES, and the image's own rank, a tie-break."""

    judged: tuple[Judgement, ...]
    rank: int

    @cached_property
    def severity(self) -> int:
        """0 for RUN to 3 for NO."""
        return max(judgement.severity for judgement in self.judged)

    @property
    def verdict(self) -> Verdict:
        """The worst outcome decides."""
        return verdict(self.severity)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all rules, in their order."""
        return tuple(finding for judgement in self.judged for finding in judgement.findings)

    @property
    def deciding(self) -> Finding | None:
        """The finding that decided."""
        return deciding(self.findings)

    @cached_property
    def score(self) -> int:
        """Higher is better: verdict, use of the host's GPU, CPU target, GPU code, MPI, rank (docs/match.md)."""
        processor, graphics, library = (judgement.score for judgement in self.judged[:3])
        uses, code = divmod(graphics, gpu.USES)
        digits = (3 - self.severity, uses, processor, code, library)
        total = 0
        for digit, base in zip(digits, (10, 10, 100, 10, 10), strict=True):
            total = total * base + max(0, min(digit, base - 1))
        return total * (2 * MAX_RANK + 1) + self.rank + MAX_RANK


class Matcher:
    """Matches images against one host."""

    def __init__(self, host: Fingerprint) -> None:
        self.host = host
        self._judged: list[dict[Values, Judgement]] = [{} for _ in RULES]

    def match(self, pairs: Mapping[str, str], platform: Mapping[str, str]) -> Match:
        """Judge an image that says ``pairs`` (labels before annotations, R10) and is for ``platform``."""
        judged = []
        for rule, names, memory in zip(RULES, _NAMES, self._judged, strict=True):
            values: Values = tuple([_value(pairs, spellings) for spellings in names])
            if rule.platform:
                values = (*map(platform.get, PLATFORM), *values)
            found = memory.get(values)
            if found is None:
                found = memory[values] = _judge(rule, values, self.host)
            judged.append(found)
        return Match(tuple(judged), _rank(pairs))


def _value(pairs: Mapping[str, str], spellings: tuple[str, ...]) -> str | None:
    for name in spellings:
        if name in pairs:
            return pairs[name]
    return None


#: Every key's spellings, the newest first, for every rule.
_NAMES = tuple(tuple((key.name, *key.aliases) for key in rule.keys) for rule in RULES)


def _judge(rule: Rule, values: Values, host: Fingerprint) -> Judgement:
    """Values that are none of their key's are not believed: the rule sees nothing there, and says so."""
    first = len(PLATFORM) if rule.platform else 0
    wrong = []
    kept = list(values)
    for position, key in enumerate(rule.keys, start=first):
        value = values[position]
        try:
            if value is not None:
                key.check(value)
        except InputError as error:
            kept[position] = None
            wrong.append(unknown("value", key, error.message[:300], error.hint))
    found = rule.judge(tuple(kept), host)
    return Judgement((*wrong, *found.findings), found.score) if wrong else found


def _rank(pairs: Mapping[str, str]) -> int:
    text = pairs.get(voc.RANK.name, "0")
    digits = text[1:] if text[:1] == "-" else text
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 9):
        return 0
    return max(-MAX_RANK, min(int(text), MAX_RANK))
