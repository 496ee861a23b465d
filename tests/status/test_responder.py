"""The status queue's worker: answers, zombies, faults of its own and of its gearmand."""

import time

import pytest

from gevproxy.responder import HANDFUL
from tests.kit.eventually import eventually
from tests.kit.packets import Kind
from tests.kit.peers import Job, SyncClient, submit
from tests.kit.scripted import Peer, ScriptedServer
from tests.kit.servers import Gearmand
from tests.status.harness import QUEUE, Harness, check, leave_zombies

OK = b"0:OK - proxy version v1.2 running.|"


def queue_at(server: Gearmand) -> str:
    return f"{server.address}/{QUEUE.decode()}"


def test_a_check_is_answered(gearmand: Gearmand) -> None:
    with Harness(queue_at(gearmand)):
        assert check(gearmand.port, b"check perfdatafilter=^server$") == OK + b" 'server'=1;;;"


def test_a_check_may_end_in_nuls(gearmand: Gearmand) -> None:
    with Harness(queue_at(gearmand)):
        assert check(gearmand.port, b"check perfdatafilter=^server$\0\0") == (
            OK + b" 'server'=1;;;"
        )


def test_what_a_check_gets_holds_no_nul_and_no_line_feed(gearmand: Gearmand) -> None:
    """check_gearman prints up to the first NUL."""
    with Harness(queue_at(gearmand)):
        assert not {0, 10} & set(check(gearmand.port))


def test_it_says_who_it_is(gearmand: Gearmand) -> None:
    with Harness(queue_at(gearmand)) as harness:
        harness.wait_event("status_queue_up")
        eventually(
            lambda: "gevproxy-status" in {each.client_id for each in gearmand.admin.workers()}
        )


def test_requests_that_nobody_waits_for_are_cleared_at_the_start(gearmand: Gearmand) -> None:
    """A check with the unique of one of them, `check`, is not answered before that."""
    leave_zombies(gearmand.port, b"check", *(b"z%d" % n for n in range(1000)))
    assert gearmand.admin.queue(QUEUE.decode()).total == 1001
    with Harness(queue_at(gearmand)):
        eventually(lambda: not gearmand.admin.queue(QUEUE.decode()).total, what="an empty queue")
        assert check(gearmand.port).startswith(OK)


def test_never_more_than_a_handful_at_once() -> None:
    jobs = [Job(QUEUE, b"u%d" % n, b"check") for n in range(200)]

    class Counts(ScriptedServer):
        most = 0

        def on_grab(self, peer: Peer) -> None:
            super().on_grab(peer)
            self.most = max(self.most, len(peer.held))

    with Counts() as server, Harness(f"{server.address}/{QUEUE.decode()}"):
        server.offer(*jobs)
        eventually(lambda: len(server.completed) == len(jobs), what="all answers")
        assert 1 < server.most <= HANDFUL


def test_a_lost_wake_up_does_not_cost_a_check_its_patience() -> None:
    class NeverWakes(ScriptedServer):
        def wake(self, peer: Peer) -> None:
            pass

    with NeverWakes() as server, Harness(f"{server.address}/{QUEUE.decode()}"):
        eventually(lambda: any(peer.asleep for peer in server.peers), what="a sleeping worker")
        server.offer(Job(QUEUE, b"check", b"check"))
        eventually(lambda: server.completed, 6.0, what="an answer")


def test_gearmand_comes_back(gearmand: Gearmand) -> None:
    with Harness(queue_at(gearmand)) as harness:
        harness.wait_event("status_queue_up")
        gearmand.stop()
        harness.wait_event("status_queue_lost")
        harness.wait_event("status_queue_away")
        gearmand.start()
        assert check(gearmand.port).startswith(OK)


def test_it_leaves_in_order(gearmand: Gearmand) -> None:
    with Harness(queue_at(gearmand)) as harness:
        harness.wait_event("status_queue_up")
        eventually(lambda: gearmand.admin.queue(QUEUE.decode()).workers == 1)
    assert gearmand.admin.queue(QUEUE.decode()).workers == 0
    assert not {"status_queue_lost", "status_queue_away"} & {
        record["event"] for record in harness.records
    }


def test_an_answer_that_fails_is_unknown_and_costs_no_other(gearmand: Gearmand) -> None:
    with Harness(queue_at(gearmand)) as harness:
        assert check(gearmand.port, b"fail").startswith(b"3:UNKNOWN - ")
        record = harness.wait_event("status_queue_failed")
        assert "as asked" in record["traceback"]
        assert check(gearmand.port).startswith(OK)


def test_a_crash_is_a_record_and_a_new_start(gearmand: Gearmand) -> None:
    """The job that did it is handed out again, until its submitter has gone."""
    with Harness(queue_at(gearmand)) as harness:
        with SyncClient(gearmand.port) as client:
            client.submit(QUEUE, b"crash", b"u", Kind.SUBMIT_JOB_HIGH)
            record = harness.wait_event("status_queue_crashed", 2)
        assert "as asked" in record["traceback"]
        assert check(gearmand.port).startswith(OK)


@pytest.mark.parametrize("pattern", [b"(", b"(?u)(?a)x", b".?" * 40 + b"=", b"x" * 1000])
def test_after_a_filter_that_cannot_be_used_the_next_check_works(
    gearmand: Gearmand, pattern: bytes
) -> None:
    with Harness(queue_at(gearmand)):
        begun = time.monotonic()
        answer = check(gearmand.port, b"check perfdatafilter=" + pattern)
        assert answer.startswith(OK.replace(b"0:OK", b"3:UNKNOWN")[:-1] + b" perfdatafilter ")
        assert time.monotonic() - begun < 1
        assert check(gearmand.port).startswith(OK)


def test_a_background_job_is_ended_too(gearmand: Gearmand) -> None:
    submit(gearmand.port, [Job(QUEUE, b"u", b"check")])
    with Harness(queue_at(gearmand)):
        eventually(lambda: not gearmand.admin.queue(QUEUE.decode()).total, what="an empty queue")
