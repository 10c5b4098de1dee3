"""What a person gives EasyBuild: easyconfigs by name, path, folder or easystack, and what they need beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from hpc3build.errors import InputError
from hpc3build.frontends.easybuild_told import Told, read
from hpc3build.recipe import Settings
from hpc3build.yamlread import Section, kind, line_of, read_yaml

SUFFIX = ".eb"
#: In a folder this says what is wanted of it.
EASYSTACK = "easystack.yaml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
# NAME-VERSION…; a word without a version could be anything.
_VERSIONED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*-(?:v?\d|system)[A-Za-z0-9_.+-]*")
_EASYSTACK = re.compile(r"^easyconfigs[ \t]*:", re.MULTILINE)
_LOOK_AT = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What EasyBuild is asked for.

    ``easyconfigs`` are absolute paths, or names for EasyBuild to find; ``robot_paths`` the folders where it looks
    before its own; ``easyblocks`` and ``hooks`` are the person's own Python files. ``options`` are those of single
    easyconfigs; ``sourcepath`` has the folders of downloaded sources.
    """

    easyconfigs: tuple[str, ...]
    robot_paths: tuple[Path, ...] = ()
    easyblocks: tuple[Path, ...] = ()
    hooks: Path | None = None
    options: Mapping[str, Told] = field(default_factory=lambda: MappingProxyType({}))
    sourcepath: tuple[Path, ...] = ()


def is_name(source: str) -> bool:
    """Whether ``source`` reads like an easyconfig's name, with or without ``.eb``."""
    return bool(_VERSIONED.fullmatch(source)) or (source.endswith(SUFFIX) and "/" not in source)


def is_easystack(source: str) -> bool:
    """A YAML file with ``easyconfigs:`` at its top level."""
    path = Path(source)
    try:
        if path.suffix not in (".yaml", ".yml") or not path.is_file():
            return False
        with path.open("rb") as stream:
            return bool(_EASYSTACK.search(stream.read(_LOOK_AT).decode("utf-8", "replace")))
    except OSError:
        return False


def sources_of(given: tuple[str, ...], settings: Settings) -> Sources:
    """Raises InputError for what is not there, and for what cannot be carried."""
    asked: dict[str, Told | None] = {}
    for name, told in (pair for source in given for pair in _expand(source)):
        asked.setdefault(name, told)  # what is installed already is not installed again with other options
    easyconfigs = tuple(asked)
    beside = (Path(name).parent for name in easyconfigs if Path(name).is_absolute())
    robot_paths = tuple(dict.fromkeys([*beside, *_folders(settings, "robot_paths")]))
    for folder in robot_paths:
        if re.search(r"[:,\x00-\x1f]", str(folder)):
            raise InputError(f"{str(folder)!r}: EasyBuild cannot have this folder among its paths", hint="rename it")
    hooks = Path(settings.hooks).resolve() if settings.hooks else None
    if hooks is not None and not hooks.is_file():
        raise InputError(f"{settings.stated('hooks', settings.hooks)}: no such file")
    return Sources(
        easyconfigs=easyconfigs,
        robot_paths=robot_paths,
        easyblocks=tuple(_easyblocks(settings)),
        hooks=hooks,
        options=MappingProxyType({name: told for name, told in asked.items() if told}),
        sourcepath=_folders(settings, "sourcepath"),
    )


def _folders(settings: Settings, name: str) -> tuple[Path, ...]:
    """The folders of a setting, several with colons between them. Raises InputError for one that is not there."""
    folders = [Path(folder).resolve() for text in getattr(settings, name) for folder in text.split(":") if folder]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{settings.stated(name, folder)}: no such folder")
    return tuple(dict.fromkeys(folders))


def _expand(source: str) -> Iterator[tuple[str, Told | None]]:
    path = Path(source)
    if is_easystack(source):
        yield from _of_easystack(path)
    elif path.is_dir():
        yield from _of_folder(path)
    elif path.is_file():
        yield str(path.resolve()), None
    elif path.exists():
        raise InputError(f"{source}: not a file", hint="expected an easyconfig")
    elif "/" in source or not _NAME.fullmatch(source):
        raise InputError(f"{source}: no such easyconfig")
    else:
        yield source, None


def _of_folder(folder: Path) -> Iterator[tuple[str, Told | None]]:
    """A folder means its easystack, its only easyconfig, or those named like it; the others are what these need."""
    if (folder / EASYSTACK).is_file():
        yield from _of_easystack(folder / EASYSTACK)
        return
    found = sorted(folder.resolve().glob(f"*{SUFFIX}"))
    if not found:
        raise InputError(f"{folder}: no easyconfig in this folder", hint="its files end in .eb")
    if len(found) > 1:
        named = [name for name in found if name.name.lower().startswith(folder.resolve().name.lower())]
        if not named:
            several = ", ".join(name.name for name in found[:8]) + (", …" if len(found) > 8 else "")
            raise InputError(
                f"{folder}: several easyconfigs, and none is named like the folder: {several}",
                hint="name those that are wanted; what they need is found beside them",
            )
        found = named
    yield from ((str(name), None) for name in found)


def _of_easystack(path: Path) -> Iterator[tuple[str, Told | None]]:
    """The easyconfigs of an easystack with their own options; they are sought beside it first."""
    data = read_yaml(path)
    listed = data.get("easyconfigs")
    found = kind(listed) if listed or not isinstance(listed, list) else "an empty one: there is nothing to build"
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{path}:{line_of(data, 'easyconfigs')}: easyconfigs: expected a list, found {found}")
    for position, item in enumerate(listed):
        where = f"{path}:{line_of(listed, position)}"
        name, told = item, None
        if isinstance(item, dict) and len(item) == 1:
            ((name, details),) = item.items()
            entry = Section(path, details, str(name), line_of(listed, position))
            entry.only(("options",))
            told = read(entry.section("options"))
        if not isinstance(name, str):
            raise InputError(f"{where}: expected the name of an easyconfig, found {kind(name)}")
        beside = path.parent / name
        if beside.is_file():
            yield str(beside.resolve()), told
        elif "/" in name or not _NAME.fullmatch(name):
            raise InputError(f"{where}: {name}: no such easyconfig")
        else:
            yield name, told


def _easyblocks(settings: Settings) -> Iterator[Path]:
    """Files of ``--include-easyblocks``, which EasyBuild takes as paths or patterns."""
    for pattern in settings.include_easyblocks:
        path = Path(pattern)
        found = [path] if path.is_file() else sorted(path.parent.glob(path.name)) if path.name else []
        files = [file.resolve() for file in found if file.suffix == ".py" and file.is_file()]
        if not files:
            raise InputError(f"{settings.stated('include_easyblocks', pattern)}: no such Python file")
        for file in files:
            if not re.fullmatch(r"[A-Za-z0-9_]+\.py", file.name) or re.search(r"[,*?\[]", str(file)):
                where = settings.stated("include_easyblocks", file)
                raise InputError(f"{where}: not the name of a Python module")
        yield from files
