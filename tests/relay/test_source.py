"""The near side: registering, grabbing, sleeping, and what the source must never see."""

from tests.kit.admin import gearadmin_workers
from tests.kit.eventually import eventually
from tests.kit.packets import Kind
from tests.kit.peers import Consumer, Job, numbered, submit
from tests.kit.pipe import Pipe
from tests.kit.scripted import Full, ScriptedServer
from tests.kit.servers import Gearmand
from tests.relay.doubles import NeverWakes, Reluctant, Rounds, Withholds
from tests.relay.forwarding import (
    HERE,
    SPOKEN_AT_A_SOURCE,
    THERE,
    arrived_at,
    grabs_at,
    relay,
    seconds_between,
    wait_asleep,
    wait_queue,
    wait_submitted,
)
from tests.relay.ledger import Ledger

MIB = 1 << 20


def test_row_1_nothing_is_taken_before_the_target_has_answered(gearmand_a: Gearmand) -> None:
    """A target that accepts and says nothing is no target: the source's queue shows no worker."""
    submit(gearmand_a.port, numbered(HERE, 10))
    with Reluctant() as target, relay(gearmand_a, target) as proxy:
        eventually(lambda: target.received, what="a ping")
        started = proxy.wait_event("daemon_started")
        eventually(lambda: seconds_between(started, proxy.only_stats()) > 2.5, interval=0.5)
        proxy.wait_reason("target away")
        assert gearmand_a.admin.queue("here") == (10, 0, 0)
        assert not proxy.events("source_up")
        target.answer()
        wait_submitted(target, 10)
        wait_queue(gearmand_a, total=0, workers=1)


def test_row_4_a_source_that_has_answered_gets_a_name_and_the_queue(gearmand_a: Gearmand) -> None:
    """The ping comes first; the name shows where the jobs go, and splits no column."""
    with (
        Reluctant() as source,
        ScriptedServer() as target,
        relay(source, target),
    ):
        eventually(lambda: source.received, what="a ping")
        assert {kind for kind, _ in source.received} == {Kind.GET_STATUS}
        source.answer()
        eventually(lambda: len(source.received) > 3)
        kinds = [kind for kind, _ in source.received[:4]]
        assert kinds == [Kind.GET_STATUS, Kind.SET_CLIENT_ID, Kind.CAN_DO, Kind.GRAB_JOB_UNIQ]
    with ScriptedServer() as target, relay(gearmand_a, target):
        wait_queue(gearmand_a, workers=1)
        lines = gearadmin_workers(gearmand_a.address).splitlines()
        (line,) = [line for line in lines if line.endswith(": here")]
        assert line.split()[2] == f"gevproxy->{target.address}/there"


def test_row_7_and_s3_grabs_double_while_each_brings_a_job_and_fall_to_one() -> None:
    """1, 2, 4 .. up to the window; when the queue is empty one, then sleep; a NOOP starts anew."""
    with (
        Rounds() as source,
        ScriptedServer() as target,
        relay(source, target, window=16),
    ):
        source.offer(*numbered(HERE, 1 + 2 + 4 + 8 + 16 + 16 + 5))
        for count in (1, 2, 4, 8, 16, 16):
            source.wait_grabs(count)
            source.answer()
        source.wait_grabs(16)
        source.answer()  # five jobs and eleven NO_JOB
        wait_asleep(source)
        assert not source.grabbing
        wait_submitted(target, 52)
        source.offer(*numbered(HERE, 2))
        for count in (1, 2):
            source.wait_grabs(count)
            source.answer()
        wait_submitted(target, 54)


def test_s3_the_window_bounds_what_is_held_in_jobs(gearmand_a: Gearmand) -> None:
    """A target that does not confirm gets no more than the window, however much waits."""
    ledger = Ledger()
    with Withholds() as target, relay(gearmand_a, target, window=25) as proxy:
        submit(gearmand_a.port, ledger.book(numbered(HERE, 200)))
        target.wait_pending(25)
        wait_queue(gearmand_a, total=200, running=25)
        target.release(10)
        wait_queue(gearmand_a, total=190, running=25)
        target.wait_pending(25)
        assert proxy.only_stats()["held"] == 25
        target.release()
        wait_queue(gearmand_a, total=0)
        ledger.assert_exact(arrived_at(target))


def test_s3_an_idle_forward_sleeps_and_asks_no_more() -> None:
    """Once asleep it sends neither grab nor PRE_SLEEP until it is woken."""
    with (
        ScriptedServer() as source,
        ScriptedServer() as target,
        relay(source, target) as proxy,
    ):
        wait_asleep(source)
        pings = [kind for kind, _ in source.received].count(Kind.GET_STATUS)
        assert grabs_at(source) == 1
        # A ping answered later there was time for anything else.
        eventually(lambda: [k for k, _ in source.received].count(Kind.GET_STATUS) > pings)
        assert grabs_at(source) == 1
        assert [kind for kind, _ in source.received].count(Kind.PRE_SLEEP) == 1
        source.offer(*numbered(HERE, 1))
        wait_submitted(target, 1)
        assert proxy.only_stats()["counters"]["wakeups_lost"] == 0


