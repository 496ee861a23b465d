"""The worker's end: grab credit, sleep and wake, completions, and what no server may send."""

import pytest

from gevproxy.gearman.client import Confirmed, Refused
from gevproxy.gearman.job import Handle, Job
from gevproxy.gearman.packet import RESPONSE, PacketType, encode
from gevproxy.gearman.peer import PING_HANDLE
from gevproxy.gearman.worker import Assigned, ServerError, Worker

HANDLE = Handle(b"H:a:1")


def response(type_: PacketType, *args: bytes) -> bytes:
    return encode(type_, *args, magic=RESPONSE)


def assign(n: int, queue: bytes = b"q") -> bytes:
    return response(PacketType.JOB_ASSIGN_UNIQ, b"H:a:%d" % n, queue, b"u%d" % n, b"w\0%d" % n)


NO_JOB = response(PacketType.NO_JOB)


def new_worker() -> Worker:
    worker = Worker(b"q")
    worker.register(b"id")
    worker.outbox.clear()
    return worker


def test_register_says_who_we_are_and_what_we_take() -> None:
    worker = Worker(b"q")
    worker.register(b"gevproxy->b:4730/q")
    assert worker.outbox.take() == encode(PacketType.SET_CLIENT_ID, b"gevproxy->b:4730/q") + encode(
        PacketType.CAN_DO, b"q"
    )


@pytest.mark.parametrize("client_id", [b"", b"two words"])
def test_a_client_id_that_gearadmin_would_split_is_refused(client_id: bytes) -> None:
    with pytest.raises(ValueError, match="no space"):
        Worker(b"q").register(client_id)


def test_a_job_comes_for_a_grab() -> None:
    worker = new_worker()
    worker.grab()
    assert worker.outbox.take() == encode(PacketType.GRAB_JOB_UNIQ)
    assert worker.receive(assign(1)) == [Assigned([Job(HANDLE, b"q", b"u1", b"w\x001")])]
    assert worker.outstanding == 0


def test_wanted_doubles_while_every_grab_brings_a_job() -> None:
    """And falls to one when the queue is empty."""
    worker = new_worker()
    for wanted in (1, 2, 4, 8, 16):
        assert worker.wanted == wanted
        worker.grab(wanted)
        worker.receive(b"".join(assign(n) for n in range(wanted)))
    worker.grab(2)
    worker.receive(assign(1) + NO_JOB)
    assert (worker.wanted, worker.empty) == (1, True)


def test_sleep_ends_by_noop_and_by_a_grab() -> None:
    worker = new_worker()
    worker.grab()
    worker.receive(NO_JOB)
    worker.outbox.clear()
    worker.sleep()
    assert worker.outbox.take() == encode(PacketType.PRE_SLEEP)
    assert (worker.asleep, worker.empty) == (True, True)
    worker.receive(response(PacketType.NOOP))
    assert (worker.asleep, worker.empty) == (False, False)
    worker.sleep()
    worker.grab()
    assert not worker.asleep


def test_no_sleep_while_a_grab_is_outstanding() -> None:
    worker = new_worker()
    worker.grab()
    with pytest.raises(ValueError, match="outstanding"):
        worker.sleep()


def test_what_a_worker_says_about_a_job() -> None:
    worker = new_worker()
    worker.complete(HANDLE, b"r\0")
    worker.fail(HANDLE)
    worker.update(PacketType.WORK_STATUS, HANDLE, b"1", b"2")
    assert worker.outbox.take() == (
        encode(PacketType.WORK_COMPLETE, HANDLE, b"r\0")
        + encode(PacketType.WORK_FAIL, HANDLE)
        + encode(PacketType.WORK_STATUS, HANDLE, b"1", b"2")
    )


def test_many_completions_are_those_of_each() -> None:
    """Handles grow by a digit now and then."""
    worker = new_worker()
    handles = [Handle(b"H:a:%d" % n) for n in (8, 9, 10, 11, 9)]
    worker.complete_all([])
    assert worker.outbox.size == 0
    worker.complete_all(handles)
    expected = [encode(PacketType.WORK_COMPLETE, handle, b"") for handle in handles]
    assert worker.outbox.take() == b"".join(expected)


