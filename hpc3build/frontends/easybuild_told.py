"""Options of single easyconfigs in an easystack: which there are, and to which modules they come.

`eb --easystack` works off the entries one by one, each with its own options behind those of the command line, and its
robot installs with them whatever is not there yet. So a module has the options of the first entry that needs it
(measured with 5.4.1, tests/integration/test_easybuild_easystack.py).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any

from hpc3build.errors import InputError
from hpc3build.frontends import easybuild_graph as graph
from hpc3build.frontends.easybuild_flags import optarch_by_family
from hpc3build.yamlread import Section, kind

CAPABILITIES = re.compile(r"\d+\.\d+[af]?(?:,\d+\.\d+[af]?)*")
_FLAGS = (
    "debug",
    "enforce-checksums",
    "ignore-test-failure",
    "skip-test-step",
    "cuda-sanity-check-accept-missing-ptx",
    "cuda-sanity-check-accept-ptx-as-devcode",
    "cuda-sanity-check-error-on-failed-checks",
    "cuda-sanity-check-strict",
)
_LISTS = ("accept-eula-for", "cuda-compute-capabilities")
_NUMBERS = ("download-timeout", "max-parallel", "parallel")
OPTIONS = tuple(sorted(("optarch", *_FLAGS, *_LISTS, *_NUMBERS)))
#: What eb asks GitHub for while it reads easyconfigs, and what a person does instead.
_FROM_GITHUB = MappingProxyType(
    {
        "from-pr": "`eb --from-pr N --copy-ec FOLDER` fetches the easyconfigs: name them by their path",
        "from-commit": "`eb --from-commit C --copy-ec FILE FOLDER` fetches an easyconfig: name it by its path",
        "include-easyblocks-from-pr": "fetch the easyblock, and give it with --include-easyblocks FILE",
        "include-easyblocks-from-commit": "fetch the easyblock, and give it with --include-easyblocks FILE",
    }
)
_FOR_THE_WHOLE = ("hooks", "include-easyblocks", "robot-paths", "sourcepath")


@dataclass(frozen=True, kw_only=True)
class Told:
    """What eb is told for one easyconfig: ``arguments`` as eb's own parser of easystacks makes them.

    ``optarch``, ``capabilities`` (as ``8.0,9.0``) and ``accepted`` (licences) are the values that matter here, None
    where nothing is said of them; ``where`` is the file and line of ``optarch``.
    """

    where: str
    arguments: tuple[str, ...]
    optarch: str | None = None
    capabilities: str | None = None
    accepted: tuple[str, ...] | None = None


def read(options: Section) -> Told | None:
    """The options of one entry; None for an empty mapping. Raises InputError with file:line for others than OPTIONS."""
    for name in options.data:
        _known(options, name)
    if not options.data:
        return None
    arguments = []
    lists = {name: _list(options, name) for name in _LISTS if name in options.data}
    for name in sorted(options.data):
        if name in _FLAGS:
            wanted = options.data[name] is None or options.boolean(name, True)
            arguments.append(f"--{name}" if wanted else f"--disable-{name}")
        elif name in _NUMBERS:
            arguments.append(f"--{name}={_number(options, name)}")
        else:
            arguments.append(f"--{name}={','.join(lists[name]) if name in lists else _optarch(options)}")
    capabilities = lists.get("cuda-compute-capabilities")
    if capabilities and not CAPABILITIES.fullmatch(",".join(capabilities)):
        raise InputError(f"{options.where('cuda-compute-capabilities')}: expected a list like 8.0,9.0a")
    return Told(
        where=options.where("optarch"),
        arguments=tuple(arguments),
        optarch=_optarch(options) if "optarch" in options.data else None,
        capabilities=",".join(capabilities) if capabilities else None,
        accepted=lists.get("accept-eula-for"),
    )


def _known(options: Section, key: object) -> None:
    if key in OPTIONS:
        return
    where, name = options.where(key), str(key)
    if name in _FROM_GITHUB:
        raise InputError(
            f"{where}: easyconfigs are read without a network, and this is on GitHub", hint=_FROM_GITHUB[name]
        )
    if name in _FOR_THE_WHOLE:
        raise InputError(f"{where}: this is for the whole image", hint=f"give --{name} to hpc3build")
    near = difflib.get_close_matches(name.replace("_", "-"), OPTIONS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"these can: {', '.join(OPTIONS)}"
    raise InputError(f"{where}: this option of a single easyconfig cannot be carried into an image", hint=hint)


def _list(options: Section, name: str) -> tuple[str, ...]:
    """Texts with commas, or a list of texts, as eb takes both."""
    value = options.data.get(name)
    texts = options.texts(name) if isinstance(value, list) else (options.text(name) or "").split(",")
    if not all(texts) or not texts:
        raise InputError(f"{options.where(name)}: expected names with commas between them, or a list of texts")
    return tuple(texts)


def _number(options: Section, name: str) -> int:
    number = options.integer(name)
    if number is None or number < 1:
        raise InputError(f"{options.where(name)}: expected a whole number above 0")
    return number


def _optarch(options: Section) -> str:
    if not isinstance(options.data.get("optarch"), str):
        found = kind(options.data.get("optarch"))
        raise InputError(f"{options.where('optarch')}: expected the flags as text, or GENERIC, found {found}")
    value = options.text("optarch") or ""
    try:
        optarch_by_family(value)
    except ValueError as error:
        raise InputError(f"{options.where('optarch')}: {error}") from error
    return value


def tell(
    closure: Mapping[str, Any], easyconfigs: Sequence[str], options: Mapping[str, Told]
) -> tuple[Mapping[str, Any], Mapping[str, Told]]:
    """The closure whose modules say which entry they come with and what eb is told of their flags, and all that eb is
    told, by module.

    Raises InputError for an ``optarch`` that leaves out a compiler of its modules.
    """
    if not options:
        return closure, MappingProxyType({})
    first = _first(closure["modules"], easyconfigs)
    told = {name: options[entry] for name, entry in first.items() if entry in options}
    order = {easyconfig: number for number, easyconfig in enumerate(easyconfigs)}
    modules = []
    for module in closure["modules"]:
        its = told.get(module["module"])
        _check_family(module, its)
        said = {"optarch": its.optarch, "cuda_compute_capabilities": its.capabilities} if its else {}
        modules.append({**module, "told": said, "entry": order.get(first.get(module["module"], ""), 0)})
    return MappingProxyType({**closure, "modules": modules}), MappingProxyType(told)


def _first(modules: Sequence[Mapping[str, Any]], easyconfigs: Sequence[str]) -> dict[str, str]:
    """By a module's name the first of the easyconfigs that needs it, or is it."""
    below = graph.needs(modules)
    found: dict[str, str] = {}
    for easyconfig in easyconfigs:
        for name in graph.reached(graph.roots_of(easyconfig, modules), below):
            found.setdefault(name, easyconfig)
    return found


def _check_family(module: Mapping[str, Any], told: Told | None) -> None:
    family = str(module.get("compiler_family"))
    if told is None or told.optarch is None or family in ("None", "SYSTEM") or module.get("builddep"):
        return
    named = optarch_by_family(told.optarch)
    if named and family not in named:
        raise InputError(
            f"{told.where}: nothing is said of {family}, EasyBuild's compiler family of {module['easyconfig']}: "
            "that would be built for the CPU that happens to build",
            hint=f"add ;{family}:GENERIC, or its flags",
        )


def runs(modules: Iterable[Mapping[str, Any]], told: Mapping[str, Told]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """The runs of eb for one step: arguments, and easyconfigs in the order of entries and of their closure."""

    def arguments(module: Mapping[str, Any]) -> tuple[str, ...]:
        its = told.get(module["module"])
        return its.arguments if its else ()

    in_order = sorted(modules, key=lambda module: int(module.get("entry", 0)))
    for its, together in groupby(in_order, key=arguments):
        yield its, [module["easyconfig"] for module in together]
