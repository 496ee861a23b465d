"""The kit itself: what the other tests lean on has to be true."""

import time
from collections import Counter

import pytest

from tests.kit.eventually import eventually
from tests.kit.packets import Connection, Kind, Packet
from tests.kit.peers import (
    Consumer,
    Job,
    Producer,
    SyncClient,
    complete,
    drain,
    numbered,
    seen,
    submit,
)
from tests.kit.pipe import Pipe
from tests.kit.scripted import AcceptsAndCloses, ConfirmsLate, Full, Garbage, ScriptedServer, Silent
from tests.kit.servers import Geard, Gearmand

PING = (Kind.ECHO_REQ, b"x")


def test_eventually_says_what_it_saw_last() -> None:
    with pytest.raises(AssertionError, match=r"a cow.*last seen: \[\]"):
        eventually(list, deadline=0.05, what="a cow")


def test_producer_and_consumer_move_exact_sets(gearmand: Gearmand) -> None:
    """Nothing is lost, doubled or changed by the peers themselves."""
    jobs = [Job(b"q", b"u%d" % size, bytes(range(256)) * size) for size in range(300)]
    assert len(set(submit(gearmand.port, jobs, deadline=10))) == 300
    assert gearmand.admin.queue("q").total == 300
    assert Counter(drain(gearmand.port, b"q", 300)) == Counter(map(seen, jobs))
    assert gearmand.admin.queue("q").total == 0


def test_consumer_sleeps_and_wakes(gearmand: Gearmand) -> None:
    with Consumer(gearmand.port, b"q", client_id=b"me", keep_workloads=True) as consumer:
        for number, job in enumerate(numbered(b"q", 3), 1):
            submit(gearmand.port, [job])
            consumer.wait_for(number, deadline=5)
        assert [worker.client_id for worker in gearmand.admin.workers()][-1:] == ["me"]
    assert [job.workload for job in consumer.jobs] == [b"0 ", b"1 ", b"2 "]


def test_consumer_comes_back_after_a_restart(gearmand: Gearmand) -> None:
    with Consumer(gearmand.port, b"q", reconnect=True) as consumer:
        gearmand.restart()
        submit(gearmand.port, numbered(b"q", 10))
        consumer.wait_for(10, deadline=5)


def test_producer_says_when_it_was_cut(gearmand: Gearmand) -> None:
    with Pipe(gearmand.port) as pipe:
        pipe.blackhole()
        with Producer(pipe.port, numbered(b"q", 10)) as producer:
            pipe.cut()
            with pytest.raises(OSError, match=r"closed|reset"):
                producer.join(5)


def test_sync_client_collects_until_the_end(gearmand: Gearmand) -> None:
    with (
        Consumer(gearmand.port, b"q", answer=lambda job: complete(job, job.workload[::-1])),
        SyncClient(gearmand.port) as client,
    ):
        handles = [client.submit(b"q", b"ab%d" % number) for number in range(3)]
        results = [client.outcome(handle)[-1].args[1] for handle in reversed(handles)]
    assert results == [b"2ba", b"1ba", b"0ba"]


def test_servers_freeze_thaw_and_come_back_on_their_port(gearmand: Gearmand) -> None:
    with Connection(gearmand.port) as connection:
        gearmand.freeze()
        connection.send(*PING)
        assert connection.is_silent(0.2)
        gearmand.thaw()
        assert connection.receive() == Packet(Kind.ECHO_RES, (b"x",))
    port = gearmand.port
    gearmand.kill()
    with pytest.raises(ConnectionRefusedError):
        Connection(port)
    gearmand.start()
    assert gearmand.admin.version()


def test_geard_starts() -> None:
    with Geard() as server:
        assert server.admin.status() == {}


