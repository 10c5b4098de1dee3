"""An image's configuration: what it says, edits of their own span alone, and everything malformed refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from hpc3build.errors import ImageError
from hpc3build.imageconfig import ImageConfig
from hpc3build.oci import digest_of

D1 = "sha256:" + "1" * 64
CONFIG: dict[str, Any] = {
    "architecture": "arm64",
    "os": "linux",
    "created": "2026-01-01T00:00:00Z",
    "config": {"Env": ["PATH=/bin", "A=b=c"], "Labels": {"x": "y"}, "Entrypoint": ["/e"], "Cmd": None, "User": "me"},
    "rootfs": {"type": "layers", "diff_ids": [D1]},
    "history": [{"created_by": "me"}],
    "moby.buildkit.x": 1e3,
}


def raw(document: Any) -> bytes:
    return json.dumps(document).encode()


def _without(document: Any, key: str) -> Any:
    return {name: value for name, value in document.items() if name != key}


def test_a_config() -> None:
    config = ImageConfig.parse(raw(CONFIG), digest_of(raw(CONFIG)))
    assert config.env == {"PATH": "/bin", "A": "b=c"} and config.labels == {"x": "y"}
    assert (config.entrypoint, config.cmd, config.user, config.working_dir) == (("/e",), None, "me", "")
    assert (config.architecture, config.os, config.diff_ids) == ("arm64", "linux", (D1,))
    assert config.created == "2026-01-01T00:00:00Z" and config.history == ({"created_by": "me"},)
    least = ImageConfig.parse(raw({"architecture": "x", "os": "linux", "rootfs": CONFIG["rootfs"]}))
    assert (least.labels, least.env, least.created, least.history) == ({}, {}, None, ())


def test_config_edits_are_spliced() -> None:
    config = ImageConfig.parse(raw(CONFIG))
    assert config.with_labels({"x": "y"}).with_env({"PATH": "/bin"}) is config
    assert config.with_labels({"a": "1"}, ["x"]).raw == raw(CONFIG).replace(
        b'{"x": "y"}', b'{"a":"1"}'.replace(b":", b": ")
    )
    edited = config.with_env({"PATH": "/usr/bin", "NEW": "\u00e9"})
    assert edited.raw == raw(CONFIG).replace(b'"PATH=/bin", "A=b=c"', '"PATH=/usr/bin", "A=b=c", "NEW=\u00e9"'.encode())
    for empty in (None, {}, {"Env": None, "Labels": None}):
        bare = ImageConfig.parse(raw({**CONFIG, "config": empty}))
        assert (bare.with_env({"A": "1"}).env, bare.with_labels({"A": "1"}).labels) == ({"A": "1"}, {"A": "1"})
    twice = ImageConfig.parse(raw({**CONFIG, "config": {"Env": ["A=1", "A=2"]}}))
    assert twice.env == {"A": "2"} and twice.with_env({"A": "3"}).json["config"] == {"Env": ["A=3", "A=3"]}
    with pytest.raises(ImageError):
        config.with_env({"A=B": "x"})


RUN_FAULTS: list[Any] = [
    7, [], {"Labels": []}, {"Labels": {"a": 1}}, {"Env": "x"}, {"Env": [1]}, {"Env": {}},
    {"Entrypoint": "sh"}, {"Cmd": [None]}, {"User": 0}, {"WorkingDir": []},
]  # fmt: skip
FAULTS: list[Callable[[], Any]] = [
    *(lambda fault=fault: {**CONFIG, "config": fault} for fault in RUN_FAULTS),
    *(lambda key=key: _without(CONFIG, key) for key in ("architecture", "os", "rootfs")),
    lambda: {**CONFIG, "rootfs": {"diff_ids": ["x"]}},
    lambda: {**CONFIG, "rootfs": {}},
    lambda: {**CONFIG, "history": {}},
    lambda: {**CONFIG, "history": [1]},
    lambda: {**CONFIG, "created": 5},
    list,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_malformed_configs(fault: Callable[[], Any]) -> None:
    with pytest.raises(ImageError):
        ImageConfig.parse(raw(fault()))


def test_its_digest_is_verified() -> None:
    with pytest.raises(ImageError, match=D1):
        ImageConfig.parse(raw(CONFIG), D1)
