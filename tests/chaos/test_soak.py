"""The soak, short; `make soak` is the long one."""

import pytest

from tests.chaos.soak import Soak


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("has_gearmand")
def test_50_000_jobs_and_20_random_faults() -> None:
    assert Soak(50_000, seed=7).run(20), "the output has the ledger"
