"""The jobs that a forward holds: taken from the source, not yet known to be at the target.

Bounded in jobs and bytes by its user. Knows no peer and no clock.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Final

from gevproxy.gearman.job import Job

OVERHEAD: Final = 500
"""Bytes that a held job costs besides its payloads: measured, with a unique of 36 bytes."""


class Place(Enum):
    """Where a held job is."""

    UNSENT = "unsent"
    SENT = "sent"  # submitted on the present target connection, and not answered in full
    PARKED = "parked"  # refused: it becomes a dead letter, or goes back to the source


_UNSENT: Final = Place.UNSENT
_SENT: Final = Place.SENT


class Held:
    """A job from its assignment to its end, compared by identity.

    Identity and not the handle: handles start at 1 again when a gearmand restarts, and a confirm
    of an old job would complete a new one. `job` is the job as the source gave it, `unique` and
    `workload` what goes to the target; both payloads are kept and both count in `size`, as does
    what Python needs for the rest. `since` is when it was assigned, on the forward's clock.
    """

    __slots__ = ("job", "place", "since", "size", "unique", "workload")

    def __init__(self, job: Job, unique: bytes, workload: bytes, since: float = 0.0) -> None:
        self.job = job
        self.unique = unique
        self.workload = workload
        self.since = since
        self.place = _UNSENT
        size = len(workload)
        if workload is not job.workload:
            size += len(job.workload)
        self.size = OVERHEAD + size


class Dated(Held):
    """A check that is late from `deadline` on, on the forward's clock."""

    __slots__ = ("deadline",)

    def __init__(
        self, job: Job, unique: bytes, workload: bytes, since: float, deadline: float
    ) -> None:
        super().__init__(job, unique, workload, since)
        self.deadline = deadline


class Window:
    """What is held, in the order of arrival; what of it is unsent; their bytes.

    A tombstone is a job that was given back to the source while its submission was under way: it
    is no longer held, but its payload counts in `bytes` until the target has answered.
    """

    __slots__ = ("_held", "bytes", "unsent")

    def __init__(self) -> None:
        self._held: dict[Held, None] = {}  # a set that keeps its order
        self.unsent: deque[Held] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, held: Held) -> bool:
        return held in self._held

    def __iter__(self) -> Iterator[Held]:
        return iter(tuple(self._held))

    def hold(self, jobs: Sequence[Held]) -> None:
        """Take jobs in, unsent."""
        self._held.update(dict.fromkeys(jobs))
        self.unsent.extend(jobs)
        self.bytes += sum([held.size for held in jobs])

    def send(self, most: int | None = None) -> list[Held]:
        """Return what is unsent, all or `most` of it, which counts as sent from now on."""
        unsent = self.unsent
        count = len(unsent) if most is None else min(most, len(unsent))
        jobs = [unsent.popleft() for _ in range(count)]
        for held in jobs:
            held.place = _SENT
        return jobs

    def late(self, now: float) -> list[Held]:
        """Park what is unsent and past its deadline, and return it."""
        late: list[Held] = [
            held for held in self.unsent if isinstance(held, Dated) and now >= held.deadline
        ]
        if late:
            for held in late:
                held.place = Place.PARKED
            self.unsent = deque(held for held in self.unsent if held.place is _UNSENT)
        return late

    def park(self, held: Held) -> None:
        """Take a job in, or keep it, without sending it (again)."""
        if held not in self._held:
            self._held[held] = None
            self.bytes += held.size
        held.place = Place.PARKED

    def settle(self, held: Held) -> bool:
        """Let go of a job that is sent or parked; False for a tombstone."""
        self.bytes -= held.size
        if held in self._held:
            del self._held[held]
            return True
        return False

    def settle_all(self, jobs: Sequence[Held]) -> list[Held]:
        """Let go of jobs that are sent; return those of them that are no tombstones."""
        held = self._held
        ended = [job for job in jobs if job in held]
        for job in ended:
            del held[job]
        self.bytes -= sum([job.size for job in jobs])
        return ended

    def drop(self, held: Held) -> None:
        """Let go of a job that is held; one that is under way leaves its tombstone."""
        del self._held[held]
        if held.place is not Place.SENT:
            self.bytes -= held.size
        if held.place is Place.UNSENT:
            self.unsent.remove(held)

    def give_back(self) -> int:
        """Forget all that is held; return how many. What was sent leaves its tombstone."""
        count = len(self._held)
        self.bytes -= sum(held.size for held in self._held if held.place is not Place.SENT)
        self._held.clear()
        self.unsent.clear()
        return count

    def resend(self) -> int:
        """Make all that was sent unsent again, in order; return how many jobs that were.

        For a target that is gone, and every tombstone with it.
        """
        sent = 0
        for held in self._held:
            if held.place is Place.SENT:
                held.place = Place.UNSENT
                sent += 1
        self.unsent = deque(held for held in self._held if held.place is Place.UNSENT)
        self.bytes = sum(held.size for held in self._held)
        return sent
