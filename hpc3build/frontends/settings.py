"""hpc3build.yaml, which lies beside a recipe and says what neither Spack nor EasyBuild can (docs/recipes.md)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from hpc3build import bases
from hpc3build.errors import BadReference, InputError
from hpc3build.facts import Key, cpu, given
from hpc3build.facts import vocabulary as voc
from hpc3build.frontends.easybuild_flags import NATIVE
from hpc3build.recipe import ENTRYPOINTS, MODULES, Settings
from hpc3build.reference import of_base
from hpc3build.yamlread import Section, kind, read_text, read_yaml

SETTINGS_FILE = "hpc3build.yaml"
#: What the build itself states, from what it did and saw: nobody's word stands over it.
STATED = frozenset(
    {voc.VOCABULARY, voc.CONFORMANCE, voc.LOCK, voc.SIZE, voc.SEAL, voc.BASE_NAME, voc.BASE_DIGEST}
)  # fmt: skip
#: The sections of it that hold settings, and what is added to their keys for the names of these.
_SECTIONS = (("os_packages", "", "_packages"), ("mpi", "mpi_", ""), ("easybuild", "", ""), ("pins", "pins:", ""))
#: Where a build installs, and keeps what it works with.
_INSTALLED = ("/opt/easybuild", "/opt/hpc3build", "/opt/lmod", "/opt/software", "/opt/spack", "/opt/spack-environment",
              "/opt/spack-packages", "/opt/view", "/opt/views", "/run/hpc3build", "/run/secrets",
              "/run/sources", "/dev", "/proc", "/sys")  # fmt: skip
_OF_SYSTEM = ("/usr/bin", "/usr/lib", "/usr/lib64", "/usr/local/bin", "/usr/sbin", "/usr/share", "/bin", "/etc", "/lib",
              "/lib64", "/sbin", "/var/lib", "/var/cache/hpc3build")  # fmt: skip
_CACHE = r"(?!.*/\.\.(?:/|$))/[A-Za-z0-9._/-]*"
_OF_PYPI = re.compile(r"\d{1,9}(?:\.\d+)*(?:[a-z]+\d+|\.(?:post|dev)\d+)?", re.ASCII)
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
#: Of users and groups: engines refuse greater ones.
MAX_ID = 2**31 - 1
#: Rule N2 counts the base64 text: 4096 bytes less the key.
MAX_DOCUMENTATION = 3000


def read_settings(folder: Path, foreign: Collection[str] = ()) -> Settings:
    """The hpc3build.yaml beside a recipe; none is no error. Raises InputError with file:line for anything odd.

    ``foreign`` are the settings that the recipe's package manager has no meaning for: they would look heeded.
    """
    path = folder / SETTINGS_FILE
    if not path.exists():
        return Settings()
    found = _SettingsReader(path, read_yaml(path, may_be_empty=True)).settings()
    for name, where in found.origins.items():
        if name in foreign:
            raise InputError(f"{where}: the package manager of this recipe has no use for it", hint="leave it out")
    return found


def known_target(settings: Settings) -> None:
    """Raise InputError, with where it was stated, for a target that is no name of archspec's."""
    try:
        cpu.known(settings.target or "")
    except InputError as error:
        hint = (
            "native is for EasyBuild; Spack takes a name: x86_64_v3, zen3" if settings.target == NATIVE else error.hint
        )
        raise InputError(f"{settings.where('target')}: {error.message}", hint=hint) from error


def read_labels(section: Section, key: str) -> Mapping[str, str]:
    """Pairs that become labels and annotations, as they are written. Raises InputError with file:line.

    An older spelling of a key of the vocabulary (rule N1) says what the newest would.
    """
    pairs, place = section.pairs(key), section.section(key)
    found: dict[str, str] = {}
    for name, value in pairs.items():
        known = voc.BY_NAME.get(name)
        if known in STATED:
            raise InputError(f"{place.where(name)}: the build states it itself", hint="leave it out")
        try:
            found[name] = given.typed(known.name if known else name, value)
        except InputError as error:
            what = error.message.removeprefix(f"{name}: ")
            raise InputError(f"{place.where(name)}: {what}", hint=error.hint) from error
        said = [(other, found[other]) for other in found if known and voc.BY_NAME.get(other) is known]
        if any(text != found[name] for _, text in said):
            other, text = said[0]
            raise InputError(
                f"{place.where(name)}: {found[name]}, and {other} says {text}: both are spellings of one key",
                hint=f"keep {known.name if known else other}",
            )
    _check_mode(place, found)
    return MappingProxyType(found)


