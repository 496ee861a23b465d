"""Confirms that come when the job is no longer ours: the tombstones of row 8, and row 5.

A relay that forgot its FIFO together with the source, or that knew jobs by their handles, would
take an old job's confirm for a new one's, complete the new one, and lose it with the next cut.
"""

from tests.kit.eventually import eventually
from tests.kit.peers import Consumer, Seen, numbered, submit
from tests.kit.pipe import Pipe
from tests.kit.scripted import HandlesStartAgain, Peer, ScriptedServer
from tests.kit.servers import Gearmand
from tests.relay.doubles import Withholds
from tests.relay.forwarding import (
    HERE,
    THERE,
    CheckedRelay,
    arrived_at,
    relay,
    submits_at,
    wait_queue,
    wait_submitted,
)
from tests.relay.ledger import Ledger


class Forgetful(ScriptedServer):
    """Knows none of the jobs that it gave away."""

    def on_grab(self, peer: Peer) -> None:
        """Hand a job out and forget it."""
        super().on_grab(peer)
        peer.held.clear()


def wait_busy(proxy: CheckedRelay, in_flight: int) -> None:
    """Wait until the relay waits for so many confirms."""
    eventually(lambda: proxy.only_stats()["in_flight"] == in_flight, interval=0.1)


def wait_ups(proxy: CheckedRelay, count: int) -> None:
    """Wait until a source has answered so many times."""
    eventually(lambda: len(proxy.events("source_up")) >= count, interval=0.001)


def test_row_8_old_confirms_complete_nothing_new_after_the_source_was_cut(
    gearmand_a: Gearmand,
) -> None:
    """100 jobs are under way twice: the first 100 confirms belong to nobody any more."""
    ledger = Ledger()
    with (
        Withholds() as target,
        Pipe(gearmand_a.port) as pipe,
        relay(pipe, target, window=200) as proxy,
    ):
        submit(gearmand_a.port, ledger.book(numbered(HERE, 100)))
        target.wait_pending(100)
        pipe.drop()
        target.wait_pending(200)
        target.release(100)
        wait_busy(proxy, 100)
        wait_queue(gearmand_a, total=100, running=100)
        target.drop()
        target.wait_pending(100)
        target.release()
        wait_queue(gearmand_a, total=0)
        counters = proxy.only_stats()["counters"]
        assert (counters["confirmed"], counters["given_back"]) == (100, 100)
    difference = ledger.compare(arrived_at(target))
    assert not difference.lost, difference
    assert not difference.foreign, difference
    # This target never coalesces: what was under way at the cut has come twice, no more.
    assert difference.repeated == ledger.submitted


def test_row_8_tombstones_count_in_the_window(gearmand_a: Gearmand) -> None:
    """A source that is cut again and again cannot make the relay take more than it may."""
    with (
        Withholds() as target,
        Pipe(gearmand_a.port) as pipe,
        relay(pipe, target, window=50) as proxy,
    ):
        submit(gearmand_a.port, numbered(HERE, 100))
        target.wait_pending(50)
        for number in range(1, 4):
            pipe.drop()
            wait_ups(proxy, number + 1)
        wait_queue(gearmand_a, total=100, running=0, workers=1)
        assert len(submits_at(target)) == 50
        target.release(10)
        wait_queue(gearmand_a, total=100, running=10, workers=1)
        target.release()
        wait_queue(gearmand_a, total=0)


def test_row_8_handles_that_repeat_after_a_restart_of_the_source(gearmand_a: Gearmand) -> None:
    """A new gearmand calls its first job what the old one did; both sets arrive exactly."""
    ledger = Ledger()
    with Withholds() as target, relay(gearmand_a, target, window=200) as proxy:
        old = submit(gearmand_a.port, ledger.book(numbered(HERE, 100, b"old")))
        target.wait_pending(100)
        gearmand_a.kill()
        gearmand_a.start()
        new = submit(gearmand_a.port, ledger.book(numbered(HERE, 100, b"new")))
        assert new == old, "this gearmand's handles do not repeat, and the test shows nothing"
        target.wait_pending(200)
        target.release(100)
        wait_busy(proxy, 100)
        wait_queue(gearmand_a, total=100, running=100)
        target.drop()
        target.wait_pending(100)
        target.release()
        wait_queue(gearmand_a, total=0)
        ledger.assert_exact(arrived_at(target))


