"""What a plan changes, for people: a block for each manifest and configuration, a line for each pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpc3build.oci import Manifest
from hpc3build.rewrite.plan import Rewrite, platform_name


def changes(rewrite: Rewrite) -> Iterator[str]:
    """Lines: what a digest becomes, then ``+``, ``-`` and ``~`` (old -> new) below it."""
    names = _names(rewrite)
    for old, new in rewrite.manifests:
        yield f"{'index' if old.is_index else 'image'} {names.get(old.digest, '')}{old.digest} -> {new.digest}"
        if old.media_type != new.media_type:
            yield f"  ~ mediaType: {old.media_type} -> {new.media_type}"
        yield from _pairs("", old.annotations, new.annotations)
        if old.is_index:
            yield from _descriptors(old, new)
    for config, successor in rewrite.configs:
        yield f"configuration {config.digest} -> {successor.digest} (the image ID)"
        yield from _pairs("label ", config.labels, successor.labels)
        yield from _pairs("variable ", config.env, successor.env)
    for referrer, follower in rewrite.referrers:
        yield f"referrer {referrer.digest} -> {follower.digest}, of the new digest"


def _names(rewrite: Rewrite) -> dict[str, str]:
    if not rewrite.old.is_index:
        return {}
    entries = rewrite.old.descriptors
    return {entry.digest: f"{platform_name(entry.platform)} " for entry in entries if entry.platform}


def _descriptors(old: Manifest, new: Manifest) -> Iterator[str]:
    for before, after in zip(old.descriptors, new.descriptors, strict=True):
        lines = list(_pairs("", before.annotations, after.annotations))
        if lines or before.digest != after.digest:
            follows = f" -> {after.digest}" if before.digest != after.digest else ""
            yield f"  descriptor {platform_name(before.platform or {})} {before.digest}{follows}"
            yield from (f"  {line}" for line in lines)


def _pairs(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for key in sorted({*old, *new}):
        if key not in old:
            yield f"  + {what}{key}={new[key]}"
        elif key not in new:
            yield f"  - {what}{key}={old[key]}"
        elif old[key] != new[key]:
            yield f"  ~ {what}{key}: {old[key]} -> {new[key]}"