def _check_mode(place: Section, found: Mapping[str, str]) -> None:
    """The mode follows from the target."""
    target, said = voc.CPU_VERSION.value_in(found), voc.CPU_MODE.value_in(found)
    if target is not None and said is not None and said != (mode := cpu.mode(target)):
        raise InputError(
            f"{place.where(voc.CPU_MODE.name)}: {said}, and the CPU target {target} is {mode}", hint="leave it out"
        )


def _value(section: Section, key: str, fact: Key) -> str | None:
    """The text that becomes the value of ``fact``, so that what is none of its values is told at once."""
    value = section.text(key)
    if value is not None:
        try:
            fact.check(value)
        except InputError as error:
            raise InputError(f"{section.where(key)}: {error.message}", hint=error.hint) from error
    return value


def _not_empty(section: Section, key: str, text: str | None) -> str | None:
    """``text``; an empty one would look heeded and set nothing."""
    if text is not None and not text.strip():
        raise InputError(f"{section.where(key)}: its value is empty", hint="leave the key out")
    return text


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
            title=_value(self, "title", voc.TITLE),
            base=self._base(),
            target=self._target(),
            entrypoint=self.choice("entrypoint", ENTRYPOINTS),
            final_packages=packages.packages("final"),
            build_packages=packages.packages("build"),
            env=self._env(),
            user=self._user(),
            labels=read_labels(self, "labels"),
            mpi_mode=_value(mpi, "mode", voc.MPI_MODE),
            docs=self._docs(),
            rank=self._rank(),
            smoke=self._smoke(),
            secrets=self._secrets(),
            caches=self._caches(),
            pins=self._pins(pins),
            cuda_compute_capabilities=self.text("cuda_compute_capabilities"),
            host_provided=self.texts("host_provided"),
            spack_mirrors=self.text("spack_mirrors"),
            spack_keys=self.text("spack_keys"),
            binary_cache=self.boolean("binary_cache", True),
            pin=self.boolean("pin", False),
            **self._easybuild(),
            origins=self._origins(),
        )

    def _origins(self) -> Mapping[str, str]:
        """File, line and key by the names of settings; of a pin by ``pins:NAME``."""
        found = {key: self.where(key) for key, value in self.data.items() if value is not None}
        for key, prefix, suffix in _SECTIONS:
            section = self.section(key)
            found |= {f"{prefix}{name}{suffix}": section.where(name) for name in section.data}
        return MappingProxyType(found)

    def _easybuild(self) -> dict[str, Any]:
        """Options of EasyBuild's own; paths are those from the file's folder."""
        section = self.section("easybuild")
        paths = ("robot_paths", "include_easyblocks", "sourcepath")
        section.only((*paths, "hooks", "accept_eula_for", "modules", "keep_compilers"))
        folder = self.path.resolve().parent
        hooks = _not_empty(section, "hooks", section.text("hooks"))
        return {
            **{name: tuple(str(folder / text) for text in section.texts(name)) for name in paths},
            "hooks": str(folder / hooks) if hooks else None,
            "accept_eula_for": section.texts("accept_eula_for"),
            "modules": section.choice("modules", MODULES),
            "keep_compilers": section.boolean("keep_compilers", False) or None,
        }

    def text(self, key: str, *, one_line: bool = True) -> str | None:
        return _not_empty(self, key, super().text(key, one_line=one_line))

    def _base(self) -> str | None:
        base = self.text("base")
        if base is None:
            return None
        if not isinstance(self.data["base"], str):
            raise InputError(f"{self.where('base')}: expected an image, found {kind(self.data['base'])}")
        try:
            of_base(base)
        except BadReference as error:
            raise InputError(f"{self.where('base')}: {base!r} is not the name of an image", hint=error.hint) from error
        return base

    def _target(self) -> str | None:
        target = self.text("target")
        if target is not None and target != NATIVE:
            try:
                cpu.known(target)
            except InputError as error:
                raise InputError(f"{self.where('target')}: {error.message}", hint=error.hint) from error
        return target

    def _pins(self, pins: Section) -> Mapping[str, str]:
        for name, release in (found := self.pairs("pins")).items():
            if not _RELEASE.fullmatch(release):
                raise InputError(f"{pins.where(name)}: {release!r} is not a release, tag, branch or commit")
            if not name.startswith("spack") and not _OF_PYPI.fullmatch(release):
                raise InputError(f"{pins.where(name)}: {release!r} is not a release", hint="digits and dots, as 5.4.1")
            if name == "easybuild" and int(release.split(".")[0]) < 5:
                raise InputError(f"{pins.where(name)}: {release}: expected EasyBuild 5 or newer", hint="leave it out")
        return found

    def _secrets(self) -> tuple[str, ...]:
        ids = self._matching("secrets", r"[A-Za-z0-9][A-Za-z0-9._-]*", "the id of a secret")
        for name in ids:
            if name.startswith("hpc3build_"):
                raise InputError(
                    f"{self.where('secrets')}: {name!r} is an id of hpc3build's own", hint="choose another"
                )
        return tuple(dict.fromkeys(ids))

    def _caches(self) -> tuple[str, ...]:
        """A cache hides what is there already, and nothing that is written into one gets into an image."""
        caches = tuple(dict.fromkeys(self._matching("caches", _CACHE, "an absolute path without ..")))
        for cache in caches:
            place = PurePosixPath("/", *PurePosixPath(cache).parts[1:])
            for own in map(PurePosixPath, (*_INSTALLED, *_OF_SYSTEM)):
                if own.is_relative_to(place):
                    raise InputError(f"{self.where('caches')}: {cache} would hide {own}, which the build needs")
                if str(own) in _INSTALLED and place.is_relative_to(own):
                    why = f"{cache} lies in {own}, and what is in a cache is not in the image"
                    raise InputError(f"{self.where('caches')}: {why}")
        return caches

    def _matching(self, key: str, pattern: str, what: str) -> tuple[str, ...]:
        for item in (items := self.texts(key)):
            if not re.fullmatch(pattern, item):
                raise InputError(f"{self.where(key)}: {item!r} is not {what}")
        return items

    def _env(self) -> Mapping[str, str]:
        for name in (pairs := self.pairs("env")):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise InputError(f"{self.section('env').where(name)}: not the name of an environment variable")
        for entry in pairs.get("PATH", "/").split(":"):
            if not entry.startswith("/") and entry not in bases.PLACES:
                raise InputError(
                    f"{self.section('env').where('PATH')}: its entry {entry!r} is no absolute path",
                    hint="folders with colons between them; $PATH is the place of the base's, which are behind else",
                )
        return pairs

    def _rank(self) -> int | None:
        """A whole number that is short enough for a label."""
        rank = self.integer("rank")
        if rank is not None and len(str(rank)) > 20:
            raise InputError(f"{self.where('rank')}: expected a whole number of at most 20 digits")
        return rank

    def _docs(self) -> str | None:
        """The markdown itself: the text is it, or names a file beside the recipe."""
        docs = self.text("docs", one_line=False)
        if docs is None:
            return None
        if (name := self._file_of(docs.strip())) is not None:
            folder = self.path.parent.resolve()
            if not (folder / name).resolve().is_relative_to(folder):
                raise InputError(
                    f"{self.where('docs')}: {name} lies outside of the recipe's folder", hint="a label is public"
                )
            try:
                docs = read_text(self.path.parent / name, 1 << 20, "markdown")
            except InputError as error:
                hint = "docs is the name of a file beside the recipe, or markdown of several words or lines"
                raise InputError(f"{self.where('docs')}: {error.message}", hint=hint) from error
        given.refuse_password(self.where("docs"), docs)
        try:
            size = len(docs.encode())
        except UnicodeEncodeError as error:
            raise InputError(f"{self.where('docs')}: not UTF-8 text") from error
        if size > MAX_DOCUMENTATION:
            raise InputError(
                f"{self.where('docs')}: {size} bytes of markdown, and a label holds {MAX_DOCUMENTATION}",
                hint="keep a summary, and a link to the rest",
            )
        return docs

    def _file_of(self, text: str) -> str | None:
        """``text`` where it names a file or can be meant for nothing else."""
        if not text.isprintable() or len(text) > 200 or "://" in text:
            return None
        like_one = text.endswith((".md", ".markdown", ".txt", ".rst")) or not re.search(r"\s", text)
        return text if like_one or (text and (self.path.parent / text).is_file()) else None

    def _smoke(self) -> str | None:
        """A line of shell; a missing quote is told before hours of building."""
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
        for number in filter(str.isdecimal, (user or "").split(":")):
            if len(number) > len(str(MAX_ID)) or int(number) > MAX_ID:
                raise InputError(
                    f"{self.where('user')}: {number} is more than {MAX_ID}, the greatest that engines take"
                )
        return user
