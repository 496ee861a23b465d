"""A forward whose loop stands still is started anew, alone; a process that stood still is not."""

import time

from tests.kit.eventually import eventually
from tests.kit.peers import drain, numbered, submit
from tests.kit.relay import Relay, config
from tests.kit.servers import Gearmand

STANDS_STILL = 10.0  # seconds without a tick
WEDGED = """
from gevproxy.__main__ import main
import gevent
from gevproxy.forward import Forward

tick = Forward.tick

def wedged(self, now):
    tick(self, now)
    if self.config.source.queue == "wedged" and not self.counters.crashes:
        gevent.sleep(1_000_000)

Forward.tick = wedged
raise SystemExit(main())
"""


def test_a_wedged_forward_is_started_anew_and_no_other(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Its jobs go on, and the other keeps its connections."""
    queues = {f"{gearmand_a.address}/{q}": f"{gearmand_b.address}/{q}" for q in ("wedged", "well")}
    relay = Relay(config(queues))
    relay.program = ("-c", WEDGED)
    with relay:
        record = relay.wait_event("forward_crashed", 3 * STANDS_STILL)
        assert record["forward"] == f"{gearmand_a.address}/wedged"
        assert "stands still" in record["message"]
        relay.wait_event("source_up", since=relay.records.index(record), forward=record["forward"])
        submit(gearmand_a.port, numbered(b"wedged", 100))
        assert len(drain(gearmand_b.port, b"wedged", 100)) == 100
        assert len(relay.events("source_up", forward=f"{gearmand_a.address}/well")) == 1
        assert len(relay.events("forward_crashed")) == 1


def test_a_frozen_process_blames_no_forward(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """As when its host was suspended: no forward could tick, so none is started anew."""
    queues = {f"{gearmand_a.address}/q{n}": f"{gearmand_b.address}/q{n}" for n in range(8)}
    with Relay(config(queues)) as relay:
        eventually(lambda: len(relay.events("source_up")) == len(queues), what="8 forwards")
        relay.freeze()
        thaw_at = time.monotonic() + STANDS_STILL + 2
        eventually(lambda: time.monotonic() > thaw_at, 2 * STANDS_STILL, what="a long freeze")
        relay.thaw()
        for n in range(len(queues)):
            submit(gearmand_a.port, numbered(b"q%d" % n, 10))
            assert len(drain(gearmand_b.port, b"q%d" % n, 10)) == 10
        assert not relay.events("forward_crashed")