@pytest.mark.parametrize(
    ("granted", "data"),
    [(2, assign(1) + assign(2) + assign(3)), (3, assign(1) + assign(2) + assign(3, b"other"))],
)
def test_jobs_before_one_that_nobody_asked_for_are_taken(granted: int, data: bytes) -> None:
    worker = new_worker()
    worker.grab(granted)
    (event,) = worker.receive(data)
    assert isinstance(event, Assigned)
    assert [job.unique for job in event.jobs] == [b"u1", b"u2"]
    assert worker.fault is not None


def test_an_error_is_an_event_and_no_fault() -> None:
    worker = new_worker()
    data = response(PacketType.ERROR, b"JOB_NOT_FOUND", b"not \xff found")
    assert worker.receive(data) == [ServerError("JOB_NOT_FOUND", "not \\xff found")]
    assert worker.fault is None


def test_of_a_long_text_the_beginning_is_read() -> None:
    """It would land in a log and in a state."""
    worker = new_worker()
    (error,) = worker.receive(response(PacketType.ERROR, b"c" * 10_000, b"t" * 10_000))
    assert error == ServerError("c" * 256, "t" * 256)


def test_what_a_worker_submits_is_answered_in_order_among_errors_about_its_jobs() -> None:
    worker = new_worker()
    for token in "abc":
        worker.submit(token, b"results", b"u", b"w\0")
    assert worker.outbox.take() == 3 * encode(PacketType.SUBMIT_JOB_BG, b"results", b"u", b"w\0")
    data = (
        response(PacketType.JOB_CREATED, b"H:a:7")
        + response(PacketType.ERROR, b"JOB_NOT_FOUND", b"no job")
        + response(PacketType.ERROR, b"QUEUE_ERROR", b"full")
        + response(PacketType.JOB_CREATED, b"H:a:8")
    )
    assert worker.receive(data) == [
        Confirmed(["a"], [Handle(b"H:a:7")], 0),
        ServerError("JOB_NOT_FOUND", "no job"),
        Refused("b", "QUEUE_ERROR", "full"),
        Confirmed(["c"], [Handle(b"H:a:8")], 0),
    ]
    assert worker.receive(response(PacketType.ERROR, b"OTHER", b"")) == [ServerError("OTHER", "")]


def test_a_submission_that_is_none_leaves_nothing_behind() -> None:
    worker = new_worker()
    with pytest.raises(ValueError, match="NUL"):
        worker.submit("a", b"res\0ults", b"u", b"w")
    worker.receive(response(PacketType.JOB_CREATED, b"H:a:7"))
    assert "unexpected JOB_CREATED" in str(worker.fault)


def test_the_ping_is_never_sent_twice() -> None:
    worker = new_worker()
    worker.ping()
    worker.ping()
    assert worker.outbox.take() == encode(PacketType.GET_STATUS, PING_HANDLE)
    assert (worker.answered, worker.ping_unanswered) == (False, True)
    worker.receive(response(PacketType.STATUS_RES, PING_HANDLE, b"0", b"0", b"0", b"0"))
    assert (worker.answered, worker.ping_unanswered) == (True, False)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (assign(1) + assign(2), "JOB_ASSIGN_UNIQ that no grab asked for"),
        (NO_JOB * 2, "NO_JOB that no grab asked for"),
        (assign(1, b"other"), "a queue that was never asked for"),
        (response(PacketType.JOB_CREATED, b"H:a:1"), "unexpected JOB_CREATED"),
        (response(PacketType.STATUS_RES, b"H:a:1", *[b"0"] * 4), "unexpected STATUS_RES"),
        (b"GET / HTTP/1.1\r\n", "wrong magic"),
        (response(PacketType.JOB_ASSIGN_UNIQ, b"h" * 1025, b"q", b"", b""), "a handle of 1025"),
        (response(PacketType.JOB_ASSIGN_UNIQ, b"h", b"q", b"u" * 1025, b""), "a unique of 1025"),
    ],
)
def test_what_no_server_may_send(data: bytes, text: str) -> None:
    worker = new_worker()
    worker.grab()
    worker.receive(data)
    assert text in str(worker.fault)
    assert worker.receive(assign(3)) == []
