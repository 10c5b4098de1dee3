"""What is known of a recipe, a lock or an image, each fact with its evidence."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from hpc3build.environment import ENVIRONMENT, ENVIRONMENT_BYTES
from hpc3build.errors import InputError
from hpc3build.evidence import applications, loader, packages, profile
from hpc3build.evidence.binary import Binary, read_binary
from hpc3build.evidence.history import History, read_history
from hpc3build.evidence.image import Evidence
from hpc3build.evidence.layers import SCAN, ImageFiles, Layer, Wanted, read_layers
from hpc3build.facts import Fact, Facts, Note, Source, Statement, cpu, document, gather, subjects
from hpc3build.facts import vocabulary as voc
from hpc3build.frontends import easybuild_checked, easybuild_stack, frontends, spack_records
from hpc3build.frontends.easybuild_sources import is_name
from hpc3build.frontends.settings import read_settings
from hpc3build.frontends.spack_json import MAX_BYTES
from hpc3build.imageconfig import ImageConfig
from hpc3build.jsonread import parsed
from hpc3build.oci import Manifest
from hpc3build.recipe import Recipe, Settings, refuse_options
from hpc3build.reference import Reference, parse
from hpc3build.run import Runner
from hpc3build.stack import Stack
from hpc3build.stores import Store, named, open_store, read_blob
from hpc3build.stores.access import Access
from hpc3build.workflows.render import load
from hpc3build.yamlread import read_text

# What can be asked of a file of concrete specs.
_OF_LOCKS = ("target", "title", "concretize")
# Files that are recipes whatever they begin with.
_RECIPES = (".yaml", ".yml", ".eb")
_CONCRETE = (".lock", ".json")


@dataclass(frozen=True)
class Described:
    """An image with what was read of it."""

    manifest: Manifest
    config: ImageConfig
    files: ImageFiles
    stack: Stack | None
    facts: Facts


@dataclass(frozen=True, kw_only=True)
class Depth:
    """How far an image is read: ``fast`` stops when a stack's record is found, ``thorough`` looks into every file.

    ``roots`` are files or folders of the image that the user names as its application.
    """

    fast: bool = False
    thorough: bool = False
    roots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.fast and self.thorough:
            raise InputError("--fast and --thorough exclude each other")
        for root in self.roots:
            if not root.startswith("/"):
                raise InputError(f"--root {root}: expected an absolute path inside the image")


DEFAULT = Depth()


def facts_of(
    sources: str | tuple[str, ...],
    settings: Settings,
    runner: Runner,
    access: Access | None = None,
    depth: Depth = DEFAULT,
) -> tuple[str, Facts]:
    """The subject's name and its facts.

    A source is a recipe, a JSON file of Spack's, an image reference, a document of ``facts --json``, or what the
    hooks of EasyBuild leave. Several are one recipe of several roots. ``depth`` is for images.

    Raises InputError, ToolMissing and ToolError of recipes, StoreError and ImageError of images.
    """
    inside = [name for name in ("fast", "thorough", "roots") if getattr(depth, name)]
    not_image = f"{sources if isinstance(sources, str) else ' '.join(sources)} is no image to be looked into"
    if isinstance(sources, tuple) and len(sources) > 1:
        refuse_options(inside, not_image)
        _, recipe, stack = load(sources, settings, runner)
        return " ".join(sources), planned_facts(recipe, stack)
    source = sources if isinstance(sources, str) else sources[0]
    if (known := _facts_of_json(Path(source))) is not None:
        refuse_options((*settings.given, *inside), f"{source} says all that it has to say")
        return source, known
    asked_anew = settings.concretize not in (None, "lock")
    if (file := _concrete(Path(source), lock_beside=not asked_anew)) is not None:
        refuse_options(inside, not_image)
        refuse_options([name for name in settings.given if name not in _OF_LOCKS], f"{file} is concretized already")
        return source, facts_of_concrete(file, settings)
    if is_file(source):
        refuse_options(inside, not_image)
        _, recipe, stack = load((source,), settings, runner)
        return source, planned_facts(recipe, stack)
    refuse_options(settings.given, f"{source} is an image, which was built with what it was built with")
    reference = parse(source)
    with open_store(reference, runner, access) as store:
        return str(reference), describe(store, reference, depth=depth).facts


def is_file(source: str) -> bool:
    """Whether it is a file or a folder, or named like one or like an easyconfig; everything else names an image."""
    return Path(source).exists() or source.endswith((*_RECIPES, *_CONCRETE)) or is_name(source)


def _facts_of_json(path: Path) -> Facts | None:
    """The facts in a JSON document of ours; None for any other file, which says itself what is wrong with it."""
    if path.suffix not in (".json", ".closure") or not path.is_file():
        return None
    try:
        data = parsed(read_text(path, MAX_BYTES, "JSON"))
    except ValueError:
        return None
    if document.is_document(data):
        return document.read(data, str(path))
    if easybuild_checked.is_closure(data):
        easybuild_checked.check_closure(data, str(path))
        return subjects.of_stack(easybuild_stack.stack_of_closure(data), folder=path.resolve().parent.name)
    return None


def _concrete(path: Path, *, lock_beside: bool) -> Path | None:
    """The file of concrete specs that ``path`` is, holds, or has beside it: it says all there is.

    A file is known by its content: a lock, a prefix's spec.json, an index.json and a listing may bear any name.
    """
    if path.is_dir():
        names = ("spack.lock", *spack_records.PLACES) if lock_beside else spack_records.PLACES
        return next((path / name for name in names if (path / name).is_file()), None)
    if path.suffix in _CONCRETE or (path.is_file() and path.suffix not in _RECIPES and _is_json(path)):
        return path
    beside = path.with_name("spack.lock")
    return beside if lock_beside and path.name == "spack.yaml" and beside.is_file() else None


def _is_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip()[:1] in (b"{", b"[")


def facts_of_concrete(path: Path, settings: Settings) -> Facts:
    """The planned facts of a file of concrete specs. Raises InputError, also where ``--target`` is not its own."""
    stack = spack_records.read_file(read_text(path, MAX_BYTES, "a spack.lock"), str(path))
    folder = path.resolve().parent
    beside = read_settings(folder)
    merged = replace(beside, title=settings.title or beside.title)
    facts = subjects.of_stack(stack, folder=folder.name, said=tuple(said(merged)))
    found = facts.value(voc.CPU_VERSION)
    if settings.target and found != cpu.known(settings.target):
        raise InputError(
            f"{path}: concretized for {found or 'targets in conflict'}, and --target says {settings.target}"
        )
    return facts


def planned_facts(recipe: Recipe, stack: Stack | None) -> Facts:
    """What is planned for a recipe; without a concretized stack only what the user said is known. Raises InputError."""
    statements = tuple(said(recipe.settings))
    if stack is not None:
        return subjects.of_stack(stack, folder=recipe.folder.name, said=statements)
    target = recipe.settings.target
    planned = cpu.facts_of(target, Source.STACK, "target of hpc3build.yaml, or --target") if target else ()
    title = (
        ()
        if recipe.settings.title
        else (
            Fact(
                voc.TITLE,
                recipe.folder.name,
                Source.STACK,
                f"{recipe.origin}: the folder's name, nothing is concretized",
            ),
        )
    )
    unknown = Note(
        voc.MPI, "nothing is concretized yet: MPI, GPU and versions are known with a spack.lock", str(recipe.origin)
    )
    return gather((*statements, *planned, *title, unknown))


def said(settings: Settings) -> Iterator[Statement]:
    """What the user's own settings state. Raises InputError for documentation that no label holds."""
    where = "hpc3build.yaml or an option"
    for name, value in settings.labels.items():
        if (key := voc.BY_NAME.get(name)) is not None:
            yield Fact(key, value, Source.USER, "labels of the recipe")
    target = voc.CPU_VERSION.value_in(settings.labels)
    if target is not None and voc.CPU_MODE.value_in(settings.labels) is None:
        yield from cpu.facts_of(target, Source.USER, "labels of the recipe")
    if settings.title:
        yield Fact(voc.TITLE, settings.title, Source.USER, where)
    if settings.mpi_mode:
        yield Fact(voc.MPI_MODE, settings.mpi_mode, Source.USER, where)
    if settings.rank is not None:
        yield Fact(voc.RANK, str(settings.rank), Source.USER, where)
    if settings.docs:
        yield Fact(voc.DOCUMENTATION, base64.b64encode(settings.docs.encode()).decode(), Source.USER, where)


