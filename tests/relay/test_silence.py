"""Silence is a fault, slowness is not: frozen peers, black holes, and waits that are our own."""

import time
from collections.abc import Callable

import pytest

from tests.kit.eventually import eventually
from tests.kit.peers import Consumer, Job, numbered, submit
from tests.kit.pipe import Pipe
from tests.kit.scripted import Peer, ScriptedServer
from tests.kit.servers import Gearmand
from tests.relay.doubles import Withholds
from tests.relay.forwarding import (
    HERE,
    THERE,
    CheckedRelay,
    arrived_at,
    relay,
    seconds_between,
    submits_at,
    time_of,
    wait_queue,
)
from tests.relay.ledger import Ledger

NOTICED = 16.0  # seconds from the freeze: 15 without life, and a tick
SLACK = 1.0  # seconds that a busy machine may add
DEADLINE = 20.0


class OneASecond(ScriptedServer):
    """Confirms a job a second from the test's word on, whatever it has."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[tuple[Peer, Job]] = []

    def on_submit(self, peer: Peer, job: Job) -> None:
        """Keep it."""
        self.pending.append((peer, job))

    def go(self) -> None:
        """Confirm the next one, and again in a second."""
        if self.pending:
            self.confirm(*self.pending.pop(0))
        self.later(1.0, self.go)

    def finish(self) -> None:
        """Confirm all that waits."""
        while self.pending:
            self.confirm(*self.pending.pop(0))


def assert_noticed(proxy: CheckedRelay, event: str, frozen_at: float) -> None:
    """Fail unless the silence was noticed in time, and for what it is."""
    record = proxy.wait_event(event, DEADLINE)
    assert "silent" in record["message"]
    assert 9 < time_of(record) - frozen_at < NOTICED + SLACK


def trickle(port: int, jobs: Ledger, ends: Callable[[], object]) -> int:
    """Submit a job a second until something has happened; return how many."""
    count = 0

    def one_more() -> object:
        nonlocal count
        submit(port, jobs.book([Job(HERE, b"trickle-%d" % count, b"")]))
        count += 1
        return ends()

    eventually(one_more, DEADLINE, interval=1.0)
    return count


@pytest.mark.parametrize("side", ["source", "target"])
def test_row_15_a_frozen_server_is_noticed_by_an_idle_forward(
    gearmand_a: Gearmand, gearmand_b: Gearmand, side: str
) -> None:
    """And used again when it thaws."""
    frozen = gearmand_a if side == "source" else gearmand_b
    with relay(gearmand_a, gearmand_b) as proxy, Consumer(gearmand_b.port, THERE) as consumer:
        wait_queue(gearmand_a, workers=1)
        at = time.time()
        frozen.freeze()
        assert_noticed(proxy, f"{side}_lost", at)
        proxy.wait_reason(f"{side} away: silent")
        frozen.thaw()
        submit(gearmand_a.port, numbered(HERE, 10))
        consumer.wait_for(10)
        wait_queue(gearmand_a, total=0)


def test_row_15_a_frozen_target_is_noticed_while_a_job_a_second_goes_its_way(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Its kernel acknowledges each: that is no life. What it got in its sleep coalesces."""
    ledger = Ledger()
    with relay(gearmand_a, gearmand_b) as proxy:
        wait_queue(gearmand_a, workers=1)
        at = time.time()
        gearmand_b.freeze()
        count = trickle(gearmand_a.port, ledger, lambda: proxy.events("target_lost"))
        assert_noticed(proxy, "target_lost", at)
        gearmand_b.thaw()
        wait_queue(gearmand_a, total=0)
    assert count > 10
    with Consumer(gearmand_b.port, THERE) as consumer:
        consumer.wait_for(count)
        eventually(lambda: gearmand_b.admin.queue("there").total == 0)
        ledger.assert_exact(consumer.seen)


