"""What gearmand does with submitted background jobs: the target side of an async forward."""

import pytest

from tests.facts.steps import NO_JOB, create, grab, open_worker, settle, take
from tests.kit.packets import Connection, Kind, Packet
from tests.kit.servers import Gearmand

TOO_LARGE = Packet(Kind.ERROR, (b"ARGUMENT_TOO_LARGE", b"Unique value too large"))
FULL = Packet(Kind.ERROR, (b"QUEUE_ERROR", b"Job queue is full"))


def test_confirms_come_in_submit_order_with_errors_in_their_place(gearmand: Gearmand) -> None:
    """Confirms pair with submissions by one ordered list that holds the refusals too."""
    uniques = [b"u" * 65 if number % 10 == 3 else b"u%d" % number for number in range(200)]
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        client.send_many(Kind.SUBMIT_JOB_BG, [(b"q", unique, unique) for unique in uniques])
        client.send(Kind.ECHO_REQ, b"last")
        answers = client.receive_many(200)
        assert client.receive() == Packet(Kind.ECHO_RES, (b"last",))
        assigned = {}
        while (packet := grab(worker)) != NO_JOB:
            assigned[packet.args[0]] = packet.args[2]
    assert [
        assigned[answer.args[0]] if answer.kind is Kind.JOB_CREATED else answer
        for answer in answers
    ] == [TOO_LARGE if len(unique) > 64 else unique for unique in uniques]


def test_a_unique_of_65_bytes_is_refused_and_the_connection_goes_on(gearmand: Gearmand) -> None:
    """A refusal concerns one job: it goes to the dead letters and the next one passes."""
    with Connection(gearmand.port) as client:
        create(client, b"q", b"u" * 64)
        client.send(Kind.SUBMIT_JOB_BG, b"q", b"u" * 65, b"")
        assert client.receive() == TOO_LARGE
        settle(client)
        assert gearmand.admin.queue("q").total == 1


def test_a_unique_coalesces_while_its_job_is_queued_or_running(gearmand: Gearmand) -> None:
    """A resend after a lost confirm makes no second job, until the first one is completed."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        first = create(client, b"q", b"u", b"one")
        assert create(client, b"q", b"u", b"other") == first
        assert take(worker) == first
        assert create(client, b"q", b"u", b"one") == first
        assert gearmand.admin.queue("q").total == 1
        worker.send(Kind.WORK_COMPLETE, first, b"")
        settle(worker)
        assert create(client, b"q", b"u", b"one") != first


def test_a_unique_coalesces_within_its_queue_only(gearmand: Gearmand) -> None:
    """Two forwards to one target cannot swallow each other's jobs."""
    with Connection(gearmand.port) as client:
        assert create(client, b"q", b"u") != create(client, b"r", b"u")


def test_an_empty_unique_never_coalesces(gearmand: Gearmand) -> None:
    """100 equal jobs without a unique stay 100 jobs."""
    with Connection(gearmand.port) as client:
        assert len({create(client, b"q", b"", b"same") for _ in range(100)}) == 100
        assert gearmand.admin.queue("q").total == 100


def test_a_dash_means_that_the_payload_is_the_unique(gearmand: Gearmand) -> None:
    """A forward passes `-` on and never invents it; an empty payload does not coalesce."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        first = create(client, b"q", b"-", b"a\0payload")
        assert create(client, b"q", b"-", b"a\0payload") == first
        assert create(client, b"q", b"-", b"another") != first
        assert create(client, b"q", b"-", b"") != create(client, b"q", b"-", b"")
        assert grab(worker).args == (first, b"q", b"-", b"a\0payload")


def test_every_byte_passes_in_a_workload(gearmand: Gearmand) -> None:
    """The last argument takes the rest of a packet, NULs and all."""
    workload = b"\0\0" + bytes(range(256)) + b"\0"
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        create(client, b"q", b"u", workload)
        assert grab(worker).args[2:] == (b"u", workload)


@pytest.mark.parametrize("size", [0, 65_535, 65_536, 16 << 20])
def test_a_job_of_any_size_passes(gearmand: Gearmand, size: int) -> None:
    """No limit of the server's own is below what a relay has to carry."""
    workload = bytes(size)
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        create(client, b"q", b"u", workload)
        assert grab(worker).args[3] == workload


def test_a_full_queue_refuses_until_a_job_is_completed(gearmand: Gearmand) -> None:
    """Full is back-pressure: running jobs count, a known unique is still confirmed."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        first = create(client, b"q", b"u1")
        gearmand.admin.maxqueue("q", 1)
        client.send_many(Kind.SUBMIT_JOB_BG, [(b"q", b"u2", b""), (b"q", b"u1", b"")])
        assert client.receive_many(2) == [FULL, Packet(Kind.JOB_CREATED, (first,))]
        assert take(worker) == first
        client.send(Kind.SUBMIT_JOB_BG, b"q", b"u2", b"")
        assert client.receive() == FULL
        worker.send(Kind.WORK_COMPLETE, first, b"")
        settle(worker)
        create(client, b"q", b"u2")
