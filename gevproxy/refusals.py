"""Refusals in a row, and a full queue: rows 11 to 13 of the table in CONTRIBUTING.md.

A full queue is tried again with one job after a wait. A few refusals in a row each end a job; one
more, and the forward is blocked, for a wrong key fails every job and must not make a dead letter
of each. Pure: the time is an argument, and what is done with a job is decided in `rejects.py`.
"""

from random import Random
from typing import Final

from gevproxy.backoff import Backoff

MAX_FAILURES: Final = 10
"""Refusals in a row that may each end a job; the next one blocks the forward."""


class Row:
    """Jobs that one party has refused in a row, as far as they have been ended (row 12)."""

    __slots__ = ("length",)

    def __init__(self) -> None:
        self.length = 0

    @property
    def full(self) -> bool:
        """Whether no further job may be ended."""
        return self.length >= MAX_FAILURES

    def may_end(self) -> bool:
        """Count a refused job that is to be ended; False, and not counted, where none may be."""
        if self.full:
            return False
        self.length += 1
        return True

    def not_ended(self) -> None:
        """Take back a job that was counted: it could not be ended and is at its source again."""
        self.length = max(0, self.length - 1)

    def broken(self) -> None:
        """Note a job that was not refused."""
        self.length = 0


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
