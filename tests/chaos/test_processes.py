"""SIGKILL, SIGTERM and SIGSTOP for the relay and for each gearmand, under load, one by one.

The target confirms late, so that there is always a window of jobs on whose end the relay waits.
"""

import time
from collections.abc import Callable

import pytest

from tests.chaos.site import Plan, Site
from tests.kit.eventually import eventually
from tests.kit.pipe import Pipe
from tests.kit.servers import PersistentGearmand, Server

LATE = 0.02  # seconds one way to the target
AWAY = 0.5  # seconds that a gearmand is away
FAULTS = 2


def pause(seconds: float) -> None:
    """Let time pass: a fault lasts."""
    end = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > end, seconds + 5)


def kill_relay(site: Site, _: tuple[Server, ...]) -> None:
    site.kill_relay()


def term_relay(site: Site, _: tuple[Server, ...]) -> None:
    site.term_relay()


def freeze_relay(site: Site, _: tuple[Server, ...]) -> None:
    site.relay.freeze()
    pause(AWAY)
    site.relay.thaw()


def kill(site: Site, servers: tuple[Server, ...]) -> None:
    site.strike(*servers)
    for server in servers:
        server.kill()
    pause(AWAY)
    for server in servers:
        server.start()


def stop(site: Site, servers: tuple[Server, ...]) -> None:
    site.strike(*servers)
    for server in servers:
        server.stop()
    pause(AWAY)
    for server in servers:
        server.start()


def freeze(_: Site, servers: tuple[Server, ...]) -> None:
    for server in servers:
        server.freeze()
    pause(AWAY)
    for server in servers:
        server.thaw()


Fault = Callable[[Site, tuple[Server, ...]], None]
RELAY: list[Fault] = [kill_relay, term_relay, freeze_relay]
SERVERS: list[Fault] = [kill, stop, freeze]
SIDES = {"source": (0,), "target": (1,), "both": (0, 1)}


def run(
    near: PersistentGearmand, far: PersistentGearmand, fault: Fault, side: str, *, taken: bool
) -> None:
    """Go through a fault again and again while jobs flow both ways."""
    servers = tuple((near, far)[number] for number in SIDES[side])
    plans = [Plan("out", 3000, window=100), Plan("back", 3000, window=100, outward=False)]
    with (
        Pipe(far.port, delay=LATE) as path,
        Site((near, far), (near, path), plans, taken=taken) as site,
    ):
        for _ in range(FAULTS):
            site.wait_progress()
            fault(site, servers)
        site.finish()


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "held"])
@pytest.mark.parametrize("fault", RELAY)
def test_a_relay_that(
    near: PersistentGearmand, far: PersistentGearmand, fault: Fault, taken: bool
) -> None:
    """Repeats are bounded where jobs are taken at once, and there are none where they are not."""
    run(near, far, fault, "both", taken=taken)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("fault", SERVERS)
def test_a_gearmand_that(
    near: PersistentGearmand, far: PersistentGearmand, fault: Fault, side: str
) -> None:
    """One side alone: no repeat meets a user. Both at once: a few may."""
    run(near, far, fault, side, taken=side == "both")


def test_a_relay_that_was_frozen_for_long_blames_no_peer(
    near: PersistentGearmand, far: PersistentGearmand
) -> None:
    """It did not listen either: every connection is kept, and nothing is sent a second time."""
    plans = [Plan("out", 3000, window=100), Plan("back", 3000, window=100, outward=False)]
    with Pipe(far.port, delay=LATE) as path, Site((near, far), (near, path), plans) as site:
        site.wait_progress()
        site.relay.freeze()
        pause(17.0)
        site.relay.thaw()
        for status in site.finish():
            counters = status["counters"]
            assert counters["source_losses"] == counters["target_losses"] == 0
        assert not any(lane.tally.verdict().repeated for lane in site.lanes)
