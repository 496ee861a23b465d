"""What a forward counts, whether the counts add up, and how a moment is described.

Plain integers on purpose: several are raised for every job. Nothing here knows gevent or a peer.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

HISTOGRAM_BOUNDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
"""Upper bounds in seconds of what a histogram tells apart: a LAN, a WAN, an outage."""


class Histogram:
    """How long jobs took from assignment to confirm, since the daemon started.

    `counts` has one more than there are bounds, for what took longer than all of them; `seconds`
    is the sum of all times. A batch of jobs that came and went together costs 0.1 us here, and even
    a single job over 2 us elsewhere.
    """

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(HISTOGRAM_BOUNDS) + 1)
        self.seconds = 0.0

    def record(self, seconds: float, jobs: int) -> None:
        """Count jobs that took so long."""
        self.counts[bisect_left(HISTOGRAM_BOUNDS, seconds)] += jobs
        self.seconds += seconds * jobs

    def copy(self) -> "Histogram":
        """Return what has been counted until now."""
        copied = Histogram()
        copied.counts, copied.seconds = self.counts[:], self.seconds
        return copied


@dataclass(slots=True)
class Counters:
    """Counted since the daemon started; they survive a forward's restart and a reload.

    A received job is in exactly one of confirmed, dead_lettered, dropped, answered, given_back, or
    still held. The rest describes how it went.
    """

    received: int = 0
    """Jobs that the source has assigned to us."""
    confirmed: int = 0
    """Completed at the source after the target's JOB_CREATED."""
    dead_lettered: int = 0
    """Written to a dead letter file, then completed."""
    dropped: int = 0
    """Completed without being sent: a callback said so, or a check was late."""
    answered: int = 0
    """Ended with a result or a failure that the submitter sees: on sync forwards; late checks."""
    given_back: int = 0
    """At the source's queue again, because a connection ended or the forward left."""

    bytes_in: int = 0
    """Workload bytes received."""
    bytes_out: int = 0
    """Workload bytes that the target has confirmed, sync: has answered."""
    retries: int = 0
    """Submissions that were sent again, after a lost target or a full queue."""
    coalesced: int = 0
    """Confirms with a handle that the target already had: a job with that unique was there."""
    refused: int = 0
    """Jobs that a stage or the target refused."""
    timeouts: int = 0
    """Sync jobs that had no answer in time."""
    late: int = 0
    """Checks over `max_age`, which were not sent; each is in answered, dropped or dead_lettered."""
    source_losses: int = 0
    """Source connections that had been up and ended against our will."""
    target_losses: int = 0
    """The same at the target."""
    source_errors: int = 0
    """ERROR packets from the source."""
    wakeups_lost: int = 0
    """Jobs that the slow grab found while we slept."""
    blocks: int = 0
    """How often the forward was blocked."""
    source_connections: int = 0
    """Source connections that have come up: answered their first ping."""
    target_connections: int = 0
    """The same at the target."""
    crashes: int = 0
    """How often the forward was started anew after an unexpected error."""

    times: Histogram = field(default_factory=Histogram, repr=False, compare=False)
    """How long what was confirmed or answered took."""
    passed_at: float | None = field(default=None, repr=False, compare=False)
    """When a job was confirmed or answered last, on the forwards' clock."""

    def missing(self, held: int) -> int:
        """Return how many received jobs are in no other counter; 0 unless there is a bug."""
        ended = self.confirmed + self.dead_lettered + self.dropped + self.answered
        return self.received - ended - self.given_back - held

    def as_dict(self) -> dict[str, int]:
        """Return all counters by name, faster than asdict: asked of each forward once a second."""
        return {name: getattr(self, name) for name in _COUNTED}


_COUNTED: Final = tuple(name for name in Counters.__slots__ if name not in ("times", "passed_at"))


LATENCY_BOUNDS: Final = tuple(0.0001 * 1.25**n for n in range(72))
"""Upper bounds of the latency buckets in seconds: 0.1 ms to 13 minutes, each 25 % wider."""

