"""Which files EasyBuild takes for an easyconfig: sources, patches, those of extensions and of a bundle's components.

Part of the script easybuild_closure.py: standard library and EasyBuild only. EasyBuild's own easyblocks say it, since
some of them add sources; only its search and its downloads are left out.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: EasyBuild takes the length of a checksum without a type for its type.
_LENGTHS = {32: "md5", 64: "sha256"}


def wanted(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The files of one easyconfig that EasyBuild's robot returned, each with

    ``name``; ``software``, by whose name folders are called; whether it is for an ``extension``; its ``checksum``; and
    ``path`` where EasyBuild finds it without a source path: beside the easyconfig, on the robot path, or in its own
    easyconfigs.
    """
    with _quiet():
        return list(_of(entry))


def _of(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from easybuild.framework.easyblock import get_easyblock_instance

    app = get_easyblock_instance(entry)
    app.update_config_template_run_step()
    asked: list[dict[str, Any]] = []
    find = app.obtain_file

    def record(name: str, extension: bool = False, alt_location: str | None = None, **options: Any) -> Any:
        if options.get("no_download"):  # checksums.json, which is for EasyBuild to read
            return find(name, extension=extension, alt_location=alt_location, **options)
        path = None
        if not re.match(r"(https?|ftp)://", name):
            options = {"extension": extension, "alt_location": alt_location}
            path = find(name, no_download=True, warning_only=True, **options)
        asked.append({"name": name, "software": alt_location or app.name, "extension": extension, "path": path})
        return path or f"/nowhere/{name.rpartition('/')[2]}"

    app.obtain_file = record
    # As EasyBlock.fetch_step does in 5.4.1.
    listed = app.cfg["checksums"]
    app.fetch_sources(app.cfg["sources"] or app.cfg["data_sources"])
    app.fetch_patches(checksums=listed[len(app.cfg["sources"]) :] if isinstance(listed, (list, tuple)) else listed)
    checksums = [file["checksum"] for file in (*app.src, *app.patches)]
    for extension in app.collect_exts_file_info(fetch_files=True, verify_checksums=False):
        paths = [extension["src"]] if "src" in extension else []
        paths += [patch["path"] for patch in extension.get("patches", ())]
        for index, path in enumerate(paths, 0 if "src" in extension else 1):
            checksums.append(app.get_checksum_for(extension["checksums"], filename=Path(path).name, index=index))
    app.close_log()
    for file, checksum in zip(asked, checksums, strict=True):
        yield {**file, "checksum": plain(checksum, file["name"].rpartition("/")[2])}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Easyblocks log what they do, hundreds of them a hundred times more than all the rest."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def plain(checksum: Any, name: str) -> Any:
    """A checksum as EasyBuild's verify_checksum takes it, in JSON: None, ``{TYPE: VALUE}``, ``{"all"|"any": […]}``.

    ``{"wrong": TEXT}`` is what EasyBuild refuses.
    """
    if checksum is None:
        return None
    if isinstance(checksum, list):
        return {"all": [plain(each, name) for each in checksum]}
    if isinstance(checksum, dict):
        return plain(checksum[name], name) if name in checksum else {"wrong": f"no checksum for {name} in the list"}
    if isinstance(checksum, str):
        kind = _LENGTHS.get(len(checksum))
        return {kind: checksum} if kind else {"wrong": f"{checksum!r} is neither an MD5 nor a SHA256"}
    if isinstance(checksum, tuple):
        return _tuple(checksum, name)
    return {"wrong": f"{checksum!r} is no checksum"}


def _tuple(checksum: tuple[Any, ...], name: str) -> dict[str, Any]:
    from easybuild.tools.filetools import CHECKSUM_FUNCTIONS

    if len(checksum) == 2 and isinstance(checksum[0], str) and checksum[0] in CHECKSUM_FUNCTIONS:
        return {checksum[0]: checksum[1] if isinstance(checksum[1], int) else str(checksum[1])}
    return {"any": [plain(each, name) for each in checksum]}
