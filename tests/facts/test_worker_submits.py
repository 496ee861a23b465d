"""What gearmand does with a worker that submits jobs: how late checks are answered."""

from tests.facts.steps import JOB_NOT_FOUND, NOOP, create, fall_asleep, open_worker, settle, take
from tests.facts.test_submit import FULL
from tests.kit.packets import Connection, Kind, Packet
from tests.kit.servers import Gearmand


def test_a_worker_may_submit_on_its_own_connection(gearmand: Gearmand) -> None:
    """While it holds a job and while it sleeps; its other business goes on undisturbed."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        create(client, b"q", b"u")
        handle = take(worker)
        assert create(worker, b"results", b"r1") != handle
        worker.send(Kind.WORK_COMPLETE, handle, b"")
        settle(worker)
        assert gearmand.admin.queue("q").total == 0
        fall_asleep(worker)
        create(worker, b"results", b"r2")
        assert gearmand.admin.queue("results").total == 2
        create(client, b"q", b"u")
        assert worker.receive() == NOOP


def test_what_a_worker_has_submitted_outlives_its_connection(gearmand: Gearmand) -> None:
    """And the job that it held is at its queue again."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        create(client, b"q", b"u")
        take(worker)
        create(worker, b"results", b"r")
        worker.half_close()
        worker.receive_to_end()
        assert gearmand.admin.queue("results").total == 1
        assert gearmand.admin.queue("q") == (1, 0, 0)


def test_answers_to_submissions_keep_their_order_among_errors_of_a_worker(
    gearmand: Gearmand,
) -> None:
    """JOB_NOT_FOUND is about a completion and no other code is: that tells the two apart."""
    with open_worker(gearmand.port, b"q") as worker:
        first = create(worker, b"results", b"r1")
        gearmand.admin.maxqueue("results", 1)
        worker.send(Kind.SUBMIT_JOB_BG, b"results", b"r2", b"")
        worker.send(Kind.WORK_COMPLETE, b"H:none:1", b"")
        worker.send(Kind.SUBMIT_JOB_BG, b"results", b"r1", b"")
        created = Packet(Kind.JOB_CREATED, (first,))
        assert worker.receive_many(3) == [FULL, JOB_NOT_FOUND, created]
