"""SIGTERM at any moment, before, in and after its work: exit 0, in time, and nothing is lost."""

import random

import pytest

from tests.chaos.site import Plan, Site
from tests.chaos.test_processes import LATE, pause
from tests.kit.pipe import Pipe
from tests.kit.servers import PersistentGearmand

MOMENTS = 10
IN_TIME = 12.0  # seconds: the drain of 5, the last bytes, and a busy machine


@pytest.mark.parametrize("seed", range(2))
def test_sigterm_at_any_moment(
    near: PersistentGearmand, far: PersistentGearmand, seed: int
) -> None:
    """A target that confirms late, or is cut off now and then just before."""
    rng = random.Random(seed)
    plans = [Plan("out", 6000, window=100), Plan("back", 6000, window=100, outward=False)]
    with Pipe(far.port, delay=LATE) as path, Site((near, far), (near, path), plans) as site:
        for _ in range(MOMENTS):
            pause(rng.uniform(0, 0.8))
            if rng.random() < 0.3:
                site.strike(far)
                path.drop(reset=rng.random() < 0.5)
            site.stop_relay(IN_TIME)
            site.relay.restart()
        site.finish()
