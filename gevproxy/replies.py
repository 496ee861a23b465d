"""The replies of a synchronous forward: rows 9 and 10 of CONTRIBUTING.md, and `timeout`.

The target names a job by a handle of its own, from the confirm to the last reply. A reply to a job
that is not held any more finds nobody to tell. Knows no socket and keeps no time.
"""

from collections.abc import Iterable
from typing import Final

from gevproxy.errors import GearmanError, PacketTooLarge
from gevproxy.events import Event
from gevproxy.gearman import Confirmed, Handle, PacketType, Update, Worker
from gevproxy.rejects import Rejects
from gevproxy.report import Report
from gevproxy.shared import Shared
from gevproxy.window import Held

_TERMINAL: Final = frozenset(
    {PacketType.WORK_COMPLETE, PacketType.WORK_FAIL, PacketType.WORK_EXCEPTION}
)


class Replies:
    """The jobs that run at the target of a forward; an asynchronous one has none.

    `worker` is the source's, None while there is none.
    """

    __slots__ = ("_counters", "_log", "_rejects", "_report", "_running", "_timeout", "_window")

    def __init__(self, shared: Shared, rejects: Rejects, report: Report) -> None:
        self._timeout = shared.config.timeout
        self._window = shared.window
        self._counters = shared.counters
        self._log = shared.log
        self._rejects = rejects
        self._report = report
        self._running: dict[Handle, Held] = {}  # confirmed, not yet answered

    @property
    def expected(self) -> int:
        """Jobs whose last reply is still to come, tombstones included."""
        return len(self._running)

    def expect(self, confirmed: Confirmed[Held]) -> None:
        """Remember the target's handles (row 9)."""
        self._running.update(zip(confirmed.handles, confirmed.tokens, strict=True))

    def take(self, worker: Worker | None, update: Update, now: float) -> None:
        """Pass a reply on (row 10). A late one finds nothing and is dropped."""
        held = self._running.get(update.handle)
        if held is None:
            return
        if worker is not None and held in self._window:
            worker.update(update.type, held.job.handle, *update.args)
        if update.type in _TERMINAL:
            del self._running[update.handle]
            if self._window.settle(held):
                self._counters.answered += 1
                self._report.passed([held], now)

    def fail(self, worker: Worker | None, jobs: Iterable[Held]) -> None:
        """Answer held jobs with WORK_FAIL."""
        for held in jobs:
            if worker is not None:
                worker.fail(held.job.handle)
            self._window.drop(held)
            self._rejects.comeback.failed.pop(held, None)
            self._counters.answered += 1

    def cut_off(self, worker: Worker | None, error: GearmanError) -> None:
        """Expect nothing any more: the target is over."""
        if isinstance(error, PacketTooLarge):
            held = self._running.get(Handle(error.handle))
            if held is not None and held in self._window:
                self.fail(worker, [held])  # its reply would end the next connection as well
        self._running.clear()

    def expire(self, worker: Worker | None, now: float) -> None:
        """Fail jobs whose time is up (row 15); forget what runs on for them at the target."""
        if self._timeout is None:
            return
        begin = now - self._timeout
        for held in self._window:
            if held.since <= begin:
                self.fail(worker, [held])
                self._counters.timeouts += 1
                self._log.sparse(Event.JOB_TIMEOUT, "no answer in time", handle=held.job.handle)
        for handle, held in tuple(self._running.items()):
            if held.since <= begin:
                del self._running[handle]
                self._window.settle(held)
