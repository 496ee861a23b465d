"""The far side: away, full, cut. What waits stays at the source or is sent again, in order."""

import itertools

import pytest

from tests.kit.admin import gearadmin_status
from tests.kit.eventually import eventually
from tests.kit.packets import Kind
from tests.kit.peers import Consumer, Job, numbered, submit
from tests.kit.pipe import Pipe
from tests.kit.scripted import AcceptsAndCloses, ScriptedServer
from tests.kit.servers import Gearmand
from tests.relay.doubles import Fills, Withholds
from tests.relay.forwarding import (
    HERE,
    THERE,
    CheckedRelay,
    arrived_at,
    forward,
    relay,
    seconds_between,
    submits_at,
    wait_queue,
    wait_submitted,
)
from tests.relay.ledger import Ledger

AWAY = 20.0  # seconds, the outage that the project promises to bridge


def test_target_away_for_20_seconds_while_1000_jobs_are_submitted(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Rows 2 and S7: gearadmin shows them at the source meanwhile; then all arrive, none twice."""
    ledger = Ledger()
    with relay(gearmand_a, gearmand_b) as proxy:
        wait_queue(gearmand_a, workers=1)
        gearmand_b.kill()
        wait_queue(gearmand_a, workers=0)
        submit(gearmand_a.port, ledger.book(numbered(HERE, 1000)))
        lost = proxy.wait_event("target_lost")
        # The forward's own clock says how long it has been without a target.
        eventually(
            lambda: seconds_between(lost, next(iter(proxy.stats().values()))) >= AWAY,
            deadline=AWAY + 10,
            interval=1.0,
        )
        assert "here\t1000\t0\t0" in gearadmin_status(gearmand_a.address)
        gearmand_b.start()
        proxy.wait_event("target_up", deadline=15, since=proxy.records.index(lost))
        with Consumer(gearmand_b.port, THERE) as consumer:
            consumer.wait_for(1000)
            wait_queue(gearmand_a, total=0)
            ledger.assert_exact(consumer.seen)


def test_row_2_what_a_lost_target_had_not_confirmed_is_sent_again_in_order(
    gearmand_a: Gearmand,
) -> None:
    """The source notices nothing: the jobs stay with the relay, and no retry is counted there."""
    ledger = Ledger()
    with Withholds(free=7) as target, relay(gearmand_a, target, window=20) as proxy:
        submit(gearmand_a.port, ledger.book(numbered(HERE, 27)))
        target.wait_pending(20)
        before = submits_at(target)
        for _ in range(3):
            target.drop(reset=True)
            eventually(lambda: not target.pending)
            target.wait_pending(20)
        assert submits_at(target)[27:] == before[7:] * 3
        wait_queue(gearmand_a, total=20, running=20)
        target.release()
        wait_queue(gearmand_a, total=0)
        ledger.assert_exact(arrived_at(target))
        counters = proxy.only_stats()["counters"]
        assert (counters["retries"], counters["target_losses"]) == (60, 3)
        assert counters["source_losses"] == counters["given_back"] == 0


def test_row_1_a_new_connection_to_the_target_starts_as_not_full(gearmand_a: Gearmand) -> None:
    """Whoever restarts a full gearmand need not wait for a back-off: all is sent at once."""
    with Fills() as target, relay(gearmand_a, target):
        submit(gearmand_a.port, numbered(HERE, 10))
        target.wait_pending(10)
        target.fill()
        target.wait_refusals(10 + 4)  # the next probe is a second away, or more
        target.drop()
        before = len(target.refusals)
        target.wait_refusals(before + 10)
        first, last = target.refusals[before], target.refusals[before + 9]
        assert last - first < 1, "ten probes, not one batch"
        target.full = False
        target.release()
        wait_submitted(target, 10)


def test_row_11_s1_and_s2_a_full_target_is_probed_with_one_job_until_it_takes_it() -> None:
    """The whole window is refused; then one job at a time, ever later; then all at once."""
    ledger = Ledger()
    with (
        ScriptedServer() as source,
        Fills() as target,
        relay(source, target, window=50) as proxy,
    ):
        source.offer(*ledger.book(numbered(HERE, 200)))
        target.wait_pending(50)
        target.fill()
        proxy.wait_event("target_full")
        target.wait_refusals(50 + 4)
        # One at a time, and none before its time.
        gaps = [later - earlier for earlier, later in itertools.pairwise(target.refusals[49:54])]
        assert all(gap >= 0.1 for gap in gaps), gaps
        status = proxy.only_stats()
        assert status["reasons"] == ["target full"]
        assert (status["held"], status["counters"]["received"]) == (50, 50)
        assert status["counters"]["retries"] == len(target.refusals)
        assert not source.completed
        target.full = False
        target.release()
        wait_submitted(target, 200, deadline=20)
        eventually(lambda: len(source.completed) == 200)
        ledger.assert_exact(arrived_at(target))
        assert proxy.only_stats()["reasons"] == []
        assert not proxy.events("forward_blocked")


def test_s2_the_probes_of_a_full_target_come_soon_and_ever_later() -> None:
    """The back-off is 0.2 s, then 0.4, 0.8, 1.6 and so on, less at most a half of each."""
    with ScriptedServer() as source, Fills() as target, relay(source, target):
        source.offer(*numbered(HERE, 1))
        target.wait_pending(1)
        target.fill()
        target.wait_refusals(6)
        gaps = [later - earlier for earlier, later in itertools.pairwise(target.refusals)]
        for gap, shortest in zip(gaps, (0.1, 0.2, 0.4, 0.8, 1.6), strict=False):
            assert gap >= shortest
        # At most 0.2 + 0.4 + 0.8 s. A probe a tick would be too late: an emptied queue waits.
        assert sum(gaps[:3]) < 2.5, gaps
        target.full = False
        target.release()
        wait_submitted(target, 1)


def test_row_11_a_full_gearmand_holds_up_and_loses_nothing(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """It is back-pressure: nothing is blocked, and all arrive once somebody works there."""
    ledger = Ledger()
    submit(gearmand_b.port, ledger.book([Job(THERE, b"first", b"")]))
    gearmand_b.admin.maxqueue("there", 50)
    with relay(gearmand_a, gearmand_b, window=100, hold=1) as proxy:
        submit(gearmand_a.port, ledger.book(numbered(HERE, 1000)))
        full = proxy.wait_event("target_full")
        # `hold` does not run while the target is full: nothing is given back after it.
        eventually(lambda: seconds_between(full, next(iter(proxy.stats().values()))) > 3, 10, 0.5)
        assert proxy.only_stats()["reasons"] == ["target full"]
        assert gearmand_b.admin.queue("there").total <= 51
        status = gearmand_a.admin.queue("here")
        assert 0 < status.running <= 100
        assert status.workers == 1
        with Consumer(gearmand_b.port, THERE) as consumer:
            consumer.wait_for(1001)
            wait_queue(gearmand_a, total=0)
            ledger.assert_exact(consumer.seen)
        counters = proxy.only_stats()["counters"]
        assert counters["given_back"] == counters["blocks"] == counters["refused"] == 0


@pytest.mark.parametrize("reset", [True, False])
def test_a_target_that_is_cut_again_and_again_gets_the_exact_set(
    gearmand_a: Gearmand, gearmand_b: Gearmand, reset: bool
) -> None:
    """What was sent twice has coalesced, for the target still holds it."""
    ledger = Ledger()
    with (
        Pipe(gearmand_b.port, delay=0.02) as pipe,
        relay(gearmand_a, pipe, window=100) as proxy,
    ):
        submit(gearmand_a.port, ledger.book(numbered(HERE, 5000, bytes(200))))
        for number in range(1, 7):
            confirmed = proxy.only_stats()["counters"]["confirmed"]
            proxy.wait_counter("confirmed", confirmed + 100)
            pipe.drop(reset)
            proxy.wait_counter("target_losses", number)
        wait_queue(gearmand_a, total=0)
        assert proxy.only_stats()["counters"]["given_back"] == 0
    with Consumer(gearmand_b.port, THERE) as consumer:
        consumer.wait_for(5000)
        eventually(lambda: gearmand_b.admin.queue("there").total == 0)
        ledger.assert_exact(consumer.seen)


def test_a_port_that_accepts_and_closes_sees_at_most_ten_attempts_in_ten_seconds() -> None:
    """At the source and at the target; and it is tried again and again."""
    with (
        AcceptsAndCloses() as bad_source,
        AcceptsAndCloses() as bad_target,
        ScriptedServer() as source,
        ScriptedServer() as target,
        CheckedRelay(
            {"queues": {**forward(bad_source, target), **forward(source, bad_target)}}
        ) as proxy,
    ):
        for server in (bad_source, bad_target):
            eventually(lambda at=server.connected_at: at and at[-1] - at[0] >= 10, deadline=40)  # type: ignore[misc]
            times = server.connected_at
            for first in times:
                assert sum(first <= time < first + 10 for time in times) <= 10
            assert len(times) > 5
        stats = proxy.stats()
        assert stats[f"{bad_source.address}/here"]["reasons"][0].startswith("source away")
        assert stats[f"{source.address}/here"]["reasons"][0].startswith("target away")
    assert not [packet for packet in source.received if packet.kind is Kind.CAN_DO]
