"""A client that waits for a reply sees the same through a relay as directly."""

import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import gear
import pytest

from tests.kit.eventually import eventually
from tests.kit.packets import Kind, Packet
from tests.kit.peers import Assigned, Consumer, SyncClient
from tests.kit.pipe import Pipe
from tests.kit.relay import Record, Relay, config
from tests.kit.scripted import Refuses
from tests.kit.servers import Gearmand

QUEUE = b"sync"
WORKERS = 50


def answer(job: Assigned) -> Sequence[Packet]:
    """Send every kind of update; the workload's first word says how the job ends."""
    end = job.workload.split(b" ")[0]
    updates = [
        Packet(Kind.WORK_STATUS, (job.handle, b"1", b"2")),
        Packet(Kind.WORK_WARNING, (job.handle, b"warn\0ing of " + job.workload)),
        Packet(Kind.WORK_DATA, (job.handle, bytes(range(256)))),
    ]
    if end == b"fail":
        return [*updates, Packet(Kind.WORK_FAIL, (job.handle,))]
    if end == b"exception":
        return [*updates, Packet(Kind.WORK_EXCEPTION, (job.handle, b"oh\0 " + job.workload))]
    return [*updates, Packet(Kind.WORK_COMPLETE, (job.handle, b"\0result of " + job.workload))]


def ends(count: int) -> list[bytes]:
    """Return workloads that end in each of the three ways."""
    return [[b"complete", b"fail", b"exception"][n % 3] + b" %d" % n for n in range(count)]


@contextmanager
def forward(source: Gearmand, target: Gearmand | Refuses, **options: Any) -> Iterator[Relay]:  # noqa: ANN401 - JSON
    """Run a relay with one sync forward; at the end its accounting must balance."""
    settings: Record = {"remote_queue": f"{target.address}/{QUEUE.decode()}", "async": False}
    settings = {"workers": WORKERS, **settings, **options}
    with Relay(config({f"{source.address}/{QUEUE.decode()}": settings})) as relay:
        relay.wait_event("source_up")
        yield relay
        balance(relay)


def balance(relay: Relay) -> Record:
    """Check that nothing is held or unaccounted for in the end; return the counters."""

    def at_rest() -> Record | None:
        (status,) = relay.stats().values()
        return status if not status["held"] and not status["in_flight"] else None

    status = eventually(at_rest, 20.0, what="a forward at rest")
    assert status is not None
    assert status["unaccounted"] == 0
    assert not relay.events("accounting")
    counters: Record = status["counters"]
    return counters


class Outcome(NamedTuple):
    """What python-gear tells of a finished job."""

    data: list[bytes]
    warning: bool
    failure: bool
    exception: bytes | None
    fraction: float | None


def by_gear(port: int, workloads: list[bytes], uniques: bool = False) -> list[Outcome]:
    """Submit all jobs at once with python-gear and wait for their ends."""
    client = gear.Client()
    client.addServer("127.0.0.1", port)
    client.waitForServer()
    client.setOption("exceptions")
    jobs = []
    for n, workload in enumerate(workloads):
        job = gear.Job(QUEUE, workload, unique=b"u%d" % n if uniques else None)
        jobs.append(job)
        client.submitJob(job)
    eventually(lambda: all(job.complete for job in jobs), 30.0, what="an end of every job")
    client.shutdown()
    return [
        Outcome(job.data, job.warning, job.failure, job.exception, job.fraction_complete)
        for job in jobs
    ]


