"""One measurement: two fresh job servers, a filled queue, a relay, and what it used.

The relay is started when the queue is full and the first jobs warm it up, so neither the load nor
the start is in a reading. Processor time is that of the kernel's clock for the process: user and
system time of all its threads, in nanoseconds.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tests.bench.load import Depth, fill
from tests.kit.certificates import Authority
from tests.kit.eventually import eventually
from tests.kit.pipe import Pipe
from tests.kit.relay import Relay, config
from tests.kit.servers import Gearmand, Stunnel

HERE = Path(__file__).parent
POLL = 0.01  # seconds between two looks at the target
TAIL = 0.05  # share of the jobs that come after the last reading: windows run empty there
DEADLINE = 600.0  # seconds for one measurement; a machine may be slow
BUFFER = 8 << 20  # bytes in each socket buffer of a pipe: all that 100 ms can hold
WORKLOAD = 400  # bytes, the default

OPTIONS = ("--hashtable-buckets=1000003", "--backlog=1000")
"""gearmand's own 991 buckets make long queues slow, its backlog of 32 a crowd that connects."""


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process: clock_getcpuclockid(3), which Python lacks."""
    return time.clock_gettime((~pid << 3) | 2)


def memory(pid: int, name: str) -> int:
    """Return VmRSS or VmHWM of a process in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


class Point(NamedTuple):
    """A piece of a measurement: seconds since its begin, jobs a second, us for a job, bytes."""

    at: float
    rate: float
    cost: float
    rss: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one measurement has shown; `more` holds what only some cases have."""

    jobs: int
    seconds: float
    cpu: float  # seconds of the relay's process
    rss: int = 0  # bytes, the most that it ever had
    more: Mapping[str, float] = field(default_factory=dict)
    series: Sequence[Point] = ()

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.jobs / self.seconds

    @property
    def cost(self) -> float:
        """Microseconds of the relay's processor time for each job."""
        return self.cpu / self.jobs * 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is to be relayed, and over which distance.

    `delays` are round trips in seconds at the source and at the target; None is no pipe at all.
    """

    jobs: int
    warmup: int = 2000
    workload: bytes = b"x" * WORKLOAD
    queues: int = 1
    delays: tuple[float | None, float | None] = (None, None)

    @property
    def names(self) -> list[str]:
        """Return the names of the queues."""
        return [f"q{number}" for number in range(self.queues)]


class Ends(NamedTuple):
    """The ports that a relay is told."""

    source: int
    target: int


class Starter:
    """How a contender is started: as a context whose value is its process id."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - JSON
        self.options = options

    def __call__(self, ends: Ends, queues: list[str]) -> AbstractContextManager[int]:
        """Start it between two ports."""
        raise NotImplementedError


class Ours(Starter):
    """The program, with these options on every forward."""

    @contextmanager
    def __call__(self, ends: Ends, queues: list[str]) -> Iterator[int]:
        """Start it with a forward for each queue."""
        with self._started(ends, queues) as pid:
            yield pid

    @contextmanager
    def _started(self, ends: Ends, queues: list[str], **settings: object) -> Iterator[int]:
        source, target = (f"127.0.0.1:{port}" for port in ends)
        forwards = {
            f"{source}/{queue}": {"remote_queue": f"{target}/{queue}", **self.options}
            for queue in queues
        }
        with Relay(config(forwards, **settings)) as relay:
            yield relay.pid
            bad = [r for r in relay.records if r["level"] not in {"info", "warning"}]
            assert not bad, bad


class Secured(Ours):
    """The program, which speaks TLS with a stunnel in front of each server."""

    @contextmanager
    def __call__(self, ends: Ends, queues: list[str]) -> Iterator[int]:
        """Start it behind its tunnels."""
        with TemporaryDirectory() as folder, ExitStack() as stack:
            authority = Authority(Path(folder))
            pair = authority.issue("server")
            tunnels = [stack.enter_context(Stunnel(port, pair)) for port in ends]
            entry = {"tls": {"ca": str(authority.cert)}}
            servers = {tunnel.address: entry for tunnel in tunnels}
            far = Ends(*(tunnel.port for tunnel in tunnels))
            yield stack.enter_context(self._started(far, queues, servers=servers))