_SLOT: Final = 10.0
"""Seconds of one slot of the last minute."""

_SLOTS: Final = 6


class Latency:
    """How long jobs took from assignment to confirm, over the last minute.

    Counts in buckets, so that a job costs one addition and memory does not grow with the rate.
    """

    __slots__ = ("_current", "_next", "_past")

    def __init__(self, now: float) -> None:
        self._current = [0] * (len(LATENCY_BOUNDS) + 1)
        self._past: deque[list[int]] = deque(maxlen=_SLOTS - 1)  # [] for a slot without a job
        self._next = now + _SLOT

    def record(self, seconds: float, jobs: int = 1) -> None:
        """Count jobs that took so long."""
        self._current[bisect_left(LATENCY_BOUNDS, seconds)] += jobs

    def tick(self, now: float) -> None:
        """Let what is older than a minute go."""
        while now >= self._next:
            self._past.append(self._current if any(self._current) else [])
            self._current = [0] * (len(LATENCY_BOUNDS) + 1)
            self._next += _SLOT

    def quantile(self, share: float) -> float | None:
        """Return the seconds within which that share of the jobs was done; None without jobs."""
        past = [counts for counts in self._past if counts]
        if not past and not any(self._current):
            return None  # asked of each forward once a second, and most are idle
        counts = [sum(column) for column in zip(self._current, *past, strict=True)]
        total = sum(counts)
        seen = 0
        for bound, count in zip((*LATENCY_BOUNDS, LATENCY_BOUNDS[-1]), counts, strict=True):
            seen += count
            if seen >= share * total:
                return bound
        return LATENCY_BOUNDS[-1]


class Meter:
    """How fast and how quickly jobs pass one forward: rate and latency.

    `times` is told of every job too, and outlives this object.
    """

    __slots__ = ("_marks", "_passed", "_times", "latency")

    def __init__(self, now: float, times: Histogram) -> None:
        self.latency = Latency(now)
        self._times = times
        self._passed = 0
        self._marks: deque[tuple[float, int]] = deque([(now, 0)], maxlen=11)

    def passed(self, now: float, since: Iterable[float]) -> None:
        """Count jobs that are confirmed or answered now, by when each was assigned."""
        for start, alike in groupby(since):  # jobs that came together mostly go together
            jobs = sum(1 for _ in alike)
            self._passed += jobs
            self.latency.record(now - start, jobs)
            self._times.record(now - start, jobs)

    def tick(self, now: float) -> None:
        """Once a second."""
        self.latency.tick(now)
        self._marks.append((now, self._passed))

    def rate(self) -> float:
        """Return jobs a second over the last ten ticks."""
        (first, before), (last, after) = self._marks[0], self._marks[-1]
        return (after - before) / (last - first) if last > first else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardStatus:
    """One forward at one moment. Times are seconds.

    `reasons` says why it does not run and is empty where it does; `not_running` is for how long
    it has not (0 while it runs, or is only held back by the depth of its target's queue). The last
    three are jobs and workers in the queues at both ends. A value that is not known is None.
    """

    key: str
    source: str
    target: str
    asynchronous: bool
    reasons: tuple[str, ...]
    not_running: float
    held: int
    in_flight: int
    unaccounted: int
    rate: float  # jobs a second, over the last ten seconds
    since_confirm: float | None
    p50: float | None
    p99: float | None
    counters: dict[str, int]
    source_waiting: int | None = None
    target_waiting: int | None = None
    target_workers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """A server that is spoken to with TLS: days until a certificate expires.

    Ours, that of its certificate authority, and the server's as it was last seen; None is none,
    or not known yet. Below 0 it has expired. `renew` names those with too few days left:
    "certificate", "ca" and "peer".
    """

    address: str
    certificate_days: float | None
    ca_days: float | None
    peer_days: float | None
    renew: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The whole relay at one moment. `uptime` in seconds."""

    version: str
    uptime: float
    forwards: tuple[ForwardStatus, ...]
    servers: tuple[ServerStatus, ...] = ()