def test_row_15_a_frozen_source_is_noticed_while_a_completion_a_second_goes_its_way(
    gearmand_a: Gearmand,
) -> None:
    """What was completed in its sleep counts; what was not yet is sent once more."""
    ledger = Ledger()
    with OneASecond() as target, relay(gearmand_a, target) as proxy:
        submit(gearmand_a.port, ledger.book(numbered(HERE, 60)))
        eventually(lambda: len(target.pending) == 60)
        at = time.time()
        gearmand_a.freeze()
        target.call(target.go)
        assert_noticed(proxy, "source_lost", at)
        confirmed = proxy.only_stats()["counters"]["confirmed"]
        assert 8 <= confirmed <= 20
        gearmand_a.thaw()
        eventually(lambda: len(submits_at(target)) == 120 - confirmed)
        target.call(target.finish)
        wait_queue(gearmand_a, total=0)
        difference = ledger.compare(arrived_at(target))
        assert not difference.lost, difference
        assert not difference.foreign, difference
        assert difference.repeated.total() <= 60 - confirmed


def test_row_15_a_source_that_we_do_not_read_is_not_silent(gearmand_a: Gearmand) -> None:
    """While the held bytes are at their cap the clock of the source stands still."""
    with Withholds() as target, relay(gearmand_a, target, window_bytes=1024) as proxy:
        submit(gearmand_a.port, [Job(HERE, b"%d" % number, bytes(300_000)) for number in range(9)])
        target.wait_pending(1)
        up = proxy.wait_event("source_up")
        eventually(lambda: seconds_between(up, proxy.only_stats()) > 18, DEADLINE + 5, 1.0)
        target.release()
        wait_queue(gearmand_a, total=0)
        assert not proxy.events("source_lost")
        assert not proxy.events("target_lost")


def test_row_15_a_target_that_never_confirms_but_answers_pings_is_alive(
    gearmand_a: Gearmand,
) -> None:
    """Slow confirms are no silence; an idle pair is not either."""
    with Withholds() as target, relay(gearmand_a, target) as proxy:
        submit(gearmand_a.port, numbered(HERE, 10))
        target.wait_pending(10)
        up = proxy.wait_event("source_up")
        eventually(lambda: seconds_between(up, proxy.only_stats()) > 18, DEADLINE + 5, 1.0)
        target.release()
        wait_queue(gearmand_a, total=0)
        assert not proxy.events("source_lost")
        assert not proxy.events("target_lost")


def test_a_black_hole_at_the_source_ends_with_our_completions_and_our_fin(
    gearmand_a: Gearmand,
) -> None:
    """Half-closed it waits for the path: then jobs are free, and what was completed stays so."""
    ledger = Ledger()
    with (
        Withholds() as target,
        Pipe(gearmand_a.port) as pipe,
        relay(pipe, target) as proxy,
    ):
        submit(gearmand_a.port, ledger.book(numbered(HERE, 100)))
        target.wait_pending(100)
        at = time.time()
        pipe.blackhole()
        target.release(50)
        assert_noticed(proxy, "source_lost", at)
        assert gearmand_a.admin.queue("here").running == 100
        pipe.restore()
        # The fifty that were given back are under way a second time.
        target.wait_pending(100, deadline=40)
        target.release()
        wait_queue(gearmand_a, total=0)
        difference = ledger.compare(arrived_at(target))
        assert not difference.lost, difference
        assert not difference.foreign, difference
        assert {seen.unique for seen in difference.repeated} == {
            b"u%d" % number for number in range(50, 100)
        }
        assert proxy.only_stats()["counters"]["given_back"] == 50


def test_a_black_hole_at_the_target_costs_nothing(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Jobs wait at the relay and at the source, and what came through twice has coalesced."""
    ledger = Ledger()
    with (
        Pipe(gearmand_b.port, delay=0.05) as pipe,
        relay(gearmand_a, pipe, window=100) as proxy,
    ):
        submit(gearmand_a.port, ledger.book(numbered(HERE, 2000, bytes(100))))
        proxy.wait_counter("confirmed", 100)
        at = time.time()
        pipe.blackhole()
        assert_noticed(proxy, "target_lost", at)
        pipe.restore()
        wait_queue(gearmand_a, total=0, deadline=40)
    with Consumer(gearmand_b.port, THERE) as consumer:
        consumer.wait_for(2000)
        eventually(lambda: gearmand_b.admin.queue("there").total == 0)
        ledger.assert_exact(consumer.seen)
