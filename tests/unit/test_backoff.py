"""Delays: the formula, the ceiling, the reset."""

from random import Random

from gevproxy.backoff import Backoff
from gevproxy.gearman.link import waits


def test_delays_double_to_the_ceiling_and_stay_jittered() -> None:
    backoff = Backoff(floor=0.1, step=0.1, ceiling=10.0, rng=Random(1))
    longest = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]
    for limit in longest:
        delay = backoff.next()
        assert 0.1 + limit / 2 <= delay <= 0.1 + limit
    backoff.reset()
    assert backoff.next() <= 0.2


def test_the_floor_allows_ten_attempts_in_ten_seconds_at_most() -> None:
    """The first attempt is at 0; whatever the jitter."""
    for seed in range(200):
        backoff = waits(Random(seed))
        at, attempts = 0.0, 1
        while (at := at + backoff.next()) <= 10.0:
            attempts += 1
        assert attempts <= 10


def test_after_a_long_outage_a_server_that_is_back_is_found_within_five_seconds() -> None:
    """Before the first job of its backlog can pass."""
    backoff = waits(Random(1))
    assert max(backoff.next() for _ in range(200)) <= 5.1


def test_years_of_failures_do_not_overflow() -> None:
    backoff = Backoff(floor=0.0, step=0.1, ceiling=10.0, rng=Random(1))
    assert all(backoff.next() <= 10.0 for _ in range(5000))
