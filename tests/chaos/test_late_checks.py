"""An outage of the target while Naemon goes on asking for checks: what is late is not run in vain.

Ten minutes with `max_age` 60, told in seconds: a check that comes in it is as old by the return as
it would be in ten minutes. `OUTAGE=600 make test ARGS="tests/chaos/test_late_checks.py -s"` takes
the ten minutes over it. Both print what became of the checks.
"""

import os
import time
from base64 import b64decode, b64encode
from dataclasses import dataclass, field

import pytest

from tests.chaos.sealed import BLOCK, cipher
from tests.chaos.test_processes import pause
from tests.kit.eventually import eventually
from tests.kit.peers import Consumer, Job, submit
from tests.kit.servers import PersistentGearmand
from tests.mod_gearman.test_late import RESULTS, number, text
from tests.mod_gearman.test_late import field as header
from tests.relay.forwarding import HERE, THERE, relay, wait_queue

OUTAGE = float(os.environ.get("OUTAGE", "6"))  # seconds
TOLD = max(OUTAGE, 600.0)  # seconds of the outage by the checks' core_time
MAX_AGE = 60.0
SLACK = 20.0  # seconds around MAX_AGE in which a busy machine may decide
BEHIND = 3.0  # seconds of work before and behind it
STEP = 0.1  # seconds between two handfuls of checks
HANDFUL = 5
LOCAL, REMOTE = "the password here", "the password there"


@dataclass
class Site:
    """Naemon's side: the checks that it has asked for, by what must become of them."""

    port: int
    late: set[int] = field(default_factory=set)
    fresh: set[int] = field(default_factory=set)
    either: set[int] = field(default_factory=set)  # so close to the limit that anything may be

    @property
    def count(self) -> int:
        """Return how many there are."""
        return len(self.late) + len(self.fresh) + len(self.either)

    def work(self, seconds: float, *, outage: bool = False) -> None:
        """Ask for checks for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            at_the_end = left * TOLD / OUTAGE if outage else 0.0
            group = self.fresh
            if at_the_end > MAX_AGE - SLACK:
                group = self.late if at_the_end > MAX_AGE + SLACK else self.either
            age = max(0.0, at_the_end - left)
            handful = range(self.count, self.count + HANDFUL)
            submit(self.port, [Job(HERE, b"%d" % n, sealed(text(n, age))) for n in handful])
            group.update(handful)
            pause(STEP)


def sealed(content: bytes) -> bytes:
    """Return a check as Naemon's side sends it."""
    return b64encode(cipher(LOCAL).encrypt(content + bytes(BLOCK - len(content) % BLOCK)))


def opened(consumer: Consumer, password: str) -> list[bytes]:
    """Return what came out of a queue, in plain text."""
    workloads = [b64decode(job.workload, validate=True) for job in consumer.jobs]
    return [cipher(password).decrypt(workload).rstrip(b"\0") for workload in workloads]


@pytest.mark.timeout(OUTAGE + 170)
def test_after_ten_minutes_fresh_checks_are_run_and_late_ones_answered(
    near: PersistentGearmand, far: PersistentGearmand
) -> None:
    """Every check is run or answered, none is both, and none is unaccounted for."""
    site = Site(near.port)
    with (
        relay(near, far, max_age=MAX_AGE, decrypt=LOCAL, encrypt=REMOTE) as proxy,
        Consumer(far.port, THERE, keep_workloads=True, reconnect=True) as worker,
        Consumer(near.port, RESULTS.encode(), keep_workloads=True) as naemon,
    ):
        site.work(BEHIND)
        worker.wait_for(site.count)
        before = site.count
        far.stop()
        proxy.wait_event("target_lost")
        site.work(OUTAGE, outage=True)
        waiting = near.admin.queue(HERE.decode()).total
        far.start()
        back = time.monotonic()
        site.work(BEHIND)
        eventually(lambda: len(worker.jobs) + len(naemon.jobs) >= site.count, 60.0)
        seconds = time.monotonic() - back
        wait_queue(near, total=0)
        counters = proxy.only_stats()["counters"]
    results = opened(naemon, LOCAL)
    run = [number(check) for check in opened(worker, REMOTE)]
    answered = [number(result) for result in results]
    unaccounted = set(range(site.count)) - set(run) - set(answered)
    print(  # noqa: T201
        f"{site.count} checks, {before} before an outage of {OUTAGE:g} s and {waiting} waiting at "
        f"its end: {len(run)} run, {len(answered)} answered late, {len(unaccounted)} unaccounted, "
        f"{len(set(run) & set(answered))} both; all done {seconds:.1f} s after the return"
    )
    assert sorted(run + answered) == list(range(site.count))
    assert site.fresh <= set(run)
    assert site.late <= set(answered)
    assert counters["answered"] == counters["late"] == len(answered)
    assert counters["dead_lettered"] == counters["dropped"] == 0
    for result in results:
        assert header(result, "return_code") == b"3"
        assert header(result, "output") == b"Could not start check in time"
