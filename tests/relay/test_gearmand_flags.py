"""Flags of the gearmands around a relay: what they cost, and which setting goes with them."""

import pytest

from tests.kit.eventually import eventually
from tests.kit.packets import Kind
from tests.kit.peers import Consumer, Seen, SyncClient, drain, numbered, submit
from tests.kit.pipe import Pipe
from tests.kit.relay import config
from tests.kit.servers import Gearmand
from tests.relay.doubles import Withholds
from tests.relay.forwarding import HERE, THERE, CheckedRelay, arrived_at, forward, relay, wait_queue
from tests.relay.ledger import Ledger

RETRIES = "--job-retries=1"  # the first time that a job is given back is its last
REGRAB = 24.0  # seconds after which a slow grab finds what nobody was woken for

pytestmark = pytest.mark.usefixtures("has_gearmand")


def lost(ledger: Ledger, *places: list[Seen]) -> int:
    """Return how many jobs are nowhere; none may be anywhere twice."""
    difference = ledger.compare(*places)
    assert not difference.repeated
    assert not difference.foreign
    return difference.lost.total()


def test_job_retries_1_and_an_outage_hold_null_loses_nothing_and_hold_what_it_gives_back() -> None:
    """Two forwards side by side. gearmand deletes without a word, so `given_back` is what tells."""
    keeps, gives = Ledger(), Ledger()
    with (
        Gearmand(RETRIES) as patient,
        Gearmand(RETRIES) as plain,
        Withholds() as target,
        Pipe(target.port) as pipe,
        CheckedRelay(
            config({**forward(patient, pipe, hold=None), **forward(plain, pipe, hold=1, window=10)})
        ) as proxy,
    ):
        submit(patient.port, keeps.book(numbered(HERE, 30, b"keeps")))
        submit(plain.port, gives.book(numbered(HERE, 30, b"gives")))
        target.wait_pending(40)
        pipe.cut()
        assert proxy.wait_event("source_left")["source"] == f"{plain.address}/here"
        wait_queue(plain, total=20, running=0, workers=0)
        assert patient.admin.queue("here") == (30, 30, 1)
        target.release()
        pipe.restore()
        for source in (patient, plain):
            wait_queue(source, total=0)
        there = arrived_at(target)
        for ledger, count in ((keeps, 0), (gives, 10)):
            mine = [each for each in there if each in ledger.submitted]
            assert lost(ledger, mine) == count
        counters = {key: status["counters"] for key, status in proxy.stats().items()}
        assert counters[f"{patient.address}/here"]["given_back"] == 0
        assert counters[f"{plain.address}/here"]["given_back"] == 10


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_job_retries_1_and_an_end_of_the_relay_with_jobs_in_hand(how: str) -> None:
    """`hold` cannot help there: whatever was not confirmed is gone, and nothing else."""
    ledger = Ledger()
    with (
        Gearmand(RETRIES) as source,
        Withholds() as target,
        relay(source, target, hold=None, window=10, drain=1) as proxy,
    ):
        submit(source.port, ledger.book(numbered(HERE, 30)))
        target.wait_pending(10)
        if how == "kill":
            proxy.kill()
        else:
            proxy.term()
        proxy.wait()
        wait_queue(source, total=20, running=0)
        target.release()
        proxy.restart()
        wait_queue(source, total=0)
        assert lost(ledger, arrived_at(target)) == 10


def test_job_retries_1_and_a_block_lose_what_is_given_back() -> None:
    """A wrong key blocks after ten dead letters; each comeback then costs its batch."""
    with (
        Gearmand(RETRIES) as source,
        Gearmand() as target,
        relay(source, target, decrypt="wrong key", window=1) as proxy,
    ):
        submit(source.port, numbered(HERE, 30))
        proxy.wait_event("forward_blocked")

        def balanced() -> bool:
            """Whether the source has lost just what was given back; a comeback may be under way."""
            counters = proxy.only_stats()["counters"]
            assert counters["dead_lettered"] == 10
            left = 20 - counters["given_back"]
            return left < 20 and source.admin.queue("here") == (left, 0, 0)

        eventually(balanced, 30)


def test_job_retries_1_and_a_synchronous_forward_whose_target_goes() -> None:
    """The jobs are given back at once, and gearmand tells the client that they have failed."""
    with (
        Gearmand(RETRIES) as source,
        Gearmand() as target,
        Pipe(target.port) as pipe,
        relay(source, pipe, **{"async": False, "workers": 3}) as proxy,
        SyncClient(source.port) as client,
    ):
        handles = [client.submit(HERE, b"%d" % number) for number in range(3)]
        wait_queue(source, running=3)
        pipe.cut()
        for handle in handles:
            assert [packet.kind for packet in client.outcome(handle)] == [Kind.WORK_FAIL]
        assert proxy.only_stats()["counters"]["given_back"] == 3


def test_worker_wakeup_1_with_two_relays_of_which_one_has_no_target() -> None:
    """The one that may not grab has left: each job wakes the other, and none waits for a chance."""
    ledger = Ledger()
    with (
        Gearmand("--worker-wakeup=1") as source,
        Gearmand() as target,
        Pipe(target.port) as pipe,
        relay(source, pipe) as first,
        relay(source, target) as second,
        Consumer(target.port, THERE) as consumer,
    ):
        jobs = ledger.book(numbered(HERE, 60))
        for count, workers in ((20, 2), (40, 1), (60, 2)):
            if workers == 1:
                pipe.cut()
            elif count > 20:
                pipe.restore()
            wait_queue(source, workers=workers)
            for number in range(count - 20, count):
                submit(source.port, [next(jobs)])
                consumer.wait_for(number + 1, REGRAB / 2)
        ledger.assert_exact(consumer.seen)
        for each in (first, second):
            assert each.only_stats()["counters"]["wakeups_lost"] == 0


def test_round_robin_and_a_flood_in_one_of_three_queues() -> None:
    """One connection a forward: the flood holds no other up, and every set is exact."""
    names = (b"flood", b"some", b"few")
    ledgers = {name: Ledger() for name in names}
    with Gearmand("--round-robin") as source, Gearmand("--round-robin") as target:
        queues = [f"/{name.decode()}" for name in names]
        settings = config({source.address + each: target.address + each for each in queues})
        flow(CheckedRelay(settings), source, target, ledgers)


def flow(
    proxy: CheckedRelay, source: Gearmand, target: Gearmand, ledgers: dict[bytes, Ledger]
) -> None:
    """Send a flood through the first of three queues, and the rest behind it."""
    with proxy:
        eventually(lambda: len(proxy.events("source_up")) == 3, what="three forwards")
        for name, count in zip(ledgers, (20_000, 2000, 100), strict=True):
            submit(source.port, ledgers[name].book(numbered(name, count)))
        for name, ledger in ledgers.items():
            ledger.assert_exact(drain(target.port, name, ledger.submitted.total()))