def test_row_8_handles_that_start_again_with_each_connection() -> None:
    """The same, five times over, with the target cut each time: nothing is lost at the source."""
    ledger = Ledger()
    with (
        HandlesStartAgain() as source,
        Withholds() as target,
        relay(source, target, window=40) as proxy,
    ):
        source.offer(*ledger.book(numbered(HERE, 300)))
        for round_ in range(1, 6):
            target.wait_pending(40)
            target.release(10)
            wait_submitted(target, 20 * round_ - 10)
            source.drop()
            # Of the forty under way thirty are tombstones now, and ten are new in their place.
            target.wait_pending(40)
            target.release(10)
            wait_submitted(target, 20 * round_)
            target.drop()
        target.release()
        eventually(lambda: not source.offered and not any(peer.held for peer in source.peers))
        difference = ledger.compare(arrived_at(target))
        assert not difference.lost, difference
        assert not difference.foreign, difference
        assert proxy.only_stats()["counters"]["source_errors"] == 0


def test_source_and_target_cut_in_turn_while_confirms_are_late(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Confirms come 0.5 s late; whichever side is cut, some are under way: exact set."""
    ledger = Ledger()
    with (
        Pipe(gearmand_a.port) as near,
        Pipe(gearmand_b.port, delay=0.25) as far,
        relay(near, far, window=100) as proxy,
    ):
        submit(gearmand_a.port, ledger.book(numbered(HERE, 2000, bytes(100))))
        for number in range(1, 6):
            confirmed = proxy.only_stats()["counters"]["confirmed"]
            proxy.wait_counter("confirmed", confirmed + 50)
            near.drop()
            # Up again, it takes jobs while the old ones' confirms are still on their way, and the
            # target goes when some of these have come and the new jobs have not arrived there.
            wait_ups(proxy, number + 1)
            before = far.counters.to_client
            eventually(lambda at=before: far.counters.to_client > at, interval=0.001)  # type: ignore[misc]
            far.drop()
            proxy.wait_counter("target_losses", number)
        wait_queue(gearmand_a, total=0)
    assert_exact_at(gearmand_b, ledger, 2000)


def test_a_source_that_is_cut_again_and_again_loses_nothing(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Row 5: what was held is given back, and what arrived twice has coalesced."""
    ledger = Ledger()
    with (
        Pipe(gearmand_a.port) as near,
        Pipe(gearmand_b.port, delay=0.02) as far,
        relay(near, far, window=100) as proxy,
    ):
        submit(gearmand_a.port, ledger.book(numbered(HERE, 5000, bytes(100))))
        for number in range(1, 8):
            wait_ups(proxy, number)
            near.drop(reset=bool(number % 2))
            eventually(lambda at=number: len(proxy.events("source_lost")) == at)  # type: ignore[misc]
            confirmed = proxy.only_stats()["counters"]["confirmed"]
            proxy.wait_counter("confirmed", confirmed + 100)
        wait_queue(gearmand_a, total=0)
        assert proxy.only_stats()["counters"]["target_losses"] == 0
    assert_exact_at(gearmand_b, ledger, 5000)


def test_jobs_that_the_source_does_not_know_any_more_do_no_harm() -> None:
    """JOB_NOT_FOUND is noted and nothing else happens: it carries no handle."""
    with Forgetful() as source, ScriptedServer() as target, relay(source, target) as proxy:
        source.offer(*numbered(HERE, 20))
        proxy.wait_counter("source_errors", 20)
        (record,) = proxy.events("source_error")
        assert "JOB_NOT_FOUND" in record["message"]
        assert proxy.only_stats()["reasons"] == []
        assert len(target.submitted) == 20


def test_a_kill_of_the_relay_loses_nothing(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """Rule 1: the gearmands have all the jobs, and repeats coalesce."""
    ledger = Ledger()
    with (
        Pipe(gearmand_b.port, delay=0.02) as far,
        relay(gearmand_a, far, window=100) as proxy,
    ):
        submit(gearmand_a.port, ledger.book(numbered(HERE, 3000, bytes(100))))
        for _ in range(3):
            confirmed = proxy.only_stats()["counters"]["confirmed"]
            proxy.wait_counter("confirmed", confirmed + 50)
            proxy.kill()
            proxy.restart()
        wait_queue(gearmand_a, total=0, deadline=60)
    assert_exact_at(gearmand_b, ledger, 3000)


def assert_exact_at(target: Gearmand, ledger: Ledger, count: int) -> None:
    """Take everything that the target holds and compare."""
    with Consumer(target.port, THERE) as consumer:
        arrived: list[Seen] = consumer.wait_for(count)
        eventually(lambda: target.admin.queue(THERE.decode()).total == 0)
        arrived = list(consumer.seen)
    ledger.assert_exact(arrived)
