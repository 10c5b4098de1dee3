"""A recipe and its settings: what hpc3build.yaml, the recipe itself and the command line ask for."""

from __future__ import annotations

import datetime
import difflib
import io
import re
import shlex
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hpc3build.errors import InputError
from hpc3build.pairs import check_pair

SETTINGS_FILE = "hpc3build.yaml"
ENTRYPOINTS = ("hpc3", "hpc3-exec")
#: How the final image of an EasyBuild recipe gets its environment (docs/easybuild.md).
MODULES = ("flat", "lmod")
#: Real ones are below 20 kB; a parser that keeps lines takes seconds for a megabyte.
MAX_YAML_BYTES = 128 << 10
_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys of hpc3build.yaml (docs/recipes.md), overridden by options of the same names.

    ``base`` is the image of both stages, ``target`` an archspec name, ``mpi_provider`` a package of Spack's,
    ``final_packages`` and ``build_packages`` are the base's package names, ``pins`` the releases of the tools in the
    builder, ``secrets`` the ids of build secrets, ``caches`` absolute paths kept between builds. ``spack_mirrors`` and
    ``spack_keys`` are files, here or beside the recipe. ``concretize`` is lock, builder or host; for host, ``spack``
    and ``spack_config`` are folders, ``environment`` the variables that Spack may see. ``cache`` is the folder of what
    need not be worked out again.
    """

    title: str | None = None
    base: str | None = None
    target: str | None = None
    entrypoint: str | None = None
    final_packages: tuple[str, ...] = ()
    build_packages: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    user: str | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    mpi_mode: str | None = None
    mpi_provider: str | None = None
    docs: str | None = None
    rank: int | None = None
    smoke: str | None = None
    secrets: tuple[str, ...] = ()
    caches: tuple[str, ...] = ()
    pins: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    cuda_compute_capabilities: str | None = None
    spack_ref: str | None = None
    spack_source: str | None = None
    packages_source: str | None = None
    concretize: str | None = None
    format: str | None = None
    pin: bool = False
    spack_mirrors: str | None = None
    spack_keys: str | None = None
    binary_cache: bool = True
    host_provided: tuple[str, ...] = ()
    spack: str | None = None
    spack_config: str | None = None
    concretize_seconds: int | None = None
    save_lock: str | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    robot_paths: tuple[str, ...] = ()
    include_easyblocks: tuple[str, ...] = ()
    hooks: str | None = None
    accept_eula_for: tuple[str, ...] = ()
    modules: str | None = None
    keep_compilers: bool | None = None
    cache: Path | None = None

    def overridden(self, **options: Any) -> Settings:
        """These settings with every option that is given (not None, not empty, not the default) in its place."""
        defaults = {field.name: field.default for field in fields(self)}
        given = {
            name: value
            for name, value in options.items()
            if value not in (None, (), {}) and not (isinstance(value, bool) and value is defaults[name])
        }
        return replace(self, **given)

    def over(self, beside: Settings) -> Settings:
        """``beside`` with everything that these settings, the command line's, state in its place."""
        return beside.overridden(**vars(self))

    @property
    def entry(self) -> str:
        """The name of the entry point: HPC3's own where nobody chose."""
        return self.entrypoint or ENTRYPOINTS[0]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a frontend loaded. ``origin`` is the file, ``folder`` where its neighbours lie.

    ``lock`` is the text of the lock that counts, None where there is none; ``notes`` tell what is set aside.
    """

    origin: Path
    folder: Path
    settings: Settings = field(default_factory=Settings)
    lock: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.settings.title or self.folder.name


def read_settings(folder: Path) -> Settings:
    """The hpc3build.yaml beside a recipe; none is no error. Raises InputError with file:line for anything odd."""
    path = folder / SETTINGS_FILE
    if not path.exists():
        return Settings()
    data = read_yaml(path)
    return _SettingsReader(path, data).settings()


def read_text(path: Path, limit: int, what: str) -> str:
    """The text of a file that a person gave. Raises InputError when it is missing, too large or not UTF-8."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder, expected {what}")
        if path.stat().st_size > limit:
            raise InputError(f"{path}:1: larger than {limit >> 10} KiB", hint=f"expected {what}")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", hint=f"expected {what}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not UTF-8 text", hint=f"expected {what}") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def read_yaml(path: Path) -> Any:
    """A YAML mapping whose keys know their lines. Raises InputError with file:line."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    text = read_text(path, MAX_YAML_BYTES, "YAML")
    _shallow(path, text)
    reader = YAML(typ="rt")
    reader.allow_duplicate_keys = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = reader.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1 if mark else 1}"
        raise InputError(f"{where}: not valid YAML: {error.problem or error.context}") from error
    except ReaderError as error:
        raise InputError(
            f"{path}:{text.count(chr(10), 0, error.position) + 1}: not valid YAML: {error.reason}"
        ) from error
    except RecursionError as error:
        raise InputError(f"{path}:1: not valid YAML: nested too deeply") from error
    except Exception as error:
        # ruamel's constructors raise whatever a tag's value provokes (KeyError for `!!bool x`).
        raise InputError(
            f"{path}:1: not valid YAML: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error
    if not isinstance(data, Mapping):
        raise InputError(f"{path}:1: expected a mapping, found {kind(data)}")
    _bound(path, data)
    return data


def dump_yaml(document: Any) -> bytes:
    """A document as YAML, with what read_yaml keeps of its text."""
    from ruamel.yaml import YAML

    writer = YAML(typ="rt")
    writer.width = 4096
    buffer = io.StringIO()
    writer.dump(document, buffer)
    return buffer.getvalue().encode()


def _shallow(path: Path, text: str) -> None:
    """Refuse brackets nested without end before the parser works on them for seconds."""
    depth = 0
    for at, character in enumerate(text):
        if character in "[{":
            depth += 1
            if depth > 256:
                line = text.count("\n", 0, at) + 1
                raise InputError(f"{path}:{line}: not valid YAML: nested too deeply")
        elif character in "]}":
            depth = max(0, depth - 1)


def _bound(path: Path, data: Any, limit: int = 200_000) -> None:
    """Refuse documents whose aliases unfold into loops or into billions of nodes."""
    seen = 0
    queue: list[tuple[Any, int]] = [(data, 0)]
    while queue:
        node, depth = queue.pop()
        seen += 1
        if depth > 64 or seen > limit:
            raise InputError(f"{path}:1: nested too deeply, or its aliases unfold without end")
        children = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
        queue.extend((child, depth + 1) for child in children)


def line_of(data: Any, key: Any) -> int:
    """The line, counted from 1, of ``key`` (or list position) in a mapping or list from read_yaml; 1 when unknown."""
    try:
        marks: Any = getattr(data, "lc")  # noqa: B009 (ruamel's, on its own mappings and lists)
        position = marks.key(key) if isinstance(data, Mapping) else marks.item(key)
        return int(position[0]) + 1
    except (AttributeError, KeyError, TypeError, IndexError):
        return 1


def kind(value: object) -> str:
    """What a YAML value is, in words."""
    if value is None:
        return "nothing"
    names: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", str: "text"}
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return next((name for known, name in names.items() if isinstance(value, known)), type(value).__name__)


class Section:
    """A YAML mapping that is read key by key, with errors that name file, line and key."""

    def __init__(self, path: Path, data: Any, name: str = "", line: int = 1) -> None:
        if data is None:
            data = {}
        if not isinstance(data, Mapping):
            raise InputError(f"{path}:{line}: {name or 'the document'}: expected a mapping, found {kind(data)}")
        self.path, self.data, self.name = path, data, name

    def where(self, key: object) -> str:
        return f"{self.path}:{line_of(self.data, key)}: {self.name + ':' if self.name else ''}{key}"

    def only(self, known: Iterable[str]) -> None:
        """Raise InputError for the first key that is not among ``known``, naming the nearest one."""
        names = list(known)
        for key in self.data:
            if key not in names:
                near = difflib.get_close_matches(str(key), names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"keys are {', '.join(names)}"
                raise InputError(f"{self.where(key)}: unknown key", hint=hint)

    def text(self, key: str, *, one_line: bool = True) -> str | None:
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, float):
            raise InputError(f"{self.where(key)}: {value} may have lost digits in YAML", hint="put it in quotes")
        if isinstance(value, bool) or not isinstance(value, str | int | datetime.date):
            raise InputError(f"{self.where(key)}: expected text, found {kind(value)}")
        if one_line and re.search(r"[\x00-\x1f\x7f]", str(value).rstrip("\n")):
            raise InputError(f"{self.where(key)}: expected one line of text")
        return str(value).rstrip("\n") if one_line else str(value)

    def choice(self, key: str, values: Iterable[str]) -> str | None:
        value = self.text(key)
        if value is not None and value not in values:
            raise InputError(f"{self.where(key)}: {value!r} is none of {', '.join(values)}")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            raise InputError(f"{self.where(key)}: expected true or false, found {kind(value)}")
        return value

    def integer(self, key: str) -> int | None:
        value = self.data.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise InputError(f"{self.where(key)}: expected a whole number, found {kind(value)}")
        return None if value is None else int(value)

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.data.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise InputError(f"{self.where(key)}: expected a list, found {kind(value)}")
        for position, item in enumerate(value):
            if not isinstance(item, str) or re.search(r"[\x00-\x1f\x7f]", item):
                line = line_of(value, position)
                raise InputError(f"{self.path}:{line}: {key}: expected one line of text, found {kind(item)}")
        return tuple(map(str, value))

    def packages(self, key: str) -> tuple[str, ...]:
        """Names of operating system packages; anything a shell would read otherwise is refused."""
        names = self.texts(key)
        for name in names:
            if not re.fullmatch(r"[A-Za-z0-9@][A-Za-z0-9@+._:/=~^-]*", name):
                raise InputError(f"{self.where(key)}: {name!r} is not a package name")
        return names

    def pairs(self, key: str) -> Mapping[str, str]:
        section = self.section(key)
        values = {str(name): section.text(name) for name in section.data}
        return MappingProxyType({name: value for name, value in values.items() if value is not None})

    def labels(self, key: str) -> Mapping[str, str]:
        """Pairs that may be labels and annotations (rule N2)."""
        pairs = self.pairs(key)
        for name, value in pairs.items():
            try:
                check_pair(name, value)
            except InputError as error:
                raise InputError(f"{self.section(key).where(name)}: {error.message}", hint=error.hint) from error
        return pairs

    def section(self, key: str) -> Section:
        return Section(self.path, self.data.get(key), f"{self.name}:{key}".lstrip(":"), line_of(self.data, key))


class _SettingsReader(Section):
    KEYS = (
        "title",
        "base",
        "target",
        "entrypoint",
        "os_packages",
        "env",
        "user",
        "labels",
        "mpi",
        "docs",
        "rank",
        "smoke",
        "secrets",
        "caches",
        "pins",
        "cuda_compute_capabilities",
        "host_provided",
        "easybuild",
        "spack_mirrors",
        "spack_keys",
        "binary_cache",
        "pin",
    )

    def settings(self) -> Settings:
        self.only(self.KEYS)
        packages = self.section("os_packages")
        packages.only(("build", "final"))
        mpi = self.section("mpi")
        mpi.only(("mode",))
        pins = self.section("pins")
        pins.only(("easybuild", "archspec", "clingo", "spack", "spack-packages"))
        return Settings(
            title=self.text("title"),
            base=self.text("base"),
            target=self.text("target"),
            entrypoint=self.choice("entrypoint", ENTRYPOINTS),
            final_packages=packages.packages("final"),
            build_packages=packages.packages("build"),
            env=self._env(),
            user=self._user(),
            labels=self.labels("labels"),
            mpi_mode=mpi.text("mode"),
            docs=self.text("docs", one_line=False),
            rank=self.integer("rank"),
            smoke=self._smoke(),
            secrets=self._matching("secrets", r"[A-Za-z0-9][A-Za-z0-9._-]*", "the id of a secret"),
            caches=self._matching("caches", r"/[A-Za-z0-9._/-]+", "an absolute path"),
            pins=self.pairs("pins"),
            cuda_compute_capabilities=self.text("cuda_compute_capabilities"),
            host_provided=self.texts("host_provided"),
            spack_mirrors=self.text("spack_mirrors"),
            spack_keys=self.text("spack_keys"),
            binary_cache=self.boolean("binary_cache", True),
            pin=self.boolean("pin", False),
            **self._easybuild(),
        )

    def _easybuild(self) -> dict[str, Any]:
        """Options of EasyBuild's own; paths are those from the file's folder."""
        section = self.section("easybuild")
        section.only(("robot_paths", "include_easyblocks", "hooks", "accept_eula_for", "modules", "keep_compilers"))
        folder = self.path.resolve().parent
        hooks = section.text("hooks")
        return {
            "robot_paths": tuple(str(folder / text) for text in section.texts("robot_paths")),
            "include_easyblocks": tuple(str(folder / text) for text in section.texts("include_easyblocks")),
            "hooks": str(folder / hooks) if hooks else None,
            "accept_eula_for": section.texts("accept_eula_for"),
            "modules": section.choice("modules", MODULES),
            "keep_compilers": section.boolean("keep_compilers", False) or None,
        }

    def _matching(self, key: str, pattern: str, what: str) -> tuple[str, ...]:
        for item in (items := self.texts(key)):
            if not re.fullmatch(pattern, item):
                raise InputError(f"{self.where(key)}: {item!r} is not {what}")
        return items

    def _env(self) -> Mapping[str, str]:
        for name in (pairs := self.pairs("env")):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise InputError(f"{self.section('env').where(name)}: not the name of an environment variable")
        return pairs

    def _smoke(self) -> str | None:
        """A command as a shell would read it, so that a missing quote is told before hours of building."""
        smoke = self.text("smoke")
        try:
            shlex.split(smoke or "")
        except ValueError as error:
            raise InputError(f"{self.where('smoke')}: not a command: {error}") from error
        return smoke

    def _user(self) -> str | None:
        user = self.text("user")
        if user is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?", user):
            raise InputError(f"{self.where('user')}: expected USER or UID, with or without :GROUP")
        return user
