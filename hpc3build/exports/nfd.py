"""The specification of Kubernetes' node feature discovery for image compatibility (v1alpha1).

Sources: kubernetes-sigs/node-feature-discovery api/image-compatibility/v1alpha1/spec.go, api/nfd/v1alpha1/types.go
(GroupRule), docs/usage/image-compatibility.md, docs/usage/customization-guide.md "Available features". Only operators
of NFD 0.17, the first release with it, are used. Rules are about the host, so the image's own distribution is in the
description and no rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hpc3build.exports.cpuid import flag
from hpc3build.exports.quoted import flow, quoted
from hpc3build.exports.subject import Export, Subject
from hpc3build.facts import vocabulary as voc
from hpc3build.facts.cpu import microarchitecture

ARTIFACT = "application/vnd.nfd.image-compatibility.v1alpha1"
LAYER = "application/vnd.nfd.image-compatibility.spec.v1alpha1+yaml"
WEIGHTS = range(1, 101)  # of Kubernetes' node affinity, which the specification names
#: PCI's vendors and classes: display controllers, and processing accelerators, as NFD's own list of GPUs has them
#: (source/pci/pci.go, deviceClassWhitelist).
_VENDORS = {"cuda": "10de", "rocm": "1002"}
_CLASSES = ("^03", "^12")
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
_READ = (voc.CPU_VERSION, voc.GPU, voc.KERNEL_VERSION, voc.KERNEL_MODULES, voc.RANK)
Lines = list[str]


def write(subjects: Sequence[Subject]) -> Export:
    """YAML: a set of rules an image; of several, the tag of each is its digest."""
    lines = ["version: v1alpha1", "compatibilities:"]
    notes: list[str] = []
    known = False
    for subject in subjects:
        told: list[str] = []
        rules = [*_cpu(subject, told), *_kernel(subject, told), *_modules(subject), *_gpu(subject, told)]
        known = known or bool(rules) or all(subject.value(key) for key in (voc.CPU_VERSION, voc.GPU))
        lines += _set(subject, rules, told, tag=len(subjects) > 1)
        where = f"{subject.digest[:19]}: " if len(subjects) > 1 else ""
        notes += [f"{where}{note}" for note in (*subject.unbelieved(*_READ), *told)]
    if not known:
        return Export("", (*notes, "the image says nothing that NFD has a rule for"))
    notes.append("NFD has no rule for GPU drivers and code, MPI, libfabric or glibc: hpc3build match compares these")
    first = subjects[0]
    target = first.pinned(first.digest if len(subjects) == 1 else first.index)
    notes.append(f"oras attach --artifact-type {ARTIFACT} {target} FILE:{LAYER}")
    return Export("\n".join(lines) + "\n", tuple(notes))


def _set(subject: Subject, rules: Sequence[Lines], told: list[str], *, tag: bool) -> Lines:
    members = [f"tag: {quoted(subject.digest)}"] if tag else []
    rank = subject.value(voc.RANK)
    if rank is not None and len(rank) < 9 and int(rank) in WEIGHTS:
        members.append(f"weight: {int(rank)}")
    elif rank not in (None, "0"):
        told.append(f"its rank is no weight: Kubernetes has {WEIGHTS[0]} to {WEIGHTS[-1]}")
    if subject.described:
        members.append(f"description: {quoted(subject.described)}")
    members += ["rules:", *_indented(rules, "")] if rules else ["rules: []"]
    return _indented([members], "")


def _indented(blocks: Sequence[Lines], margin: str) -> Lines:
    """A YAML list of blocks."""
    return [
        f"{margin}{'- ' if first else '  '}{line}"
        for block in blocks
        for first, line in zip((True, *(False for _ in block)), block, strict=False)
    ]


def _flags(feature: str, names: Sequence[str]) -> Lines:
    return [f"feature: {feature}", "matchExpressions:", *(f"  {quoted(name)}: {{op: Exists}}" for name in names)]


def _cpu(subject: Subject, told: list[str]) -> Iterator[Lines]:
    """What the target needs of the host's CPU, flag by flag."""
    name = subject.value(voc.CPU_VERSION)
    if name is None:
        told.append("the image does not say its CPU target: there is no rule for it")
        return
    target = microarchitecture(_ALIASES.get(name, name))
    if target is None:
        told.append(f"archspec does not know the CPU target {name}: there is no rule for it")
        return
    family = str(target.family)
    flags = {feature: flag(family, feature) for feature in sorted(target.features)}
    missing = [feature for feature, found in flags.items() if found is None]
    if missing or (target.ancestors and not flags):
        what = ", ".join(missing) or "it"
        told.append(f"CPU target {name}: NFD has no flag for {what}")
    if names := sorted(found for found in flags.values() if found is not None):
        yield [f"name: {quoted(f'cpu {name}')}", "matchFeatures:", *_indented([_flags("cpu.cpuid", names)], "")]


def _kernel(subject: Subject, told: list[str]) -> Iterator[Lines]:
    """A least version, number by number: ``full`` as a version fails on kernels with an underscore (el8_10)."""
    version = subject.value(voc.KERNEL_VERSION)
    if version is None:
        return
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9}){0,2}", version):
        told.append(f"kernel {version} is not three numbers: there is no rule for it")
        return
    least = [int(part) for part in version.split(".")]
    while len(least) > 1 and least[-1] == 0:
        least.pop()
    choices: list[Lines] = []
    for place, number in enumerate(least):
        last = place == len(least) - 1
        equal = [f"{part}: {{op: In, value: {flow([str(least[at])])}}}" for at, part in enumerate(_PARTS[:place])]
        above = f"{_PARTS[place]}: {{op: Gt, value: {flow([str(number - 1 if last else number)])}}}"
        expressions = ["matchExpressions:", *(f"  {line}" for line in (*equal, above))]
        choices.append(["matchFeatures:", *_indented([["feature: kernel.version", *expressions]], "")])
    yield [f"name: {quoted(f'kernel {version}')}", "matchAny:", *_indented(choices, "")]


_PARTS = ("major", "minor", "revision")


def _modules(subject: Subject) -> Iterator[Lines]:
    """Modules that it cannot do without, loaded or built in."""
    if names := [name for name in subject.items(voc.KERNEL_MODULES) if not name.endswith("?")]:
        yield ['name: "kernel modules"', "matchFeatures:", *_indented([_flags("kernel.enabledmodule", names)], "")]


def _gpu(subject: Subject, told: list[str]) -> Iterator[Lines]:
    """A device of a vendor whose run time the image has; several are alternatives."""
    runtimes = subject.items(voc.GPU)
    others = [runtime for runtime in runtimes if runtime not in _VENDORS]
    if others:
        told.append(f"{','.join(others)} runs on GPUs of several vendors: there is no rule for a GPU")
        return
    choices: list[Lines] = []
    for runtime in runtimes:
        vendor = f"vendor: {{op: In, value: {flow([_VENDORS[runtime]])}}}"
        kind = f"class: {{op: InRegexp, value: {flow(_CLASSES)}}}"
        block = ["feature: pci.device", "matchExpressions:", f"  {vendor}", f"  {kind}"]
        choices.append(["matchFeatures:", *_indented([block], "")])
    if choices:
        told.append("a rule asks for a GPU: without one the image may run on CPUs alone, and NFD knows yes and no only")
        yield ['name: "gpu"', "matchAny:", *_indented(choices, "")]
