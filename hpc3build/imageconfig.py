"""An image's configuration: the bytes as they were read, what they say, and edits that change only their own span."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from hpc3build import jsonedit
from hpc3build.errors import ImageError
from hpc3build.jsonread import as_object, get_list, get_pairs, get_text, get_texts
from hpc3build.oci import check_digest, check_pairs, digest_of, verify


@dataclass(frozen=True)
class ImageConfig:
    """An image's configuration: the bytes that were read. Its digest is the image ID. Made by ``parse``.

    ``name`` is the digest that it was asked for, empty for none.
    """

    raw: bytes
    name: str = field(default="", compare=False)

    @classmethod
    def parse(cls, raw: bytes, expect_digest: str | None = None) -> ImageConfig:
        """Read and check a configuration; ``expect_digest`` stays its digest, whatever the algorithm.

        Raises ImageError for anything malformed and a digest that differs.
        """
        if expect_digest is not None:
            verify(raw, expect_digest, "config")
        config = cls(raw, expect_digest or "")
        _ = config.labels, config.env, config.entrypoint, config.cmd, config.user, config.working_dir
        _ = config.architecture, config.os, config.diff_ids, config.created, config.history, config.volumes
        return config

    @cached_property
    def digest(self) -> str:
        """The one that it was asked for, else sha256 of the bytes: the image ID."""
        return self.name or digest_of(self.raw)

    @cached_property
    def json(self) -> Mapping[str, Any]:
        """The parsed document, to be read only."""
        return MappingProxyType(as_object(jsonedit.load(self.raw, "config"), "config"))

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """``config.Labels``."""
        return get_pairs(self._run, "Labels", "config.config")

    @cached_property
    def env(self) -> Mapping[str, str]:
        """``config.Env`` in order; of two equal names the last wins, as for a process."""
        entries = get_texts(self._run, "Env", "config.config") or ()
        return MappingProxyType({name: value for name, _, value in (entry.partition("=") for entry in entries)})

    @property
    def entrypoint(self) -> tuple[str, ...] | None:
        """``config.Entrypoint``, None when unset."""
        return get_texts(self._run, "Entrypoint", "config.config")

    @property
    def cmd(self) -> tuple[str, ...] | None:
        """``config.Cmd``, None when unset."""
        return get_texts(self._run, "Cmd", "config.config")

    @property
    def user(self) -> str:
        """``config.User``, empty when unset."""
        return get_text(self._run, "User", "config.config", default="")

    @property
    def working_dir(self) -> str:
        """``config.WorkingDir``, empty when unset."""
        return get_text(self._run, "WorkingDir", "config.config", default="")

    @property
    def volumes(self) -> tuple[str, ...]:
        """Paths of ``config.Volumes``, sorted."""
        declared = self._run.get("Volumes")
        return tuple(sorted(as_object(declared, "config.config.Volumes"))) if declared is not None else ()

    @property
    def architecture(self) -> str:
        """GOARCH, as the image says it."""
        return get_text(self.json, "architecture", "config")

    @property
    def os(self) -> str:
        """GOOS, as the image says it."""
        return get_text(self.json, "os", "config")

    @property
    def platform(self) -> Mapping[str, str]:
        """What the image runs on, as a platform object of an index says it (image-spec, image-index.md)."""
        return {
            name: value
            for name in ("architecture", "os", "os.version", "variant")
            if isinstance(value := self.json.get(name), str) and value
        }

    @property
    def created(self) -> str | None:
        """RFC 3339 time, None when unset."""
        return get_text(self.json, "created", "config", default="") or None

    @cached_property
    def diff_ids(self) -> tuple[str, ...]:
        """Digests of the uncompressed layers, lowest first."""
        rootfs = as_object(self.json.get("rootfs"), "config.rootfs")
        return tuple(check_digest(value, "config.rootfs.diff_ids") for value in get_list(rootfs, "diff_ids", "rootfs"))

    @property
    def history(self) -> tuple[Mapping[str, Any], ...]:
        """How the layers came about, as the builder wrote it."""
        if self.json.get("history") is None:
            return ()
        return tuple(as_object(value, "config.history") for value in get_list(self.json, "history", "config"))

    @property
    def _run(self) -> Mapping[str, Any]:
        return {} if self.json.get("config") is None else as_object(self.json["config"], "config.config")

    def with_labels(self, set: Mapping[str, str], remove: Iterable[str] = ()) -> ImageConfig:
        """The configuration with these labels; equal ones give ``self``. Raises ImageError."""
        check_pairs(set)
        raw = jsonedit.set_pairs(self.raw, ("config", "Labels"), set, remove)
        return self if raw == self.raw else ImageConfig.parse(raw)

    def with_run(self, set: Mapping[str, Any], remove: Iterable[str] = ()) -> ImageConfig:
        """The configuration with these members of ``config`` (Entrypoint, Cmd, User, …). Raises ImageError."""
        values: list[tuple[jsonedit.Path, Any]] = [(("config", name), value) for name, value in set.items()]
        raw = jsonedit.edit(self.raw, values, [("config", name) for name in remove if name in self._run])
        return self if raw == self.raw else ImageConfig.parse(raw)

    def without_env(self, names: Iterable[str]) -> ImageConfig:
        """The configuration without these variables."""
        gone = frozenset(names)
        entries = get_texts(self._run, "Env", "config.config") or ()
        kept = [entry for entry in entries if entry.partition("=")[0] not in gone]
        return self if len(kept) == len(entries) else self.with_run({"Env": kept})

    def with_env(self, set: Mapping[str, str]) -> ImageConfig:
        """The configuration with these variables: each in its old place, new ones at the end. Raises ImageError."""
        check_pairs(set)
        entries = list(get_texts(self._run, "Env", "config.config") or ())
        raw = self.raw
        for name, value in set.items():
            if "=" in name:
                raise ImageError(f"{name!r} is not the name of a variable")
            places = [position for position, entry in enumerate(entries) if entry.partition("=")[0] == name]
            if not places:
                places = [len(entries)]
                entries.append(name)
            for position in places:
                raw = jsonedit.set_member(raw, ("config", "Env", position), f"{name}={value}")
        return self if raw == self.raw else ImageConfig.parse(raw)
