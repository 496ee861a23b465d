"""What becomes of jobs that a stage or the target refuses: rows 12 and 13 of CONTRIBUTING.md.

Ten in a row are each ended: completed when a dead letter is on disk, or failed on a synchronous
forward. The eleventh blocks the forward, and so do a job that is too large to be read and a letter
that cannot be written. `comeback.py` says how a blocked forward tries again.

A letter that cannot be written ends no job and does not count among the ten. A disk that does not
answer holds its jobs: once it does, they are completed, and nothing is lost or comes twice.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from gevproxy.comeback import Comeback
from gevproxy.errors import GevproxyError
from gevproxy.events import Event
from gevproxy.gearman import Handle, Job
from gevproxy.letterbox import Letterbox
from gevproxy.refusals import Row
from gevproxy.shared import Shared
from gevproxy.window import Held

SILENT_AFTER: Final = 10.0
"""Seconds without an answer of the disk from which on no more jobs are taken."""

_SILENT: Final = "dead letters: the disk does not answer"


class Rejects:
    """The refused jobs of a forward, and the block that they lead to.

    `closed` is a block without a comeback: no job may pass. `silent` says that the disk does not
    answer: no job may be taken. `complete` and `fail` end a job at the source; `settle` is called
    when a letter has met its fate.
    """

    __slots__ = (
        "_block",
        "_clock",
        "_complete",
        "_config",
        "_counters",
        "_fail",
        "_letterbox",
        "_log",
        "_pending",
        "_row",
        "_settle",
        "_unwritten",
        "_window",
        "answers",
        "closed",
        "comeback",
        "silent",
        "stages",
        "target",
    )

    def __init__(
        self,
        shared: Shared,
        letterbox: Letterbox,
        *,
        complete: Callable[[Handle], None],
        fail: Callable[[Held], None],
        settle: Callable[[], None],
    ) -> None:
        self._config, self._window, self._counters, self._log, self._clock = shared
        self._letterbox = letterbox
        self._complete = complete
        self._fail = fail
        self._settle = settle
        self.stages = Row()  # as the jobs came from the source
        self.target = Row()  # as the target answered
        self.answers = Row()  # to late checks, as the source answered
        config = shared.config
        self.comeback = Comeback(config.window if config.asynchronous else config.workers)
        self.closed = False
        self.silent = False
        self._block = ""  # why jobs block, in words
        self._row: Row | None = None  # the row that is full; None: a job that cannot be read
        self._unwritten = ""  # why letters cannot be written
        self._pending: deque[float] = deque()  # when each letter on its way was posted

    @property
    def pending(self) -> int:
        """Jobs whose letters are on their way to the disk."""
        return len(self._pending)

    def reasons(self) -> list[str]:
        """Say in words what blocks; none hides another."""
        whys = (self._block, self._unwritten, _SILENT if self.silent else "")
        return [f"blocked: {why}" for why in whys if why]

    def refuse(self, held: Held, why: str, row: Row) -> None:
        """End a job that cannot pass, or block."""
        self._window.park(held)
        self._counters.refused += 1
        self._judge(held, why, row)

    def pass_over(self, held: Held, why: str) -> None:
        """Block for a job that cannot be ended, as nobody has read it."""
        self._window.park(held)
        self._judge(held, why, None)

    def _judge(self, held: Held, why: str, row: Row | None) -> None:
        if self.comeback.on and self._block:
            self.comeback.failed[held] = (why, row)  # until the rest of the batch is known
        elif row is None or not row.may_end():
            self._block_for(held, why, row)
        elif self._config.asynchronous:
            self.bury(held, why, row)
        else:
            self._fail(held)
            self._log.sparse(Event.JOB_REFUSED, why)

    # Blocks and comebacks.

    def _block_for(self, held: Held, why: str, row: Row | None) -> None:
        """Row 13: the job stays held and goes back with the rest."""
        self.comeback.failed[held] = (why, row)
        if self.closed and self._block:
            return  # what was under way meets the same fate, and that is no other block
        self._block, self._row = why, row
        self._close(why, held.job)

    def _close(self, why: str, job: Job | None = None) -> None:
        """Let no job pass until the comeback."""
        self.comeback.wait(self._clock(), again=self.closed or self.comeback.on)
        self.closed = True
        self._blocked(why, job)

    def _blocked(self, why: str, job: Job | None = None) -> None:
        self._counters.blocks += 1
        self._log.sparse(
            Event.FORWARD_BLOCKED,
            why,
            handle=job.handle if job else None,
            unique=job.unique if job else None,
        )

    def come_back(self, now: float) -> bool:
        """Try a batch if the time has come."""
        if not self.closed or not self.comeback.begin(now):
            return False
        self.closed = False
        return True

    def hasten(self, now: float) -> None:
        """Come back as soon as may be: what blocked may be mended.

        What has failed before is tried again as well, lest it be judged by what passes now.
        """
        if self.comeback.on and self.comeback.failed:
            self.comeback.wait(now, again=True)
            self.closed = True
        self.comeback.hasten(now)

    def give_up(self) -> None:
        """Block again: all jobs of a comeback have failed."""
        held, (why, row) = next(iter(self.comeback.failed.items()))
        self._block_for(held, why, row)

    def forget(self) -> None:
        """Note that all that was held is at the source again."""
        self.comeback.failed.clear()

    def passed(self, row: Row) -> None:
        """Note a job that one party has not refused; it ends a block that is not another's."""
        row.broken()
        if self.comeback.on and (row is self.target or self._row in (None, row)):
            self._end("a job has passed")

    def _end(self, why: str) -> None:
        """End the block, and judge what has failed in the comeback as ever."""
        self._block = self._unwritten = ""
        self._row = None
        self.comeback.end(self._clock())
        self._log.emit(Event.FORWARD_UNBLOCKED, why)
        failed = dict(self.comeback.failed)
        self.comeback.failed.clear()
        for held, (reason, row) in failed.items():
            if not self.closed:  # else it goes back with the rest
                self._judge(held, reason, row)

    # Dead letters.

    def bury(self, held: Held, why: str, row: Row | None = None) -> None:
        """Have a dead letter written; the job is busy meanwhile."""
        self._pending.append(self._clock())
        done = partial(self._on_buried, held, why, row)
        self._letterbox.bury(held.job, self._config, why, done)

    def _on_buried(
        self, held: Held, why: str, row: Row | None, error: GevproxyError | None
    ) -> None:
        """Complete a job whose letter is on disk; without one it goes back."""
        self._pending.popleft()  # they are answered in the order of their posts
        is_held = held in self._window
        if error is not None:
            if is_held:
                self._cannot_write(str(error), held.job, row)
        else:
            if is_held:
                self._window.settle(held)
                self._complete(held.job.handle)
                self._counters.dead_lettered += 1
                self._log.sparse(
                    Event.DEAD_LETTER, why, handle=held.job.handle, unique=held.job.unique
                )
            if self._unwritten and self.comeback.on:
                self._unwritten = ""
                if not self._block:
                    self._end("dead letters can be written again")
        self._settle()

    def _cannot_write(self, why: str, job: Job, row: Row | None) -> None:
        """Block until letters can be written; jobs that block stand back where none was ended."""
        if row is not None:
            row.not_ended()
        if self._row is not None and not self._row.full:
            self._block, self._row = "", None
        known = self.closed and self._unwritten
        self._unwritten = why
        if not known:
            self._close(why, job)

    def tick(self, now: float) -> None:
        """Notice a disk that does not answer, and that it does again."""
        silent = bool(self._pending) and now - self._pending[0] >= SILENT_AFTER
        if silent and not self.silent:
            self._blocked(_SILENT)
        elif self.silent and not silent:
            self._log.emit(Event.FORWARD_UNBLOCKED, "the disk of the dead letters answers")
        self.silent = silent
