"""An image's files out of its layers: read as streams, newest decides, nothing written, memory bounded."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import BinaryIO, Literal

from hpc3build.errors import ImageError
from hpc3build.evidence.tarstream import MAX_PATH, Member, TarStream

#: Bytes kept of all files together, and symbolic links: far above what images of millions of files need.
MAX_KEPT = 128 << 20
MAX_LINKS = 1_000_000
ENTRY_COST = 256  # of an ImageFile and its place in the mapping, beside data and path
SCAN_COST = 2048  # of what is known of a program: names of libraries and versions, a few dozen texts
MAX_HOPS = 40  # as Linux counts symbolic links in one path
MAX_DEPTH = 1024

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"

Wanted = Callable[[str], "int | None"]
#: What ``wanted`` returns for files whose content goes through ``scan``.
SCAN = -1


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file of the image: ``data`` is its head, up to what was asked for; ``layer`` the digest it lies in.

    ``target`` is a symbolic link's text, or the path of which a file is another name (hard link). ``extract`` is what
    the caller's ``scan`` made of its content.
    """

    path: str
    kind: Literal["file", "symlink", "directory", "other"]
    mode: int
    uid: int
    gid: int
    size: int
    target: str
    data: bytes
    layer: str
    extract: object = None

    @property
    def whole(self) -> bool:
        """Whether ``data`` is all of it."""
        return len(self.data) == self.size


@dataclass(frozen=True)
class Layer:
    """A layer where it lies; ``open`` gives its bytes as stored, compressed, from the start."""

    digest: str
    media_type: str
    open: Callable[[], AbstractContextManager[BinaryIO]]


#: Path, size and the content in pieces → what to keep of it as ``ImageFile.extract``, None to forget the file.
Scan = Callable[[str, int, Iterator[bytes]], object]


