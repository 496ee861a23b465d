"""What a refused job means for the jobs behind it: rows 11 to 13 of the table in CONTRIBUTING.md.

A full queue is tried again with one job after a wait. A few refusals in a row each end a job; one
more, and the forward is blocked, for a wrong key fails every job and must not make a dead letter
of each. Pure: the time is an argument, and what is done with a job is decided in `forward.py`.
"""

from random import Random
from typing import Final

from gevproxy.backoff import Backoff

COMEBACK_AFTER: Final = 5.0
"""Seconds until a blocked forward tries one job."""

MAX_FAILURES: Final = 10
"""Refusals in a row that may each end a job; the next one blocks the forward."""


class Refusals:
    """Refusals in a row, and the block that they end in (rows 12 and 13).

    `blocked` is the reason in words, empty without a block. `comeback` says that one job is being
    tried in spite of it. `closed` is a block without a comeback: no job may pass.
    """

    __slots__ = (
        "_by_source",
        "_by_stages",
        "_by_target",
        "_comeback_at",
        "blocked",
        "closed",
        "comeback",
    )

    def __init__(self) -> None:
        self.blocked = ""
        self.comeback = self.closed = False
        self._comeback_at = 0.0
        self._by_stages = 0  # in a row, as the jobs came from the source
        self._by_target = 0  # in a row, as the target answered
        self._by_source = 0  # answers to late checks, in a row

    def stage_failed(self) -> bool:
        """Count a job that a stage refuses; True while such a job may be ended."""
        self._by_stages += 1
        return self._by_stages <= MAX_FAILURES and not self.comeback

    def target_refused(self) -> bool:
        """Count a job that the target refuses; True while such a job may be ended."""
        self._by_target += 1
        return self._by_target <= MAX_FAILURES and not self.comeback

    def answer_refused(self) -> bool:
        """Count a late check whose answer the source refuses; True while it may be ended."""
        self._by_source += 1
        return self._by_source <= MAX_FAILURES and not self.comeback

    def answer_taken(self) -> bool:
        """Note an answer that is at the source; True where that ends a block by such refusals."""
        blocking = self.comeback and self._by_source > MAX_FAILURES
        self._by_source = 0
        return blocking and self._end()

    def stages_passed(self) -> None:
        """Note a job that went through the stages."""
        self._by_stages = 0

    def target_took(self) -> bool:
        """Note a job that is at the target; True where that ends a block."""
        self._by_target = 0
        return self.comeback and self._end()

    def _end(self) -> bool:
        """End the block."""
        self.blocked = ""
        self.comeback = False
        return True

    def block(self, why: str, now: float) -> None:
        """Let no job pass until the comeback."""
        self.blocked = why
        self.comeback = False
        self.closed = True
        self._comeback_at = now + COMEBACK_AFTER

    def hasten(self, now: float) -> None:
        """Come back as soon as may be: what blocked may be mended."""
        self._comeback_at = now

    def come_back(self, now: float) -> None:
        """Try one job if the time has come; for a forward that has left its source."""
        if self.closed and now >= self._comeback_at:
            self.comeback = True
            self.closed = False


class FullQueue:
    """Whether the target's queue is full, and when to try it with one job (rows 11 and S2)."""

    __slots__ = ("_backoff", "_probe_at", "full")

    def __init__(self, rng: Random) -> None:
        self.full = False
        self._probe_at: float | None = None  # None: answers are still to come
        self._backoff = Backoff(floor=0.0, step=0.2, ceiling=5.0, rng=rng)

    def refused(self) -> bool:
        """Note a job that met a full queue; True where that is news."""
        self._probe_at = None
        if self.full:
            return False
        self.full = True
        self._backoff.reset()
        return True

    def answered(self, now: float) -> float | None:
        """Note that all under way is answered; return the seconds until a probe that is new."""
        if not self.full or self._probe_at is not None:
            return None
        delay = self._backoff.next()
        self._probe_at = now + delay
        return delay

    def probe(self, now: float) -> bool:
        """Tell whether to send one job now; its answer decides."""
        if self._probe_at is None or now < self._probe_at:
            return False
        self._probe_at = None
        return True