def wanted(path: str) -> int | None:
    """Bytes to read of a file in an image: the most that anyone asks for."""
    if path == ENVIRONMENT:
        return ENVIRONMENT_BYTES
    return max((count for reader in _readers() if (count := reader(path)) is not None), default=None)


@cache
def _readers() -> tuple[Wanted, ...]:
    others = (frontend.wanted for frontend in frontends().values())
    return (subjects.wanted, packages.wanted, loader.wanted, profile.wanted, *others)


def _wanted(depth: Depth, config: ImageConfig) -> Wanted:
    """``wanted``, and the programs and libraries: by their names, or with ``thorough`` whatever is one."""
    folders = tuple(f"{folder.rstrip('/')}/" for folder in config.env.get("PATH", "").split(":") if folder)
    named = (*depth.roots, *(config.entrypoint or ())[:1], *(config.cmd or ())[:1])

    def asked(path: str) -> int | None:
        found = wanted(path)
        if found is not None:
            return found
        binary = depth.thorough or "/bin/" in path or "/sbin/" in path or ".so" in path
        return SCAN if binary or path.startswith((*folders, *named)) or path.endswith((".co", ".hsaco")) else None

    return asked


def _scan(path: str, size: int, pieces: Iterator[bytes]) -> object:
    """What is kept of a file that is looked into: a package manager's database, a program or library."""
    return packages.scan(path, size, pieces) or read_binary(path, size, pieces)


