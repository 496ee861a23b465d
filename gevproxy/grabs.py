"""Asking the source for jobs, and sleeping: S3 and S4 of CONTRIBUTING.md, and the grab of row 15.

Pure: the time is an argument. Whether a job may be taken, and how many, is decided in `facts.py`.
"""

from random import Random
from typing import Final

from gevproxy.events import Event
from gevproxy.gearman.worker import Worker
from gevproxy.log import EventLog
from gevproxy.status import Counters

REGRAB_AFTER: Final = 30.0
"""Seconds asleep after which we grab all the same: workers were seen asleep while jobs wait."""


class Grabs:
    """The grabs of a forward, on one source connection after the other."""

    __slots__ = ("_counters", "_log", "_regrab_at", "_regrabbed", "_rng")

    def __init__(self, counters: Counters, log: EventLog, rng: Random) -> None:
        self._counters = counters
        self._log = log
        self._rng = rng
        self._regrab_at = 0.0
        self._regrabbed = False  # a grab out of a sleep is not answered yet

    def begin(self) -> None:
        """Start on a new connection."""
        self._regrabbed = False

    def ask(self, worker: Worker, room: int, now: float) -> None:
        """Ask for as many jobs as there is room for, or sleep (S3)."""
        if worker.empty:
            if not worker.outstanding and not worker.asleep:
                worker.sleep()
            return
        count = min(worker.wanted, room) - worker.outstanding
        if count > 0:
            worker.grab(count)
            self._put_off(now)

    def end_sleep(self, worker: Worker) -> None:
        """Wake where no job may be taken (S4).

        A sleeping relay that will not grab eats the wake-up of one that would.
        """
        if worker.asleep:
            worker.grab()

    def again(self, worker: Worker, now: float) -> None:
        """Grab where a wake-up may have been lost (row 15)."""
        if worker.asleep and now >= self._regrab_at:
            worker.grab()
            self._regrabbed = True
            self._put_off(now)

    def answered(self, worker: Worker, events: list[object]) -> None:
        """Take note of what the source has answered: a job says that a wake-up was lost."""
        if self._regrabbed and not worker.outstanding:
            self._regrabbed = False
            if events:
                self._counters.wakeups_lost += 1
                self._log.sparse(Event.WAKEUP_LOST, "a job waited while we slept")

    def _put_off(self, now: float) -> None:
        self._regrab_at = now + REGRAB_AFTER * self._rng.uniform(0.8, 1.0)
