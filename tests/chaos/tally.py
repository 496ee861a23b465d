"""A compact ledger: jobs by their number, and how often each has arrived.

A byte a job, so that a million jobs cost a megabyte. What a job looks like follows from its
number, so that each one that arrives is compared with what was submitted, to the last byte.
"""

from typing import NamedTuple

LARGE_EVERY = 4096  # one job in so many is large


class Verdict(NamedTuple):
    """What a tally says at the end."""

    submitted: int
    lost: int
    repeated: int  # arrivals beyond the first
    foreign: int  # arrivals that nobody submitted in this form


class Tally:
    """The jobs of one queue, numbered from 0; `arrive` is called from one thread alone."""

    head = b""  # of every workload, before its number
    filler = bytes(range(256)) * 1024  # behind it: every byte, NUL and line feed too

    def __init__(self, queue: bytes, count: int) -> None:
        self.queue = queue
        self.count = count
        self.arrivals = bytearray(count)
        self.distinct = 0
        self.total = 0
        self.foreign = 0

    def unique(self, number: int) -> bytes:
        """Return the unique of a job."""
        return b"%b-%d" % (self.queue, number)

    def workload(self, number: int) -> bytes:
        """Return the workload of a job: some hundred bytes, now and then 200 kB."""
        start = number % 251
        size = 200_000 if number % LARGE_EVERY == LARGE_EVERY - 1 else 100 + number % 300
        return b"%b%d %b" % (self.head, number, self.filler[start : start + size])

    def payload(self, number: int) -> bytes:
        """Return a job as it is submitted."""
        return self.workload(number)

    def arrive(self, workload: bytes) -> int:
        """Book an arrival and return the job's number, -1 where it is none of ours."""
        try:
            number = int(workload[len(self.head) : len(self.head) + 12].split(b" ", 1)[0])
            ours = 0 <= number < self.count and workload == self.workload(number)
        except ValueError:
            ours = False
        if not ours:
            self.foreign += 1
            return -1
        seen = self.arrivals[number]
        self.total += 1
        if not seen:
            self.distinct += 1
        if seen < 255:
            self.arrivals[number] = seen + 1
        return number

    @property
    def complete(self) -> bool:
        """Whether every job has arrived."""
        return self.distinct == self.count

    def verdict(self) -> Verdict:
        """Compare what arrived with what was submitted."""
        return Verdict(
            self.count, self.count - self.distinct, self.total - self.distinct, self.foreign
        )