def describe(store: Store, reference: Reference, *, labels: bool = True, depth: Depth = DEFAULT) -> Described:
    """Read an image's layers as streams and derive its facts. Without ``labels`` its history is left out, too.

    Raises StoreError, ImageError, and InputError for an index and for a root of ``depth`` that is not there.
    """
    manifest = named(store, reference)
    config = read_config(store, reference, manifest)
    layers = image_layers(store, manifest)
    enough = (lambda files: read_stack(files) is not None) if depth.fast else None
    files = read_layers(layers, _wanted(depth, config), scan=_scan, enough=enough)
    stack = read_stack(files)
    records = tuple(packages.installed(files))
    evidence = Evidence(
        files=files,
        applications=applications.find(
            files,
            config.env,
            (*(config.entrypoint or ()), *(config.cmd or ())),
            stack=None if stack is None else binaries(files, stack),
            frameworks=packages.frameworks(records),
            named=depth.roots,
        ),
        packages=records,
        unread=tuple(packages.unread(files)),
        env=config.env,
        history=read_history(config, [layer.digest for layer in layers]) if labels else History(),
        complete=len(files.layers) == len(layers),
    )
    if evidence.applications.missing:
        missing = ", ".join(evidence.applications.missing)
        raise InputError(f"{reference}: no program at {missing}", hint="--root names a file or folder of the image")
    facts = subjects.of_image(evidence, stack, config.labels if labels else {})
    return Described(manifest, config, files, stack, facts)


def read_stack(files: ImageFiles) -> Stack | None:
    """The stack that the image's own records tell of, by the first package manager that has any."""
    return next((found for frontend in frontends().values() if (found := frontend.read_stack(files))), None)


def read_config(store: Store, reference: Reference, manifest: Manifest) -> ImageConfig:
    """The image's configuration. Raises InputError for an index, StoreError, ImageError."""
    if manifest.is_index:
        images = ", ".join(str(reference.at(child.digest)) for child in manifest.descriptors[:4])
        count = len(manifest.descriptors)
        raise InputError(
            f"{reference} is an index of {count} manifest{'s'[: count != 1]}, expected one image",
            hint=f"name one by its digest: {images}",
        )
    return ImageConfig.parse(read_blob(store, manifest.config.digest), manifest.config.digest)


def image_layers(store: Store, manifest: Manifest) -> list[Layer]:
    """The layers as streams, oldest first."""
    return [Layer(layer.digest, layer.media_type, partial(store.blob, layer.digest)) for layer in manifest.layers]


def binaries(files: ImageFiles, stack: Stack) -> tuple[str, ...]:
    """The programs of the stack's roots: ELF files in the ``bin`` folder of their prefixes."""
    prefixes = []
    for root in stack.roots:
        if root.prefix:
            prefixes.append(re.escape(root.prefix))
        else:
            prefixes.append(rf"/opt/software/(?:.*/)?{re.escape(root.name)}-{re.escape(root.version or '')}-{root.id}")
    pattern = re.compile(rf"(?:{'|'.join(prefixes)})/bin/[^/]+" if prefixes else r"(?!)")
    return tuple(sorted(path for path in files if pattern.fullmatch(path) and isinstance(files[path].extract, Binary)))
