"""Exact sets: what was submitted against what arrived, with nothing lost, repeated or foreign."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.kit.peers import Job, Seen, seen

SHOWN = 5  # jobs of each kind that a failure names


class Difference(NamedTuple):
    """How what arrived differs from what was submitted; counts stand for the copies."""

    lost: Counter[Seen]
    repeated: Counter[Seen]
    foreign: Counter[Seen]

    def __bool__(self) -> bool:
        return any(self)

    def __str__(self) -> str:
        parts = []
        for name, jobs in self._asdict().items():
            shown = [f"{job.unique!r} x{count}" for job, count in list(jobs.items())[:SHOWN]]
            parts.append(f"{jobs.total()} {name} {shown if jobs else ''}".strip())
        return ", ".join(parts)


class Ledger:
    """Remembers what is submitted and compares it with what has arrived in all places."""

    def __init__(self) -> None:
        self.submitted: Counter[Seen] = Counter()

    def book(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Pass jobs on and remember them."""
        for job in jobs:
            self.submitted[seen(job)] += 1
            yield job

    def compare(self, *places: Iterable[Seen]) -> Difference:
        """Compare with all that arrived, wherever it is."""
        arrived = Counter(each for place in places for each in place)
        surplus = arrived - self.submitted
        return Difference(
            lost=self.submitted - arrived,
            repeated=Counter({job: n for job, n in surplus.items() if job in self.submitted}),
            foreign=Counter({job: n for job, n in surplus.items() if job not in self.submitted}),
        )

    def assert_exact(self, *places: Iterable[Seen]) -> None:
        """Fail where a job is missing, came more than once, or was never submitted."""
        difference = self.compare(*places)
        assert not difference, str(difference)
