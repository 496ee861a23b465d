"""The jobs that a source assigns: through the stages, and into the window or to their end.

Rows 6 and 16 of the table in CONTRIBUTING.md. A callback among the stages may yield, against the
rules; what it returns then may find its source gone, and its job there again. Knows no target.
"""

from collections.abc import Callable, Sequence

from gevproxy.config import UniquePolicy
from gevproxy.errors import StageError
from gevproxy.gearman import Handle, Job, Oversized, Worker
from gevproxy.late_checks import LateChecks
from gevproxy.rejects import Rejects
from gevproxy.shared import Shared
from gevproxy.stages import Pipeline
from gevproxy.window import Dated, Held, Place


class Intake:
    """Takes jobs in for one forward.

    `staged_since` is when the job that is in the stages went there, None without one. `holds` says
    whether what this worker was given is still ours.
    """

    def __init__(
        self,
        shared: Shared,
        pipeline: Pipeline | None,
        *,
        late: LateChecks,
        rejects: Rejects,
        holds: Callable[[Worker], bool],
    ) -> None:
        self.pipeline = pipeline
        self.staged_since: float | None = None
        self._window = shared.window
        self._counters = shared.counters
        self._clock = shared.clock
        self._late = late
        self._rejects = rejects
        self._holds = holds
        # No unique is passed on by a sync forward: a job whose client has gone is a zombie in
        # gearmand, and a resubmit with its unique is answered JOB_CREATED and vanishes.
        self._keeps_unique = (
            shared.config.asynchronous and shared.config.unique is UniquePolicy.KEEP
        )

    def take(self, worker: Worker, jobs: list[Job], now: float) -> None:
        """Send jobs through the stages and line them up: in a row where none is an exception."""
        closed = self._rejects.closed
        deadlines: Sequence[float | None] = (None,) * len(jobs)
        if self._late.possible and not closed:
            deadlines = [self._late.deadline(job, now) for job in jobs]
        late = self._late.possible and any(_is_late(deadline, now) for deadline in deadlines)
        workloads: list[bytes] | None = None
        if not closed and not late:
            workloads = [job.workload for job in jobs]
            if self.pipeline is not None:
                workloads = self.pipeline.row(jobs)
        if workloads is None:
            for job, deadline in zip(jobs, deadlines, strict=True):
                self._take_in_time(worker, job, now, deadline)
            return
        if self.pipeline is not None:
            self._rejects.stages.broken()
        self._counters.received += len(jobs)
        self._counters.bytes_in += sum([len(job.workload) for job in jobs])
        pairs = zip(jobs, workloads, strict=True)
        if self._late.possible:
            self._window.hold(
                [
                    _held(job, job.unique if self._keeps_unique else b"", workload, now, deadline)
                    for (job, workload), deadline in zip(pairs, deadlines, strict=True)
                ]
            )
        elif self._keeps_unique:
            self._window.hold([Held(job, job.unique, workload, now) for job, workload in pairs])
        else:
            self._window.hold([Held(job, b"", workload, now) for job, workload in pairs])

    def pass_over(self, oversized: Oversized, now: float) -> None:
        """Block for a job that was too large to be read; it is held without its payload."""
        self._counters.received += 1
        job = Job(Handle(oversized.handle), b"", b"", b"")
        self._rejects.pass_over(Held(job, b"", b"", now), str(oversized.error))

    def _take_in_time(self, worker: Worker, job: Job, now: float, deadline: float | None) -> None:
        """Rows 6 and 16: take a job, or end it as a late check."""
        if not self._holds(worker):
            return  # a callback has waited, and the rest of the batch is at the source again
        if _is_late(deadline, now) and not self._rejects.closed:
            self._late.take(worker, job, now)
        else:
            self._take_one(worker, job, now, deadline)

    def _take_one(self, worker: Worker, job: Job, now: float, deadline: float | None) -> None:
        closed = self._rejects.closed
        staged = (job, "") if closed else self._stage(job)
        if not self._holds(worker):
            return  # its callback has waited, and the job is at the source again
        self._counters.received += 1
        self._counters.bytes_in += len(job.workload)
        if closed:
            # What comes behind a job that blocks goes back with it, as it came.
            self._window.park(Held(job, job.unique, job.workload, now))
        else:
            self._line_up(worker, job, staged, now, deadline)

    def _stage(self, job: Job) -> tuple[Job | None, str]:
        """Send a job through the stages: what comes out, or why it is refused."""
        if self.pipeline is None:
            return job, ""
        self.staged_since = self._clock()
        try:
            return self.pipeline(job), ""
        except StageError as error:
            return None, str(error)
        finally:
            self.staged_since = None

    def _line_up(
        self,
        worker: Worker,
        job: Job,
        staged: tuple[Job | None, str],
        since: float,
        deadline: float | None = None,
    ) -> None:
        """Hold what came out of the stages until it is sent, or end the job here."""
        rejects = self._rejects
        outcome, refusal = staged
        if refusal:
            held = Held(job, job.unique, job.workload, since)
            rejects.refuse(held, refusal, rejects.stages)
            return
        if outcome is None:
            worker.complete(job.handle)
            self._counters.dropped += 1
            rejects.passed(rejects.stages)
            return
        if self.pipeline is not None:
            rejects.stages.broken()
        unique = outcome.unique if self._keeps_unique else b""
        self._window.hold([_held(job, unique, outcome.workload, since, deadline)])

    def try_again(self, worker: Worker) -> None:
        """Try what is held in vain, where jobs that run on keep the forward at its source."""
        failed = self._rejects.comeback.failed
        worker.empty = False  # for all we know: nobody wakes a worker that does not sleep
        for held in self._window:
            if held.place is not Place.PARKED or failed.get(held, ("", self))[1] is None:
                continue  # None: too large to be read
            staged = self._stage(held.job)
            if not self._holds(worker):
                return
            if held in self._window:
                failed.pop(held, None)
                self._window.settle(held)
                self._line_up(worker, held.job, staged, held.since)


def _is_late(deadline: float | None, now: float) -> bool:
    return deadline is not None and now >= deadline


def _held(job: Job, unique: bytes, workload: bytes, since: float, deadline: float | None) -> Held:
    if deadline is None:
        return Held(job, unique, workload, since)
    return Dated(job, unique, workload, since, deadline)
