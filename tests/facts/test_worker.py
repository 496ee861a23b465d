"""What gearmand does with a worker: the source side of a forward."""

import pytest

from tests.facts.steps import (
    JOB_NOT_FOUND,
    NO_JOB,
    NOOP,
    create,
    create_many,
    fall_asleep,
    grab,
    grab_many,
    open_worker,
    settle,
    take,
)
from tests.kit.admin import QueueStatus, gearadmin_workers
from tests.kit.eventually import eventually
from tests.kit.packets import Connection, Kind, Packet
from tests.kit.servers import Gearmand


def test_one_connection_may_hold_many_jobs(gearmand: Gearmand) -> None:
    """50 grabs in a row give 50 jobs: a forward is one connection with a window."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        handles = create_many(client, b"q", 50)
        answers = grab_many(worker, 50)
        assert [packet.kind for packet in answers] == [Kind.JOB_ASSIGN_UNIQ] * 50
        assert [packet.args[0] for packet in answers] == handles
        assert gearmand.admin.queue("q") == QueueStatus(total=50, running=50, workers=1)


def test_jobs_may_be_completed_in_any_order(gearmand: Gearmand) -> None:
    """Confirms that come late for one job hold no other up."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        create_many(client, b"q", 50)
        handles = [packet.args[0] for packet in grab_many(worker, 50)]
        worker.send_many(Kind.WORK_COMPLETE, [(handle, b"") for handle in reversed(handles)])
        settle(worker)
        assert gearmand.admin.queue("q").total == 0


def test_jobs_of_a_dropped_worker_go_to_the_tail_of_the_queue(gearmand: Gearmand) -> None:
    """At-least-once needs no store of the relay's own, but a fault costs the order."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as other:
        first, second, third = create_many(client, b"q", 3)
        with open_worker(gearmand.port, b"q") as worker:
            assert [take(worker), take(worker)] == [first, second]
        eventually(lambda: gearmand.admin.queue("q").running == 0)
        order = [take(other) for _ in range(3)]
        assert order[0] == third
        assert set(order[1:]) == {first, second}


@pytest.mark.usefixtures("has_gearmand")
def test_job_retries_count_disconnects_and_delete_the_job_silently() -> None:
    """`--job-retries=N` deletes at the Nth disconnect: a give-back is never free."""
    with Gearmand("--job-retries=2") as gearmand, Connection(gearmand.port) as client:
        create(client, b"q")
        for left in (1, 0):
            with open_worker(gearmand.port, b"q") as worker:
                take(worker)
            eventually(lambda: gearmand.admin.queue("q").running == 0)
            assert gearmand.admin.queue("q").total == left


def test_work_fail_deletes_a_background_job(gearmand: Gearmand) -> None:
    """What merely could not be delivered must never be answered with WORK_FAIL."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        create(client, b"q")
        worker.send(Kind.WORK_FAIL, take(worker))
        assert grab(worker) == NO_JOB
        assert gearmand.admin.queue("q").total == 0


def test_cant_do_takes_held_jobs_back(gearmand: Gearmand) -> None:
    """CANT_DO is never sent; the completions that follow it are answered without a handle."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        create_many(client, b"q", 50)
        handles = [packet.args[0] for packet in grab_many(worker, 50)]
        worker.send(Kind.CANT_DO, b"q")
        worker.send_many(Kind.WORK_COMPLETE, [(handle, b"") for handle in handles])
        assert worker.receive_many(50) == [JOB_NOT_FOUND] * 50
        assert gearmand.admin.queue("q") == QueueStatus(total=50, running=0, workers=0)
        settle(worker)  # the connection goes on


def test_only_the_connection_that_holds_a_job_can_complete_it(gearmand: Gearmand) -> None:
    """A confirm that comes after a reconnect cannot be passed on: the job comes again."""
    with (
        Connection(gearmand.port) as client,
        open_worker(gearmand.port, b"q") as holder,
        open_worker(gearmand.port, b"q") as other,
    ):
        create(client, b"q")
        handle = take(holder)
        other.send(Kind.WORK_COMPLETE, handle, b"")
        assert other.receive() == JOB_NOT_FOUND
        holder.send(Kind.WORK_COMPLETE, handle, b"")
        settle(holder)
        assert gearmand.admin.queue("q").total == 0


def test_handles_start_again_at_1_after_a_restart(gearmand: Gearmand) -> None:
    """A held job is known by its source connection and its handle together."""

    def first_handle() -> bytes:
        with Connection(gearmand.port) as client:
            return create(client, b"q")

    before = first_handle()
    gearmand.restart()
    assert before.endswith(b":1")
    assert first_handle() == before


def test_one_noop_comes_however_many_jobs_wait(gearmand: Gearmand) -> None:
    """On NOOP a forward grabs, and goes on as long as every grab brings a job."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        fall_asleep(worker)
        create_many(client, b"q", 10)
        assert worker.receive() == NOOP
        settle(worker)  # an ECHO_RES comes next, no second NOOP
        assert [packet.kind for packet in grab_many(worker, 11)].count(Kind.NO_JOB) == 1