def test_s4_a_full_forward_does_not_eat_the_wake_up_of_another() -> None:
    """With --worker-wakeup=1 a sleeper that will not grab would leave each job lying."""
    with (
        Gearmand("--worker-wakeup=1") as source,
        Full() as full,
        ScriptedServer() as good,
        relay(source, good) as second,
    ):
        wait_queue(source, workers=1)
        second.freeze()  # out of the way until the first has met its full target
        with relay(source, full) as first:
            wait_queue(source, workers=2)
            # Two, for the one that sleeps in the frozen relay eats a wake-up as well.
            submit(source.port, [Job(HERE, b"a", b""), Job(HERE, b"b", b"")])
            first.wait_event("target_full")
            second.thaw()
            wait_queue(source, running=2, total=2, workers=2)
            for number in range(10):
                submit(source.port, [Job(HERE, b"%d" % number, b"")])
                wait_submitted(good, number + 1)
            assert second.only_stats()["counters"]["wakeups_lost"] == 0


def test_s4_a_sleeper_whose_target_goes_ends_its_sleep_by_a_grab() -> None:
    """Only a grab ends the sleep; then it leaves, and takes nothing with it."""
    with (
        ScriptedServer() as source,
        ScriptedServer() as target,
        Pipe(target.port) as pipe,
        relay(source, pipe) as proxy,
    ):
        wait_asleep(source)
        mark = len(source.received)
        pipe.cut()
        proxy.wait_event("source_left", given_back=0)
        eventually(lambda: not source.peers)
        assert [kind for kind, _ in source.received[mark:]] == [Kind.GRAB_JOB_UNIQ]


def test_s7_while_the_target_is_away_the_source_shows_no_worker(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """And another relay gets the jobs."""
    with relay(gearmand_a, gearmand_b) as proxy:
        wait_queue(gearmand_a, workers=1)
        gearmand_b.kill()
        wait_queue(gearmand_a, workers=0)
        submit(gearmand_a.port, numbered(HERE, 10))
        proxy.wait_reason("target away: refused")
        assert gearmand_a.admin.queue("here") == (10, 0, 0)
        with (
            ScriptedServer() as other,
            relay(gearmand_a, other),
        ):
            wait_submitted(other, 10)
        gearmand_b.start()
        wait_queue(gearmand_a, workers=1)
        assert proxy.only_stats()["reasons"] == []


def test_s8_held_bytes_stop_the_reading_of_the_source(gearmand_a: Gearmand) -> None:
    """No more than the cap and one batch is taken in, and all arrives in the end."""
    size, cap, batch = 100_000, MIB, 256 * 1024
    ledger = Ledger()
    with Withholds() as target, relay(gearmand_a, target, window_bytes=cap) as proxy:
        jobs = (Job(HERE, b"%d" % number, bytes(size)) for number in range(200))
        submit(gearmand_a.port, ledger.book(jobs))
        proxy.wait_counter("bytes_in", cap)
        target.release(5)
        proxy.wait_counter("bytes_in", cap + 5 * size)
        status = proxy.only_stats()
        assert status["counters"]["bytes_in"] <= cap + 5 * size + batch + size
        assert status["held"] <= (cap + batch) / size + 1
        target.release()
        wait_queue(gearmand_a, total=0)
        ledger.assert_exact(arrived_at(target))


def test_s8_a_job_larger_than_the_cap_passes_alone(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Its size is no reason to stand still for ever."""
    ledger = Ledger()
    jobs = (Job(HERE, b"%d" % number, bytes(MIB + number)) for number in range(20))
    with (
        relay(gearmand_a, gearmand_b, window_bytes=1024) as proxy,
        Consumer(gearmand_b.port, THERE) as consumer,
    ):
        submit(gearmand_a.port, ledger.book(jobs))
        ledger.assert_exact(consumer.wait_for(20))
        wait_queue(gearmand_a, total=0)
        assert proxy.only_stats()["counters"]["source_losses"] == 0


def test_row_15_a_lost_wake_up_costs_no_more_than_half_a_minute() -> None:
    """The slow grab finds the job, and says that it had to."""
    with (
        NeverWakes() as source,
        ScriptedServer() as target,
        relay(source, target) as proxy,
    ):
        wait_asleep(source)
        source.offer(*numbered(HERE, 3))
        wait_submitted(target, 3, deadline=90)
        assert len(proxy.events("wakeup_lost")) == 1
        assert proxy.only_stats()["counters"]["wakeups_lost"] == 1


def test_never_cant_do() -> None:
    """Leaving, coming back and stopping are done by the connection alone."""
    with ScriptedServer() as source, Withholds(free=5) as target:
        source.offer(*numbered(HERE, 20))
        with Pipe(target.port) as pipe, relay(source, pipe, hold=0) as proxy:
            target.wait_pending(15)
            pipe.cut()
            proxy.wait_event("source_left", given_back=15)
            pipe.restore()
            target.wait_pending(15)
            target.release(5)
            eventually(lambda: len(source.completed) == 10)
            proxy.term()
            target.release()
            assert proxy.wait() == 0
        eventually(lambda: len(source.completed) == 20)
        assert {kind for kind, _ in source.received} == SPOKEN_AT_A_SOURCE
