"""What all tests share: the option that writes golden files anew, and Hypothesis without limits of time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A loaded machine is slow in any example; on top of what Hypothesis sets by itself where CI runs.
settings.register_profile("hpc3build", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hpc3build")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What hpc3build keeps for later lies in a folder of the tests, not of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the files of tests/golden anew")