def test_pre_sleep_with_jobs_waiting_gives_noop_at_once(gearmand: Gearmand) -> None:
    """No wake-up is lost between the last NO_JOB and PRE_SLEEP."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        create(client, b"q")
        worker.send(Kind.PRE_SLEEP)
        assert worker.receive() == NOOP


def test_a_noop_is_no_promise_of_a_job(gearmand: Gearmand) -> None:
    """Every sleeping worker is woken for one job; NO_JOB after NOOP is nothing special."""
    with (
        Connection(gearmand.port) as client,
        open_worker(gearmand.port, b"q") as first,
        open_worker(gearmand.port, b"q") as second,
    ):
        fall_asleep(first)
        fall_asleep(second)
        create(client, b"q")
        assert [first.receive(), second.receive()] == [NOOP, NOOP]
        take(first)
        assert grab(second) == NO_JOB


def test_an_awake_worker_gets_no_noop(gearmand: Gearmand) -> None:
    """Without PRE_SLEEP nothing tells of new jobs: hence the slow, jittered grab."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        assert grab(worker) == NO_JOB
        create(client, b"q")
        settle(worker)


@pytest.mark.usefixtures("has_gearmand")
def test_with_worker_wakeup_1_a_sleeper_eats_the_wake_up() -> None:
    """A forward that will not grab must not sleep: the job waits while others would take it."""
    with Gearmand("--worker-wakeup=1") as gearmand, Connection(gearmand.port) as client:
        with (
            open_worker(gearmand.port, b"q") as first,
            open_worker(gearmand.port, b"q") as second,
        ):
            fall_asleep(first)
            fall_asleep(second)
            create(client, b"q")
            silent = [worker.is_silent(1.0) for worker in (first, second)]
            assert sorted(silent) == [False, True]
        assert gearmand.admin.queue("q").total == 1


@pytest.mark.parametrize("riser", [0, 1])
@pytest.mark.usefixtures("has_gearmand")
def test_one_grab_ends_the_sleep(riser: int) -> None:
    """A forward that stops grabbing sends one GRAB: the next wake-up goes to the other."""
    with (
        Gearmand("--worker-wakeup=1") as gearmand,
        Connection(gearmand.port) as client,
        open_worker(gearmand.port, b"q") as first,
        open_worker(gearmand.port, b"q") as second,
    ):
        workers = [first, second]
        for worker in workers:
            fall_asleep(worker)
        awake, asleep = workers[riser], workers[1 - riser]
        assert grab(awake) == NO_JOB
        create(client, b"q")
        assert asleep.receive() == NOOP
        settle(awake)


def test_job_assign_does_not_tell_the_priority(gearmand: Gearmand) -> None:
    """The order shows it, the packet does not: at the target it is a forward's own setting."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        low = create(client, b"q", b"l", kind=Kind.SUBMIT_JOB_LOW_BG)
        normal = create(client, b"q", b"n", kind=Kind.SUBMIT_JOB_BG)
        high = create(client, b"q", b"h", kind=Kind.SUBMIT_JOB_HIGH_BG)
        assert [packet.args for packet in grab_many(worker, 3)] == [
            (high, b"q", b"h", b""),
            (normal, b"q", b"n", b""),
            (low, b"q", b"l", b""),
        ]


def test_gearadmin_shows_a_client_id_unquoted(gearmand: Gearmand) -> None:
    """A client id with spaces shifts the columns, so that a forward's has none."""
    with open_worker(gearmand.port, b"q") as worker:
        for client_id, columns in ((b"gevproxy:q", 5), (b"two words", 6)):
            worker.send(Kind.SET_CLIENT_ID, client_id)
            settle(worker)
            lines = gearadmin_workers(gearmand.address).splitlines()
            (line,) = [line for line in lines if client_id.decode() in line]
            assert len(line.split()) == columns


def test_refusals_leave_the_connection_open(gearmand: Gearmand) -> None:
    """An ERROR at the source is not fatal; only an unknown packet type ends the connection."""
    with Connection(gearmand.port) as worker:
        worker.send(Kind.WORK_COMPLETE, b"H:nobody:1", b"")
        assert worker.receive() == JOB_NOT_FOUND
        worker.send(Kind.NOOP)
        assert worker.receive() == Packet(Kind.ERROR, (b"INVALID_COMMAND", b"Command not expected"))
        settle(worker)
        worker.socket.sendall(b"\0REQ\0\0\0\x63\0\0\0\0")
        assert worker.receive_to_end() == []
