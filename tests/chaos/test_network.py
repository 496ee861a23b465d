"""What a network does: a pulled cable, a black hole, resets, loss and delay, on either wire.

Short faults heal by TCP alone; the long black hole outlasts the relay's patience.
"""

from collections.abc import Callable

import pytest

from tests.chaos.conftest import Network
from tests.chaos.site import Plan, Site
from tests.chaos.test_processes import pause
from tests.kit.eventually import eventually
from tests.kit.network import Wire

KEEPALIVE = (
    "--keepalive",
    "--keepalive-idle=3",
    "--keepalive-interval=1",
    "--keepalive-count=3",
)  # seconds
SIDES = {"source": (0,), "target": (1,), "both": (0, 1)}
SHORT = 2.0  # seconds
NOTICED = 17.0  # seconds until a silence is noticed: 15, a tick, and a second for a busy machine
MS = 0.001
SLOW = 25 * MS  # one way


def strike(network: Network, site: Site, side: str, harm: Callable[[Wire], None]) -> None:
    """Harm wires, and count that."""
    for number in SIDES[side]:
        site.strike((network.near, network.far)[number])
        harm(network.wires[number])


def restore(network: Network) -> None:
    for wire in network.wires:
        wire.restore()


def plans(count: int) -> list[Plan]:
    return [Plan("out", count, window=100), Plan("back", count, window=100, outward=False)]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("harm", [Wire.unplug, Wire.blackhole, Wire.reset])
@pytest.mark.parametrize("network", [KEEPALIVE], indirect=True, ids=[""])
def test_a_short_fault(network: Network, harm: Callable[[Wire], None], side: str) -> None:
    """The target confirms late, so that something is always under way.

    A reset that the gearmand does not see leaves it with the jobs of a worker that has gone:
    only its own keepalive frees them.
    """
    with network.site(plans(3000), taken=side == "both") as site:
        network.wires[1].shape(SLOW)
        site.wait_progress()
        strike(network, site, side, harm)
        pause(SHORT)
        restore(network)
        site.finish()


@pytest.mark.parametrize("side", SIDES)
def test_loss_of_5_percent_and_50_ms_of_round_trip_cost_time_alone(
    network: Network, side: str
) -> None:
    """No connection is lost, and nothing is repeated."""
    with network.site(plans(2000)) as site:
        for number in SIDES[side]:
            network.wires[number].shape(SLOW, loss=0.05)
        for status in site.finish():
            counters = status["counters"]
            assert counters["source_losses"] == counters["target_losses"] == 0
        assert sum(wire.shape() for wire in network.wires) > 0, "nothing was lost on the way"
    assert not any(lane.tally.verdict().repeated for lane in site.lanes)


def half_closed(network: Network, *which: str) -> str:
    """Return the relay's connections that wait for their last bytes to be taken."""
    return network.relay.run("ss", "-Htn", "state", "fin-wait-1", *which)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_long_black_hole(network: Network, side: str) -> None:
    """It is noticed within 15 s, and counted; all is well again without anybody's help."""
    out, back = {"source": ("source", "target"), "target": ("target", "source")}[side]
    with network.site(plans(3000), taken=False) as site:
        network.wires[1].shape(SLOW)
        site.wait_progress()
        strike(network, site, side, Wire.blackhole)
        for lane, end in zip(site.lanes, (out, back), strict=True):
            record = site.relay.wait_event(f"{end}_lost", NOTICED, forward=lane.key)
            assert "silent" in record["message"]
        restore(network)
        # The kernel still sends what a dead connection had taken: those copies, too, must find
        # the first ones at the target, so nobody may take jobs before.
        eventually(lambda: not half_closed(network), 60)
        for status in site.finish():
            assert status["counters"]["source_losses"] + status["counters"]["target_losses"] > 0


def test_after_a_black_hole_the_source_frees_jobs_by_our_fin(network: Network) -> None:
    """They stay "running" on the dead connection, which waits half-closed for the path."""
    near = network.near
    with network.site([Plan("out", 3000, window=100)]) as site:
        network.wires[1].shape(SLOW)
        site.wait_progress()
        strike(network, site, "both", Wire.blackhole)
        running = near.admin.queue("out").running
        site.relay.wait_event("source_lost", NOTICED)
        assert near.admin.queue("out").running == running > 0
        assert half_closed(network, f"dport = :{near.port}")
        restore(network)
        eventually(lambda: not half_closed(network, f"dport = :{near.port}"), 60)
        site.finish()


@pytest.mark.parametrize("quiet", [True, False], ids=["quiet", "sending"])
@pytest.mark.parametrize("network", [KEEPALIVE], indirect=True, ids=[""])
def test_after_a_power_cut_of_the_relay_host_its_jobs_are_freed(
    network: Network, quiet: bool
) -> None:
    """No FIN ever comes, nor does the path come back: gearmand's kernel finds out by itself.

    By keepalive where nothing was on its way to the relay; else keepalive waits for as long as the
    kernel repeats that, a quarter of an hour unless tcp_retries2 says less.
    """
    near = network.near
    network.wires[0].far.run("sh", "-c", "echo 5 > /proc/sys/net/ipv4/tcp_retries2")  # 13 s
    with network.site([Plan("out", 3000, window=100)]) as site:
        network.wires[1].shape(SLOW)
        site.wait_progress()
        if quiet:
            network.far.freeze()
            eventually(lambda: near.admin.queue("out").running == 100)
            pause(1.0)
        strike(network, site, "both", Wire.blackhole)
        assert near.admin.queue("out").running > 0
        site.strike()
        site.kills += 1
        site.relay.kill()
        site.relay.wait()
        eventually(lambda: near.admin.queue("out").running == 0, 60)
        if quiet:
            network.far.thaw()
        restore(network)
        site.relay.restart()
        site.finish()
