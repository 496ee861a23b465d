"""Checks that nobody needs any more: which of a forward's are late, and what becomes of them.

A check is looked at when it arrives and again before it is sent, for an outage may lie in between.
A late one is answered at the source, on the worker's own connection, and completed when the source
has confirmed the answer; or it is dropped, or becomes a dead letter. Knows no socket and no target.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from gevproxy.config import OnLate
from gevproxy.errors import StageError
from gevproxy.events import Event
from gevproxy.gearman import Job, Worker
from gevproxy.shared import Shared
from gevproxy.stages import CheckReader
from gevproxy.stages.late import Check, answer
from gevproxy.window import Held

_SAID: Final = {
    OnLate.ANSWER: "answered with UNKNOWN",
    OnLate.DROP: "dropped",
    OnLate.DEAD_LETTER: "written to the dead letters",
}


class LateChecks:
    """The late checks of one forward. Without a `reader` nothing is ever late.

    `possible` says whether a check can be late at all: it is asked once a batch, and no job pays
    for what is not set. `answering` counts the answers that the source has not confirmed yet; their
    jobs are held until it has. `bury` makes a dead letter of a held job, with a reason.
    """

    def __init__(
        self,
        shared: Shared,
        reader: CheckReader | None,
        *,
        bury: Callable[[Held, str], None],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.answering = 0
        self.possible = reader is not None
        self._max_age = shared.config.max_age
        self._on_late = shared.config.on_late
        self._decrypts = bool(shared.config.decrypt)
        self._reader = reader
        self._window = shared.window
        self._counters = shared.counters
        self._log = shared.log
        self._bury = bury
        self._wall_clock = wall_clock

    def use(self, reader: CheckReader | None) -> None:
        """Read with other keys from now on."""
        self._reader = reader

    def deadline(self, job: Job, now: float) -> float | None:
        """Return when a job becomes late, on the clock of `now`; None for one that never will.

        Times of the two clocks meet here alone. A core_time in the future is age 0: the clocks
        differ, and no check is older than its arrival here.
        """
        check = self._read(job)
        if check is None or self._max_age is None:
            return None
        return now + self._max_age - max(0.0, self._wall_clock() - check.core_time)

    def sift(self, worker: Worker, now: float) -> None:
        """End what has become late while it waited to be sent."""
        for held in self._window.late(now):
            self.end(worker, held)

    def take(self, worker: Worker, job: Job, now: float) -> None:
        """Take a job that comes late, and end it."""
        self._counters.received += 1
        self._counters.bytes_in += len(job.workload)
        held = Held(job, job.unique, job.workload, now)
        self._window.park(held)
        self.end(worker, held)

    def end(self, worker: Worker, held: Held) -> None:
        """End a late check, which is parked in the window."""
        job = held.job
        why = f"older than {self._max_age:g} s"
        self._counters.late += 1
        self._log.sparse(
            Event.LATE_CHECK, f"{why}: {_SAID[self._on_late]}", handle=job.handle, unique=job.unique
        )
        if self._on_late is OnLate.ANSWER:
            self._answer(worker, held)
        elif self._on_late is OnLate.DROP:
            worker.complete(job.handle)
            self._window.settle(held)
            self._counters.dropped += 1
        else:
            self._bury(held, f"late check: {why}")

    def _answer(self, worker: Worker, held: Held) -> None:
        check = self._read(held.job)
        if check is None:
            self._bury(held, "late check: its key has been taken away, so it cannot be answered")
            return
        result = answer(check, self._wall_clock())
        worker.submit(held, result.queue, result.unique, result.payload)
        self.answering += 1

    def answered(self, worker: Worker, jobs: Sequence[Held]) -> None:
        """Complete checks whose answers the source has confirmed."""
        self.answering -= len(jobs)
        ended = self._window.settle_all(jobs)
        worker.complete_all([held.job.handle for held in ended])
        self._counters.answered += len(ended)

    def refused(self, held: Held) -> bool:
        """Take note that the source refuses an answer; return whether its job is still held."""
        self.answering -= 1
        return held in self._window

    def forget(self) -> None:
        """Expect no answer of the source any more: what was held has been given back."""
        self.answering = 0

    def _read(self, job: Job) -> Check | None:
        if self._reader is None:
            return None
        try:
            return self._reader(job.workload)
        except StageError as error:
            if not self._decrypts:  # else the stage decrypt refuses the job as well
                self._log.sparse(Event.AGE_UNKNOWN, f"max_age cannot be applied: {error}")
            return None
