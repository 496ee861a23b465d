"""What gearmand does with foreground jobs: both sides of a sync forward."""

import shutil
import subprocess

import pytest

from tests.facts.steps import JOB_NOT_FOUND, NO_JOB, create, grab, open_worker, settle, take
from tests.kit.eventually import eventually
from tests.kit.packets import Connection, Kind, Packet
from tests.kit.servers import Gearmand


@pytest.mark.parametrize("kind", [Kind.SUBMIT_JOB, Kind.SUBMIT_JOB_BG])
def test_a_resubmit_with_the_unique_of_a_zombie_vanishes(gearmand: Gearmand, kind: Kind) -> None:
    """A queued job whose client has gone swallows its like: sync forwards pass no unique on."""
    with Connection(gearmand.port) as client:
        zombie = create(client, b"q", b"u", kind=Kind.SUBMIT_JOB)
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        eventually(lambda: len(gearmand.admin.workers()) == 3, what="the first client has gone")
        assert create(client, b"q", b"u", kind=kind) == zombie
        assert gearmand.admin.queue("q").total == 1
        assert grab(worker) == NO_JOB
        assert gearmand.admin.queue("q").total == 0
        settle(client)  # and its client is told nothing


def test_a_resubmit_attaches_to_a_running_job(gearmand: Gearmand) -> None:
    """While a worker has the job, the second client gets the result."""
    with open_worker(gearmand.port, b"q") as worker:
        with Connection(gearmand.port) as client:
            create(client, b"q", b"u", kind=Kind.SUBMIT_JOB)
            handle = take(worker)
        with Connection(gearmand.port) as client:
            assert create(client, b"q", b"u", kind=Kind.SUBMIT_JOB) == handle
            worker.send(Kind.WORK_COMPLETE, handle, b"result")
            assert client.receive() == Packet(Kind.WORK_COMPLETE, (handle, b"result"))


def test_a_running_job_of_a_client_that_left_may_be_completed(gearmand: Gearmand) -> None:
    """A reply that nobody waits for is no error at the source."""
    with open_worker(gearmand.port, b"q") as worker:
        with Connection(gearmand.port) as client:
            create(client, b"q", kind=Kind.SUBMIT_JOB)
            handle = take(worker)
        worker.send(Kind.WORK_COMPLETE, handle, b"result")
        settle(worker)
        assert gearmand.admin.queue("q").total == 0


def test_updates_are_passed_on_in_order_and_bytes_untouched(gearmand: Gearmand) -> None:
    """Every WORK_* packet of a worker reaches the client as it came."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        create(client, b"q", kind=Kind.SUBMIT_JOB)
        handle = take(worker)
        updates = [
            Packet(Kind.WORK_WARNING, (handle, b"warn\0ing")),
            Packet(Kind.WORK_STATUS, (handle, b"1", b"2")),
            Packet(Kind.WORK_DATA, (handle, b"\0data\0")),
            Packet(Kind.WORK_COMPLETE, (handle, b"\0")),
        ]
        for kind, args in updates:
            worker.send(kind, *args)
        assert client.receive_many(4) == updates


def test_work_fail_reaches_the_client_as_it_is(gearmand: Gearmand) -> None:
    """A plain WORK_FAIL has no NUL behind its handle."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        handle = create(client, b"q", kind=Kind.SUBMIT_JOB)
        worker.send(Kind.WORK_FAIL, take(worker))
        assert client.receive() == Packet(Kind.WORK_FAIL, (handle,))


def test_an_exception_reaches_a_client_that_asked_for_it_and_ends_the_job(
    gearmand: Gearmand,
) -> None:
    """Sync forwards set the option at the target; no WORK_FAIL follows an exception."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        client.send(Kind.OPTION_REQ, b"exceptions")
        assert client.receive() == Packet(Kind.OPTION_RES, (b"exceptions",))
        handle = create(client, b"q", kind=Kind.SUBMIT_JOB)
        worker.send(Kind.WORK_EXCEPTION, take(worker), b"bo\0om")
        assert client.receive() == Packet(Kind.WORK_EXCEPTION, (handle, b"bo\0om"))
        settle(client)
        worker.send(Kind.WORK_FAIL, handle)
        assert worker.receive() == JOB_NOT_FOUND


def test_an_exception_becomes_a_fail_with_a_trailing_nul_without_the_option(
    gearmand: Gearmand,
) -> None:
    """A NUL after a handle has to be tolerated."""
    with Connection(gearmand.port) as client, open_worker(gearmand.port, b"q") as worker:
        handle = create(client, b"q", kind=Kind.SUBMIT_JOB)
        worker.send(Kind.WORK_EXCEPTION, take(worker), b"boom")
        assert client.receive() == Packet(Kind.WORK_FAIL, (handle + b"\0",))
        settle(client)
        worker.send(Kind.WORK_COMPLETE, handle, b"")
        assert worker.receive() == JOB_NOT_FOUND


@pytest.mark.skipif(shutil.which("gearman") is None, reason="gearman-tools is not installed")
def test_the_gearman_command_hangs_on_an_exception(gearmand: Gearmand) -> None:
    """The status queue never answers with an exception: libgearman's users would wait for ever."""
    command = ["gearman", "-h", "127.0.0.1", "-p", str(gearmand.port), "-f", "q", "workload"]
    with open_worker(gearmand.port, b"q") as worker:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: gearmand.admin.queue("q").total == 1)
            worker.send(Kind.WORK_EXCEPTION, take(worker), b"boom")
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.0)
        finally:
            process.kill()
            process.wait()
