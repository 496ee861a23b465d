"""Fixtures that every folder of tests shares: running gearmands."""

import shutil
from collections.abc import Iterator

import pytest

from tests.kit.means import lack
from tests.kit.servers import Gearmand


@pytest.fixture(scope="session")
def has_gearmand() -> None:
    """Skip without gearmand, or fail where tests may not be skipped."""
    if shutil.which("gearmand") is None:
        lack("gearmand is not installed (Debian: gearman-job-server)")


@pytest.fixture
def gearmand(has_gearmand: None) -> Iterator[Gearmand]:  # noqa: ARG001 - asked for its check
    """Give a running gearmand."""
    with Gearmand() as server:
        yield server


@pytest.fixture
def gearmand_a(has_gearmand: None) -> Iterator[Gearmand]:  # noqa: ARG001 - asked for its check
    """Give the gearmand on the near side of a relay."""
    with Gearmand() as server:
        yield server


@pytest.fixture
def gearmand_b(has_gearmand: None) -> Iterator[Gearmand]:  # noqa: ARG001 - asked for its check
    """Give the gearmand on the far side of a relay."""
    with Gearmand() as server:
        yield server