def by_command(port: int, workload: bytes) -> tuple[int | None, bytes]:
    """Submit a job with the `gearman` command; None as its exit code where it hangs."""
    command = ["gearman", "-h", "127.0.0.1", "-p", str(port), "-f", QUEUE.decode()]
    try:
        done = subprocess.run(command, input=workload, capture_output=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return None, b""
    return done.returncode, done.stdout


@pytest.mark.parametrize("uniques", [False, True])
def test_python_gear_sees_the_same_with_a_relay_as_without(
    gearmand_a: Gearmand, gearmand_b: Gearmand, uniques: bool
) -> None:
    """200 jobs at once, every kind of update, every end; each job runs once, a FAIL too."""
    workloads = ends(200)
    with Consumer(gearmand_b.port, QUEUE, answer=answer) as worker:
        direct = by_gear(gearmand_b.port, workloads, uniques)
        with forward(gearmand_a, gearmand_b) as relay:
            relayed = by_gear(gearmand_a.port, workloads, uniques)
            assert balance(relay)["answered"] == 200
        assert relayed == direct
        assert len(worker.seen) == 400
    assert {outcome.failure for outcome in direct} == {True, False}


def test_every_packet_is_passed_back_as_it_came(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """In its order, byte for byte but for the handle."""
    with Consumer(gearmand_b.port, QUEUE, answer=answer), forward(gearmand_a, gearmand_b):
        for workload in ends(3):
            outcomes = []
            for port in (gearmand_a.port, gearmand_b.port):
                with SyncClient(port, exceptions=True) as client:
                    packets = client.call(QUEUE, workload)
                    outcomes.append([(p.kind, p.args[1:]) for p in packets])
            assert outcomes[0] == outcomes[1]
            assert len(outcomes[0]) == 4


def test_a_client_without_the_option_gets_a_plain_fail(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """As it does without a relay: gearmand turns the exception into WORK_FAIL."""
    with Consumer(gearmand_b.port, QUEUE, answer=answer), forward(gearmand_a, gearmand_b):
        for port in (gearmand_a.port, gearmand_b.port):
            with SyncClient(port) as client:
                assert client.call(QUEUE, b"exception")[-1].kind is Kind.WORK_FAIL


@pytest.mark.parametrize("workload", [b"complete 1", b"fail 2", b"exception 3"])
def test_the_gearman_command_sees_the_same_with_a_relay_as_without(
    gearmand_a: Gearmand, gearmand_b: Gearmand, workload: bytes
) -> None:
    """It hangs on an exception either way, hence the deadline."""
    with Consumer(gearmand_b.port, QUEUE, answer=answer):
        direct = by_command(gearmand_b.port, workload)
        with forward(gearmand_a, gearmand_b):
            assert by_command(gearmand_a.port, workload) == direct
    if workload.startswith(b"complete"):
        assert b"result of complete 1" in direct[1]


def test_no_unique_is_passed_on(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """A zombie at the target would swallow the resubmit."""
    with Consumer(gearmand_b.port, QUEUE) as worker, forward(gearmand_a, gearmand_b):
        with SyncClient(gearmand_a.port) as client:
            client.call(QUEUE, b"x", unique=b"unique")
        assert worker.uniques == [b""]


def test_no_more_than_workers_jobs_at_once(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """The target's queue never holds more, and the rest waits at the source."""
    with forward(gearmand_a, gearmand_b, workers=3), SyncClient(gearmand_a.port) as client:
        handles = [client.submit(QUEUE, b"%d" % n) for n in range(20)]
        queue = QUEUE.decode()
        eventually(lambda: gearmand_b.admin.queue(queue).total == 3, what="three jobs")
        with Consumer(gearmand_b.port, QUEUE, window=1):
            for handle in handles:
                assert client.outcome(handle)[-1].kind is Kind.WORK_COMPLETE


def test_clients_that_leave_early(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """Their jobs end, nobody else waits for them, with uniques and without."""
    with forward(gearmand_a, gearmand_b, workers=5) as relay:
        for n in range(40):
            with SyncClient(gearmand_a.port) as client:
                client.submit(QUEUE, b"left %d" % n, unique=b"u%d" % n if n % 2 else b"")
        with SyncClient(gearmand_a.port) as client:
            handle = client.submit(QUEUE, b"stays", unique=b"u1")
            with Consumer(gearmand_b.port, QUEUE):
                # The unique of a job whose client has gone may be a zombie's at the source, and
                # then nobody answers, with a relay or without: ask again without one.
                del handle
                assert client.call(QUEUE, b"stays")[-1].kind is Kind.WORK_COMPLETE
                balance(relay)


def test_replies_of_10_mib_to_a_slow_client(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """They arrive whole, and the relay holds back the target rather than filling its memory."""
    big = bytes(range(256)) * 40 * 1024
    count = 20

    def reply(job: Assigned) -> Sequence[Packet]:
        return [Packet(Kind.WORK_COMPLETE, (job.handle, big))]

    with (
        Pipe(gearmand_a.port, rate=20_000_000) as pipe,
        Consumer(gearmand_b.port, QUEUE, answer=reply),
    ):
        settings = {"remote_queue": f"{gearmand_b.address}/{QUEUE.decode()}", "async": False}
        queues = {f"{pipe.address}/{QUEUE.decode()}": {**settings, "workers": WORKERS}}
        with Relay(config(queues)) as relay, SyncClient(gearmand_a.port, timeout=60.0) as client:
            relay.wait_event("source_up")
            before = relay.rss()
            handles = [client.submit(QUEUE, b"big") for _ in range(count)]
            for handle in handles:
                assert client.outcome(handle, 60.0)[-1].args[1] == big
            assert balance(relay)["answered"] == count
            assert relay.peak_rss() - before < count * len(big) / 2


def test_a_job_without_an_answer_ends_by_its_timeout(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """With WORK_FAIL; the late reply is dropped, and the next job is served."""
    with forward(gearmand_a, gearmand_b, timeout=1, workers=1) as relay:
        with SyncClient(gearmand_a.port) as client:
            assert client.call(QUEUE, b"complete late")[-1].kind is Kind.WORK_FAIL
            relay.wait_event("job_timeout")
            with Consumer(gearmand_b.port, QUEUE, answer=answer):
                assert client.call(QUEUE, b"complete")[-1].kind is Kind.WORK_COMPLETE
        assert balance(relay)["timeouts"] == 1


class Waiting:
    """Clients that each wait for one job on a connection of their own."""

    def __init__(self, port: int, count: int, unique: bool) -> None:
        self.ends: list[Kind | None] = [None] * count
        self.threads = [
            threading.Thread(target=self._wait, args=(port, n, unique)) for n in range(count)
        ]
        for thread in self.threads:
            thread.start()

    def _wait(self, port: int, n: int, unique: bool) -> None:
        with SyncClient(port, exceptions=True) as client:
            handle = client.submit(QUEUE, b"complete %d" % n, unique=b"u%d" % n if unique else b"")
            self.ends[n] = client.outcome(handle, 60.0)[-1].kind

    def join(self) -> list[Kind | None]:
        """Wait for all ends."""
        for thread in self.threads:
            thread.join(70.0)
        return self.ends


@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("on_disconnect", ["requeue", "fail"])
def test_the_target_is_restarted_in_the_middle(
    gearmand_a: Gearmand, gearmand_b: Gearmand, on_disconnect: str, unique: bool
) -> None:
    """Nobody waits for ever: each client gets its result, or with `fail` perhaps a failure."""
    with forward(gearmand_a, gearmand_b, on_disconnect=on_disconnect) as relay:
        clients = Waiting(gearmand_a.port, 40, unique)
        queue = QUEUE.decode()
        eventually(lambda: gearmand_b.admin.queue(queue).total == 40, what="all jobs at B")
        gearmand_b.restart()
        relay.wait_event("target_lost")
        with Consumer(gearmand_b.port, QUEUE, answer=answer, reconnect=True):
            found = clients.join()
        wanted = Kind.WORK_COMPLETE if on_disconnect == "requeue" else Kind.WORK_FAIL
        assert found == [wanted] * 40
        counters = balance(relay)
        assert counters["answered"] == 40
        assert counters["given_back"] == (40 if on_disconnect == "requeue" else 0)


def test_a_reply_over_max_packet_fails_its_job_and_no_other(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Or it would run at the target again and again."""

    def reply(job: Assigned) -> Sequence[Packet]:
        return [Packet(Kind.WORK_COMPLETE, (job.handle, bytes(int(job.workload))))]

    queues = {
        f"{gearmand_a.address}/sync": {"remote_queue": f"{gearmand_b.address}/sync", "async": False}
    }
    with (
        Consumer(gearmand_b.port, QUEUE, answer=reply) as worker,
        Relay(config(queues, max_packet=100_000)) as relay,
        SyncClient(gearmand_a.port) as client,
    ):
        assert client.call(QUEUE, b"200000")[-1].kind is Kind.WORK_FAIL
        assert client.call(QUEUE, b"50000")[-1].args[1] == bytes(50_000)
        assert len(worker.seen) == 2
        assert "over max_packet (100000)" in relay.wait_event("target_lost")["message"]
        balance(relay)


def test_a_full_target_only_delays(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """A queue at its limit is no refusal: every client gets its result."""
    with Consumer(gearmand_b.port, QUEUE, window=1) as worker:
        worker.stop()
    gearmand_b.admin.maxqueue(QUEUE.decode(), 1)
    with forward(gearmand_a, gearmand_b, workers=5), SyncClient(gearmand_a.port) as client:
        handles = [client.submit(QUEUE, b"%d" % n) for n in range(10)]
        with Consumer(gearmand_b.port, QUEUE, window=1):
            for handle in handles:
                assert client.outcome(handle, 60.0)[-1].kind is Kind.WORK_COMPLETE


def test_a_refused_job_fails_and_the_eleventh_in_a_row_blocks(gearmand_a: Gearmand) -> None:
    """What the target will not take is answered, not retried, and makes no dead letter."""
    with (
        Refuses(lambda _: True, b"BAD_JOB") as target,
        forward(gearmand_a, target, workers=1) as relay,
        SyncClient(gearmand_a.port) as client,
    ):
        for n in range(10):
            assert client.call(QUEUE, b"%d" % n)[-1].kind is Kind.WORK_FAIL
        client.submit(QUEUE, b"the eleventh")
        assert "BAD_JOB" in relay.wait_event("forward_blocked")["message"]
        relay.wait_event("source_left")
        assert gearmand_a.admin.queue(QUEUE.decode()).total == 1
        counters = balance(relay)
        assert (counters["answered"], counters["dead_lettered"]) == (10, 0)


def test_a_blocked_forward_comes_back_while_a_long_job_runs(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """It cannot leave its source without losing that job's answer."""
    long, good, release = b"dHlwZT1sb25n", b"dHlwZT1nb29k", b"dHlwZT1lbmQ="  # base64 of type=...
    answers: list[Assigned] = []

    def reply(job: Assigned) -> Sequence[Packet]:
        if job.workload == long:
            answers.append(job)
            return []
        ended = [job, *answers] if job.workload == release else [job]
        return [Packet(Kind.WORK_COMPLETE, (each.handle, b"answer")) for each in ended]

    options = {"workers": 20, "rewrite": [{"pattern": "nowhere", "replace": ""}]}
    with (
        Consumer(gearmand_b.port, QUEUE, answer=reply),
        forward(gearmand_a, gearmand_b, **options) as relay,
        SyncClient(gearmand_a.port) as patient,
        SyncClient(gearmand_a.port) as client,
    ):
        handle = patient.submit(QUEUE, long)
        eventually(lambda: answers, what="the long job at its worker")
        bad = [client.submit(QUEUE, b"*bad* %d" % number) for number in range(11)]
        relay.wait_event("forward_blocked")
        assert client.call(QUEUE, good)[-1].kind is Kind.WORK_COMPLETE
        relay.wait_event("forward_unblocked")
        assert not relay.events("source_left")
        for each in bad:
            assert client.outcome(each)[-1].kind is Kind.WORK_FAIL
        client.call(QUEUE, release)
        assert patient.outcome(handle)[-1].args[1] == b"answer"
        assert len(answers) == 1