class ImageFiles(Mapping[str, ImageFile]):
    """The wanted files by path, and all symbolic links, to find them by other names. ``layers``: the digests read."""

    def __init__(
        self, files: Mapping[str, ImageFile], links: Mapping[str, str] | None = None, layers: tuple[str, ...] = ()
    ) -> None:
        self._files = files
        if links is None:
            links = {path: file.target for path, file in files.items() if file.kind == "symlink"}
        self._links = links
        self.layers = layers

    def __getitem__(self, path: str) -> ImageFile:
        return self._files[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def real_path(self, path: str) -> str | None:
        """``path`` with every symbolic link followed, whether or not something is there; None: a loop or an escape."""
        done: list[str] = []
        pending = path.split("/")[::-1]
        hops = 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not done:
                    return None
                done.pop()
                continue
            done.append(part)
            target = self._links.get("/" + "/".join(done))
            if target is None:
                continue
            hops += 1
            if hops > MAX_HOPS or len(pending) + len(done) > MAX_DEPTH:
                return None
            if target.startswith("/"):
                done.clear()
            else:
                done.pop()
            pending.extend(reversed(target.split("/")))
        return "/" + "/".join(done)

    def resolve(self, path: str) -> ImageFile | None:
        """The wanted file that ``path`` leads to, through symbolic links anywhere in it."""
        real = self.real_path(path)
        found = self._files.get(real) if real is not None else None
        if found is None and path not in self._links:
            # A newer layer may hold a path that goes through an older layer's link, as unpacking it would.
            found = self._files.get(path)
        return found

    def glob(self, pattern: str) -> tuple[ImageFile, ...]:
        """The wanted files whose path matches, sorted: ``*`` and ``?`` stop at slashes, ``**`` is any depth."""
        match = _pattern(pattern).fullmatch
        return tuple(self._files[path] for path in sorted(self._files) if match(path))


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> re.Pattern[str]:
    tokens = re.findall(r"/\*\*(?=/|$)|\[[!^]?\]?[^]/]*\]|.", pattern, re.DOTALL)
    plain = {"/**": "(?:/[^/]+)*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(plain.get(token) or _literal(token) for token in tokens), re.DOTALL)


def _literal(token: str) -> str:
    if len(token) == 1:
        return re.escape(token)
    negated = token[1] in "!^"
    members = re.sub(r"([\\\[\]&~|^])", r"\\\1", token[1 + negated : -1])
    return f"[{'^/' if negated else ''}{members}]"


class _Budget:
    """The memory of one image, shared by the layers read at the same time."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._links = MAX_LINKS
        self._lock = threading.Lock()
        self.limit = limit
        self.stop = threading.Event()

    def take(self, layer: str, count: int, links: int = 0) -> None:
        with self._lock:
            self._left -= count
            self._links -= links
            if self._left >= 0 and self._links >= 0:
                return
        what = f"more than {self.limit >> 20} MiB of files to keep" if self._left < 0 else f"over {MAX_LINKS:,} links"
        raise ImageError(f"layer {layer}: {what}", hint="made to fill memory, or too much of the image is asked for")


@dataclass(slots=True)
class _Shadow:
    """What hides older layers, as hashes of paths: 60 bytes each, where the paths themselves take 200."""

    solid: set[int] = field(default_factory=set)  # whiteouts, files, links: hide the path and all below
    folders: set[int] = field(default_factory=set)  # hide only what the path itself was
    opaque: set[int] = field(default_factory=set)  # hide all below

    def add(self, other: _Shadow) -> None:
        self.solid |= other.solid
        self.folders |= other.folders
        self.opaque |= other.opaque

    def hides(self, path: str) -> bool:
        code = hash(path)
        return code in self.solid or code in self.folders or self.hides_below(path.rpartition("/")[0])

    def hides_below(self, folder: str) -> bool:
        """Whether what older layers have in ``folder`` is hidden."""
        while folder:
            code = hash(folder)
            if code in self.solid or code in self.opaque:
                return True
            folder = folder.rpartition("/")[0]
        return hash("/") in self.opaque


@dataclass(slots=True)
class _Scan:
    """One layer, read by itself."""

    digest: str
    files: dict[str, ImageFile] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    shadow: _Shadow = field(default_factory=_Shadow)
    dangling: list[str] = field(default_factory=list)  # hard links to what this layer did not give


class _Scanner:
    """Reads one layer."""

    def __init__(self, layer: Layer, wanted: Wanted, scan: Scan | None, budget: _Budget, oldest: bool) -> None:
        self._layer = layer
        self._wanted = wanted
        self._read = scan
        self._budget = budget
        self._oldest = oldest  # hides nothing, so nothing needs to be remembered
        self._scan = _Scan(layer.digest)

    def run(self) -> _Scan:
        digest, kind = self._layer.digest, self._layer.media_type
        if "encrypted" in kind:
            raise ImageError(f"layer {digest}: encrypted ({kind})", hint="decrypt the image first (skopeo copy)")
        with self._layer.open() as raw:
            tar = TarStream(raw, digest)
            for member in tar.members():
                if self._budget.stop.is_set():
                    break
                self._member(tar, member)
        return self._scan

    def _member(self, tar: TarStream, member: Member) -> None:
        path, shadow, links = member.path, self._scan.shadow, self._scan.links
        folder, _, name = path.rpartition("/")
        if name.startswith(WHITEOUT):
            self._whiteout(tar, folder, name)
            return
        if not self._oldest:
            (shadow.folders if member.kind == "directory" else shadow.solid).add(hash(path))
        if member.kind == "symlink":
            self._budget.take(self._scan.digest, 0, links=path not in links)
            links[path] = member.link
        elif links:
            links.pop(path, None)
        if path != "/" and (limit := self._wanted(path)) is not None:
            self._keep(tar, member, limit)

    def _whiteout(self, tar: TarStream, folder: str, name: str) -> None:
        hidden = name[len(WHITEOUT) :]
        if hidden in (".", ".."):
            tar.fail(f"unsafe whiteout {folder}/{name}")
        if name == OPAQUE:
            self._scan.shadow.opaque.add(hash(folder or "/"))
        elif hidden and not hidden.startswith(WHITEOUT):  # .wh..wh.plnk and the like are aufs' own
            self._scan.shadow.solid.add(hash(f"{folder}/{hidden}"))

    def _keep(self, tar: TarStream, member: Member, limit: int) -> None:
        files, layer = self._scan.files, self._scan.digest
        if limit > self._budget.limit and member.stored > self._budget.limit:
            self._budget.take(layer, member.stored)
        mode, uid, gid = tar.owner(member)
        if member.kind == "hardlink":
            file = ImageFile(member.path, "file", mode, uid, gid, 0, member.link, b"", layer)
            original = files.get(member.link)
            if original:
                file = _other_name(file, original)
            else:
                self._scan.dangling.append(member.path)
        else:
            data, found = b"", None
            # A sparse file's bytes are not where they seem to be, and images are not supposed to hold any.
            if member.kind == "file" and not member.sparse:
                if limit > 0:
                    data = tar.content(limit)
                elif limit == SCAN and self._read is not None:
                    found = self._read(member.path, member.stored, tar.pieces())
                    if found is None:
                        return
            file = ImageFile(member.path, member.kind, mode, uid, gid, member.size, member.link, data, layer, found)
        # A second name shares its data with the first.
        cost = 0 if file.kind == "file" and file.target else len(file.data) + (SCAN_COST if file.extract else 0)
        self._budget.take(layer, ENTRY_COST + len(file.path) + cost)
        files[file.path] = file


def _other_name(link: ImageFile, original: ImageFile) -> ImageFile:
    """The hard link ``link`` with what is known of the file it names."""
    target = original.target if original.kind == "symlink" else link.target
    return replace(original, path=link.path, target=target, layer=link.layer)


def read_layers(
    layers_oldest_first: Sequence[Layer],
    wanted: Wanted,
    *,
    scan: Scan | None = None,
    enough: Callable[[ImageFiles], bool] | None = None,
    workers: int | None = None,
    limit: int = MAX_KEPT,
) -> ImageFiles:
    """The files of an image that ``wanted`` asks for, as a container would see them.

    ``wanted(path)`` gives the number of bytes of the content to read, 0 for the entry alone, None for no interest, SCAN
    for ``scan``, which sees the content in pieces: what it returns is kept, so that thousands of programs never lie
    in memory together. Both are called from several threads.
    ``enough(files)`` is asked after each layer, newest first; True leaves the older ones unread. Without it layers
    are read ``workers`` at a time. Raises ImageError for content that is broken, unsafe or above ``limit``.
    """
    budget = _Budget(limit)
    layers = list(reversed(layers_oldest_first))
    oldest = len(layers) - 1
    scanners = [_Scanner(layer, wanted, scan, budget, oldest=at == oldest) for at, layer in enumerate(layers)]
    if enough is not None or len(layers) < 2:
        merged = _Merge()
        for scanner in scanners:
            merged.add(scanner.run())
            if enough and enough(merged.files()):
                break
        return merged.files()
    workers = min(len(layers), workers or len(os.sched_getaffinity(0)))
    merged = _Merge()
    with ThreadPoolExecutor(workers, thread_name_prefix="layer") as pool:
        try:
            for layer in pool.map(_Scanner.run, scanners):
                merged.add(layer)
        except BaseException:
            budget.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return merged.files()


class _Merge:
    """Layers put on each other, the newest first."""

    def __init__(self) -> None:
        self._files: dict[str, ImageFile] = {}
        self._links: dict[str, str] = {}
        self._shadow = _Shadow()
        self._layers: tuple[str, ...] = ()
        self._dangling: list[str] = []

    def add(self, scan: _Scan) -> None:
        if not self._layers:  # no copy of what may be large
            self._files, self._links = scan.files, scan.links
        else:
            hides = self._shadow.hides
            self._files.update((path, file) for path, file in scan.files.items() if not hides(path))
            self._links.update((path, target) for path, target in scan.links.items() if not hides(path))
        self._shadow.add(scan.shadow)
        self._layers += (scan.digest,)
        self._dangling += [path for path in scan.dangling if self._files.get(path) is scan.files[path]]

    def files(self) -> ImageFiles:
        """What is known so far; of use until the next ``add``."""
        files = dict(self._files) if self._dangling else self._files
        for path in self._dangling:
            link = files[path]
            original = files.get(link.target)
            # Another layer's file, where a builder linked across layers; never what a newer layer put in its place.
            if original and self._layers.index(original.layer) > self._layers.index(link.layer):
                files[path] = _other_name(link, original)
        return ImageFiles(files, self._links, self._layers)


__all__ = ["MAX_KEPT", "MAX_PATH", "SCAN", "ImageFile", "ImageFiles", "Layer", "Scan", "Wanted", "read_layers"]
