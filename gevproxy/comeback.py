"""When a blocked forward comes back, and for how many jobs: row 13 of the table in CONTRIBUTING.md.

A comeback takes a batch. What fails of it is set aside; as soon as a job passes, the block is over,
and when all have failed, all go back. The source hands jobs of a higher priority out first, given
back or not, so that a single job would be a bad one again for ever: each batch is twice the one
before, up to the window; a window of which nothing passes is followed by a small batch again. So no
more bad jobs than a window holds can keep the good ones behind them waiting for ever, and yet a
wrong key ends no job beyond the first ten.
Pure: the time is an argument.
"""

from typing import Final

from gevproxy.refusals import Row
from gevproxy.window import Held

COMEBACK_AFTER: Final = 5.0
"""Seconds until a blocked forward comes back, and within which a new block is the old one."""

FIRST_BATCH: Final = 2
"""Jobs of the first comeback."""


Failed = dict[Held, tuple[str, Row | None]]
"""Jobs that are held and cannot pass, each with the reason and with the row that it belongs to.

None for a row: a job that was too large to be read.
"""


class Comeback:
    """The attempts of a blocked forward.

    `on` says that one is under way, with at most `batch` jobs; `failed` is what cannot pass.
    """

    __slots__ = ("_at", "_largest", "_over_at", "_took", "batch", "failed", "on")

    def __init__(self, largest: int) -> None:
        self.on = False
        self.batch = 0
        self.failed: Failed = {}
        self._largest = largest
        self._at = 0.0
        self._over_at: float | None = None  # when a block was over last
        self._took = False  # the last batch had a job that passed

    def wait(self, now: float, *, again: bool) -> None:
        """Come back later: the forward is blocked, or is so `again`."""
        long_ago = self._over_at is None or now - self._over_at > COMEBACK_AFTER
        if not again and long_ago:
            self.batch = 0
            self._took = False
        self.on = False
        self._at = now + COMEBACK_AFTER

    def hasten(self, now: float) -> None:
        """Come back as soon as may be, and with what has not failed yet."""
        self._at = now

    def begin(self, now: float) -> bool:
        """Try a batch if the time has come."""
        if now < self._at:
            return False
        self.on = True
        if self.batch >= self._largest and not self._took:
            self.batch = 0
        self.batch = min(max(FIRST_BATCH, 2 * self.batch), self._largest)
        self._took = False
        return True

    def end(self, now: float) -> None:
        """Note that a job has passed."""
        self.on = False
        self._took = True
        self._over_at = now
