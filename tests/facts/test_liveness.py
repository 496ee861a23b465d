"""How a job server looks when it lives, when it is stuck, and how one leaves it."""

import fcntl
import struct
import termios
from collections.abc import Callable

import pytest

from tests.facts.steps import (
    NO_JOB,
    create,
    create_many,
    fall_asleep,
    grab,
    grab_many,
    open_worker,
    take,
)
from tests.kit.admin import QueueStatus
from tests.kit.eventually import eventually
from tests.kit.packets import Connection, Kind, Packet
from tests.kit.pipe import Pipe
from tests.kit.servers import Geard, Gearmand

UNKNOWN = b"H:nobody:0"
PONG = Packet(Kind.STATUS_RES, (UNKNOWN, b"0", b"0", b"0", b"0"))


def unacknowledged(connection: Connection) -> int:
    """Return how many sent bytes the peer's kernel has not acknowledged (SIOCOUTQ)."""
    answer = fcntl.ioctl(connection.socket, termios.TIOCOUTQ, bytes(4))
    return int(struct.unpack("i", answer)[0])


def test_get_status_of_an_unknown_handle_is_answered_at_once(gearmand: Gearmand) -> None:
    """It is the relay's ping: on client and worker connections, awake and asleep."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        for connection in (client, worker):
            connection.send(Kind.GET_STATUS, UNKNOWN)
            assert connection.receive() == PONG
        fall_asleep(worker)
        worker.send(Kind.GET_STATUS, UNKNOWN)
        assert worker.receive() == PONG


def test_a_ping_does_not_end_the_sleep(gearmand: Gearmand) -> None:
    """A sleeping forward may be pinged and is still woken."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        fall_asleep(worker)
        worker.send(Kind.GET_STATUS, UNKNOWN)
        assert worker.receive() == PONG
        create(client, b"q")
        assert worker.receive() == Packet(Kind.NOOP)


def test_geard_answers_get_status_but_never_echo() -> None:
    """ECHO_REQ cannot be the ping."""
    with Geard() as geard, Connection(geard.port) as connection:
        connection.send(Kind.ECHO_REQ, b"anyone?")
        connection.send(Kind.GET_STATUS, UNKNOWN)
        kind, (handle, *rest) = connection.receive()
        assert (kind, handle, rest[:2]) == (Kind.STATUS_RES, UNKNOWN, [b"0", b"0"])


def test_geard_forgets_the_jobs_of_a_dropped_worker_and_never_coalesces() -> None:
    """It serves the demo and as a TLS end, nothing else."""
    with Geard() as geard, Connection(geard.port) as client:
        handles = [create(client, b"q", b"u") for _ in range(2)]
        assert len(set(handles)) == 2
        with open_worker(geard.port, b"q") as worker:
            take(worker)
        eventually(lambda: geard.admin.queue("q") == QueueStatus(1, 0, 0))


def test_a_ping_queues_behind_a_large_payload(gearmand: Gearmand) -> None:
    """Its deadline has to stand still while bytes move."""
    with Connection(gearmand.port) as client, Pipe(gearmand.port, rate=2e6) as pipe:
        create(client, b"q", workload=bytes(1 << 20))
        with open_worker(pipe.port, b"q") as worker:
            worker.send(Kind.GRAB_JOB_UNIQ)
            worker.send(Kind.GET_STATUS, UNKNOWN)
            assert worker.receive().kind is Kind.JOB_ASSIGN_UNIQ
            assert worker.receive() == PONG


def test_a_frozen_server_acknowledges_small_writes_and_says_nothing(gearmand: Gearmand) -> None:
    """Acknowledged bytes alone are no life."""
    with Connection(gearmand.port) as connection:
        gearmand.freeze()
        connection.send(Kind.GET_STATUS, UNKNOWN)
        eventually(lambda: unacknowledged(connection) == 0, what="the kernel acknowledges")
        assert connection.is_silent(0.5)
        gearmand.thaw()
        assert connection.receive() == PONG


def test_a_frozen_server_still_accepts_connections(gearmand: Gearmand) -> None:
    """A connect that works proves nothing: a link is up when its first ping is answered."""
    gearmand.freeze()
    with Connection(gearmand.port) as connection:
        connection.send(Kind.GET_STATUS, UNKNOWN)
        assert connection.is_silent(0.2)
        gearmand.thaw()
        assert connection.receive() == PONG


def test_after_a_half_close_all_completions_count_and_the_server_closes(
    gearmand: Gearmand,
) -> None:
    """The one way out of a source: flush, shut down, read to the end."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        create_many(client, b"q", 100)
        handles = [packet.args[0] for packet in grab_many(worker, 100)]
        worker.send_many(Kind.WORK_COMPLETE, [(handle, b"") for handle in handles])
        worker.half_close()
        assert worker.receive_to_end() == []
        assert gearmand.admin.queue("q").total == 0


def test_after_a_half_close_all_submits_count_but_their_confirms_may_not_come(
    gearmand: Gearmand,
) -> None:
    """A target may be left only when no submit is unanswered: mostly not one of 100 is."""
    with Connection(gearmand.port) as client:
        gearmand.freeze()  # so that it reads the submits and the end in one go
        client.send_many(Kind.SUBMIT_JOB_BG, [(b"q", b"", b"")] * 100)
        client.half_close()
        gearmand.thaw()
        assert len(client.receive_to_end()) < 100
        assert gearmand.admin.queue("q").total == 100


@pytest.mark.parametrize("leave", [Connection.half_close, Connection.close])
def test_after_a_black_hole_jobs_stay_assigned_until_the_fin_comes(
    gearmand: Gearmand, leave: Callable[[Connection], None]
) -> None:
    """A source that fell silent still needs our FIN when the path is back, be it half of one."""
    with (
        Connection(gearmand.port) as client,
        open_worker(gearmand.port, b"q") as other,
        Pipe(gearmand.port) as pipe,
        open_worker(pipe.port, b"q") as worker,
    ):
        handles = {*create_many(client, b"q", 3)}
        grab_many(worker, 3)
        assigned = QueueStatus(total=3, running=3, workers=2)
        pipe.blackhole()
        assert grab(other) == NO_JOB
        assert gearmand.admin.queue("q") == assigned
        pipe.restore()
        assert grab(other) == NO_JOB
        assert gearmand.admin.queue("q") == assigned
        leave(worker)
        eventually(lambda: gearmand.admin.queue("q") == QueueStatus(3, 0, 1))
        assert {take(other) for _ in range(3)} == handles


@pytest.mark.usefixtures("has_gearmand")
def test_ssl_is_accepted_and_listens_in_plain_text() -> None:
    """Debian's gearmand is no TLS end, whatever its options say."""
    with Gearmand("--ssl") as gearmand:
        assert gearmand.admin.version()
