"""What a forward tells of itself: its figures, its status, and a record when its state changes.

It is told the facts and may not ask for any; it changes nothing about a job.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from logging import INFO

from gevproxy.config.model import ForwardConfig
from gevproxy.depths import HELD_BACK, Depths
from gevproxy.events import Event
from gevproxy.log import EventLog
from gevproxy.status import Counters, ForwardStatus, Meter
from gevproxy.window import Held


@dataclass(frozen=True, slots=True)
class Moment:
    """A forward now: `time` on its clock, why it does not run, jobs held, jobs at the target.

    And what its queues hold at both ends.
    """

    time: float
    reasons: tuple[str, ...]
    held: int
    in_flight: int
    depths: Depths


class Report:
    """Keeps what a forward's status needs beyond its counters.

    `running_until` is when the forward ran last, or the one whose place it took.
    """

    def __init__(
        self, counters: Counters, log: EventLog, now: float, running_until: float | None = None
    ) -> None:
        self._counters = counters
        self._log = log
        self._meter = Meter(now, counters.times)
        self._reasons: tuple[str, ...] | None = None  # as they were last written
        self.running_until = now if running_until is None else running_until

    def passed(self, jobs: Sequence[Held], now: float) -> None:
        """Count jobs that have reached their end at the target."""
        if not jobs:
            return
        self._counters.passed_at = now
        self._meter.passed(now, [held.since for held in jobs])
        self._counters.bytes_out += sum([len(held.workload) for held in jobs])
        if self._log.debugging:
            for job in [held.job for held in jobs]:
                self._log.emit(
                    Event.JOB_PASSED,
                    "passed",
                    handle=job.handle,
                    unique=job.unique,
                    bytes=len(job.workload),
                )

    def tick(self, moment: Moment) -> None:
        """Check the accounting, and write the state where it has changed."""
        missing = self._counters.missing(moment.held)
        if missing:
            self._log.sparse(Event.ACCOUNTING, f"{missing} jobs are unaccounted for")
        self._meter.tick(moment.time)
        reasons = moment.reasons
        if _is_well(reasons):
            self.running_until = moment.time
        if reasons != self._reasons:
            self._reasons = reasons
            self._log.emit(
                Event.FORWARD_STATE,
                "; ".join(reasons) or "running",
                level=None if reasons else INFO,
                reasons=list(reasons),
            )
        self._log.tick(moment.time)

    def status(self, config: ForwardConfig, moment: Moment) -> ForwardStatus:
        """Describe the moment."""
        last = self._counters.passed_at
        return ForwardStatus(
            key=config.key,
            source=str(config.source),
            target=str(config.target),
            asynchronous=config.asynchronous,
            reasons=moment.reasons,
            not_running=0.0 if _is_well(moment.reasons) else moment.time - self.running_until,
            held=moment.held,
            in_flight=moment.in_flight,
            unaccounted=self._counters.missing(moment.held),
            rate=self._meter.rate(),
            since_confirm=None if last is None else moment.time - last,
            p50=self._meter.latency.quantile(0.50),
            p99=self._meter.latency.quantile(0.99),
            counters=self._counters.as_dict(),
            source_waiting=moment.depths.source_waiting,
            target_waiting=moment.depths.target_waiting,
            target_workers=moment.depths.target_workers,
        )


def _is_well(reasons: Sequence[str]) -> bool:
    """Whether a forward runs, or would if its target had not enough."""
    return all(reason.startswith(HELD_BACK) for reason in reasons)
