"""The demo's traffic: a monitoring core at A, a worker at B, and the count of what came back.

    A   producer  --check--->   relay   --check--->  worker   B
    A   collector <--result--   relay   <--result--  worker   B

The peers are links of gevproxy.gearman, like the relay's own. Their callbacks never block, and
run on greenlets (the process is patched), so nothing here needs a lock. Knows no process and no
terminal.
"""

import base64
import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from gevproxy.errors import GearmanError
from gevproxy.gearman import (
    Assigned,
    Client,
    Confirmed,
    Handle,
    Job,
    Link,
    LinkEvents,
    Server,
    Worker,
)
from gevproxy.gearman.connection import P
from gevproxy.gearman.job import Priority

CHECKS: Final = "hostgroup_network_b"
RESULTS: Final = "check_results"

_WINDOW: Final = 500
"""Jobs that each peer has under way at once."""

_LEAD: Final = 1000
"""Checks under way at once. A monitoring core does not submit an hour's checks in one go either,
and geard's time for a job grows with the length of its queue.
"""

_LINGER: Final = 1.0
"""Seconds for a peer's last bytes."""

_TEXT_SIZE: Final = 368
"""Bytes of a check's text: as base64 it has 492, a usual size."""


class Tally:
    """What has become of the checks."""

    def __init__(self) -> None:
        self.sent = 0  # A's server has confirmed them
        self.results = 0
        self._answered: set[int] = set()

    def add_result(self, number: int) -> None:
        """Count a result of this check."""
        self.results += 1
        self._answered.add(number)

    @property
    def back(self) -> int:
        """Checks of which a result has come back."""
        return len(self._answered)

    @property
    def repeats(self) -> int:
        """Results beyond a check's first."""
        return self.results - self.back


def check(number: int) -> bytes:
    """Return a check as Mod-Gearman sends it when it does not encrypt."""
    text = (
        f"type=service\nresult_queue={RESULTS}\ntarget_queue={CHECKS}\n"
        f"host_name=host{number // 50:05}\nservice_description=svc{number:07}\n"
        f"core_time={time.time():.6f}\ntimeout=60\n"
        "command_line=/usr/lib/nagios/plugins/check_disk -w 20% -c 10% -p / -p /var -p /home\n\n\n"
    )
    return base64.b64encode(text.encode().ljust(_TEXT_SIZE, b"\0"))


def answer(payload: bytes) -> bytes:
    """Return the result that a worker gives to a check."""
    fields = _fields(payload)
    now = f"{time.time():.6f}".encode()
    return base64.b64encode(
        b"host_name=" + fields[b"host_name"] + b"\ncore_start_time=" + fields[b"core_time"]
        + b"\nstart_time=" + now + b"\nfinish_time=" + now
        + b"\nreturn_code=0\nexited_ok=1\nsource=gevproxy demo\nservice_description="
        + fields[b"service_description"] + b"\noutput=DISK OK - free space: / 71%\n\n\n\n\n\0"
    )  # fmt: skip


def number_of(payload: bytes) -> int:
    """Return the number of the check that a result belongs to."""
    return int(_fields(payload)[b"service_description"].removeprefix(b"svc"))


def _fields(payload: bytes) -> dict[bytes, bytes]:
    lines = base64.b64decode(payload).split(b"\n")
    parts = (line.partition(b"=") for line in lines)
    return {name: value for name, _, value in parts}


class Traffic:
    """Sends `jobs` checks at A, answers them at B, collects the results at A.

    `fault` says in words how it was cut short. There is one connection of each kind, and a lost
    one is not made again: the demo's servers are not meant to go away.
    """

    def __init__(self, near: Server, far: Server, jobs: int) -> None:
        self.tally = Tally()
        self.jobs = jobs
        self.fault = ""
        self._started_at = self._last_at = 0.0
        self._submitted = 0
        self._producer = Client[int](priority=Priority.LOW)  # as Mod-Gearman does
        self._collector = Worker(RESULTS.encode())
        self._collector.register(b"demo-collector")
        self._worker = Worker(CHECKS.encode())
        self._worker.register(b"demo-worker")
        self._answers = Client[Handle]()
        self._answers_link = self._link(far, self._answers, self._on_answers_taken, self._go)
        self._links = (
            self._link(near, self._producer, self._on_checks_taken),
            self._link(near, self._collector, self._on_results),
            self._link(far, self._worker, self._on_checks),
        )

    def start(self) -> None:
        """Begin; does not wait. The worker takes no check before it can send a result."""
        self._started_at = self._last_at = time.monotonic()
        self._answers_link.want(True)

    @property
    def complete(self) -> bool:
        """Whether every check has been sent and has its result."""
        return self.tally.sent == self.tally.back == self.jobs

    @property
    def seconds(self) -> float:
        """Seconds from the start to the last result so far."""
        return self._last_at - self._started_at

    def _go(self) -> None:
        for link in self._links:
            link.want(True)

    def stop(self) -> None:
        """Hang up. What was collected has been counted."""
        for link in (self._answers_link, *self._links):
            link.want(False)
            link.end("done")

    def _link(
        self,
        server: Server,
        peer: P,
        act: Callable[[list[object]], None],
        on_up: Callable[[], None] = lambda: None,
    ) -> Link[P]:
        def on_events(events: list[object]) -> None:
            act(events)
            self._flush()

        over = partial(self._on_over, server)
        events = LinkEvents[P](lambda _: on_up(), on_events, over, over)
        return Link(server, lambda: peer, events, tls=None, linger=_LINGER)

    def _flush(self) -> None:
        for link in (self._answers_link, *self._links):
            link.flush()

    def _on_over(self, server: Server, error: GearmanError) -> None:
        self.fault = f"the connection to {server} is over: {error}"
        self.stop()

    # The producer and the collector at A.

    def _on_checks_taken(self, events: list[object]) -> None:
        self.tally.sent += sum(len(e.tokens) for e in events if isinstance(e, Confirmed))
        self._submit()

    def _submit(self) -> None:
        if not self._producer.answered:
            return  # the collector is up already; answers before the first ping's are not heard
        while self._submitted < min(self.jobs, self.tally.back + _LEAD):
            number = self._submitted
            unique = hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest().upper()
            self._producer.submit(number, CHECKS.encode(), unique.encode(), check(number))
            self._submitted += 1

    def _on_results(self, events: list[object]) -> None:
        for job in _jobs(events):
            self.tally.add_result(number_of(job.workload))
            self._collector.complete(job.handle)
            self._last_at = time.monotonic()
        _grab(self._collector, _WINDOW)
        self._submit()

    # The worker at B.

    def _on_checks(self, events: list[object]) -> None:
        for job in _jobs(events):
            unique = str(uuid.uuid4()).encode()
            self._answers.submit(job.handle, RESULTS.encode(), unique, answer(job.workload))
        _grab(self._worker, _WINDOW - self._answers.unconfirmed)

    def _on_answers_taken(self, events: list[object]) -> None:
        for event in events:
            if isinstance(event, Confirmed):
                self._worker.complete_all(event.tokens)
        if self._worker.answered:
            _grab(self._worker, _WINDOW - self._answers.unconfirmed)


def _jobs(events: list[object]) -> Iterator[Job]:
    for event in events:
        if isinstance(event, Assigned):
            yield from event.jobs


def _grab(worker: Worker, room: int) -> None:
    """Ask for as many jobs as there is room for, or sleep where the queue is empty."""
    count = min(worker.wanted, room) - worker.outstanding
    if not worker.empty:
        if count > 0:
            worker.grab(count)
    elif not worker.outstanding and not worker.asleep:
        worker.sleep()
