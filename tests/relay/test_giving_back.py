"""When a forward leaves its source with jobs in hand: S5, S6, and `hold`."""

from tests.kit.eventually import eventually
from tests.kit.peers import numbered, submit
from tests.kit.pipe import Pipe
from tests.kit.servers import Gearmand
from tests.relay.doubles import Withholds
from tests.relay.forwarding import (
    HERE,
    CheckedRelay,
    arrived_at,
    forward,
    relay,
    seconds_between,
    wait_queue,
)
from tests.relay.ledger import Ledger

SLACK = 3.0  # seconds that a busy machine may add to a tick of one


def test_s5_with_nothing_in_hand_it_leaves_at_once(gearmand_a: Gearmand) -> None:
    with (
        Withholds() as target,
        Pipe(target.port) as pipe,
        relay(gearmand_a, pipe) as proxy,
    ):
        wait_queue(gearmand_a, workers=1)
        pipe.cut()
        left = proxy.wait_event("source_left", given_back=0)
        assert seconds_between(proxy.wait_event("target_lost"), left) < SLACK
        wait_queue(gearmand_a, workers=0)


def test_s6_what_is_held_goes_back_after_hold_and_comes_again(gearmand_a: Gearmand) -> None:
    """Until then the source shows the jobs as running: a short outage costs no retry."""
    ledger = Ledger()
    with (
        Withholds() as target,
        Pipe(target.port) as pipe,
        relay(gearmand_a, pipe, window=30, hold=2) as proxy,
    ):
        submit(gearmand_a.port, ledger.book(numbered(HERE, 50)))
        target.wait_pending(30)
        pipe.cut()
        lost = proxy.wait_event("target_lost", unconfirmed=30)
        assert gearmand_a.admin.queue("here") == (50, 30, 1)
        left = proxy.wait_event("source_left", given_back=30)
        assert 2 <= seconds_between(lost, left) < 2 + SLACK
        wait_queue(gearmand_a, total=50, running=0, workers=0)
        assert proxy.only_stats()["held"] == 0
        pipe.restore()
        target.release()
        wait_queue(gearmand_a, total=0)
        ledger.assert_exact(arrived_at(target))
        assert proxy.only_stats()["counters"]["given_back"] == 30


def test_s6_a_target_that_is_back_before_hold_gets_the_jobs_from_the_hand(
    gearmand_a: Gearmand,
) -> None:
    ledger = Ledger()
    with (
        Withholds() as target,
        Pipe(target.port) as pipe,
        relay(gearmand_a, pipe) as proxy,
    ):
        submit(gearmand_a.port, ledger.book(numbered(HERE, 50)))
        target.wait_pending(50)
        for _ in range(3):
            pipe.cut()
            eventually(lambda: not target.pending)
            pipe.restore()
            target.wait_pending(50)
        target.release()
        wait_queue(gearmand_a, total=0)
        ledger.assert_exact(arrived_at(target))
        assert not proxy.events("source_left")


def test_s6_half_a_minute_is_the_default_and_null_is_for_ever() -> None:
    """Two forwards side by side: when the one gives back, the other still holds."""
    with (
        Gearmand() as plain,
        Gearmand() as patient,
        Withholds() as target,
        Pipe(target.port) as pipe,
        CheckedRelay(
            {"queues": {**forward(plain, pipe), **forward(patient, pipe, hold=None)}}
        ) as proxy,
    ):
        for source in (plain, patient):
            submit(source.port, numbered(HERE, 10))
        target.wait_pending(20)
        pipe.cut()
        lost = proxy.wait_event("target_lost")
        left = proxy.wait_event("source_left", deadline=40)
        assert left["source"] == f"{plain.address}/here"
        assert 30 <= seconds_between(lost, left) < 30 + SLACK
        wait_queue(plain, total=10, running=0, workers=0)
        wait_queue(patient, total=10, running=10, workers=1)
        pipe.restore()
        target.release()
        for source in (plain, patient):
            wait_queue(source, total=0)
        assert len(target.submitted) == 20
        assert len(proxy.events("source_left")) == 1