def test_pipe_delays_without_holding_back_throughput(gearmand: Gearmand) -> None:
    """A round trip takes the delay twice; 2,000 of them on their way take it hardly longer."""
    with Pipe(gearmand.port, delay=0.1) as pipe, Connection(pipe.port) as connection:
        start = time.monotonic()
        connection.send_many(Kind.ECHO_REQ, [(b"%d" % number,) for number in range(2000)])
        connection.receive()
        assert time.monotonic() - start >= 0.2
        assert connection.receive_many(1999)[-1] == Packet(Kind.ECHO_RES, (b"1999",))
        assert time.monotonic() - start < 5  # one at a time they would take 400 s


def test_pipe_thins(gearmand: Gearmand) -> None:
    """300 kB over a link of 1 MB/s take 0.3 s at the least."""
    with Pipe(gearmand.port, rate=1e6) as pipe:
        start = time.monotonic()
        submit(pipe.port, [Job(b"q", b"", bytes(300_000))])
        assert time.monotonic() - start >= 0.25
        assert pipe.counters.to_target > 300_000


@pytest.mark.parametrize("to_client", [True, False])
def test_pipe_swallows_and_gives_back(gearmand: Gearmand, to_client: bool) -> None:
    with Pipe(gearmand.port) as pipe, Connection(pipe.port) as connection:
        pipe.blackhole(to_target=not to_client, to_client=to_client)
        connection.send(*PING)
        assert connection.is_silent(0.2)
        pipe.restore()
        assert connection.receive().kind is Kind.ECHO_RES


def test_pipe_cuts_refuses_and_restores(gearmand: Gearmand) -> None:
    with Pipe(gearmand.port) as pipe:
        with Connection(pipe.port) as connection:
            connection.send(*PING)
            connection.receive()
            pipe.refuse()
            connection.send(*PING)
            connection.receive()
            with pytest.raises(ConnectionRefusedError):
                Connection(pipe.port)
            pipe.cut()
            assert connection.receive_to_end() == []
        pipe.restore()
        with Connection(pipe.port) as connection:
            connection.send(*PING)
            connection.receive()
        assert pipe.counters.accepted == 2
        eventually(lambda: pipe.counters.open == 0, what="the FIN went through")


def test_scripted_server_behaves() -> None:
    """The base class hands out, takes back at a disconnect, and confirms in order."""
    with ScriptedServer() as server:
        jobs = list(numbered(b"q", 5))
        with Connection(server.port) as worker:
            worker.send(Kind.GRAB_JOB_UNIQ)
            assert worker.receive().kind is Kind.NO_JOB
            worker.send(Kind.PRE_SLEEP)
            server.offer(*jobs)
            assert worker.receive().kind is Kind.NOOP
            worker.send(Kind.GRAB_JOB_UNIQ)
            assert worker.receive().kind is Kind.JOB_ASSIGN_UNIQ
        assert Counter(drain(server.port, b"q", 5)) == Counter(map(seen, jobs))
        eventually(lambda: len(server.completed) == 5)
        assert submit(server.port, jobs) == [b"T:%d" % number for number in range(1, 6)]
        assert server.submitted == jobs


def test_scripted_servers_misbehave() -> None:
    jobs = list(numbered(b"q", 3))
    with AcceptsAndCloses() as server, Connection(server.port) as connection:
        assert connection.receive_to_end() == []
        assert len(server.connected_at) == 1
    with Silent() as silent, Connection(silent.port) as connection:
        connection.send(*PING)
        assert connection.is_silent(0.1)
    with Garbage() as garbage, Connection(garbage.port) as connection:
        connection.send(*PING)
        with pytest.raises(AssertionError, match="magic"):
            connection.receive()
    with ConfirmsLate(0.2) as late:
        start = time.monotonic()
        submit(late.port, jobs)
        assert time.monotonic() - start >= 0.2
    with Full() as full, Producer(full.port, jobs) as producer:
        producer.join()
        assert [packet.args[0] for packet in producer.errors] == [b"QUEUE_ERROR"] * 3
        full.full = False
        assert len(submit(full.port, jobs)) == 3
