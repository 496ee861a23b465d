"""Stopping, row 14 and S10: exit 0 in time, and what has not arrived is still at the source."""

import signal

import pytest

from tests.kit.eventually import eventually
from tests.kit.packets import Kind
from tests.kit.peers import Consumer, Job, Producer, numbered, submit
from tests.kit.pipe import Pipe
from tests.kit.ports import free_port
from tests.kit.relay import config
from tests.kit.scripted import ScriptedServer, Silent
from tests.kit.servers import Gearmand
from tests.relay.doubles import Withholds
from tests.relay.forwarding import (
    HERE,
    THERE,
    CheckedRelay,
    arrived_at,
    left_at,
    relay,
    seconds_between,
    wait_queue,
    wait_submitted,
)
from tests.relay.ledger import Ledger

AT_ONCE = 4.0  # seconds that a stop may take when there is nothing to wait for


def final(proxy: CheckedRelay) -> dict[str, int]:
    """Return the counters that the only forward wrote at its end."""
    counters: dict[str, int] = proxy.events("forward_status")[-1]["counters"]
    return counters


def assert_took(proxy: CheckedRelay, at_most: float, at_least: float = 0.0) -> None:
    """Fail unless the stop took so long by the log's own times."""
    (begin,), (end,) = proxy.events("daemon_stopping"), proxy.events("daemon_stopped")
    assert at_least <= seconds_between(begin, end) < at_most


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_row_14_stopped_under_load_nothing_is_lost_or_sent_twice(
    gearmand_a: Gearmand, gearmand_b: Gearmand, number: signal.Signals
) -> None:
    """Arrived and still at the source are what was submitted; all under way is confirmed."""
    ledger = Ledger()
    with (
        Pipe(gearmand_b.port, delay=0.05) as pipe,
        Consumer(gearmand_b.port, THERE) as consumer,
        relay(gearmand_a, pipe, window=200) as proxy,
        Producer(gearmand_a.port, ledger.book(numbered(HERE, 30_000, bytes(300)))) as producer,
    ):
        consumer.wait_for(2000)
        proxy.process.send_signal(number)
        assert proxy.wait() == 0
        assert_took(proxy, 15)
        producer.join()
        eventually(lambda: gearmand_b.admin.queue("there").total == 0)
        arrived = list(consumer.seen)
        left = left_at(gearmand_a)
    assert len(left) > 1000, "the stop came too late to show anything"
    ledger.assert_exact(arrived, left)
    assert final(proxy)["given_back"] == 0


def test_row_14_stopped_with_the_target_away(gearmand_a: Gearmand) -> None:
    """What is held goes back at once: there is nobody to wait for."""
    ledger = Ledger()
    with (
        Withholds(free=100) as target,
        Pipe(target.port) as pipe,
        relay(gearmand_a, pipe, window=50) as proxy,
    ):
        submit(gearmand_a.port, ledger.book(numbered(HERE, 1000)))
        target.wait_pending(50)
        pipe.cut()
        proxy.wait_event("target_lost", unconfirmed=50)
        proxy.term()
        assert proxy.wait() == 0
        assert_took(proxy, AT_ONCE)
        ledger.assert_exact(arrived_at(target), left_at(gearmand_a))
    assert final(proxy)["given_back"] == 50


