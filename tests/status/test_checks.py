"""The status queue of a running relay: what a check sees when things go wrong."""

import re
import time
from collections.abc import Iterable, Iterator
from itertools import pairwise

from tests.kit.eventually import eventually
from tests.kit.peers import Consumer, Job, Producer, numbered, submit
from tests.kit.ports import free_port
from tests.kit.relay import Record, Relay, config
from tests.kit.servers import Gearmand
from tests.status.harness import QUEUE, check

RATE = 20_000  # jobs a second
JOBS = 60_000
BURST = 500  # jobs that are offered at once
CHECKS = 10  # answers amid the load that there must be at least


def settings(source: Gearmand, target: str, **more: object) -> Record:
    """Return two forwards to one target and the status queue at the source."""
    queues = {f"{source.address}/{queue}": f"{target}/{queue}" for queue in ("x", "y")}
    status_queue = f"{source.address}/{QUEUE.decode()}"
    return config(queues, status_queue=status_queue, **more)


def wait_line(server: Gearmand, pattern: str, deadline: float = 10.0) -> str:
    """Wait until a check's line matches, and return it."""

    def matches() -> str:
        line = check(server.port).decode()
        return line if re.match(pattern, line) else ""

    return eventually(matches, deadline, what=pattern)


def test_all_is_well(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    with (
        Relay(settings(gearmand_a, gearmand_b.address)),
        Consumer(gearmand_b.port, b"x") as consumer,
    ):
        submit(gearmand_a.port, numbered(b"x", 500, b"x" * 90))
        consumer.wait_for(500)
        line = wait_line(gearmand_a, r"0:OK - proxy version v\S+ running\.\| 'backlog'=0;;;")
        assert " 'queues'=2;;; 'server'=1;;; 'total_errors'=0c;;; 'total_jobs'=500c;;;" in line
        assert " 'x::jobs'=500c;;; 'y::bytes_out'=0c;;; 'y::jobs'=0c;;; 'unaccounted'=0;;;" in line


def test_a_target_is_away_and_then_for_too_long(gearmand_a: Gearmand) -> None:
    """It answers although nothing else works."""
    target = f"127.0.0.1:{free_port()}"
    with Relay(settings(gearmand_a, target, status={"critical_after": 2})):
        words = rf" - proxy version v\S+ running\. 1 server failed: {re.escape(target)}\. "
        line = wait_line(gearmand_a, "1:WARNING" + words)
        assert f" {gearmand_a.address}/x: target away: " in line
        assert f" {gearmand_a.address}/y: target away: " in line
        wait_line(gearmand_a, "2:CRITICAL" + words)


def test_the_status_queue_follows_a_reload(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    first = settings(gearmand_a, gearmand_b.address)
    with Relay(first) as relay:
        wait_line(gearmand_a, "0:OK")
        relay.configure({**first, "status_queue": f"{gearmand_b.address}/{QUEUE.decode()}"})
        relay.hup()
        wait_line(gearmand_b, "0:OK")
        eventually(lambda: not gearmand_a.admin.queue(QUEUE.decode()).workers, what="no worker")


def paced(jobs: Iterable[Job], rate: int) -> Iterator[Job]:
    """Yield so many jobs a second; what somebody who is slow has missed follows at once."""
    begun = time.monotonic()
    for number, job in enumerate(jobs):
        if number % BURST == 0:
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
        yield job


def test_a_check_is_answered_within_a_second_while_20_000_jobs_a_second_pass(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """And not before or after: each check counts that the relay answered amid the load.

    From one answer to the next no more jobs pass than a second's: where the machine is slow, both
    are. The load is paced: a gearmand that is given all at once is late with whatever it is asked.
    """
    seen = [0]  # the jobs that had passed, as each answer says
    with (
        Relay(settings(gearmand_a, gearmand_b.address)),
        Consumer(gearmand_b.port, b"x", window=500) as consumer,
    ):
        wait_line(gearmand_a, "0:OK")
        with Producer(gearmand_a.port, paced(numbered(b"x", JOBS, b"x" * 300), RATE)):
            while seen[-1] < JOBS:
                seen.append(total(check(gearmand_a.port).decode()))
        consumer.wait_for(JOBS)
    assert sum(0 < jobs < JOBS for jobs in seen) >= CHECKS
    assert max(after - before for before, after in pairwise(seen)) < RATE


def total(line: str) -> int:
    """Return the jobs that have been taken, as a line says."""
    found = re.search(r"'total_jobs'=(\d+)c;;;", line)
    assert found, line
    return int(found[1])
