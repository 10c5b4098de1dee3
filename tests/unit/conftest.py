"""A registry of the tests with one small image; a module with a fixture of the same name has its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_registry import FakeRegistry
from tests.images import make_layout


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    make_layout(tmp_path / "layout", [{"bin/app": b"x" * 5000}], labels={"a": "b"})
    return tmp_path / "layout"


@pytest.fixture
def fake(layout: Path) -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.add(layout)
        yield registry
