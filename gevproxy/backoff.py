"""Delays between attempts: doubled to a ceiling, jittered so that relays do not march in step.

Nothing here sleeps or reads a clock; the random source is an argument.
"""

from random import Random


class Backoff:
    """Delays of `floor` + uniform(1/2, 1) * min(ceiling, step * 2^n) seconds, n growing.

    A floor keeps a peer that fails at once from being asked again at once.
    """

    __slots__ = ("_ceiling", "_floor", "_n", "_rng", "_step")

    def __init__(self, *, floor: float, step: float, ceiling: float, rng: Random) -> None:
        self._floor = floor
        self._step = step
        self._ceiling = ceiling
        self._rng = rng
        self._n = 0

    def next(self) -> float:
        """Return the next delay in seconds."""
        longest = min(self._ceiling, self._step * 2.0**self._n)
        if longest < self._ceiling:
            self._n += 1
        return self._floor + self._rng.uniform(0.5, 1.0) * longest

    def reset(self) -> None:
        """Begin with the shortest delay again."""
        self._n = 0