class Script(Starter):
    """A reference: a script of this folder, with a window where it has one."""

    def __init__(self, name: str, *arguments: str) -> None:
        super().__init__()
        self.command = [sys.executable, "-I", str(HERE / name)]
        self.arguments = arguments

    @contextmanager
    def __call__(self, ends: Ends, queues: list[str]) -> Iterator[int]:
        """Start it on the queues; one_by_one.py can serve but one."""
        ports = [str(port) for port in ends]
        with subprocess.Popen([*self.command, *ports, *queues, *self.arguments]) as process:
            yield process.pid
            assert process.poll() is None, f"{self.command} has ended"
            process.kill()


def bare(window: int = 1000) -> Script:
    """Return the first reference."""
    return Script("bare.py", str(window))


def one_by_one() -> Script:
    """Return the second."""
    return Script("one_by_one.py")


@contextmanager
def servers(
    delays: tuple[float | None, float | None] = (None, None),
) -> Iterator[tuple[Gearmand, Gearmand, Ends]]:
    """Start two job servers, and pipes in front of those that are to be far away."""
    with (
        Gearmand(*OPTIONS) as source,
        Gearmand(*OPTIONS) as target,
        _far(source, delays[0]) as source_port,
        _far(target, delays[1]) as target_port,
    ):
        yield source, target, Ends(source_port, target_port)


@contextmanager
def _far(server: Gearmand, delay: float | None) -> Iterator[int]:
    if delay is None:
        yield server.port
    else:
        with Pipe(server.port, delay / 2, buffer=BUFFER) as pipe:
            yield pipe.port


class Mark(NamedTuple):
    """One look: the jobs that have arrived, when, and the seconds that each process has used."""

    jobs: int
    time: float
    relay: float
    servers: float
    rss: int


def drain(start: Starter, load: Load) -> Reading:
    """Fill a queue, start a relay, and read what it does between warm-up and tail."""
    total = load.warmup + load.jobs
    with servers(load.delays) as (source, target, ends), Depth(target.port) as arrived:
        fill(source.port, [name.encode() for name in load.names], total, load.workload)
        with start(ends, load.names) as pid:

            def look() -> Mark:
                cpu = sum(cpu_seconds(server.pid) for server in (source, target))
                rss = memory(pid, "VmRSS")
                return Mark(arrived(), time.monotonic(), cpu_seconds(pid), cpu, rss)

            marks = watch(look, total)
            with Depth(source.port) as left:
                eventually(lambda: not left(), 60, what="every job completed at the source")
            rss = memory(pid, "VmHWM")
    first, last = span(marks, load.warmup, total)
    return Reading(
        jobs=last.jobs - first.jobs,
        seconds=last.time - first.time,
        cpu=last.relay - first.relay,
        rss=rss,
        more={"servers_us": (last.servers - first.servers) / (last.jobs - first.jobs) * 1e6},
        series=pieces([mark for mark in marks if first.jobs <= mark.jobs <= last.jobs]),
    )


def watch(look: Callable[[], Mark], total: int) -> list[Mark]:
    """Look until everything has arrived."""
    marks = [look()]
    end = marks[0].time + DEADLINE
    while marks[-1].jobs < total:
        assert marks[-1].time < end, f"{marks[-1].jobs} of {total} jobs in {DEADLINE} s"
        time.sleep(POLL)
        marks.append(look())
    assert marks[-1].jobs == total, f"{marks[-1].jobs} jobs of {total}"
    return marks


def pieces(marks: list[Mark], most: int = 10) -> list[Point]:
    """Return what happened in pieces of about the same number of jobs."""
    step = max(1, (marks[-1].jobs - marks[0].jobs) // most)
    chosen = [marks[0]]
    for mark in marks:
        if mark.jobs >= chosen[-1].jobs + step:
            chosen.append(mark)
    return [
        Point(
            at=now.time - marks[0].time,
            rate=(now.jobs - before.jobs) / (now.time - before.time),
            cost=(now.relay - before.relay) / (now.jobs - before.jobs) * 1e6,
            rss=now.rss,
        )
        for before, now in pairwise(chosen)
    ]


def span(marks: list[Mark], warmup: int, total: int) -> tuple[Mark, Mark]:
    """Return the first look after the warm-up and the first one of the tail.

    Where a machine was so busy that nothing lies in between, the whole way is taken.
    """
    tail = warmup + int((total - warmup) * (1 - TAIL))
    last = next(mark for mark in marks if mark.jobs >= tail)
    first = next((mark for mark in marks if mark.jobs >= warmup), marks[0])
    return (first if first.jobs < last.jobs else marks[0]), last