def test_row_14_stopped_with_the_target_full(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """What it refused goes back at once."""
    ledger = Ledger()
    submit(gearmand_b.port, ledger.book([Job(THERE, b"first", b"")]))
    gearmand_b.admin.maxqueue("there", 50)
    with relay(gearmand_a, gearmand_b) as proxy:
        submit(gearmand_a.port, ledger.book(numbered(HERE, 1000)))
        proxy.wait_event("target_full")
        proxy.term()
        assert proxy.wait() == 0
        assert_took(proxy, AT_ONCE)
        ledger.assert_exact(left_at(gearmand_a), left_at(gearmand_b, THERE))


def test_row_14_and_s5_confirms_under_way_are_awaited_and_completed(gearmand_a: Gearmand) -> None:
    """No new job is taken meanwhile, and none of the old ones is sent a second time."""
    ledger = Ledger()
    with Withholds() as target, relay(gearmand_a, target, window=100) as proxy:
        submit(gearmand_a.port, ledger.book(numbered(HERE, 300)))
        target.wait_pending(100)
        proxy.term()
        proxy.wait_event("daemon_stopping")
        proxy.wait_reason("stopping")
        target.release(60)
        wait_queue(gearmand_a, total=240, running=40, workers=1)
        assert len(target.pending) == 40
        target.release(40)
        assert proxy.wait() == 0
        assert_took(proxy, 10)
        ledger.assert_exact(arrived_at(target), left_at(gearmand_a))
    assert (final(proxy)["confirmed"], final(proxy)["given_back"]) == (100, 0)


def test_s6_a_target_that_does_not_confirm_is_waited_for_until_the_drain_is_over(
    gearmand_a: Gearmand,
) -> None:
    """Then everything goes back."""
    ledger = Ledger()
    with Withholds() as target, relay(gearmand_a, target, window=100, drain=3) as proxy:
        submit(gearmand_a.port, ledger.book(numbered(HERE, 300)))
        target.wait_pending(100)
        proxy.term()
        assert proxy.wait() == 0
        assert_took(proxy, at_least=2.9, at_most=3 + AT_ONCE)
        ledger.assert_exact(left_at(gearmand_a))
    assert final(proxy)["given_back"] == 100


def test_row_14_a_second_sigterm_closes_now(gearmand_a: Gearmand) -> None:
    ledger = Ledger()
    with Withholds() as target, relay(gearmand_a, target, drain=60) as proxy:
        submit(gearmand_a.port, ledger.book(numbered(HERE, 100)))
        target.wait_pending(100)
        proxy.term()
        proxy.wait_event("daemon_stopping")
        proxy.term()
        assert proxy.wait(AT_ONCE) == 0
        wait_queue(gearmand_a, running=0)
        ledger.assert_exact(left_at(gearmand_a))


@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_the_one_way_out_100_of_100_completions_count_before_the_fin(
    gearmand_a: Gearmand, delay: float
) -> None:
    """They are written in the moment in which the forward leaves, over a link that is slow."""
    with (
        Withholds() as target,
        Pipe(gearmand_a.port) as pipe,
        relay(pipe, target) as proxy,
    ):
        submit(gearmand_a.port, numbered(HERE, 100))
        target.wait_pending(100)
        # Thin enough for the completions to take a second and a half.
        pipe.shape(delay, rate=2000)
        proxy.term()
        proxy.wait_reason("stopping")
        target.release()
        assert proxy.wait() == 0
        assert gearmand_a.admin.queue("here").total == 0
    assert final(proxy)["confirmed"] == len(target.submitted) == 100


def test_s10_the_target_is_left_only_after_the_source(gearmand_a: Gearmand) -> None:
    """Its end may not come before the last confirm."""
    with Withholds() as target, relay(gearmand_a, target) as proxy:
        submit(gearmand_a.port, numbered(HERE, 10))
        target.wait_pending(10)
        proxy.term()
        proxy.wait_reason("stopping")
        target.release(5)
        wait_queue(gearmand_a, total=5, running=5, workers=1)
        assert len(target.peers) == 1
        target.release(5)
        assert proxy.wait() == 0
        eventually(lambda: not target.peers)
        assert gearmand_a.admin.queue("here") == (0, 0, 0)


def test_s4_a_sleeper_that_is_stopped_takes_nothing_with_it() -> None:
    """It ends its sleep with a grab, waits for the answer, and passes on what that brings."""
    with ScriptedServer() as source, ScriptedServer() as target, relay(source, target) as proxy:
        eventually(lambda: any(peer.asleep for peer in source.peers))
        mark = len(source.received)
        proxy.term()
        assert proxy.wait() == 0
        kinds = [kind for kind, _ in source.received[mark:] if kind is not Kind.GET_STATUS]
        assert kinds == [Kind.GRAB_JOB_UNIQ]
    assert_took(proxy, AT_ONCE)


def test_row_14_stopped_before_anybody_has_answered() -> None:
    """Refused, silent, or not yet known: there is nothing to wait for."""
    with Silent() as silent, ScriptedServer() as target:
        nobody = f"127.0.0.1:{free_port()}"
        queues = {
            f"{nobody}/a": f"{target.address}/a",
            f"{target.address}/b": f"{nobody}/b",
            f"{silent.address}/c": f"{target.address}/c",
            f"{target.address}/d": f"{silent.address}/d",
        }
        with CheckedRelay(config(queues)) as proxy:
            eventually(lambda: len(proxy.events("forward_state")) >= 4)
            proxy.term()
            assert proxy.wait() == 0
            assert_took(proxy, AT_ONCE + 5)


def test_row_14_a_frozen_source_cannot_keep_the_relay_from_stopping(gearmand_a: Gearmand) -> None:
    """Exit 0 after the drain and a few seconds for the last bytes; nothing is lost."""
    ledger = Ledger()
    with Withholds() as target, relay(gearmand_a, target, drain=1) as proxy:
        submit(gearmand_a.port, ledger.book(numbered(HERE, 20)))
        target.wait_pending(20)
        gearmand_a.freeze()
        target.release(5)
        wait_submitted(target, 5)
        proxy.wait_counter("confirmed", 5)
        proxy.term()
        assert proxy.wait() == 0
        assert_took(proxy, 1 + 5 + AT_ONCE)
        gearmand_a.thaw()
        wait_queue(gearmand_a, total=15, running=0)
        ledger.assert_exact(arrived_at(target), left_at(gearmand_a))
